// Keeps raw items until they are answered, and says which to send, in order: go back N. Sends nothing.
// The twin of crowdlearn/replica/items.py.

import { packItem } from "../frames";
import type { ItemAnswer, StreamLimits, Welcome } from "../protocol";
import { send, type Action, type ItemOutcome } from "./actions";

/** When to try again after a `busy` that does not say. */
const DEFAULT_RETRY_SECONDS = 1;

const NO_ITEMS: ItemOutcome = { status: "rejected", rows: 0, why: "this job takes no raw items" };
const LOST: ItemOutcome = {
  status: "rejected", rows: 0, why: "the service has forgotten this replica, and nobody knows whether it took the item",
};

/** An item: JSON text, or bytes. */
export type RawData = string | Uint8Array;

interface Raw {
  readonly data: RawData;
  readonly size: number;
  readonly settle: (outcome: ItemOutcome) => void;
  /** Null before it is sent for the first time. */
  number: number | null;
  /** Whether it is on its way over this socket. */
  isSent: boolean;
}

const size = (data: RawData): number => (typeof data === "string" ? new TextEncoder().encode(data).length : data.byteLength);

/** The unanswered items of one replica. Times are milliseconds of one monotonic clock. */
export class Items {
  #unanswered: Raw[] = [];
  #last = 0;
  #identity: string | null = null;
  #limits: StreamLimits | null = null;
  #isConnected = false;
  #retryAtMilliseconds = 0;

  /** Takes an item; `settle` is called once, with what became of it. */
  add(data: RawData, settle: (outcome: ItemOutcome) => void, now: number): Action[] {
    this.#unanswered.push({ data, size: size(data), settle, number: null, isSent: false });
    return this.send(now);
  }

  /** The gateway has said `welcome`: what is unanswered is sent, again or for the first time. */
  connected(welcome: Welcome, now: number): Action[] {
    const identity = `${welcome.run} ${welcome.replica}`;
    if (identity !== this.#identity) {
      // Under another identity what was taken would be taken as another item.
      this.#settle(({ number }) => number !== null, LOST);
      this.#identity = identity;
      this.#last = 0;
    }
    this.#isConnected = true;
    this.#limits = welcome.stream;
    this.#retryAtMilliseconds = 0;
    if (!this.#limits) this.#settle(() => true, NO_ITEMS);
    for (const raw of this.#unanswered) raw.isSent = false;
    return this.send(now);
  }

  /** The socket is gone: nothing is sent until `connected`. */
  disconnected(): void {
    this.#isConnected = false;
  }

  /** When `send` will have something to send that it has not now, or null. */
  get retryAtMilliseconds(): number | null {
    const waits = this.#isConnected && this.#unanswered.some(({ isSent }) => !isSent);
    return waits && this.#room > 0 ? this.#retryAtMilliseconds : null;
  }

  /** What to send now; it counts as sent. */
  send(now: number): Action[] {
    if (!this.#isConnected || !this.#limits || now < this.#retryAtMilliseconds) return [];
    const { max_item_bytes: most } = this.#limits;
    for (const raw of this.#unanswered.filter(({ isSent, size }) => !isSent && size > most)) {
      this.#settle((each) => each === raw, { status: "rejected", rows: 0, why: `an item has at most ${most} bytes, got ${raw.size}` });
    }
    return this.#unanswered.filter(({ isSent }) => !isSent).slice(0, this.#room).map((raw) => this.#launch(raw));
  }

  /** The gateway has answered an item. */
  answered({ number, status, rows, why, retry_seconds }: ItemAnswer, now: number): Action[] {
    if (status === "busy") {
      // Those after it are told to come at once: with it.
      this.#retryAtMilliseconds = Math.max(this.#retryAtMilliseconds, now + 1000 * (retry_seconds ?? DEFAULT_RETRY_SECONDS));
      for (const raw of this.#unanswered) {
        if (raw.number === null || raw.number >= number) raw.isSent = false;
      }
    } else {
      this.#settle((raw) => raw.number === number, { status, rows, why });
    }
    return this.send(now);
  }

  get #room(): number {
    return (this.#limits?.items_in_flight ?? 0) - this.#unanswered.filter(({ isSent }) => isSent).length;
  }

  #launch(raw: Raw): Action {
    const number = (raw.number ??= ++this.#last);
    raw.isSent = true;
    if (typeof raw.data !== "string") return { do: "sendFrame", bytes: packItem(number, raw.data) };
    return send({ type: "item", number, json: JSON.parse(raw.data) as unknown });
  }

  #settle(isSettled: (raw: Raw) => boolean, outcome: ItemOutcome): void {
    const settled = this.#unanswered.filter(isSettled);
    this.#unanswered = this.#unanswered.filter((raw) => !settled.includes(raw));
    for (const { settle } of settled) settle(outcome);
  }
}
