// Decides how long to wait before the next attempt to connect. Waits for nothing itself.

/** One second: long enough that a gateway that restarts (about 1 s) is up at the second attempt. */
export const BASE_SECONDS = 1;

/** Half a minute: nobody watches a spinner longer, and ten thousand replicas then make 700 attempts a second at most. */
export const CAP_SECONDS = 30;

/** Exponential backoff with full jitter (Brooker, AWS 2015): spreads a crowd that lost its gateway at one instant. */
export class Backoff {
  #attempts = 0;

  constructor(readonly uniform: () => number) {}

  /** Seconds before the next attempt: uniform in [0, min(cap, base 2^attempts)). */
  nextSeconds(): number {
    const ceiling = Math.min(CAP_SECONDS, BASE_SECONDS * 2 ** this.#attempts);
    this.#attempts += 1;
    return this.uniform() * ceiling;
  }

  /** The connection holds: the next failure starts from the base again. */
  reset(): void {
    this.#attempts = 0;
  }
}
