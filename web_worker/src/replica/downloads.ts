// Fetches programs and chunks, again if need be. Keeps nothing.

import { Backoff } from "./backoff";
import { pause } from "./scheduling";

/** Attempts at one download; together with their pauses they outlast a gateway's restart. */
const ATTEMPTS = 4;

/** Calls `get` until it succeeds, with growing pauses; throws what the last attempt threw. */
export async function download<T>(get: () => Promise<T>, uniform: () => number): Promise<T> {
  const backoff = new Backoff(uniform);
  for (let attempt = 1; ; attempt++) {
    try {
      return await get();
    } catch (error) {
      if (attempt === ATTEMPTS) throw error;
      await pause(1000 * backoff.nextSeconds());
    }
  }
}
