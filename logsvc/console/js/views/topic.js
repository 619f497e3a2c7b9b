/* One topic: what comes in, its partitions, who reads it, its settings. */

import { path, read, write } from "../api.js";
import { confirmTyped } from "../dialogs.js";
import { h } from "../dom.js";
import { byteRate, byteTick, bytes, compact, count, counted, rate, setting } from "../format.js";
import { button, card, empty, facts, figures, note, pageHead, quietCount, time } from "../parts.js";
import { go, link } from "../router.js";
import { ordering, table } from "../tables.js";
import { timeChart } from "../time-chart.js";
import { statePill } from "./topics.js";

export function topicView(name) {
  const order = ordering("partition");
  return {
    title: name,

    load: (signal) => read(path("topics", name), { signal }),

    draw(topic, { session, redraw }) {
      const { series, times_ms: timesMs } = topic.history;
      const actions = [
        session.writes && !topic.internal && button("Delete…", () => deleteDialog(topic)),
        topic.dead_letters && h("a", { class: "button", href: link(["dead-letters", name]) }, "Open as dead letters"),
        h("a", { class: "button", href: link(["topics", name, "records"]) }, "Browse records"),
      ].filter(Boolean);
      return [
        pageHead(name, { crumbs: [["Topics", link(["topics"])]], state: statePill(topic), actions }),
        figures([
          [
            "Records",
            count(topic.records),
            `in ${count(topic.partitions)} ${topic.partitions === 1 ? "partition" : "partitions"}`,
          ],
          ["Size", bytes(topic.size_bytes), "on disk"],
          ["In", rate(topic.appended_records_per_s), byteRate(topic.appended_bytes_per_s)],
          ["Out", byteRate(topic.fetched_bytes_per_s), "to all readers"],
        ]),
        h(
          "div",
          { class: "grid", style: { "--column": "26rem" } },
          timeChart("Records in", {
            timesMs,
            series: [{ label: "in", values: series.appended_records_per_s }],
            format: rate,
            axis: compact,
          }),
          timeChart("Bytes in", {
            timesMs,
            series: [{ label: "in", values: series.appended_bytes_per_s }],
            format: byteRate,
            axis: byteTick,
          }),
        ),
        card("Partitions", partitionTable(name, topic.partition_list, order, redraw), { flush: true }),
        h(
          "div",
          { class: "grid", style: { "--column": "20rem" } },
          card("Read by", readers(topic.groups), { flush: topic.groups.length === 0 }),
          settings(topic.config),
        ),
      ];
    },
  };
}

function deleteDialog({ name, records, groups }) {
  const readers = groups.length > 0 && ` So will what ${counted(groups.length, "group")} noted of it: ${groups.join(", ")}.`;
  confirmTyped({
    title: "Delete the topic",
    body: note(`${name} and its ${counted(records, "record")} will be gone for good.${readers || ""}`, "warn"),
    name,
    action: "Delete the topic",
    act: async () => {
      await write(`${path("topics", name)}/delete`, { confirm: name });
      go(link(["topics"]));
    },
  });
}

function partitionTable(name, partitions, order, redraw) {
  const records = (each) => each.end_offset - each.start_offset;
  const browse = (each) => link(["topics", name, "records"], { partition: each.partition });
  return table({
    caption: "Partitions",
    rows: partitions,
    key: (each) => each.partition,
    order,
    redraw,
    goes: browse,
    columns: [
      {
        name: "partition",
        label: "Partition",
        sort: (each) => each.partition,
        cell: (each) => h("a", { href: browse(each) }, each.partition),
      },
      { name: "state", label: "State", sort: (each) => each.state, cell: statePill },
      {
        name: "start",
        label: "First offset",
        align: "end",
        sort: (each) => each.start_offset,
        cell: (each) => count(each.start_offset),
      },
      {
        name: "end",
        label: "Next offset",
        align: "end",
        sort: (each) => each.end_offset,
        cell: (each) => count(each.end_offset),
      },
      { name: "records", label: "Records", align: "end", sort: records, cell: (each) => quietCount(records(each)) },
      { name: "size", label: "Size", align: "end", sort: (each) => each.size_bytes, cell: (each) => bytes(each.size_bytes) },
      { name: "segments", label: "Files", align: "end", sort: (each) => each.segments, cell: (each) => count(each.segments) },
      {
        name: "oldest",
        label: "Oldest",
        align: "end",
        sort: (each) => each.first_timestamp_ms,
        cell: (each) => time(each.first_timestamp_ms),
      },
      {
        name: "newest",
        label: "Newest",
        align: "end",
        sort: (each) => each.last_timestamp_ms,
        cell: (each) => time(each.last_timestamp_ms),
      },
    ],
  });
}

function readers(groups) {
  if (groups.length === 0) return empty("No group reads this topic.");
  return h(
    "ul",
    null,
    groups.map((group) => h("li", null, h("a", { href: link(["groups", group]) }, group))),
  );
}

function settings(config) {
  const entries = Object.entries(config);
  if (entries.length === 0) return card("Settings", empty("All settings have their defaults."), { flush: true });
  return card(
    "Settings",
    facts(
      entries.map(([name, value]) => [h("span", { class: "mono" }, name), h("span", { class: "mono" }, setting(name, value))]),
    ),
  );
}
