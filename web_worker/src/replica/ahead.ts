// Knows how many of a replica's own gradients its parameters lack: bounded staleness (Ho et al. 2013). Reads no clock.

import type { Ack } from "../protocol";

/** A gradient counts as missing for so long: the service may be slow, or have dropped it. */
const MAX_MISSING_MILLISECONDS = 1000;

interface Missing {
  readonly sequence: number;
  readonly pushedAtMilliseconds: number;
  /** The version that will hold it; null until it is acknowledged. */
  version: number | null;
}

/** The gradients pushed and not yet seen in parameters. The first shard speaks for all: every push has a frame of it. */
export class Ahead {
  #missing: Missing[] = [];

  /** How many gradients are missing now. */
  count(nowMilliseconds: number): number {
    this.#missing = this.#missing.filter((each) => nowMilliseconds - each.pushedAtMilliseconds < MAX_MISSING_MILLISECONDS);
    return this.#missing.length;
  }

  /** When the oldest ceases to count by itself, or null. */
  get expiresAtMilliseconds(): number | null {
    const oldest = this.#missing[0];
    return oldest ? oldest.pushedAtMilliseconds + MAX_MISSING_MILLISECONDS : null;
  }

  pushed(sequence: number, nowMilliseconds: number): void {
    this.#missing.push({ sequence, pushedAtMilliseconds: nowMilliseconds, version: null });
  }

  answered(ack: Ack): void {
    if (ack.shard !== 0 || ack.status === "busy") return;
    if (ack.version === null) this.#missing = this.#missing.filter(({ sequence }) => sequence !== ack.sequence);
    for (const each of this.#missing) if (each.sequence === ack.sequence) each.version = ack.version;
  }

  /** Parameters of the first shard at `version` are in use. */
  adopted(version: number): void {
    this.#missing = this.#missing.filter((each) => each.version === null || each.version > version);
  }
}
