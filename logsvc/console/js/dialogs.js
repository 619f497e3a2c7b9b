/* Dialogs: the browser's own <dialog>, which keeps the focus inside, closes with Escape and gives the focus back. */

import { h, kept, render } from "./dom.js";
import { button, field } from "./parts.js";

/** Open a dialog that shows what `draw(box)` returns: {title, body, buttons}. `box`: {redraw(), close()}. */
export function openDialog(draw) {
  const element = h("dialog", { "aria-labelledby": "dialog-title" });
  const box = {
    redraw: () => {
      const { title, body, buttons } = draw(box);
      render(element, [
        h("h2", { id: "dialog-title" }, title),
        h("div", { class: "dialog-body" }, body),
        h("div", { class: "dialog-buttons" }, buttons),
      ]);
    },
    close: () => element.close(),
  };
  element.addEventListener("close", () => element.remove());
  document.getElementById("dialogs").append(element);
  box.redraw();
  element.showModal();
  return box;
}

/** Ask before something that cannot be undone: `name` must be typed. `act()` does it; its failure is shown in the dialog. */
export function confirmTyped({ title, body, name, action, act }) {
  let error = null;
  let busy = false;
  const input = h("input", { type: "text", autocomplete: "off", spellcheck: "false", class: "mono" });
  const labelled = field(`Type ${name} to confirm`, input);
  const box = openDialog(() => ({
    title,
    body: [body, kept("typed", () => labelled), error && h("p", { class: "note bad", role: "alert" }, error)],
    buttons: [
      button("Cancel", () => box.close()),
      button(action, run, { kind: "danger", disabled: busy || input.value !== name }),
    ],
  }));
  input.oninput = box.redraw;
  input.focus();

  async function run() {
    busy = true;
    box.redraw();
    try {
      await act();
      box.close();
    } catch (failure) {
      error = failure.message;
      busy = false;
      box.redraw();
    }
  }
}
