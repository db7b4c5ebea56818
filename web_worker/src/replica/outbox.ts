// Keeps every gradient frame until it is answered, and says which to send, in order and within the credit. Sends nothing.

import type { Ack } from "../protocol";

/** Rows of leases: a lease's number and how many of its rows. */
export type LeaseRows = ReadonlyMap<number, number>;

interface Push {
  readonly sequence: number;
  readonly leases: LeaseRows;
  /** Shards that have not answered for good yet. */
  unanswered: number;
}

interface Letter { readonly push: Push; readonly bytes: Uint8Array<ArrayBuffer>; isSent: boolean }

interface Lane { letters: Letter[]; retryAtMilliseconds: number }

/** The unacknowledged pushes. One lane a shard: shards answer independently. */
export class Outbox {
  readonly #lanes: Lane[];
  #sequence = 0;

  constructor(shards: number, public credit: number) {
    this.#lanes = Array.from({ length: shards }, () => ({ letters: [], retryAtMilliseconds: 0 }));
  }

  /** The sequence number for the next push. */
  get nextSequence(): number {
    return this.#sequence + 1;
  }

  /** Whether one more push could go out at once on every shard. */
  get hasRoom(): boolean {
    return this.#lanes.every(({ letters }) => letters.length < this.credit && letters.every(({ isSent }) => isSent));
  }

  /** Whether a frame was sent and is not answered yet. */
  get isAwaiting(): boolean {
    return this.#lanes.some(({ letters }) => letters.some(({ isSent }) => isSent));
  }

  /** Whether a shard was told `busy` and waits to be tried again. */
  get isBusy(): boolean {
    return this.retryAtMilliseconds !== null;
  }

  /** When a busy shard may be tried again, or null. */
  get retryAtMilliseconds(): number | null {
    const busy = this.#lanes.filter(({ letters }) => letters.some(({ isSent }) => !isSent));
    return busy.length === 0 ? null : Math.min(...busy.map((lane) => lane.retryAtMilliseconds));
  }

  /** Takes one push, a frame a shard, numbered `nextSequence`. */
  add(frames: readonly Uint8Array<ArrayBuffer>[], leases: LeaseRows): void {
    this.#sequence += 1;
    const push = { sequence: this.#sequence, leases, unanswered: frames.length };
    frames.forEach((bytes, shard) => this.#lanes[shard]!.letters.push({ push, bytes, isSent: false }));
  }

  /** The frames to send now; they count as sent. */
  takeSendable(nowMilliseconds: number): Uint8Array<ArrayBuffer>[] {
    const sendable: Letter[] = [];
    for (const { letters, retryAtMilliseconds } of this.#lanes) {
      if (nowMilliseconds < retryAtMilliseconds) continue;
      let credit = this.credit - letters.filter(({ isSent }) => isSent).length;
      for (const letter of letters) {
        if (!letter.isSent && credit-- > 0) sendable.push(letter);
      }
    }
    for (const letter of sendable) letter.isSent = true;
    return sendable.map(({ bytes }) => bytes);
  }

  /** Notes an answer. Returns the rows that are settled by it: those of a push that all its shards have answered. */
  answer(ack: Ack, nowMilliseconds: number): LeaseRows | null {
    const lane = this.#lanes[ack.shard];
    const letter = lane?.letters.find(({ push }) => push.sequence === ack.sequence);
    // An answer to a frame that `applied` has covered meanwhile.
    if (!lane || !letter) return null;
    if (ack.status === "busy") {
      letter.isSent = false;
      lane.retryAtMilliseconds = nowMilliseconds + 1000 * (ack.retry_seconds ?? 1);
      return null;
    }
    return this.#settle(lane, letter);
  }

  /** A new socket, the same identity: drops what is applied and sends the rest again. Returns the rows settled. */
  reconnect(applied: readonly number[]): LeaseRows[] {
    const settled: LeaseRows[] = [];
    this.#lanes.forEach((lane, shard) => {
      this.#sequence = Math.max(this.#sequence, applied[shard] ?? 0);
      lane.retryAtMilliseconds = 0;
      for (const letter of [...lane.letters]) {
        letter.isSent = false;
        const rows = letter.push.sequence <= (applied[shard] ?? 0) ? this.#settle(lane, letter) : null;
        if (rows) settled.push(rows);
      }
    });
    return settled;
  }

  #settle(lane: Lane, letter: Letter): LeaseRows | null {
    lane.letters = lane.letters.filter((other) => other !== letter);
    letter.push.unanswered -= 1;
    return letter.push.unanswered === 0 ? letter.push.leases : null;
  }
}
