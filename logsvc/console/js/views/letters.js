/* The dead letters of one topic and group: found by a filter, read one by one, put back or thrown away.
 *
 * The filter is in the address, and is the same thing that a redrive takes. Figures and redrives are live; the page of letters is
 * read again only when letters have come or gone.
 */

import { path, read, write } from "../api.js";
import { confirmTyped } from "../dialogs.js";
import { h, kept } from "../dom.js";
import { count, counted, localTime } from "../format.js";
import { WRITES_OFF, age, button, card, figures, note, pageHead, time } from "../parts.js";
import { inline } from "../record-parts.js";
import { go, link } from "../router.js";
import { table } from "../tables.js";
import { idOf, letterDetail } from "./letter-detail.js";
import { filterForm } from "./letter-filter.js";
import { redriveDialog } from "./redrive-dialog.js";
import { redriveCard } from "./redrives.js";

const PAGE = 50;
const CONDITIONS = ["error", "exception", "partition", "offset_from", "offset_to", "from_ms", "to_ms"];
const NUMBERS = new Set(["partition", "offset_from", "offset_to", "from_ms", "to_ms"]);

export function lettersView(name, query) {
  const where = Object.fromEntries(CONDITIONS.filter((each) => query[each]).map((each) => [each, query[each]]));
  const look = { open: query.open ?? null, format: null };
  const asked = {};
  let page = { seen: null, letters: null };

  async function readLetters(pile, signal) {
    const seen = `${pile.letters} ${pile.newest_ms} ${pile.oldest_ms}`;
    if (page.seen !== seen) {
      const letters = await read(`${path("dead-letters", name)}/letters`, {
        query: { ...where, limit: PAGE, after: query.after },
        signal,
      });
      page = { seen, letters };
    }
    return page.letters;
  }

  return {
    title: `Dead letters of ${name.replace(/^dlq\./, "")}`,

    async load(signal) {
      const [{ topics }, { redrives }] = await Promise.all([read("dead-letters", { signal }), read("redrives", { signal })]);
      const pile = topics.find((topic) => topic.topic === name) ?? {
        topic: name,
        source_topic: null,
        group: null,
        letters: 0,
        top_errors: [],
      };
      return {
        pile,
        letters: await readLetters(pile, signal),
        redrives: redrives.filter((redrive) => redrive.dead_letter_topic === name),
      };
    },

    draw({ pile, letters, redrives }, shared) {
      const address = (changes) => link(["dead-letters", name], { ...where, ...changes });
      const pick = (letter) => {
        look.open = idOf(letter);
        history.replaceState(null, "", address({ after: query.after, open: look.open }));
        shared.redraw();
      };
      const choose = (format) => {
        look.format = format;
        shared.redraw();
      };
      return [
        head(name, pile, where, shared),
        figures([
          ["Letters", count(pile.letters), pile.redriven ? `${count(pile.redriven)} put back so far` : "none put back yet"],
          ["Newest", age(pile.newest_ms, shared.broker.now_ms), "ago"],
          ["Oldest", age(pile.oldest_ms, shared.broker.now_ms), "ago"],
        ]),
        topErrors(pile, address),
        redriveCard(redrives, shared, asked),
        h(
          "details",
          { class: "card filter", key: "filter", open: Object.keys(where).length > 0 },
          h("summary", null, "Filter letters"),
          h(
            "div",
            { class: "card-body" },
            kept("filter", () => filterForm(name, where)),
          ),
        ),
        h(
          "div",
          { class: "reader", key: "reader" },
          letterList(letters, { where, query, look, pick, address }),
          letterDetail(letters.letters, look.open, { topic: name, format: look.format, choose, pick }),
        ),
      ];
    },
  };
}

function head(name, pile, where, { session, refresh }) {
  const group = pile.group ?? name.split(".").at(-1);
  const words = inWords(where);
  const redrive = () => redriveDialog({ topic: name, group, where: asNumbers(where), words, started: refresh });
  const purge = () =>
    confirmTyped({
      title: "Throw all letters away",
      body: note(`${counted(pile.letters, "letter")} of ${name} will be gone for good, whatever the filter shows.`, "warn"),
      name,
      action: "Purge all letters",
      act: async () => {
        await write(`${path("dead-letters", name)}/purge`, { confirm: name });
        await refresh();
      },
    });
  const off = !session.writes || pile.letters === 0;
  return [
    pageHead(pile.source_topic ? `${pile.source_topic}, failed by ${group}` : name, {
      crumbs: [["Dead letters", link(["dead-letters"])]],
      actions: [
        button("Purge…", purge, { disabled: off, describedby: "writes-why" }),
        button("Redrive…", redrive, { kind: "primary", disabled: off, describedby: "writes-why" }),
      ],
    }),
    h(
      "p",
      { class: session.writes ? "hidden-text" : "note", id: "writes-why" },
      session.writes ? "Asks before it does anything." : WRITES_OFF,
    ),
  ];
}

function asNumbers(where) {
  return Object.fromEntries(Object.entries(where).map(([name, value]) => [name, NUMBERS.has(name) ? Number(value) : value]));
}

/** The filter as a sentence. */
function inWords(where) {
  const parts = [
    where.error && `whose error has “${where.error}”`,
    where.exception && `of exception ${where.exception}`,
    where.partition && `of partition ${where.partition}`,
    where.offset_from && `from offset ${count(Number(where.offset_from))}`,
    where.offset_to && `to offset ${count(Number(where.offset_to))}`,
    where.from_ms && `since ${localTime(Number(where.from_ms))}`,
    where.to_ms && `before ${localTime(Number(where.to_ms))}`,
  ].filter(Boolean);
  return parts.length ? `those ${parts.join(", ")}` : "all that have not been put back yet";
}

function topErrors({ top_errors: errors, letters }, address) {
  if (errors.length === 0) return null;
  return card(
    "Why they failed",
    table({
      caption: "Most common errors",
      rows: errors,
      key: (error) => error.error,
      columns: [
        { name: "error", label: "Error", cell: (error) => h("a", { href: address(narrowed(error)) }, error.error) },
        {
          name: "message",
          label: "Latest message",
          kind: "preview",
          cell: (error) => h("span", { title: error.message }, error.message ?? ""),
        },
        { name: "count", label: "Letters", align: "end", cell: (error) => count(error.count) },
        {
          name: "share",
          label: "Share",
          align: "end",
          cell: (error) => `${Math.round((100 * error.count) / Math.max(1, letters))}%`,
        },
      ],
    }),
    { flush: true },
  );
}

const narrowed = (error) =>
  error.exception_class ? { exception: error.exception_class, error: null } : { error: error.error, exception: null };

function letterList({ letters, next, matched_so_far: matched }, { where, query, look, pick, address }) {
  const filtered = Object.keys(where).length > 0;
  const list = table({
    caption: "Dead letters",
    dense: true,
    rows: letters,
    key: idOf,
    pick,
    picked: (letter) => idOf(letter) === look.open,
    none: next
      ? "None among those looked at so far; look further with More."
      : filtered
        ? "No letter matches."
        : "No letters here.",
    columns: [
      {
        name: "offset",
        label: "Record",
        cell: (letter) =>
          button(place(letter), () => pick(letter), { kind: "quiet small", label: `Show the letter of ${place(letter)}` }),
      },
      { name: "time", label: "Failed", cell: (letter) => time(letter.timestamp_ms) },
      { name: "key", label: "Key", kind: "key", cell: (letter) => inline(letter.key) },
      { name: "error", label: "Error", kind: "preview", cell: (letter) => letter.error ?? "" },
    ],
  });
  const pager = h(
    "div",
    { class: "pager" },
    button("← First page", () => go(address({})), { kind: "small", disabled: !query.after }),
    h("span", { class: "faint" }, next ? `${counted(matched, "letter")} so far` : counted(matched, "letter")),
    button("More →", () => go(address({ after: next })), { kind: "small", disabled: !next }),
  );
  return card(filtered ? "Letters that match" : "Letters", [list, pager], { flush: true, key: "list" });
}

/** Partition and offset of the record that failed; of the letter where it does not say. */
function place(letter) {
  const { partition, offset } = letter.source;
  return partition === null ? `letter ${idOf(letter)}` : `${partition} · ${count(offset)}`;
}
