// The public module: `import { Replica } from "https://gateway/worker.js"`. All the work is done in a Web Worker.

import type { AskedRows, Numbers } from "./asked-rows";
import { PredictionError, type PredictionReason } from "./errors";
import type { Result } from "./executor/predictor";
import { Questions } from "./questions";
import type { ItemOutcome, Progress, State } from "./replica/actions";
import type { Backend } from "./replica/device";
import type { RawData } from "./replica/items";
import { Sandbox, type Host } from "./sandbox";
import type { FromWorker, ToWorker } from "./worker-messages";

export type { AskedRows, Backend, ItemOutcome, Numbers, PredictionReason, Progress, Result, State };
export { PredictionError };
export type { StateName } from "./replica/actions";

/** What `new Replica` takes. */
export interface ReplicaOptions {
  /** The job's name; by default the newest one that runs. */
  readonly job?: string;
  /** The gateway's address; by default the one this module came from. */
  readonly url?: string;
  /** Where to compute; by default WebGPU where there is a real GPU, WebAssembly otherwise. */
  readonly backend?: Backend;
  /**
   * Whether a job's model that is an ES module runs in a sandbox, an origin of its own without cookies, storage and network; by
   * default where the page is of another origin than the gateway. Browsers give a sandbox no WebGPU. Other models are no code.
   */
  readonly sandbox?: boolean;
  /** Whether it trains, as by default. One that does not can be asked what the model says, and loads parameters only then. */
  readonly train?: boolean;
}

/** The events of a Replica. */
export interface ReplicaEvents {
  /** What the replica is doing changed. */
  state: CustomEvent<State>;
  /** How far it has come; about five times a second while it trains. */
  progress: CustomEvent<Progress>;
  /** The job has ended. */
  finished: CustomEvent<State>;
}

/** Twice what the worker waits for the gateway's farewell: then it hangs, and is ended all the same. */
const TERMINATE_MILLISECONDS = 600;

const ENDED: readonly string[] = ["finished", "stopped", "failed"];

/** A raw item that has no answer yet. */
interface Unanswered {
  readonly data: RawData;
  readonly resolve: (outcome: ItemOutcome) => void;
  readonly reject: (error: Error) => void;
}

/** Bytes as they are now, or JSON text. Throws TypeError for what is neither. */
function rawData(item: unknown): RawData {
  if (item instanceof ArrayBuffer) return new Uint8Array(item.slice(0));
  if (ArrayBuffer.isView(item)) return new Uint8Array(item.buffer, item.byteOffset, item.byteLength).slice();
  const text = JSON.stringify(item) as string | undefined;
  if (text === undefined) throw new TypeError(`a raw item is bytes or a JSON value, got ${typeof item}`);
  // Half a character, as of an emoji that was cut, is no JSON to others: the gateway would end this replica.
  return text.replace(/\\\\|\\ud[89a-f][0-9a-f]{2}/g, (escape) => (escape === "\\\\" ? escape : "\ufffd"));
}

/** The directory that a module came from, as an address that ends with a slash. */
const directory = (url: string): string => new URL(".", url).href;

/**
 * One copy of a job's model that trains in this browser.
 *
 * `start` resolves when the gateway has welcomed it (or `stop` was called before) and rejects when it cannot take part.
 * `stop` is immediate. A replica runs once: to take part again, make a new one.
 */
export class Replica extends EventTarget {
  readonly #options: ReplicaOptions;
  readonly #base: string;
  #worker: Host | null = null;
  #started: Promise<void> | null = null;
  #settle: { resolve: () => void; reject: (error: Error) => void } | null = null;
  #state: State = { state: "stopped", message: "Not started." };
  #isStopping = false;
  #isEnded = false;
  /** Kept here, as the worker may be replaced by a sandbox. */
  readonly #unanswered = new Map<number, Unanswered>();
  #lastKey = 0;
  readonly #questions = new Questions((message) => this.#tell(message));
  /** Gives the Blob's memory back: it has to live until the worker has read it. */
  #forgetAddress: () => void = () => undefined;

  constructor(options: ReplicaOptions = {}) {
    super();
    this.#options = options;
    this.#base = options.url === undefined ? directory(import.meta.url) : directory(`${options.url.replace(/\/+$/, "")}/`);
  }

  /** What it is doing. */
  get state(): State {
    return this.#state;
  }

  /** Starts to take part, unless it was stopped before. */
  start(): Promise<void> {
    if (this.#isStopping) return Promise.resolve();
    this.#started ??= new Promise((resolve, reject) => {
      this.#settle = { resolve, reject };
      this.#launch();
    });
    return this.#started;
  }

  /** Gives back what was not trained, and ends. */
  stop(): void {
    const hasEnded = this.#started !== null && !this.#worker;
    if (hasEnded || this.#isStopping) return;
    this.#isStopping = true;
    this.#tell({ type: "stop" });
    setTimeout(() => this.#terminate(), TERMINATE_MILLISECONDS);
    this.#show({ state: "stopped", message: "Stopped. Thank you for your help!" });
  }

  /**
   * Sends raw data of an interaction, bytes or any JSON value, for the job's `preprocess`; resolves with what became of it. It is
   * kept until it is answered and sent again after a reconnect, to any gateway. Rejects when the replica ends before, and for
   * what is neither bytes nor JSON.
   */
  sendRaw(item: unknown): Promise<ItemOutcome> {
    return new Promise((resolve, reject) => {
      if (this.#isEnded) throw new Error(`The replica has ended: ${this.#state.message}`);
      const key = ++this.#lastKey;
      const data = rawData(item);
      this.#unanswered.set(key, { data, resolve, reject });
      this.#tell({ type: "raw", key, data });
    });
  }

  /**
   * What the model says of rows, by the names that the job's `predict` gives: computed on this device, with the newest parameters,
   * between two minibatches. Arrays have the names of the job's data; each holds one row or several, flat or nested. Asked before
   * the replica has started, it is answered once it has.
   *
   * @throws PredictionError as a rejection: the rows are not such as the job has, or it gives no predictions, or the replica ends
   */
  predict(rows: AskedRows): Promise<Record<string, Result>> {
    return this.#questions.ask(rows);
  }

  override addEventListener<K extends keyof ReplicaEvents>(
    type: K, listener: (event: ReplicaEvents[K]) => void, options?: boolean | AddEventListenerOptions,
  ): void;
  override addEventListener(
    type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | AddEventListenerOptions,
  ): void;
  override addEventListener(type: string, listener: never, options?: boolean | AddEventListenerOptions): void {
    super.addEventListener(type, listener, options);
  }

  #launch(): void {
    // A Worker has to come from the page's own origin; a module that it imports may come from anywhere.
    const source = `import ${JSON.stringify(`${this.#base}assets/replica-worker.js`)};`;
    const address = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
    this.#forgetAddress = () => URL.revokeObjectURL(address);
    this.#begin(new Worker(address, { type: "module", name: "CrowdLearn replica" }));
    globalThis.addEventListener("online", this.#online);
  }

  #begin(worker: Host): void {
    this.#worker = worker;
    worker.onmessage = ({ data }) => this.#hear(data);
    worker.onerror = () => {
      if (this.#isStopping) this.#terminate();
      else this.#show({ state: "failed", message: "The worker could not be loaded. Is the service there?" });
    };
    const { job = null, backend = "auto", train: trains = true } = this.#options;
    const runsModules = worker instanceof Sandbox || this.#runsModules;
    this.#tell({ type: "start", base: this.#base, job, backend, runsModules, trains });
    for (const [key, { data }] of this.#unanswered) this.#tell({ type: "raw", key, data });
    this.#questions.repeat();
  }

  /** The job's model is a program of its author: this page's cookies, storage and network are not for it. */
  #isolate(): void {
    if (this.#isStopping) return;
    this.#worker?.terminate();
    this.#begin(new Sandbox(this.#base));
  }

  get #runsModules(): boolean {
    const { sandbox = new URL(this.#base).origin !== globalThis.origin } = this.#options;
    return !sandbox;
  }

  readonly #online = (): void => this.#tell({ type: "online" });

  #tell(message: ToWorker): void {
    this.#worker?.postMessage(message);
  }

  #hear(message: FromWorker): void {
    this.#forgetAddress();
    if (message.type === "welcomed") this.#settle?.resolve();
    else if (message.type === "gone") this.#terminate();
    else if (message.type === "module") this.#isolate();
    else if (message.type === "answered") this.#answered(message.key, message.outcome);
    else if (message.type === "predicted" || message.type === "unpredicted") this.#questions.hear(message);
    else if (message.type === "progress") this.dispatchEvent(new CustomEvent("progress", { detail: message.progress }));
    else if (!this.#isStopping) this.#show(message.state);
  }

  #answered(key: number, outcome: ItemOutcome): void {
    this.#unanswered.get(key)?.resolve(outcome);
    this.#unanswered.delete(key);
  }

  #giveUpItems(): void {
    for (const { reject } of this.#unanswered.values()) reject(new Error(`The replica ended before the item was answered: ${this.#state.message}`));
    this.#unanswered.clear();
  }

  #show(state: State): void {
    this.#state = state;
    this.dispatchEvent(new CustomEvent("state", { detail: state }));
    if (state.state === "finished") this.dispatchEvent(new CustomEvent("finished", { detail: state }));
    if (!ENDED.includes(state.state)) return;
    this.#isEnded = true;
    this.#giveUpItems();
    this.#questions.end(state.message);
    // Whoever stops a replica before it is welcome has not met an error.
    if (state.state === "stopped") this.#settle?.resolve();
    else this.#settle?.reject(new Error(state.message));
    if (!this.#isStopping) this.#terminate();
  }

  #terminate(): void {
    globalThis.removeEventListener("online", this.#online);
    this.#worker?.terminate();
    this.#worker = null;
    this.#forgetAddress();
  }
}
