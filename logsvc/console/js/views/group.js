/* One consumer group: how far it is and was, who holds what, what failed, and whether its breaker has paused it. */

import { path, read, write } from "../api.js";
import { h } from "../dom.js";
import { count, counted, duration, span, wholeTick } from "../format.js";
import { BREAKER_STATES, FAILED_STATES, failedTotal } from "../judge.js";
import { WRITES_OFF, bar, button, card, empty, facts, figures, note, pageHead, pill, quietCount } from "../parts.js";
import { link } from "../router.js";
import { ordering, table } from "../tables.js";
import { timeChart } from "../time-chart.js";
import { standingPill } from "./groups.js";

export function groupView(name) {
  const order = ordering("lag", true);
  const asked = { busy: false, answer: null };
  return {
    title: name,

    async load(signal) {
      const [group, history] = await Promise.all([
        read(path("groups", name), { signal }),
        read(`${path("groups", name)}/history`, { signal }),
      ]);
      return { group, history };
    },

    draw({ group, history }, page) {
      const failed = failedTotal(group.failed);
      return [
        pageHead(name, { crumbs: [["Groups", link(["groups"])]], state: standingPill(group) }),
        figures([
          ["Records behind", count(group.lag), `over ${group.partition_list.length} partitions`],
          ["Time behind", group.lag === 0 ? "0 s" : duration(group.lag_seconds), "age of its first unread record"],
          ["Retrying", count(failed), inWords(group.failed), failed > 0 ? "warn" : ""],
          ["Dead letters", count(group.dead_letters), lettersLink(group)],
          ["Members", count(group.members), `${group.assignor} assignment, epoch ${group.epoch}`],
        ]),
        charts(history),
        card("Partitions", partitionTable(group, order, page.redraw), { flush: true }),
        card("Members", memberTable(group.member_list), { flush: true }),
        h("div", { class: "grid", style: { "--column": "20rem" } }, breakerCard(group, page, asked), retryCard(group)),
      ];
    },
  };
}

function inWords(failed) {
  const parts = Object.entries(failed).filter(([, value]) => value > 0);
  if (parts.length === 0) return "nothing has failed";
  return parts.map(([state, value]) => `${count(value)} ${FAILED_STATES[state] ?? state}`).join(", ");
}

function lettersLink(group) {
  if (group.dead_letters === 0) return "none";
  const [topic] = group.topics;
  const address = group.topics.length === 1 ? link(["dead-letters", `dlq.${topic}.${group.group}`]) : link(["dead-letters"]);
  return h("a", { href: address }, "Look at them");
}

function charts({ series, times_ms: timesMs }) {
  const chart = (title, values, format, axis) =>
    timeChart(title, { timesMs, series: [{ label: title, values }], format, axis, height: 130 });
  return h(
    "div",
    { class: "grid", style: { "--column": "18rem" } },
    chart("Records behind", series.lag, count, wholeTick),
    chart("Time behind", series.lag_seconds, duration, span),
    chart("Being retried", series.failed, count, wholeTick),
  );
}

function partitionTable(group, order, redraw) {
  const clients = new Map(group.member_list.map((member) => [member.member_id, member.client_id || member.member_id]));
  const most = Math.max(...group.partition_list.map((each) => each.lag ?? 0), 1);
  const browse = (each) =>
    link(["topics", each.topic, "records"], { partition: each.partition, from: "offset", value: each.committed });
  return table({
    caption: "Partitions of this group",
    rows: group.partition_list,
    key: (each) => `${each.topic}-${each.partition}`,
    order,
    redraw,
    none: "The group has not read anything yet.",
    columns: [
      {
        name: "partition",
        label: "Partition",
        sort: (each) => `${each.topic}-${each.partition}`,
        cell: (each) => h("a", { href: browse(each) }, `${each.topic}-${each.partition}`),
      },
      { name: "owner", label: "Held by", sort: (each) => clients.get(each.owner) ?? "", cell: (each) => holder(each, clients) },
      {
        name: "committed",
        label: "Read up to",
        align: "end",
        sort: (each) => each.committed,
        cell: (each) => count(each.committed),
      },
      { name: "end", label: "Ends at", align: "end", sort: (each) => each.end_offset, cell: (each) => count(each.end_offset) },
      { name: "lag", label: "Behind", align: "end", sort: (each) => each.lag, cell: (each) => quietCount(each.lag) },
      { name: "bar", label: "Behind, compared", mute: true, kind: "trend blank", cell: (each) => bar((each.lag ?? 0) / most) },
      {
        name: "seconds",
        label: "Time behind",
        align: "end",
        sort: (each) => each.lag_seconds,
        cell: (each) => (each.lag ? duration(each.lag_seconds) : h("span", { class: "zero" }, "–")),
      },
      {
        name: "failed",
        label: "Retrying",
        align: "end",
        sort: (each) => failedTotal(each.failed),
        cell: (each) => h("span", { title: inWords(each.failed) }, quietCount(failedTotal(each.failed), "warn")),
      },
    ],
  });
}

function holder(each, clients) {
  const name = each.owner === null ? h("span", { class: "zero" }, "nobody") : (clients.get(each.owner) ?? each.owner);
  return each.isolated
    ? [name, " ", pill("one record at a time", "warn", `A record seems to kill its consumers: ${each.deaths} have died`)]
    : name;
}

function memberTable(members) {
  const owned = (member) => member.owned.map(({ topic, partitions }) => `${topic} ${partitions.join(", ")}`).join("; ");
  return table({
    caption: "Members",
    rows: members,
    key: (member) => member.member_id,
    none: "Nobody is connected. Partitions are given out again as soon as a consumer joins.",
    columns: [
      { name: "client", label: "Client", cell: (member) => member.client_id || "unnamed" },
      { name: "owned", label: "Holds", cell: (member) => owned(member) || h("span", { class: "zero" }, "nothing yet") },
      members.some((member) => member.instance_id) && {
        name: "instance",
        label: "Fixed name",
        cell: (member) => member.instance_id ?? "",
      },
      { name: "id", label: "Member", cell: (member) => h("span", { class: "mono faint" }, member.member_id) },
    ].filter(Boolean),
  });
}

function breakerCard(group, { session, refresh, redraw }, asked) {
  const { breaker } = group;
  const held = breaker.state === "open" || breaker.state === "half_open";
  const paused = group.failed.paused ?? 0;
  const resume = async () => {
    asked.busy = true;
    redraw();
    try {
      const { resumed } = await write(`${path("groups", group.group)}/resume`);
      asked.answer = note(`Resumed. ${count(resumed)} paused ${resumed === 1 ? "record is" : "records are"} tried again.`);
    } catch (error) {
      asked.answer = note(error.message, "bad");
    }
    asked.busy = false;
    await refresh();
  };
  const state = pill(
    `Breaker ${BREAKER_STATES[breaker.state] ?? breaker.state}`,
    held ? "bad" : breaker.state === "closed" ? "good" : "",
  );
  return card(
    "Breaker",
    h(
      "div",
      { class: "stack" },
      h("p", null, state, paused > 0 && [" ", pill(`${count(paused)} out of tries`, "bad")]),
      h("p", { class: "muted" }, breakerSentence(breaker)),
      h(
        "div",
        { class: "row-buttons" },
        button("Resume", resume, { disabled: !session.writes || asked.busy || !(held || paused), describedby: "resume-why" }),
      ),
      h(
        "p",
        { class: "faint", id: "resume-why" },
        session.writes ? "Closes the breaker now and tries paused records again." : WRITES_OFF,
      ),
      h("div", { role: "status" }, asked.answer),
    ),
  );
}

function breakerSentence(breaker) {
  if (breaker.state === "off") return "Switched off: the group goes on however much fails.";
  if (breaker.state === "open") {
    const wait = duration(breaker.retry_in_ms / 1000);
    return `Too much failed, so the group rests; a single record is tried in ${wait}. No tries are spent.`;
  }
  if (breaker.state === "half_open") {
    return `Single records are let through; ${count(breaker.successes)} of ${count(breaker.config.probes)} have succeeded.`;
  }
  const window = duration(breaker.config.window_ms / 1000);
  const failed = `${count(breaker.failures)} of ${counted(breaker.deliveries, "record")} failed in the last ${window}`;
  return `${failed}; it opens at ${Math.round(100 * breaker.config.threshold)}%.`;
}

function retryCard({ retry }) {
  if (!retry) return card("Retries", empty("No member has said how it retries."), { flush: true });
  return card(
    "Retries",
    facts([
      ["Tries in all", count(retry.max_attempts)],
      ["First wait", duration(retry.initial_ms / 1000)],
      ["Longest wait", duration(retry.max_ms / 1000)],
      ["Each wait is", `${retry.multiplier} times the last`],
      ["Order kept by", retry.ordering],
      ["Out of tries", retry.on_exhausted],
    ]),
  );
}
