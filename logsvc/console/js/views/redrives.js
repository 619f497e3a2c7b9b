/* Redrives: letters that are put back to the group that failed them, how far that is, and stopping it. */

import { path, write } from "../api.js";
import { h } from "../dom.js";
import { count } from "../format.js";
import { button, card, note, pill, time } from "../parts.js";
import { table } from "../tables.js";

const STATES = { running: ["Running", "warn"], done: ["Done", "good"], cancelled: ["Cancelled", ""] };
const SHOWN_MAX = 10;

/** Newest first; nothing when there is none. `asked` is where the view remembers a refusal. */
export function redriveCard(redrives, page, asked) {
  const shown = redrives
    .filter((redrive) => !redrive.dry_run)
    .sort((a, b) => b.id - a.id)
    .slice(0, SHOWN_MAX);
  if (shown.length === 0) return null;
  const cancel = async (redrive) => {
    try {
      await write(`${path("redrives", redrive.id)}/cancel`);
      asked.refusal = null;
    } catch (error) {
      asked.refusal = note(error.message, "bad");
    }
    await page.refresh();
  };
  return card("Redrives", [h("div", { role: "status" }, asked.refusal), list(shown, page, cancel)], { flush: true });
}

function list(redrives, { session }, cancel) {
  return table({
    caption: "Redrives",
    rows: redrives,
    key: (redrive) => redrive.id,
    columns: [
      { name: "id", label: "Redrive", cell: (redrive) => `#${redrive.id}` },
      { name: "to", label: "To group", cell: (redrive) => redrive.group },
      { name: "from", label: "From", cell: (redrive) => redrive.dead_letter_topic },
      { name: "state", label: "State", cell: (redrive) => state(redrive) },
      { name: "progress", label: "Progress", kind: "trend", cell: (redrive) => progress(redrive) },
      { name: "done", label: "Put back", align: "end", cell: (redrive) => count(redrive.redriven) },
      { name: "skipped", label: "Left out", align: "end", cell: (redrive) => count(redrive.skipped) },
      { name: "started", label: "Started", align: "end", cell: (redrive) => time(redrive.created_ms) },
      {
        name: "cancel",
        label: "Stop it",
        mute: true,
        align: "end",
        cell: (redrive) =>
          redrive.state === "running"
            ? button("Cancel", () => cancel(redrive), {
                kind: "small",
                disabled: !session.writes,
                label: `Cancel redrive ${redrive.id}`,
              })
            : "",
      },
    ],
  });
}

function state(redrive) {
  const [text, tone] = STATES[redrive.state] ?? [redrive.state, ""];
  return [pill(text, tone), redrive.waiting && h("span", { class: "faint" }, ` waits: ${redrive.waiting}`)];
}

/** Of the letters there were, how many have been looked at. */
function progress(redrive) {
  const share = redrive.state === "done" ? 1 : redrive.total ? redrive.done / redrive.total : 0;
  return h("progress", { max: 1, value: share, "aria-label": `Redrive ${redrive.id}, ${Math.round(share * 100)}%` });
}
