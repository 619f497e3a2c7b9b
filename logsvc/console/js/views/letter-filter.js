/* The form that narrows dead letters down. What it means is decided by the broker, and is the same for a redrive. */

import { h } from "../dom.js";
import { inputTime } from "../format.js";
import { button, field } from "../parts.js";
import { go, link } from "../router.js";

export function filterForm(name, where) {
  const text = (key) => h("input", { type: "text", value: where[key], autocomplete: "off", spellcheck: "false" });
  const number = (key) => h("input", { type: "number", min: "0", step: "1", value: where[key] });
  const moment = (key) => h("input", { type: "datetime-local", step: "1", value: where[key] && inputTime(Number(where[key])) });
  const inputs = {
    error: text("error"),
    exception: text("exception"),
    partition: number("partition"),
    offset_from: number("offset_from"),
    offset_to: number("offset_to"),
    from_ms: moment("from_ms"),
    to_ms: moment("to_ms"),
  };
  const submit = (event) => {
    event.preventDefault();
    const given = Object.entries(inputs).map(([key, input]) => [
      key,
      key.endsWith("_ms") ? millis(input.value) : input.value.trim(),
    ]);
    go(link(["dead-letters", name], Object.fromEntries(given)));
  };
  return h(
    "form",
    { class: "form", onsubmit: submit, "aria-label": "Find letters" },
    field("Error contains", inputs.error, { wide: true }),
    field("Exception class", inputs.exception, { wide: true }),
    field("Partition", inputs.partition),
    field("From offset", inputs.offset_from),
    field("To offset", inputs.offset_to),
    field("Failed since", inputs.from_ms),
    field("Failed before", inputs.to_ms),
    h(
      "div",
      { class: "row-buttons" },
      h("button", { class: "primary" }, "Find"),
      button("Clear", () => go(link(["dead-letters", name]))),
    ),
  );
}

const millis = (local) => (local ? new Date(local).getTime() : "");
