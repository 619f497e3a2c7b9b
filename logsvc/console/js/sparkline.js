/* A line without axes, to be read beside the figure it belongs to; readers are told the figure alone. */

import { svg } from "./dom.js";

const WIDTH = 100;
const HEIGHT = 24;
const POINTS_MAX = 90;

/** `values` in order of time, null where unknown. The scale begins at 0. */
export function sparkline(values, { tone = "" } = {}) {
  const points = thin(values ?? []);
  const highest = Math.max(...points.map((value) => value ?? 0), 0);
  const x = (index) => (points.length < 2 ? 0 : (index * WIDTH) / (points.length - 1)).toFixed(2);
  const y = (value) => (HEIGHT - 1 - (highest > 0 ? (value / highest) * (HEIGHT - 3) : 0)).toFixed(2);
  const lines = runs(points).map((run) => run.map(([index, value]) => [x(index), y(value)]));
  return svg(
    "svg",
    {
      class: `spark ${tone}`,
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
      preserveAspectRatio: "none",
      "aria-hidden": "true",
      focusable: "false",
    },
    lines.map((line) =>
      svg("path", { class: "area", d: `M${line[0][0]} ${HEIGHT}${draw(line)}L${line.at(-1)[0]} ${HEIGHT}Z` }),
    ),
    lines.map((line) => svg("path", { class: "stroke", d: draw(line).replace("L", "M") })),
  );
}

const draw = (line) => line.map(([x, y]) => `L${x} ${y}`).join("");

/** At most POINTS_MAX values, each the highest of its stretch: a peak must not vanish. */
function thin(values) {
  if (values.length <= POINTS_MAX) return values;
  const step = values.length / POINTS_MAX;
  return Array.from({ length: POINTS_MAX }, (_, index) => {
    const stretch = values.slice(Math.floor(index * step), Math.floor((index + 1) * step)).filter((value) => value !== null);
    return stretch.length ? Math.max(...stretch) : null;
  });
}

/** The stretches without a gap, as [index, value]. */
function runs(points) {
  const found = [];
  let run = null;
  points.forEach((value, index) => {
    if (value === null || value === undefined) {
      run = null;
      return;
    }
    if (!run) found.push((run = []));
    run.push([index, value]);
  });
  return found.filter((each) => each.length > 1);
}
