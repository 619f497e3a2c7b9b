/* Is anyone behind, what is failing, is the broker well: the answers, and from which figure on they change. Pure.
 *
 * Lag that is a few seconds old is what a group at work looks like. Behind is a group whose oldest record has waited for
 * BEHIND_SECONDS, or that has records to read or to try again, and nobody to do it.
 */

import { bytes, count, counted, duration, milliseconds } from "./format.js";

const BEHIND_SECONDS = 10;
const FAR_BEHIND_SECONDS = 300;
const DISK_SHARE_LOW = 0.1;
const FSYNC_SLOW_MS = 100;
const LINES_MAX = 3;

/** The states of failed records, in words. */
export const FAILED_STATES = {
  waiting: "waiting for their next try",
  parked: "behind a failed one of their key",
  delivered: "being tried",
  dead_lettering: "becoming dead letters",
  paused: "paused, out of tries",
};

export const BREAKER_STATES = { closed: "closed", open: "open", half_open: "trying single records", off: "off" };

const isHeld = (group) => group.breaker.state === "open" || group.breaker.state === "half_open";

export function failedTotal(failed) {
  return Object.values(failed ?? {}).reduce((sum, value) => sum + value, 0);
}

/** Failed records that members are to handle again; the others wait for a person or for the broker. */
const toRetry = ({ failed }) => (failed.waiting ?? 0) + (failed.parked ?? 0) + (failed.delivered ?? 0);

const isDeserted = (group) => group.members === 0 && group.lag + toRetry(group) > 0;

function isBehind(group) {
  return isDeserted(group) || (group.lag > 0 && (group.lag_seconds ?? 0) >= BEHIND_SECONDS);
}

/** One group in a word: {text, tone}. */
export function standing(group) {
  if (group.breaker.state === "open") return { text: "Paused by breaker", tone: "bad" };
  if (isDeserted(group)) return { text: "Behind, no members", tone: "bad" };
  if (group.breaker.state === "half_open") return { text: "Trying again", tone: "warn" };
  if (group.failed.paused > 0) return { text: "Waits for Resume", tone: "bad" };
  if (isBehind(group)) return { text: "Behind", tone: group.lag_seconds >= FAR_BEHIND_SECONDS ? "bad" : "warn" };
  if (failedTotal(group.failed) > 0) return { text: "Retrying", tone: "warn" };
  if (group.lag > 0) return { text: "Working", tone: "good" };
  return { text: "Caught up", tone: "good" };
}

/** {verdict, tone, lines} */
export function whoIsBehind(groups) {
  if (groups.length === 0)
    return { verdict: "Nobody reads yet", tone: "", lines: ["Groups appear here with their first consumer."] };
  const behind = groups.filter(isBehind).sort((a, b) => (b.lag_seconds ?? 0) - (a.lag_seconds ?? 0));
  const lag = groups.reduce((sum, group) => sum + group.lag, 0);
  if (behind.length === 0) {
    const all = groups.length === 1 ? "1 group, caught up" : `All ${count(groups.length)} groups are caught up`;
    return { verdict: "Nobody is behind", tone: "good", lines: [lag ? `${counted(lag, "record")} on the way` : all] };
  }
  const far = behind.some((group) => group.lag_seconds >= FAR_BEHIND_SECONDS || group.members === 0);
  return {
    verdict: behind.length === 1 ? `${behind[0].group} is behind` : `${count(behind.length)} groups are behind`,
    tone: far ? "bad" : "warn",
    lines: limited(behind, (group) => {
      const what = [
        group.lag > 0 && `${counted(group.lag, "record")}, ${duration(group.lag_seconds)}`,
        group.members === 0 && toRetry(group) > 0 && `${count(toRetry(group))} to try again`,
        group.members === 0 && "no members",
      ];
      const name = behind.length === 1 ? "" : `${group.group}: `;
      return name + what.filter(Boolean).join(", ");
    }),
  };
}

/** `letters`: the dead-letter topics. */
export function whatFails(groups, letters, nowMs) {
  const open = groups.filter(isHeld);
  const paused = groups.filter((group) => group.failed.paused > 0);
  const retrying = groups.reduce((sum, group) => sum + failedTotal(group.failed), 0);
  const full = letters.filter((topic) => topic.letters > 0);
  const total = full.reduce((sum, topic) => sum + topic.letters, 0);
  const newest = Math.max(...full.map((topic) => topic.newest_ms ?? 0), 0);
  const retried = retrying > 0 ? `${counted(retrying, "record")} being retried` : "Nothing is being retried";
  const newestAge = `newest ${duration((nowMs - newest) / 1000)} ago`;
  const lines = [
    ...limited(open, (group) => `${group.group}: breaker ${BREAKER_STATES[group.breaker.state]}`),
    ...limited(paused, (group) => `${group.group}: ${counted(group.failed.paused, "record")} out of tries`),
    retrying > 0 && retried,
    total > 0 && `${counted(total, "dead letter")}, ${newestAge}`,
  ].filter(Boolean);
  if (open.length > 0)
    return {
      verdict: open.length === 1 ? `${open[0].group} is paused` : `${open.length} groups are paused`,
      tone: "bad",
      lines,
    };
  if (paused.length > 0) return { verdict: "Records wait for you", tone: "bad", lines };
  if (total > 0) return { verdict: counted(total, "dead letter"), tone: "warn", lines: [`The ${newestAge}`, retried] };
  if (retrying > 0) return { verdict: "Some records are retried", tone: "warn", lines };
  return { verdict: "Nothing is failing", tone: "good", lines: ["No dead letters, no retries"] };
}

export function isWell(broker) {
  const { degraded_partitions: degraded, degraded_partition_count: troubled } = broker;
  const { free_bytes: free, size_bytes: size, reserve_bytes: reserve } = broker.disk;
  const { p99 } = broker.fsync_ms;
  const figures = [
    `${bytes(free)} of ${bytes(size)} free`,
    ...(p99 === null ? [] : [`99% of writes safe on disk in ${milliseconds(p99)}`]),
  ];
  if (degraded.length > 0) {
    const failed = degraded.some((partition) => partition.state === "failed");
    const named = limited(
      degraded,
      (each) => `${each.topic}-${each.partition} is ${each.state === "failed" ? "failed" : "read-only"}`,
    );
    return { verdict: `${counted(troubled, "partition")} in trouble`, tone: failed ? "bad" : "warn", lines: named };
  }
  if (free !== null && free <= reserve)
    return { verdict: "The disk is full", tone: "bad", lines: ["Writes are refused, reads go on", figures[0]] };
  if (size && free / size < DISK_SHARE_LOW) return { verdict: "The disk is filling", tone: "warn", lines: figures };
  if (p99 > FSYNC_SLOW_MS) return { verdict: "The disk is slow", tone: "warn", lines: figures };
  return { verdict: "The broker is well", tone: "good", lines: figures };
}

function limited(things, say) {
  const said = things.slice(0, LINES_MAX).map(say);
  return things.length > LINES_MAX ? [...said.slice(0, LINES_MAX - 1), `and ${things.length - LINES_MAX + 1} more`] : said;
}
