/* The record browser: a page of a partition from an offset, a time, a key or the end, and one record of it in full.
 *
 * What is read stays as it is (`frozen`): a page that moves under the eyes cannot be read. The address holds the choice, so a
 * record can be sent to a colleague as a link.
 */

import { path, read, valueUrl } from "../api.js";
import { h, kept } from "../dom.js";
import { bytes, count, inputTime } from "../format.js";
import { button, card, field, pageHead, time } from "../parts.js";
import { headersPart, inline, keyPart, part, previewCell, valuePart } from "../record-parts.js";
import { go, link } from "../router.js";
import { table } from "../tables.js";

const PAGE = 50;
const STARTS = [
  ["newest", "Newest"],
  ["oldest", "Oldest"],
  ["offset", "Offset"],
  ["time", "Time"],
  ["key", "Key"],
];

export function recordsView(topic, query) {
  const from = STARTS.some(([name]) => name === query.from) ? query.from : "newest";
  const chosen = { partition: query.partition ?? "0", from, value: query.value ?? "", after: query.after };
  const look = { offset: query.open === undefined ? null : Number(query.open), format: query.as ?? null };

  return {
    title: `Records of ${topic}`,
    frozen: true,

    async load(signal) {
      const [{ partitions }, page] = await Promise.all([
        read(path("topics", topic), { signal }),
        readPage(topic, chosen, signal),
      ]);
      return { partitions, page };
    },

    draw({ partitions, page }, { redraw }) {
      const form = kept("form", () => searchForm(topic, partitions, { ...chosen, partition: String(page.partition) }));
      const pick = (offset) => {
        look.offset = offset;
        history.replaceState(null, "", link(["topics", topic, "records"], { ...chosen, open: offset, as: look.format }));
        redraw();
      };
      const choose = (format) => {
        look.format = format;
        if (look.offset !== null) pick(look.offset);
      };
      const record = page.records.find((each) => each.offset === look.offset) ?? null;
      return [
        pageHead("Records", {
          crumbs: [
            ["Topics", link(["topics"])],
            [topic, link(["topics", topic])],
          ],
        }),
        h("div", { class: "card", key: "form" }, h("div", { class: "card-body alone" }, form)),
        h(
          "div",
          { class: "reader", key: "reader" },
          recordList(topic, chosen, page, look, pick),
          detail(page, record, look, pick, choose),
        ),
      ];
    },
  };
}

function readPage(topic, { partition, from, value, after }, signal) {
  const where = `${path("topics", topic, "partitions", partition)}/records`;
  // A key lies in the partition its hash says; later pages of it begin at an offset there.
  if (from === "key" && after === undefined)
    return read(`${path("topics", topic)}/records`, { query: { key: value, limit: PAGE }, signal });
  const start = {
    newest: { offset: -PAGE },
    oldest: { time_ms: 0 },
    offset: { offset: value },
    time: { time_ms: value },
    key: { key: value, offset: after },
  }[from];
  return read(where, { query: { ...start, limit: PAGE }, signal });
}

function searchForm(topic, partitions, chosen) {
  const option = (value, text, selected) => h("option", { value, selected }, text);
  const partition = h(
    "select",
    { name: "partition" },
    Array.from({ length: partitions }, (_, number) => option(number, number, String(number) === chosen.partition)),
  );
  const from = h(
    "select",
    { name: "from" },
    STARTS.map(([value, text]) => option(value, text, value === chosen.from)),
  );
  const inputs = {
    offset: h("input", { type: "number", required: true, step: "1", value: chosen.from === "offset" ? chosen.value : "0" }),
    time: h("input", {
      type: "datetime-local",
      required: true,
      step: "1",
      value: inputTime(chosen.from === "time" ? Number(chosen.value) : Date.now() - 3_600_000),
    }),
    key: h("input", { type: "text", required: true, value: chosen.from === "key" ? chosen.value : "", autocomplete: "off" }),
  };
  const labels = { offset: "From this offset (-20: the last 20)", time: "From this time", key: "Exactly this key" };
  const value = h("div", { class: "field wide" });
  const showInput = () => {
    const input = inputs[from.value];
    value.hidden = !input;
    value.replaceChildren(...(input ? [field(labels[from.value], input)] : []));
    partition.disabled = from.value === "key";
  };
  const submit = (event) => {
    event.preventDefault();
    const input = inputs[from.value];
    const given = from.value === "time" ? new Date(input.value).getTime() : input?.value;
    const address = link(["topics", topic, "records"], { partition: partition.value, from: from.value, value: given });
    if (address === location.hash) dispatchEvent(new HashChangeEvent("hashchange"));
    else go(address);
  };
  from.onchange = showInput;
  showInput();
  return h(
    "form",
    { class: "form", onsubmit: submit, "aria-label": "Which records" },
    field("Partition", partition),
    field("Start at", from),
    value,
    h("button", { class: "primary" }, "Read"),
  );
}

function held({ partition, start_offset: start, end_offset: end }) {
  return start < end ? `Partition ${partition} holds ${count(start)} to ${count(end - 1)}` : `Partition ${partition} is empty`;
}

function recordList(topic, chosen, page, look, pick) {
  const newestFirst = chosen.from === "newest";
  const rows = newestFirst ? [...page.records].reverse() : page.records;
  const byKey = chosen.from === "key";
  const at = (offset) => {
    const start = byKey ? { from: "key", value: chosen.value, after: offset } : { from: "offset", value: offset };
    return link(["topics", topic, "records"], { partition: page.partition, ...start });
  };
  const turn = (text, offset, allowed) => button(text, () => go(at(offset)), { kind: "small", disabled: !allowed });
  const list = table({
    caption: `Records of partition ${page.partition}`,
    dense: true,
    rows,
    key: (record) => record.offset,
    pick: (record) => pick(record.offset),
    picked: (record) => record.offset === look.offset,
    none: page.complete ? "No records here." : "None among those looked at so far; look further with Later.",
    columns: [
      {
        name: "offset",
        label: "Offset",
        cell: (record) =>
          button(count(record.offset), () => pick(record.offset), {
            kind: "quiet small",
            label: `Show record ${record.offset}`,
          }),
      },
      { name: "time", label: "Time", cell: (record) => time(record.timestamp_ms) },
      { name: "key", label: "Key", kind: "key", cell: (record) => inline(record.key) },
      { name: "value", label: "Value", kind: "preview", cell: (record) => previewCell(record.value) },
    ],
  });
  const pager = h(
    "div",
    { class: "pager" },
    turn("← Earlier", page.previous_offset, page.previous_offset !== null && !byKey),
    h("span", { class: "faint" }, held(page)),
    turn("Later →", page.next_offset, !page.complete),
  );
  return card(newestFirst ? "Newest first" : "In order", [list, pager], { flush: true, key: "list" });
}

function detail(page, record, look, pick, choose) {
  if (!record)
    return h(
      "section",
      { class: "card detail choosing", key: "none", "aria-label": "Record" },
      h("p", { class: "choose" }, "Choose a record to read it."),
    );
  const offsets = page.records.map((each) => each.offset);
  const index = offsets.indexOf(record.offset);
  const step = (text, label, to) =>
    button(text, () => pick(offsets[to]), { kind: "small", disabled: offsets[to] === undefined, label });
  return h(
    "section",
    { class: "card detail", key: "record", "aria-label": "Record" },
    h(
      "div",
      { class: "card-head" },
      h("h2", null, `Offset ${count(record.offset)}`),
      h(
        "div",
        { class: "more row-buttons" },
        step("← Previous", "Previous record", index - 1),
        step("Next →", "Next record", index + 1),
      ),
    ),
    part("Written", h("p", null, time(record.timestamp_ms), h("span", { class: "muted" }, `, ${bytes(record.size_bytes)}`))),
    keyPart(record.key),
    valuePart(record.value, { chosen: look.format, choose, address: valueUrl(page.topic, page.partition, record.offset) }),
    headersPart(record.headers),
  );
}
