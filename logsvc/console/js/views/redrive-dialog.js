/* Putting dead letters back: counted first by a dry run, then confirmed, then watched on the page. */

import { path, read, write } from "../api.js";
import { openDialog } from "../dialogs.js";
import { h, kept } from "../dom.js";
import { counted } from "../format.js";
import { button, facts, field, note } from "../parts.js";

const LOOK_MS = 500;

/** `where`: the filter as the API takes it; `words`: the same for people. `started()` is called when the redrive runs. */
export function redriveDialog({ topic, group, where, words, started }) {
  let matched = null;
  let error = null;
  let busy = false;
  const number = (placeholder) => h("input", { type: "number", min: "1", step: "1", inputmode: "numeric", placeholder });
  const rate = number("as fast as it goes");
  const limit = number("all of them");
  const controls = h("div", { class: "form" }, field("Letters per second", rate), field("No more than", limit));
  // The same for every try of this dialog: an answer that was lost must not start a second redrive.
  const requestId = Array.from(crypto.getRandomValues(new Uint32Array(4)), (part) => part.toString(16)).join("");
  const resource = `${path("dead-letters", topic)}/redrive`;
  const box = openDialog(draw);
  limit.oninput = box.redraw;
  count();

  function draw() {
    const letters = Math.min(matched ?? 0, limit.valueAsNumber || Infinity);
    return {
      title: "Redrive dead letters",
      body: [
        h(
          "p",
          { class: "muted" },
          "Their records go back to the group that failed them, with fresh tries. No other group sees them; the letters stay.",
        ),
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
        button(matched === null ? "Counting…" : `Redrive ${counted(letters, "letter")}`, run, {
          kind: "primary",
          disabled: busy || !matched,
        }),
      ],
    };
  }

  function outcome() {
    if (matched === null) return error ? "failed" : "counting, nothing is changed…";
    return matched === 0 ? "no letter is left to redrive" : `${counted(matched, "letter")} would be put back`;
  }

  async function count() {
    try {
      const { id, matched: found, redrive } = await write(resource, { where, dry_run: true });
      matched = id === null ? found : await followed(redrive);
    } catch (failure) {
      error = failure.message;
    }
    box.redraw();
  }

  async function run() {
    busy = true;
    error = null;
    box.redraw();
    const chosen = { where, dry_run: false, request_id: requestId };
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

/** A dry run that takes long is over when it says so; how many letters it would put back. */
async function followed(redrive) {
  let latest = redrive;
  while (latest.state === "running") {
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    latest = await read(path("redrives", redrive.id));
  }
  return latest.matched - latest.skipped;
}
