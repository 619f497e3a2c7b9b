/* The broker itself: disk, speed, memory, what is in trouble. */

import { read } from "../api.js";
import { h } from "../dom.js";
import { byteRate, bytes, compact, count, counted, duration, milliseconds, rate } from "../format.js";
import { isWell } from "../judge.js";
import { bar, card, empty, facts, figures, pageHead, pill, time } from "../parts.js";
import { link } from "../router.js";
import { table } from "../tables.js";
import { timeChart } from "../time-chart.js";
import { statePill } from "./topics.js";

const NEARLY_FULL = 0.9;

export function brokerView() {
  return {
    title: "Broker",

    load: (signal) => read("broker/history", { signal }),

    draw({ series, times_ms: timesMs }, { broker }) {
      const well = isWell(broker);
      return [
        pageHead("Broker", { state: pill(well.verdict, well.tone) }),
        broker.degraded_partitions.length > 0 && trouble(broker.degraded_partitions),
        figures([
          ["Records in", rate(broker.rates.appended_records_per_s), byteRate(broker.rates.appended_bytes_per_s)],
          ["Bytes out", byteRate(broker.rates.fetched_bytes_per_s), "to all readers"],
          ["Saved to disk", milliseconds(broker.fsync_ms.p99), share("fsyncs", broker.fsync_ms)],
          ["Written", milliseconds(broker.append_ms.p99), share("appends", broker.append_ms)],
          ["Memory", bytes(broker.memory_bytes), "of the process"],
        ]),
        h(
          "div",
          { class: "grid", style: { "--column": "26rem" } },
          timeChart("Time to save (fsync)", {
            timesMs,
            series: [{ label: "99% within", values: series.fsync_p99_ms }],
            format: milliseconds,
          }),
          timeChart("Records in", {
            timesMs,
            series: [{ label: "in", values: series.appended_records_per_s }],
            format: rate,
            axis: compact,
          }),
        ),
        h("div", { class: "grid", style: { "--column": "20rem" } }, disk(broker.disk), about(broker)),
      ];
    },
  };
}

function share(what, { p50, p99 }) {
  return p99 === null ? `no ${what} lately` : `99% of ${what}; half: ${milliseconds(p50)}`;
}

function trouble(partitions) {
  return card(
    "In trouble",
    table({
      caption: "Partitions in trouble",
      rows: partitions,
      key: (each) => `${each.topic}-${each.partition}`,
      columns: [
        {
          name: "partition",
          label: "Partition",
          cell: (each) => h("a", { href: link(["topics", each.topic]) }, `${each.topic}-${each.partition}`),
        },
        { name: "state", label: "State", cell: statePill },
        { name: "reason", label: "Why", cell: (each) => each.reason || "see the broker's log" },
      ],
    }),
    { flush: true },
  );
}

function disk({ free_bytes: free, size_bytes: size, reserve_bytes: reserve }) {
  if (size === null) return card("Disk", empty("Not measured."), { flush: true });
  const used = 1 - free / size;
  const tone = free <= reserve ? "bad" : used > NEARLY_FULL ? "warn" : "";
  return card(
    "Disk",
    h(
      "div",
      { class: "stack" },
      h("p", null, `${bytes(free)} free of ${bytes(size)}`),
      bar(used, tone),
      h("p", { class: "faint" }, `Writes are refused when less than ${bytes(reserve)} is free; reads and commits go on.`),
    ),
  );
}

function about(broker) {
  return card(
    "About",
    facts([
      ["Version", broker.version],
      ["Clients connect to", h("span", { class: "mono" }, broker.endpoint)],
      ["Running for", duration((broker.now_ms - broker.started_ms) / 1000)],
      ["Started", time(broker.started_ms)],
      ["Clients connected", count(broker.connected_clients)],
      ["Open files", count(broker.open_files)],
      [
        "Holds",
        `${counted(broker.topics, "topic")}, ${counted(broker.partitions, "partition")}, ${counted(broker.groups, "group")}`,
      ],
      ["Changes from here", broker.writes ? "allowed" : "off; start it with --console-writes"],
    ]),
  );
}
