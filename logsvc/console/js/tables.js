/* One table, for every list: sorted by its head's buttons, rows that lead somewhere, cards on narrow windows.
 *
 * Roles are written out because a row shown as a card is no longer a table row to the browser.
 * A column is {name, label, cell(row), sort?(row), align?, kind?, mute?}; the first one names the row, `mute` hides the label
 * of what explains itself to the eye.
 */

import { h } from "./dom.js";
import { count } from "./format.js";
import { empty } from "./parts.js";
import { go } from "./router.js";

const ROWS_MAX = 500; // more is not read by anybody, and drawing it every two seconds would keep the page busy

/** What a view remembers of a table's order. */
export function ordering(name, descending = false) {
  return { name, descending };
}

/** `caption` is read out, not shown. `goes(row)`: the address a click on the row leads to; `pick(row)`: what it does instead. */
export function table({
  caption,
  columns,
  rows,
  key,
  order = null,
  redraw = null,
  goes = null,
  pick = null,
  picked = null,
  none,
  dense = false,
}) {
  if (rows.length === 0) return empty(none ?? "Nothing here yet.");
  return h(
    "div",
    { class: "table-wrap" },
    h(
      "table",
      { class: dense ? "stacks dense" : "stacks", role: "table" },
      h("caption", { class: "hidden-text" }, caption),
      h(
        "thead",
        { role: "rowgroup" },
        h(
          "tr",
          { role: "row" },
          columns.map((column) => head(column, order, redraw)),
        ),
      ),
      h(
        "tbody",
        { role: "rowgroup" },
        sorted(rows, columns, order)
          .slice(0, ROWS_MAX)
          .map((row) => body(row, columns, { key: key(row), goes, pick, picked })),
      ),
    ),
    rows.length > ROWS_MAX &&
      h("p", { class: "empty" }, `The first ${count(ROWS_MAX)} of ${count(rows.length)}; another order shows others.`),
  );
}

function sorted(rows, columns, order) {
  const by = order && columns.find((column) => column.name === order.name)?.sort;
  if (!by) return rows;
  const collator = new Intl.Collator("en", { numeric: true });
  const compare = (a, b) => (typeof a === "string" ? collator.compare(a, b) : (a ?? -1) - (b ?? -1));
  const sign = order.descending ? -1 : 1;
  return [...rows].sort((a, b) => sign * compare(by(a), by(b)));
}

function head(column, order, redraw) {
  const props = { role: "columnheader", scope: "col", class: column.align === "end" ? "end" : null };
  if (column.mute) return h("th", props, h("span", { class: "hidden-text" }, column.label));
  if (!order || !column.sort) return h("th", props, column.label);
  const chosen = order.name === column.name;
  props["aria-sort"] = chosen ? (order.descending ? "descending" : "ascending") : null;
  const turn = () => {
    order.descending = chosen ? !order.descending : column.align === "end";
    order.name = column.name;
    redraw();
  };
  return h("th", props, h("button", { type: "button", onclick: turn }, column.label));
}

function body(row, columns, { key, goes, pick, picked }) {
  const act = goes ? () => go(goes(row)) : pick && (() => pick(row));
  const selected = picked?.(row) ?? false;
  return h(
    "tr",
    {
      key,
      role: "row",
      class: act ? "goes" : null,
      "aria-selected": selected ? "true" : null,
      // A handler that returns false takes the browser's own answer away; this one returns nothing.
      onclick:
        act &&
        ((event) => {
          if (meant(event)) act();
        }),
    },
    columns.map((column, index) => cell(column, row, index)),
  );
}

/** A click on the row itself, not on a link or button in it, and not the end of a selection of text. */
function meant(event) {
  return !event.target.closest("a, button, input") && String(getSelection()) === "";
}

function cell(column, row, index) {
  const content = column.cell(row);
  const classes = [column.align === "end" && "end", column.kind, (content === "" || content === null) && "blank"];
  const props = { class: classes.filter(Boolean).join(" ") || null, "data-label": column.label };
  if (index === 0) return h("th", { ...props, role: "rowheader", scope: "row" }, content);
  return h("td", { ...props, role: "cell" }, content);
}
