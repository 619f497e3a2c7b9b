/* Every consumer group: how far it is, how far it was over the last hour, what fails. */

import { read } from "../api.js";
import { h } from "../dom.js";
import { count, duration } from "../format.js";
import { groupHistories } from "../histories.js";
import { failedTotal, standing } from "../judge.js";
import { card, pageHead, pill, quietCount } from "../parts.js";
import { link } from "../router.js";
import { sparkline } from "../sparkline.js";
import { ordering, table } from "../tables.js";

export function groupsView() {
  const order = ordering("lag", true);
  return {
    title: "Groups",

    async load(signal) {
      const { groups } = await read("groups", { signal });
      await groupHistories.refresh(
        groups.map((group) => group.group),
        signal,
      );
      return groups;
    },

    draw(groups, { redraw }) {
      return [
        pageHead("Groups"),
        card(
          `${count(groups.length)} consumer ${groups.length === 1 ? "group" : "groups"}`,
          groupTable(groups, order, redraw),
          {
            flush: true,
            key: "groups",
          },
        ),
      ];
    },
  };
}

export function groupTable(groups, order, redraw) {
  return table({
    caption: "Consumer groups",
    rows: groups,
    key: (group) => group.group,
    order,
    redraw,
    goes: (group) => link(["groups", group.group]),
    none: "No groups yet. A group appears here when its first consumer joins.",
    columns: [
      {
        name: "name",
        label: "Group",
        sort: (group) => group.group,
        cell: (group) => h("a", { href: link(["groups", group.group]) }, group.group),
      },
      { name: "state", label: "Standing", sort: (group) => standing(group).text, cell: standingPill },
      {
        name: "members",
        label: "Members",
        align: "end",
        sort: (group) => group.members,
        cell: (group) => quietCount(group.members),
      },
      {
        name: "lag",
        label: "Records behind",
        align: "end",
        sort: (group) => group.lag,
        cell: (group) => quietCount(group.lag),
      },
      { name: "seconds", label: "Time behind", align: "end", sort: (group) => group.lag_seconds ?? 0, cell: behindFor },
      {
        name: "hour",
        label: "Behind, last hour",
        kind: "trend",
        cell: (group) => sparkline(groupHistories.values(group.group, "lag")),
      },
      {
        name: "failed",
        label: "Retrying",
        align: "end",
        sort: (group) => failedTotal(group.failed),
        cell: (group) => quietCount(failedTotal(group.failed), "warn"),
      },
      {
        name: "letters",
        label: "Dead letters",
        align: "end",
        sort: (group) => group.dead_letters,
        cell: (group) => quietCount(group.dead_letters),
      },
    ],
  });
}

export function standingPill(group) {
  const { text, tone } = standing(group);
  return pill(text, tone, `Membership: ${group.state}`);
}

function behindFor(group) {
  return group.lag === 0 ? h("span", { class: "zero" }, "–") : duration(group.lag_seconds);
}
