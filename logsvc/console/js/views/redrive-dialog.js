/* Putting dead letters back: counted first by a dry run, then confirmed, then watched on the page. */

import { path, write } from "../api.js";
import { openDialog } from "../dialogs.js";
import { h, kept } from "../dom.js";
import { counted } from "../format.js";
import { button, facts, field, note } from "../parts.js";

/** `where`: the filter as the API takes it; `words`: the same for people. `started()` is called when the redrive runs. */
export function redriveDialog({ topic, group, where, words, started }) {
  let matched = null;
  let error = null;
  let busy = false;
  const number = (placeholder) => h("input", { type: "number", min: "1", step: "1", inputmode: "numeric", placeholder });
  const rate = number("as fast as it goes");
  const limit = number("all of them");
  const controls = h("div", { class: "form" }, field("Letters per second", rate), field("No more than", limit));
  const resource = `${path("dead-letters", topic)}/redrive`;
  const box = openDialog(draw);
  limit.oninput = box.redraw;
  count();

  function draw() {
    const letters = Math.min(matched ?? 0, limit.valueAsNumber || Infinity);
    return {
      title: "Redrive dead letters",
      body: [
        h("p", { class: "muted" }, "Their records go back to the group that failed them, with fresh tries. No other group sees them; the letters stay."),
        facts([
          ["To group", group],
          ["Letters", words],
          ["Dry run", h("span", { role: "status" }, outcome())],
        ]),
        kept("controls", () => controls),
        error && note(error, "bad"),
      ],
      buttons: [
        button("Cancel", () => box.close()),
        button(matched === null ? "Counting…" : `Redrive ${counted(letters, "letter")}`, run, { kind: "primary", disabled: busy || !matched }),
      ],
    };
  }

  function outcome() {
    if (matched === null) return error ? "failed" : "counting, nothing is changed…";
    return matched === 0 ? "no letter is left to redrive" : `${counted(matched, "letter")} would be put back`;
  }

  async function count() {
    try {
      ({ matched } = await write(resource, { where, dry_run: true }));
    } catch (failure) {
      error = failure.message;
    }
    box.redraw();
  }

  async function run() {
    busy = true;
    error = null;
    box.redraw();
    const chosen = { where, dry_run: false };
    if (rate.valueAsNumber) chosen.rate = rate.valueAsNumber;
    if (limit.valueAsNumber) chosen.limit = limit.valueAsNumber;
    try {
      await write(resource, chosen);
      box.close();
      started();
    } catch (failure) {
      error = failure.message;
      busy = false;
      box.redraw();
    }
  }
}
