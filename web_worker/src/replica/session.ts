// Decides what a replica says in its conversation with a gateway, across reconnects. Returns actions; does no I/O.

import type { Device } from "@jax-js/jax";

import { unpack } from "../frames";
import {
  decodeFromGateway, FEATURES, VERSION, type Ack, type FromGateway, type FromReplica, type Grant, type Welcome,
} from "../protocol";
import type { Action, ItemOutcome, State } from "./actions";
import type { Batch, Chunk } from "./batches";
import { afterClose } from "./closing";
import { Counters } from "./counters";
import { Items, type RawData } from "./items";
import type { Random } from "./random";
import { Training } from "./training";

const FINISHED: Readonly<Record<string, string>> = {
  until: "The model has reached its goal. Thank you!",
  patience: "The model does not get better any more. Thank you!",
  epochs: "All the data has been trained. Thank you!",
  diverged: "The model has diverged, and the job has ended. Thank you for your help!",
  stopped: "The operator has stopped this job. Thank you for your help!",
};

/** The most leases that the protocol allows in `hello`. */
const MAX_LISTED = 64;

const end = (state: State): Action[] => [{ do: "end", state }];

/** One replica's conversation. Times are milliseconds of one monotonic clock. */
export class Session {
  readonly counters = new Counters();
  readonly #items = new Items();
  #welcome: Welcome | null = null;
  #training: Training | null = null;
  #isOpen = false;
  /** The run whose program is wanted: that of the last welcome. */
  #wantedRun: string | null = null;
  #isPrepared = false;
  /** Closes for a malformed frame since a gradient was last taken. */
  #refusals = 0;
  #gatewaysReason: string | null = null;
  #retrySeconds = 0;

  /** Where modules are not run, a job whose model is one gets no items either: another worker will send them. */
  constructor(readonly backend: Device, readonly random: Random, readonly runsModules = true, readonly trains = true) {}

  /** What the gateway has told of the run; null before it has. */
  get welcome(): Welcome | null {
    return this.#welcome;
  }

  get training(): Training | null {
    return this.#training;
  }

  /** Whether the gateway has welcomed this socket. */
  get isOpen(): boolean {
    return this.#isOpen;
  }

  /** Whether a minibatch can be computed now. */
  get isTraining(): boolean {
    return this.#isPrepared && (this.#training?.isReady ?? false);
  }

  /** Whether an answer to a gradient is due. */
  get isAwaiting(): boolean {
    return this.#training?.isAwaiting ?? false;
  }

  /** The first message on a new socket. */
  hello(): FromReplica {
    const { replica = null, run = null } = this.#welcome ?? {};
    const leases = this.#training?.held.slice(-MAX_LISTED) ?? [];
    return { type: "hello", protocol: VERSION, replica, run, backend: this.backend, features: [...FEATURES], leases };
  }

  receiveText(text: string, now: number): Action[] {
    return this.#receive(decodeFromGateway(text), now);
  }

  receiveFrame(data: ArrayBuffer): Action[] {
    this.#training?.fetched(unpack(new Uint8Array(data)));
    return [];
  }

  /** The socket is closed: what now? */
  closed(code: number): Action[] {
    this.#isOpen = false;
    this.#items.disconnected();
    this.#training?.disconnected();
    const closing = afterClose(code, this.#refusals);
    if (closing.then === "start anew") {
      // Which of the unanswered frames it was, nobody says: all are dropped, and their leases lapse.
      this.#refusals += 1;
      return this.#startAnew();
    }
    if (closing.then === "fail") return end({ state: "failed", message: this.#gatewaysReason ?? closing.message });
    if (closing.then === "finish") return end({ state: "finished", message: "The job has ended. Thank you!" });
    const atLeastSeconds = this.#retrySeconds;
    this.#retrySeconds = 0;
    return [{ do: "reconnect", atLeastSeconds }];
  }

  /** The program of this run is compiled. */
  prepared(run: string): void {
    if (this.#wantedRun === run) this.#isPrepared = true;
  }

  chunkLoaded(run: string, grant: Grant, chunk: Chunk): void {
    if (this.#welcome?.run === run) this.#training?.chunkLoaded(grant, chunk);
  }

  chunkFailed(run: string, grant: Grant, now: number): Action[] {
    return this.#welcome?.run === run ? (this.#training?.chunkFailed(grant, now) ?? []) : [];
  }

  /** The next minibatch, or null when there is nothing to train now. */
  next(now: number): { batch: Batch | null; actions: Action[] } {
    return this.#isPrepared && this.#training ? this.#training.next(now) : { batch: null, actions: [] };
  }

  /** A raw item is to be sent; `settle` is told what became of it. */
  collect(data: RawData, settle: (outcome: ItemOutcome) => void, now: number): Action[] {
    return this.#items.add(data, settle, now);
  }

  tick(now: number): Action[] {
    return this.#isOpen ? [...(this.#training?.tick(now) ?? []), ...this.#items.send(now)] : [];
  }

  get tickAtMilliseconds(): number | null {
    if (!this.#isOpen) return null;
    const times = [this.#training?.tickAtMilliseconds ?? null, this.#items.retryAtMilliseconds].filter((at) => at !== null);
    return times.length === 0 ? null : Math.min(...times);
  }

  /** What to say before leaving at once. */
  stop(): Action[] {
    return this.#isOpen ? (this.#training?.release() ?? []) : [];
  }

  #receive(message: FromGateway, now: number): Action[] {
    switch (message.type) {
      case "welcome": return this.#welcomed(message, now);
      case "ack": return this.#answered(message, now);
      case "leased": return this.#training?.granted(message.leases, now) ?? [];
      case "wait": return this.#training?.waited(message.seconds, message.reason, now) ?? [];
      case "item_answer": return this.#items.answered(message, now);
      case "finished": return end({ state: "finished", message: FINISHED[message.reason] ?? "The job has ended. Thank you!" });
      case "error":
        this.#gatewaysReason = message.message;
        this.#retrySeconds = message.retry_seconds ?? 0;
        return [];
    }
  }

  #answered(ack: Ack, now: number): Action[] {
    if (ack.reason === "expired") return this.#startAnew();
    if (ack.status === "accepted" || ack.status === "duplicate") this.#refusals = 0;
    return this.#training?.answered(ack, now) ?? [];
  }

  #welcomed(welcome: Welcome, now: number): Action[] {
    const { run, replica } = this.#welcome ?? {};
    this.#welcome = welcome;
    this.#isOpen = true;
    this.#gatewaysReason = null;
    const prepare: Action[] = this.#wantedRun === welcome.run || !this.trains ? [] : [{ do: "prepare", welcome }];
    if (prepare.length > 0) this.#isPrepared = false;
    this.#wantedRun = welcome.run;
    // Gradients are numbered by identity: those of another one would be counted as new ones of this one.
    if (run !== welcome.run || replica !== welcome.replica || !this.#training) {
      this.#training = new Training(welcome, this.counters, this.random, this.trains);
    }
    const items = this.runsModules || welcome.model !== "module" ? this.#items.connected(welcome, now) : [];
    return [...prepare, ...this.#training.connected(welcome, now), ...items];
  }

  #startAnew(): Action[] {
    this.#isOpen = false;
    this.#items.disconnected();
    this.#welcome = null;
    this.#training = null;
    return [{ do: "reconnect", atLeastSeconds: 0 }];
  }
}
