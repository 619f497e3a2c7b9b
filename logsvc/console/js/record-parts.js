/* The pieces of one record, for the record browser and for dead letters: key, value in a chosen format, headers. */

import { h } from "./dom.js";
import { bytes } from "./format.js";
import { download, segments } from "./parts.js";
import { FORMATS, bestFormat, hexDump, isShort, prettyJson, preview, toBytes, toText } from "./value.js";

/** A key or header in one line. */
export function inline(value) {
  if (value === null) return h("span", { class: "nothing" }, "none");
  if (preview(value) === "") return h("span", { class: "nothing" }, "empty");
  return h("span", { class: "mono" }, value.text ?? preview(value));
}

/** The value in a list. */
export function previewCell(value) {
  const text = preview(value);
  if (text === null || text === "") return h("span", { class: "nothing" }, text === null ? "no value" : "empty");
  return h("span", { class: value.text === undefined ? "nothing" : "mono" }, text);
}

export function part(title, content, aside = null) {
  return h("div", { class: "part" }, h("div", { class: "part-head" }, h("h3", null, title), aside), content);
}

export function keyPart(key) {
  return part("Key", isShort(key) ? h("p", null, inline(key)) : pre(hexDump(toBytes(key)), "hex", "Key in hex"));
}

/** `chosen` is text, json, hex or null for what suits it; `address` is where all of it can be downloaded, or null. */
export function valuePart(value, { chosen, choose, address }) {
  if (value === null) return part("Value", h("p", { class: "nothing" }, "No value (a tombstone)"));
  const format = chosen ?? bestFormat(value);
  const aside = h(
    "div",
    { class: "row-buttons" },
    segments("Show the value as", FORMATS, format, choose),
    address && download("Download", address),
  );
  const cut =
    value.cut_bytes !== undefined &&
    h("p", { class: "faint" }, `The first part of ${bytes(value.cut_bytes)}; download it to see all.`);
  return part("Value", [body(value, format), cut], aside);
}

function body(value, format) {
  if (format === "hex") return pre(hexDump(toBytes(value)) || "empty", "hex");
  const text = toText(value);
  if (format === "json") {
    const pretty = prettyJson(text);
    return pretty === null ? [h("p", { class: "faint" }, "This is not JSON; here it is as text."), pre(text)] : pre(pretty);
  }
  return text === "" ? h("p", { class: "nothing" }, "empty") : pre(text);
}

/** Text that keeps its lines; what is too wide can be scrolled with the keyboard. */
export function pre(text, kind = "", label = "Value in hex") {
  return h(
    "pre",
    {
      class: kind,
      tabindex: kind === "hex" ? "0" : null,
      "aria-label": kind === "hex" ? label : null,
      role: kind === "hex" ? "region" : null,
    },
    text,
  );
}

export function headersPart(headers) {
  if (headers.length === 0) return part("Headers", h("p", { class: "nothing" }, "none"));
  const rows = headers.map(([name, value]) => [h("dt", { class: "mono" }, name), h("dd", null, headerValue(value))]);
  return part("Headers", h("dl", { class: "facts" }, rows));
}

function headerValue(value) {
  return isShort(value) ? inline(value) : pre(hexDump(toBytes(value)), "hex", "Header in hex");
}
