/* Keeps one view's data fresh: read, show, wait, again.
 *
 * One loop, one read at a time, so that a slow broker is never asked twice. It rests while the tab is hidden or the reader has
 * paused it, and reads at once when either ends. When the broker does not answer, what was shown stays, and the loop
 * goes on until it does.
 */

import { ApiError } from "./api.js";

const POLL_MS = 2_000;

export class Live {
  /** `onData(data)` shows; `onError(error)`: no, or no answer; `onState(state, before)`: connecting, live, paused, unreachable. */
  constructor({ onData, onError, onState }) {
    this.onData = onData;
    this.onError = onError;
    this.onState = onState;
    this.paused = false;
    this.state = "connecting";
    this.load = null;
    this.abort = new AbortController();
    this.timer = 0;
    document.addEventListener("visibilitychange", () => (document.hidden ? this.rest() : this.wake()));
  }

  /** From now on `load(signal)` is what is read; what was being read for another view is dropped. */
  follow(load) {
    this.load = load;
    return this.refresh();
  }

  /** Read now, whatever else is going on. */
  async refresh() {
    this.rest();
    this.abort.abort();
    this.abort = new AbortController();
    await this.turn(this.abort.signal);
  }

  setPaused(paused) {
    this.paused = paused;
    if (this.state !== "unreachable") this.tell(paused ? "paused" : "live");
    if (paused) this.rest();
    else this.wake();
  }

  rest() {
    clearTimeout(this.timer);
  }

  wake() {
    if (!this.paused && !document.hidden) this.refresh();
  }

  async turn(signal) {
    try {
      const data = await this.load(signal);
      if (signal.aborted) return;
      this.tell(this.paused ? "paused" : "live");
      this.onData(data);
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof ApiError)) throw error;
      this.tell(error.unreachable ? "unreachable" : this.paused ? "paused" : "live");
      this.onError(error);
    } finally {
      if (!signal.aborted) this.schedule();
    }
  }

  schedule() {
    // A reader who has paused still wants to know when the broker is back.
    const resting = document.hidden || (this.paused && this.state !== "unreachable");
    if (!resting) this.timer = setTimeout(() => this.turn(this.abort.signal), POLL_MS);
  }

  tell(state) {
    if (state === this.state) return;
    const before = this.state;
    this.state = state;
    this.onState(state, before);
  }
}
