// Fetches programs and chunks, again if need be. Keeps nothing.

import { Backoff } from "./backoff";
import { UnreachableError } from "./gateway";
import { pauseBeforeRetry } from "./scheduling";

/** Attempts at what others can have instead, as a chunk: enough for a lost packet, not for a service that is away. */
const ATTEMPTS = 4;

/** Calls `get` with 1, 2, ... until it succeeds, a few times with growing pauses; throws what the last attempt threw. */
export async function download<T>(get: (attempt: number) => Promise<T>, uniform: () => number): Promise<T> {
  const backoff = new Backoff(uniform);
  for (let attempt = 1; ; attempt++) {
    try {
      return await get(attempt);
    } catch (error) {
      if (attempt === ATTEMPTS) throw error;
      await pauseBeforeRetry(1000 * backoff.nextSeconds());
    }
  }
}

/**
 * Calls `get` until it succeeds, with growing pauses, for as long as the gateway is away.
 *
 * @param isWanted - whether to go on; asked after every attempt
 * @param failed - told each time that the gateway is away
 * @returns what `get` gave, or null when it is no longer wanted
 * @throws what `get` throws that is no UnreachableError
 */
export async function insist<T>(
  get: () => Promise<T>, uniform: () => number, isWanted: () => boolean, failed: (error: UnreachableError) => void,
): Promise<T | null> {
  const backoff = new Backoff(uniform);
  while (isWanted()) {
    try {
      const got = await get();
      return isWanted() ? got : null;
    } catch (error) {
      if (!(error instanceof UnreachableError)) throw error;
      if (!isWanted()) break;
      failed(error);
      await pauseBeforeRetry(1000 * backoff.nextSeconds());
    }
  }
  return null;
}
