/* The last hour of many things, for sparklines: read once, then no more often than the broker writes it down.
 *
 * A list may have hundreds of rows. Only the first HISTORIES_MAX have a line, and a few of them are read at each turn, so the
 * list itself is never kept waiting.
 */

import { ApiError, path, read } from "./api.js";

const HISTORIES_MAX = 30;
const AT_A_TIME = 6;
const REREAD_MS_MIN = 5_000;

/** `address(name)` is the resource whose answer has, or is, a history. */
function histories(address) {
  const known = new Map(); // name -> {series, readMs, everyMs}

  return {
    /** One series of `name`'s last hour; null while it is not known. */
    values: (name, series) => known.get(name)?.series[series] ?? null,

    /** Read what is old among `names`. What fails is tried again at the next turn; a name that is gone has no line. */
    async refresh(names, signal) {
      const now = performance.now();
      const old = names.slice(0, HISTORIES_MAX).filter((name) => {
        const found = known.get(name);
        return !found || now - found.readMs >= found.everyMs;
      });
      await Promise.all(
        old.slice(0, AT_A_TIME).map(async (name) => {
          try {
            const answer = await read(address(name), { signal });
            const { interval_ms: everyMs, series } = answer.history ?? answer;
            known.set(name, { series, readMs: now, everyMs: Math.max(REREAD_MS_MIN, everyMs) });
          } catch (error) {
            if (!(error instanceof ApiError)) throw error;
          }
        }),
      );
    },
  };
}

export const groupHistories = histories((group) => `${path("groups", group)}/history`);

export const topicHistories = histories((topic) => path("topics", topic));
