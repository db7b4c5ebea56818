// Tells the page what goes on, seldom enough that telling costs nothing. Decides nothing.

import type { Progress, State } from "./actions";

/** Five times a second: faster than a person reads, and less than 0.1 % of a worker's time. */
const PROGRESS_INTERVAL_MILLISECONDS = 200;

/** States change for the person only when they last: a replica that waits 50 ms for an answer is still training. */
const WAITING_MILLISECONDS = 1000;

export interface Audience {
  state(state: State): void;
  progress(progress: Progress): void;
}

/** Between a replica and its audience. */
export class Reporter {
  #shown: State | null = null;
  #waiting: ReturnType<typeof setTimeout> | null = null;
  #toldAtMilliseconds = -Infinity;
  #isEnded = false;

  constructor(readonly audience: Audience) {}

  /** A state that holds from now on. What was begun before the end, as a preparation, does not hide it. */
  state(state: State): void {
    this.#cancelWaiting();
    if (this.#isEnded) return;
    if (state.state === this.#shown?.state && state.message === this.#shown.message) return;
    this.#shown = state;
    this.audience.state(state);
  }

  /** There is nothing to do just now; said, with the last numbers, only when it stays so. */
  waiting(message: string, progress: () => Progress): void {
    this.#waiting ??= setTimeout(() => {
      this.audience.progress(progress());
      this.state({ state: "waiting", message });
    }, WAITING_MILLISECONDS);
  }

  progress(progress: () => Progress, nowMilliseconds: number): void {
    if (nowMilliseconds - this.#toldAtMilliseconds < PROGRESS_INTERVAL_MILLISECONDS) return;
    this.#toldAtMilliseconds = nowMilliseconds;
    this.audience.progress(progress());
  }

  /** The last numbers and the last state. */
  end(progress: Progress, state: State): void {
    this.audience.progress(progress);
    this.state(state);
    this.#isEnded = true;
  }

  #cancelWaiting(): void {
    if (this.#waiting !== null) clearTimeout(this.#waiting);
    this.#waiting = null;
  }
}
