/* The parts views are made of. Each is a function from data to nodes; none keeps anything. */

import { h } from "./dom.js";
import { count, duration, isoTime, localTime } from "./format.js";
import { link } from "./router.js";

export const WRITES_OFF = "Read-only. To change things from here, start the broker with --console-writes.";

/** The head of a view: where it lies, its name, its state, what can be done. `crumbs`: [[text, address], …]. */
export function pageHead(title, { crumbs = [], state = null, actions = [] } = {}) {
  return h(
    "div",
    { class: "page-head" },
    crumbs.length > 0 &&
      h(
        "nav",
        { class: "crumbs", "aria-label": "Where this is" },
        crumbs.map(([text, address], index) => [index > 0 && " / ", h("a", { href: address }, text)]),
      ),
    h("h1", null, title),
    state,
    actions.length > 0 && h("div", { class: "actions" }, actions),
  );
}

/** A titled surface. `more` stands at the end of its head. */
export function card(title, body, { more = null, key = title, flush = false } = {}) {
  return h(
    "section",
    { class: "card", key, "aria-label": title },
    h("div", { class: "card-head" }, h("h2", null, title), more && h("div", { class: "more" }, more)),
    flush ? body : h("div", { class: "card-body" }, body),
  );
}

/** Figures that matter most, side by side: [[name, value, remark, tone], …]. */
export function figures(entries) {
  return h(
    "dl",
    { class: "figures" },
    entries.map(([name, value, remark, tone]) =>
      h("div", null, h("dt", null, name), h("dd", { class: tone }, value), h("dd", null, remark ?? "")),
    ),
  );
}

/** Names and values, one a line: [[name, value], …]. */
export function facts(entries) {
  return h(
    "dl",
    { class: "facts" },
    entries.filter(Boolean).map(([name, value]) => [h("dt", null, name), h("dd", null, value)]),
  );
}

/** A word on a tinted ground; `tone` is good, warn, bad or nothing. */
export function pill(text, tone = "", title = null) {
  return h("span", { class: `pill ${tone}`, title }, text);
}

export function note(text, tone = "") {
  return h("p", { class: `note ${tone}` }, text);
}

export function empty(...text) {
  return h("p", { class: "empty" }, text);
}

/** Instead of a view that cannot be shown. */
export function problem(title, error) {
  return [
    pageHead(title),
    h("div", { class: "note bad", role: "alert" }, h("p", null, error.message)),
    h("p", null, h("a", { href: link([]) }, "Back to the overview")),
  ];
}

/** Local time; the title says it in ISO 8601. */
export function time(ms) {
  return h("time", { datetime: isoTime(ms) || null, title: isoTime(ms) || null }, localTime(ms));
}

/** How long ago, with the instant in the title. */
export function age(ms, nowMs) {
  if (ms === null || ms === undefined) return "–";
  return h("time", { datetime: isoTime(ms), title: `${localTime(ms)} (${isoTime(ms)})` }, duration((nowMs - ms) / 1000));
}

/** A count that steps back when there is nothing to see. */
export function quietCount(value, tone = "") {
  return h("span", { class: value === 0 ? "zero" : tone }, count(value));
}

/** A bar for `share` of 1. It repeats a figure that stands beside it, so readers are not told of it. */
export function bar(share, tone = "") {
  const percent = Math.round(1000 * Math.min(1, Math.max(0, share || 0))) / 10;
  return h("div", { class: `bar ${tone}`, "aria-hidden": "true" }, h("span", { style: { "--share": `${percent}%` } }));
}

export function button(text, onclick, { kind = "", disabled = false, label = null, describedby = null, key } = {}) {
  return h(
    "button",
    { type: "button", class: kind, disabled, onclick, "aria-label": label, "aria-describedby": describedby, key },
    text,
  );
}

let fields = 0;

/** A labelled control. `control` is an input or select; the label is tied to it. */
export function field(label, control, { wide = false } = {}) {
  control.id ||= `field-${(fields += 1)}`;
  const kind = wide ? "wide" : control.type === "datetime-local" ? "time" : "";
  return h("div", { class: `field ${kind}` }, h("label", { for: control.id }, label), control);
}

/** A choice of a few, as buttons: options are [[value, text], …]. */
export function segments(label, options, chosen, choose) {
  return h(
    "div",
    { class: "segments", role: "group", "aria-label": label },
    options.map(([value, text]) =>
      h("button", { type: "button", "aria-pressed": String(value === chosen), onclick: () => choose(value) }, text),
    ),
  );
}

/** The page saves what the address names, for links that download. */
export function download(text, address) {
  return h("a", { class: "button small", href: address, download: true }, text);
}
