/* The first view. Three questions, three answers, and what they rest on: is anyone behind, what is failing, is the broker well. */

import { read } from "../api.js";
import { h } from "../dom.js";
import { byteRate, byteTick, compact, counted, rate } from "../format.js";
import { groupHistories, topicHistories } from "../histories.js";
import { isWell, whatFails, whoIsBehind } from "../judge.js";
import { card, pageHead } from "../parts.js";
import { link } from "../router.js";
import { sparkline } from "../sparkline.js";
import { ordering } from "../tables.js";
import { timeChart } from "../time-chart.js";
import { groupTable } from "./groups.js";
import { topicTable } from "./topics.js";

const ROWS_MAX = 8;

export function overviewView() {
  const groupOrder = ordering("lag", true);
  const topicOrder = ordering("in", true);
  return {
    title: "Overview",

    async load(signal) {
      const [history, { topics }, { groups }, letters] = await Promise.all([
        read("broker/history", { signal }),
        read("topics", { signal }),
        read("groups", { signal }),
        read("dead-letters", { signal }),
      ]);
      const users = topics.filter((topic) => !topic.internal && !topic.dead_letters);
      await Promise.all([
        groupHistories.refresh(
          groups.map((group) => group.group),
          signal,
        ),
        topicHistories.refresh(
          users.map((topic) => topic.name),
          signal,
        ),
      ]);
      return { history, users, groups, letters: letters.topics };
    },

    draw({ history, users, groups, letters }, page) {
      const { broker, redraw } = page;
      const { series, times_ms: timesMs } = history;
      return [
        pageHead("Overview"),
        h(
          "div",
          { class: "grid", style: { "--column": "14rem" } },
          answer("Is anyone behind?", whoIsBehind(groups), link(["groups"]), "Groups", sparkline(sum(groups, "lag"))),
          answer(
            "What is failing?",
            whatFails(groups, letters, broker.now_ms),
            link(["dead-letters"]),
            "Dead letters",
            sparkline(sum(groups, "failed")),
          ),
          answer("Is the broker well?", isWell(broker), link(["broker"]), "Broker", sparkline(series.fsync_p99_ms)),
        ),
        h(
          "div",
          { class: "grid", style: { "--column": "26rem" } },
          timeChart("Records in", {
            timesMs,
            series: [{ label: "in", values: series.appended_records_per_s }],
            format: rate,
            axis: compact,
          }),
          timeChart("Bytes in and out", {
            timesMs,
            series: [
              { label: "in", values: series.appended_bytes_per_s },
              { label: "out", values: series.fetched_bytes_per_s },
            ],
            format: byteRate,
            axis: byteTick,
          }),
        ),
        card("Groups", groupTable(groups.slice(0, ROWS_MAX), groupOrder, redraw), {
          flush: true,
          more: all("groups", groups.length, "group"),
        }),
        card("Topics", topicTable(users.slice(0, ROWS_MAX), topicOrder, redraw), {
          flush: true,
          more: all("topics", users.length, "topic"),
        }),
      ];
    },
  };
}

function answer(question, { verdict, tone, lines }, address, where, line) {
  return h(
    "section",
    { class: "card answer", "aria-label": question },
    h("h2", { class: "question" }, question),
    h("p", { class: `verdict ${tone}` }, h("span", { class: "dot", "aria-hidden": "true" }), h("span", null, verdict)),
    h(
      "div",
      { class: "lines" },
      lines.map((text) => h("p", null, text)),
    ),
    h("div", null, line, h("a", { href: address, class: "onward" }, `${where} →`)),
  );
}

/** A series of the groups added up; null where none of them is known. */
function sum(groups, series) {
  const known = groups.map((group) => groupHistories.values(group.group, series)).filter(Boolean);
  const length = Math.max(0, ...known.map((values) => values.length));
  return Array.from({ length }, (_, index) =>
    known.reduce((total, values) => {
      const value = values[values.length - length + index] ?? null;
      return value === null ? total : (total ?? 0) + value;
    }, null),
  );
}

function all(section, total, noun) {
  return h("a", { href: link([section]) }, total > ROWS_MAX ? `All ${counted(total, noun)}` : counted(total, noun));
}
