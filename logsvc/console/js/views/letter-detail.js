/* One dead letter whole: where its record came from, why and when it failed, and what its producer sent. */

import { valueUrl } from "../api.js";
import { h } from "../dom.js";
import { count } from "../format.js";
import { button, facts, note, time } from "../parts.js";
import { headersPart, keyPart, part, pre, valuePart } from "../record-parts.js";
import { link } from "../router.js";

/** A letter's own place, as the address names it. */
export const idOf = (letter) => `${letter.letter_partition}-${letter.letter_offset}`;

/** The letter `open` of the page `letters`. */
export function letterDetail(letters, open, { topic, format, choose, pick }) {
  const index = letters.findIndex((letter) => idOf(letter) === open);
  const letter = letters[index];
  if (!letter)
    return h(
      "section",
      { class: "card detail choosing", key: "none", "aria-label": "Letter" },
      h("p", { class: "choose" }, "Choose a letter to read it."),
    );
  const step = (text, label, to) => button(text, () => pick(to), { kind: "small", disabled: !to, label });
  return h(
    "section",
    { class: "card detail", key: "letter", "aria-label": "Letter" },
    h(
      "div",
      { class: "card-head" },
      h("h2", null, letter.source.offset === null ? "Letter" : `Offset ${count(letter.source.offset)}`),
      h(
        "div",
        { class: "more row-buttons" },
        step("← Previous", "Previous letter", letters[index - 1]),
        step("Next →", "Next letter", letters[index + 1]),
      ),
    ),
    part("Error", [
      h("p", { class: "error-line" }, letter.error ?? "It does not say."),
      letter.missing && note(letter.missing, "warn"),
      story(letter),
    ]),
    letter.stacktrace && part("Stack trace", pre(letter.stacktrace)),
    keyPart(letter.key),
    valuePart(letter.value, {
      chosen: format,
      choose,
      address: valueUrl(topic, letter.letter_partition, letter.letter_offset),
    }),
    headersPart(letter.headers),
  );
}

function story(letter) {
  const { source } = letter;
  const origin = link(["topics", source.topic, "records"], {
    partition: source.partition,
    from: "offset",
    value: source.offset,
    open: source.offset,
  });
  return facts([
    letter.exception_class && ["Exception", h("span", { class: "mono" }, letter.exception_class)],
    ["Tries", count(letter.attempts)],
    ["Put back before", letter.redrives === 0 ? "never" : count(letter.redrives)],
    [
      "Came from",
      source.topic === null
        ? "unknown"
        : h("a", { href: origin }, `${source.topic}-${source.partition}, offset ${count(source.offset)}`),
    ],
    ["Produced", time(source.timestamp_ms)],
    ["First failed", time(letter.first_failure_ms)],
    ["Became a letter", time(letter.timestamp_ms)],
  ]);
}
