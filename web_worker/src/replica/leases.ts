// Knows which chunks are leased, which of their rows are settled, and when to ask for more. Sends nothing.

import type { Grant } from "../protocol";
import type { LeaseRows } from "./outbox";

/** Chunks in hand at first: the one being trained and one that is fetched meanwhile. */
const FEWEST_AHEAD = 2;

/** Chunks in hand at most, where chunks are trained faster than they come: the most that one question may ask for. */
const MOST_AHEAD = 16;

/** The leases of one run. */
export class Leases {
  readonly #rowsLeft = new Map<number, number>();
  #isAsked = false;
  #askAtMilliseconds = 0;
  #isDry = false;
  #reason: string | null = null;
  #ahead = FEWEST_AHEAD;

  /** The leases that are not trained yet. */
  get held(): number[] {
    return [...this.#rowsLeft.keys()];
  }

  /** Whether the gateway last said that no chunk is free: what is in hand is all there is. */
  get isDry(): boolean {
    return this.#isDry;
  }

  /** Why no chunk is free, if the gateway said so. */
  get reason(): string | null {
    return this.#reason;
  }

  /** When to ask again after `wait`, or null when an answer is due or the chunks suffice. */
  askAtMilliseconds(chunksInHand: number): number | null {
    return this.#isAsked || chunksInHand >= this.#ahead ? null : this.#askAtMilliseconds;
  }

  /** How many chunks to ask for now; the question counts as asked. 0: none. */
  ask(chunksInHand: number, nowMilliseconds: number): number {
    const at = this.askAtMilliseconds(chunksInHand);
    if (at === null || nowMilliseconds < at) return 0;
    this.#isAsked = true;
    return this.#ahead - chunksInHand;
  }

  /** Training had to wait for a chunk that was on its way: keep more of them in hand from now on. */
  starve(): void {
    if (!this.#isDry) this.#ahead = Math.min(MOST_AHEAD, 2 * this.#ahead);
  }

  grant(grants: readonly Grant[]): void {
    this.#isAsked = false;
    this.#isDry = false;
    this.#reason = null;
    for (const { lease, rows } of grants) this.#rowsLeft.set(lease, rows);
  }

  /** The gateway has no chunk free for so long. */
  wait(seconds: number, reason: string | null, nowMilliseconds: number): void {
    this.#isAsked = false;
    this.#isDry = true;
    this.#reason = reason;
    this.#askAtMilliseconds = nowMilliseconds + 1000 * seconds;
  }

  /** A question that went with a lost socket gets no answer. */
  disconnect(): void {
    this.#isAsked = false;
    this.#askAtMilliseconds = 0;
  }

  /** Counts rows as done; returns the leases that are trained with them. */
  settle(leases: LeaseRows): number[] {
    const trained: number[] = [];
    for (const [lease, rows] of leases) {
      const left = (this.#rowsLeft.get(lease) ?? Infinity) - rows;
      if (left <= 0) trained.push(lease);
      if (left <= 0) this.#rowsLeft.delete(lease);
      else if (left < Infinity) this.#rowsLeft.set(lease, left);
    }
    return trained;
  }

  /** Gives up a lease whose chunk could not be had; asks for another one only after a while. */
  drop(lease: number, retrySeconds: number, nowMilliseconds: number): void {
    this.#rowsLeft.delete(lease);
    this.#askAtMilliseconds = nowMilliseconds + 1000 * retrySeconds;
  }
}
