/* Every topic: what comes in, what goes out, how much it holds. Dead letters and internal ones only on request. */

import { read } from "../api.js";
import { h } from "../dom.js";
import { byteRate, bytes, count, rate } from "../format.js";
import { topicHistories } from "../histories.js";
import { card, pageHead, pill, quietCount, segments } from "../parts.js";
import { link } from "../router.js";
import { sparkline } from "../sparkline.js";
import { ordering, table } from "../tables.js";

const PARTITION_STATES = {
  online: { text: "Online", tone: "good" },
  read_only: { text: "Read-only", tone: "warn" },
  failed: { text: "Failed", tone: "bad" },
};

const KINDS = [
  ["yours", "Topics"],
  ["letters", "Dead letters"],
  ["internal", "Internal"],
];

const kindOf = (topic) => (topic.internal ? "internal" : topic.dead_letters ? "letters" : "yours");

export function topicsView(query) {
  const order = ordering("name");
  let kind = KINDS.some(([name]) => name === query.kind) ? query.kind : "yours";
  return {
    title: "Topics",

    async load(signal) {
      const { topics } = await read("topics", { signal });
      const names = topics.filter((topic) => kindOf(topic) === kind).map((topic) => topic.name);
      await topicHistories.refresh(names, signal);
      return topics;
    },

    draw(topics, { redraw }) {
      const chosen = topics.filter((topic) => kindOf(topic) === kind);
      const choose = (value) => {
        kind = value;
        history.replaceState(null, "", link(["topics"], { kind }));
        redraw();
      };
      return [
        pageHead("Topics"),
        card(`${count(chosen.length)} ${chosen.length === 1 ? "topic" : "topics"}`, topicTable(chosen, order, redraw), {
          flush: true,
          key: "topics",
          more: segments("Which topics", KINDS, kind, choose),
        }),
      ];
    },
  };
}

export function topicTable(topics, order, redraw) {
  return table({
    caption: "Topics",
    rows: topics,
    key: (topic) => topic.name,
    order,
    redraw,
    goes: (topic) => link(["topics", topic.name]),
    none: "None here. A topic appears when it is created: logsvc topic create NAME.",
    columns: [
      {
        name: "name",
        label: "Topic",
        sort: (topic) => topic.name,
        cell: (topic) => h("a", { href: link(["topics", topic.name]) }, topic.name),
      },
      { name: "state", label: "State", sort: (topic) => topic.state, cell: statePill },
      {
        name: "partitions",
        label: "Partitions",
        align: "end",
        sort: (topic) => topic.partitions,
        cell: (topic) => count(topic.partitions),
      },
      {
        name: "records",
        label: "Records",
        align: "end",
        sort: (topic) => topic.records,
        cell: (topic) => quietCount(topic.records),
      },
      {
        name: "size",
        label: "Size",
        align: "end",
        sort: (topic) => topic.size_bytes,
        cell: (topic) => bytes(topic.size_bytes),
      },
      {
        name: "in",
        label: "Records in",
        align: "end",
        sort: (topic) => topic.appended_records_per_s,
        cell: (topic) => quietRate(topic.appended_records_per_s, rate),
      },
      {
        name: "hour",
        label: "In, last hour",
        kind: "trend",
        cell: (topic) => sparkline(topicHistories.values(topic.name, "appended_records_per_s")),
      },
      {
        name: "out",
        label: "Bytes out",
        align: "end",
        sort: (topic) => topic.fetched_bytes_per_s,
        cell: (topic) => quietRate(topic.fetched_bytes_per_s, byteRate),
      },
    ],
  });
}

export function statePill(thing) {
  const { text, tone } = PARTITION_STATES[thing.state] ?? { text: thing.state, tone: "warn" };
  // What is as it should be is not worth a colour on every line.
  if (tone === "good") return h("span", { class: "steady" }, text);
  return pill(text, tone, thing.reason || null);
}

function quietRate(value, format) {
  return h("span", { class: value === 0 ? "zero" : null }, format(value));
}
