/* Numbers, sizes, times and durations as people read them.
 *
 * What is not known is a dash, never a zero. A figure keeps its width while it changes: digits are tabular (see the styles), and
 * a unit changes only with the magnitude.
 */

const DASH = "–";
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const UNITS = ["B", "KB", "MB", "GB", "TB", "PB"];

const missing = (value) => value === null || value === undefined || Number.isNaN(value);

/** 12,340 */
export function count(value) {
  return missing(value) ? DASH : whole.format(value);
}

/** 12.3K, for axes and tight places. */
export function compact(value) {
  return missing(value) ? DASH : short.format(value);
}

/** The same for things that come whole: between 0 and 1 there is nothing to mark. */
export function wholeTick(value) {
  return Number.isInteger(value) ? compact(value) : "";
}

/** "1 record", "12 records" */
export function counted(value, noun, plural = `${noun}s`) {
  return `${count(value)} ${value === 1 ? noun : plural}`;
}

/** 1.4 MB: decimal units, as disks are sold. */
export function bytes(value) {
  if (missing(value)) return DASH;
  let size = Math.abs(value);
  let unit = 0;
  while (size >= 999.5 && unit < UNITS.length - 1) {
    size /= 1000;
    unit += 1;
  }
  const digits = unit === 0 || size >= 100 ? 0 : 1;
  return `${value < 0 ? "-" : ""}${size.toFixed(digits)} ${UNITS[unit]}`;
}

/** 1,234/s; small rates keep a decimal. */
export function rate(value) {
  if (missing(value)) return DASH;
  return `${value > 0 && value < 9.95 ? value.toFixed(1) : whole.format(value)}/s`;
}

export function byteRate(value) {
  return missing(value) ? DASH : `${bytes(value)}/s`;
}

/** "10 MB", without the decimal that says nothing; for axes. */
export function byteTick(value) {
  return bytes(value).replace(".0 ", " ");
}

/** 0.42 ms, 18 ms, 1.2 s */
export function milliseconds(value) {
  if (missing(value)) return DASH;
  if (value === 0) return "0 ms";
  if (value < 10) return `${value.toFixed(2)} ms`;
  return value < 1000 ? `${value.toFixed(0)} ms` : `${(value / 1000).toFixed(1)} s`;
}

/** A span in its two largest units: "42 s", "3 min 5 s", "2 h 10 min", "4 days 3 h". */
export function duration(seconds) {
  if (missing(seconds)) return DASH;
  const s = Math.max(0, seconds);
  if (s < 1) return s === 0 ? "0 s" : "under 1 s";
  if (s < 60) return `${Math.floor(s)} s`;
  const pair = (large, unit, small, smallUnit) => (small ? `${large} ${unit} ${small} ${smallUnit}` : `${large} ${unit}`);
  if (s < 3600) return pair(Math.floor(s / 60), "min", Math.floor(s % 60), "s");
  if (s < 86400) return pair(Math.floor(s / 3600), "h", Math.floor((s % 3600) / 60), "min");
  const days = Math.floor(s / 86400);
  return pair(days, days === 1 ? "day" : "days", Math.floor((s % 86400) / 3600), "h");
}

/** A span in one unit, for axes: "90 s", "5 min", "1.5 h". */
export function span(seconds) {
  if (missing(seconds)) return DASH;
  const round = (value) => String(Math.round(value * 10) / 10);
  if (seconds < 120) return `${round(seconds)} s`;
  return seconds < 7200 ? `${round(seconds / 60)} min` : `${round(seconds / 3600)} h`;
}

const clockTime = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  hourCycle: "h23",
});
const dayTime = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const yearTime = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", year: "numeric" });

/** Local time: the clock alone today, with its day (and year) otherwise. */
export function localTime(ms, now = Date.now()) {
  if (missing(ms)) return DASH;
  const date = new Date(ms);
  const today = new Date(now);
  if (Number.isNaN(date.getTime())) return String(ms);
  if (date.toDateString() === today.toDateString()) return clockTime.format(date);
  const day = date.getFullYear() === today.getFullYear() ? dayTime : yearTime;
  return `${day.format(date)}, ${clockTime.format(date)}`;
}

/** The instant in ISO 8601, for titles and machines; empty when there is none. */
export function isoTime(ms) {
  const date = new Date(ms);
  return missing(ms) || Number.isNaN(date.getTime()) ? "" : date.toISOString();
}

/** For <input type="datetime-local">: local time to the second. */
export function inputTime(ms) {
  const date = new Date(ms);
  return new Date(ms - date.getTimezoneOffset() * 60000).toISOString().slice(0, 19);
}

/** A topic's setting with what its number comes to: "604800000 (7 days)". */
export function setting(name, value) {
  const number = Number(value);
  if (value === "-1") return "-1 (no limit)";
  if (name.endsWith(".ms") && number >= 1000) return `${value} (${duration(number / 1000)})`;
  if (name.endsWith(".bytes") && number >= 1000) return `${value} (${bytes(number)})`;
  return value;
}
