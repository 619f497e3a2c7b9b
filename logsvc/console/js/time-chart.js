/* A chart over the last hour, drawn by uPlot on a canvas.
 *
 * A canvas says nothing to a screen reader and follows no style sheet. So the chart carries a sentence with what it shows, its
 * colours are read from the page's custom properties, and it is made anew when the theme changes. uPlot is loaded when the first
 * chart is shown. The legend above gives the value under the pointer, else the latest.
 */

import { h, widget } from "./dom.js";
import { localTime } from "./format.js";
import { colour } from "./theme.js";

const SPAN_SECONDS_MIN = 600; // a broker that has just started has a narrow past; it is not stretched over the whole width
const LINES = ["--line-1", "--line-2", "--line-3"];

/** A card. `series`: [{label, values}, …], null where unknown; `format(value)` for legend, `axis(value)` for the scale. */
export function timeChart(title, { timesMs = [], series, format, axis = format, height = 150, key = title }) {
  return h(
    "section",
    { class: "card", key, "aria-label": title },
    widget(TimeChart, { class: "time-chart" }, { title, timesMs, series, format, axis, height }),
  );
}

const TimeChart = {
  create(element, data) {
    const legend = h("p", { class: "legend" });
    const box = h("div", { class: "chart", role: "img", style: { "--chart-height": `${data.height}px` } });
    element.append(h("div", { class: "chart-head" }, h("h2", null, data.title), legend), box);
    const chart = { box, legend, plot: null, data, gone: false };
    chart.redo = () => draw(chart, { anew: true });
    chart.sizes = new ResizeObserver(() => chart.plot?.setSize(sizeOf(chart)));
    chart.sizes.observe(box);
    document.addEventListener("themechange", chart.redo);
    element.timeChart = chart;
    draw(chart);
  },

  update(element, data) {
    element.timeChart.data = data;
    draw(element.timeChart);
  },

  destroy(element) {
    const chart = element.timeChart;
    chart.gone = true;
    chart.sizes.disconnect();
    document.removeEventListener("themechange", chart.redo);
    chart.plot?.destroy();
  },
};

async function draw(chart, { anew = false } = {}) {
  const { data, box } = chart;
  box.setAttribute("aria-label", sentence(data));
  showLegend(chart, null);
  if (!data.series.some(({ values }) => values.some((value) => value !== null))) {
    if (!chart.plot) box.replaceChildren(h("p", { class: "waiting" }, "Nothing measured yet"));
    return;
  }
  const { default: UPlot } = await import("../vendor/uPlot.esm.js");
  if (chart.gone) return;
  if (chart.plot && !anew) {
    chart.plot.setData(columns(chart.data));
    return;
  }
  chart.plot?.destroy();
  box.replaceChildren();
  chart.plot = new UPlot(options(chart), columns(chart.data), box);
}

function columns({ timesMs, series }) {
  return [timesMs.map((ms) => ms / 1000), ...series.map(({ values }) => values)];
}

function sizeOf({ box, data }) {
  return { width: Math.max(120, box.clientWidth), height: data.height };
}

function options(chart) {
  const grid = { stroke: colour("--line"), width: 1 };
  const text = {
    stroke: colour("--faint"),
    font: `11px ${getComputedStyle(document.body).fontFamily}`,
    ticks: { show: false },
  };
  return {
    ...sizeOf(chart),
    legend: { show: false },
    padding: [8, 18, 0, 0],
    cursor: { y: false, points: { size: 7 }, drag: { x: false, y: false } },
    hooks: { setCursor: [(plot) => showLegend(chart, plot.cursor.idx)] },
    scales: {
      x: { range: (_, first, last) => [Math.min(first, last - SPAN_SECONDS_MIN), last] },
      y: { range: (_, __, high) => [0, high > 0 ? high * 1.12 : 1] },
    },
    axes: [
      { ...text, grid: { show: false }, space: 70, size: 26, values: (_, ticks) => ticks.map(clock) },
      { ...text, grid, size: 58, space: 38, values: (_, ticks) => ticks.map(chart.data.axis) },
    ],
    series: [
      {},
      ...chart.data.series.map(({ label }, index) => ({
        label,
        stroke: colour(LINES[index]),
        width: 1.75,
        fill: index === 0 ? faded(colour(LINES[0])) : undefined,
        points: { show: true, size: 5, width: 0, fill: colour(LINES[index]), filter: lonely },
      })),
    ],
  };
}

/* A value between two gaps is on no line; it is drawn as a point. */
const lonely = (plot, index) =>
  plot.data[index].flatMap((value, at, all) => (value !== null && (all[at - 1] ?? all[at + 1] ?? null) === null ? [at] : []));

const faded = (rgb) => rgb.replace(/^rgb\((.*)\)$/, "rgba($1, 0.1)");
const clock = (seconds) => localTime(seconds * 1000).slice(-8, -3);

function showLegend({ legend, data }, index) {
  const at = index ?? null;
  legend.replaceChildren(
    ...(at === null ? [] : [h("span", null, localTime(data.timesMs[at]))]),
    ...data.series.map(({ label, values }, number) =>
      h(
        "span",
        null,
        h("span", { class: "swatch", style: { background: `var(${LINES[number]})` } }),
        data.series.length > 1 ? `${label} ` : "",
        data.format((at === null ? values.at(-1) : values[at]) ?? null),
      ),
    ),
  );
}

function sentence({ title, series, format }) {
  const each = series.map(({ label, values }) => {
    const known = values.filter((value) => value !== null);
    if (known.length === 0) return `${label}: nothing measured yet`;
    return `${label}: now ${format(values.at(-1))}, highest ${format(Math.max(...known))}`;
  });
  return `${title}, last hour. ${each.join("; ")}.`;
}
