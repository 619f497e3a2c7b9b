/* All dead letters: how many, how old, why; and the redrives that run. */

import { read } from "../api.js";
import { h } from "../dom.js";
import { count, counted } from "../format.js";
import { age, card, pageHead, quietCount } from "../parts.js";
import { link } from "../router.js";
import { ordering, table } from "../tables.js";
import { redriveCard } from "./redrives.js";

export function deadLettersView() {
  const order = ordering("letters", true);
  const asked = {};
  return {
    title: "Dead letters",

    async load(signal) {
      const [{ topics }, { redrives }] = await Promise.all([read("dead-letters", { signal }), read("redrives", { signal })]);
      return { topics, redrives };
    },

    draw({ topics, redrives }, page) {
      const total = topics.reduce((sum, topic) => sum + topic.letters, 0);
      return [
        pageHead("Dead letters"),
        card(counted(total, "letter"), letterTopics(topics, order, page), { flush: true, key: "letters" }),
        redriveCard(redrives, page, asked),
      ];
    },
  };
}

function letterTopics(topics, order, { broker, redraw }) {
  const address = (topic) => link(["dead-letters", topic.topic]);
  const worst = (topic) => topic.top_errors[0];
  return table({
    caption: "Dead letters by topic and group",
    rows: topics,
    key: (topic) => topic.topic,
    order,
    redraw,
    goes: address,
    none: "No dead letters. A record that has used up its tries is copied here, once, with the reason.",
    columns: [
      {
        name: "topic",
        label: "From topic",
        sort: (topic) => topic.source_topic ?? topic.topic,
        cell: (topic) => h("a", { href: address(topic) }, topic.source_topic ?? topic.topic),
      },
      {
        name: "group",
        label: "Group",
        sort: (topic) => topic.group ?? "",
        cell: (topic) => (topic.group ? h("a", { href: link(["groups", topic.group]) }, topic.group) : ""),
      },
      {
        name: "letters",
        label: "Letters",
        align: "end",
        sort: (topic) => topic.letters,
        cell: (topic) => quietCount(topic.letters),
      },
      {
        name: "oldest",
        label: "Oldest",
        align: "end",
        sort: (topic) => -(topic.oldest_ms ?? 0),
        cell: (topic) => age(topic.oldest_ms, broker.now_ms),
      },
      {
        name: "newest",
        label: "Newest",
        align: "end",
        sort: (topic) => -(topic.newest_ms ?? 0),
        cell: (topic) => age(topic.newest_ms, broker.now_ms),
      },
      {
        name: "error",
        label: "Most common error",
        kind: "preview",
        cell: (topic) =>
          worst(topic) &&
          h(
            "span",
            { title: worst(topic).message },
            `${count(worst(topic).count)} × ${worst(topic).error}: ${worst(topic).message}`,
          ),
      },
    ],
  });
}
