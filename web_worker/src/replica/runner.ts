// Performs what a session decides: socket, downloads, timers. Itself it decides only when to try again.

import type { Device } from "@jax-js/jax";

import { reasonOf } from "../errors";
import { Executor } from "../executor/executor";
import { ModuleModel } from "../executor/module";
import { encode, type Grant, type Welcome } from "../protocol";
import type { Action, ItemOutcome, Progress, State } from "./actions";
import { Backoff } from "./backoff";
import { ChunkCache } from "./chunk-cache";
import { Chunks } from "./chunks";
import { Connection } from "./connection";
import { chooseDevice, type Backend } from "./device";
import { insist } from "./downloads";
import { NoJobError, type Gateway } from "./gateway";
import type { RawData } from "./items";
import { importModule } from "./module-import";
import { Predictions, type Prediction } from "./predictions";
import { Random } from "./random";
import type { Reporter } from "./reporter";
import { hurry, now, pause, pauseBeforeRetry, Timer } from "./scheduling";
import { Session } from "./session";
import { Silence } from "./silence";
import { Trainer } from "./trainer";

/** A connection that lasted so long was a good one: after it, attempts start from the shortest pause again. */
const GOOD_CONNECTION_MILLISECONDS = 5000;

/** How long `stop` waits for the gateway to confirm the close, so that the leases given back do arrive. */
const FAREWELL_MILLISECONDS = 300;

/** The close code of a line that broke without a word. */
const ABNORMAL = 1006;

const CONNECTING: State = { state: "connecting", message: "Connecting to the service." };
const AWAY: State = { state: "connecting", message: "The service does not answer. Trying again." };
const PREPARING: State = { state: "preparing", message: "Fetching the model and preparing it for this browser." };
const WATCHING: State = { state: "waiting", message: "Ready. This device looks on, and does not train." };
const STOPPED: State = { state: "stopped", message: "Stopped. Thank you for your help!" };
const MISUNDERSTOOD = "The service sent what this page does not understand. Please reload the page.";

/** One replica of one job, from its first connection to its end. */
export class Runner {
  readonly #random = new Random(...crypto.getRandomValues(new Uint32Array(4)));
  readonly #uniform = (): number => this.#random.uniform();
  readonly #backoff = new Backoff(this.#uniform);
  readonly #ticker = new Timer(() => this.#tick());
  readonly #silence = new Silence(() => this.#giveUp());
  readonly #chunks: Chunks;
  readonly #session: Session;
  readonly #trainer: Trainer;
  readonly #predictions: Predictions;
  #connection: Connection | null = null;
  /** The welcome whose program is wanted: that of the newest run. */
  #preparing: Welcome | null = null;
  #isEnded = false;
  #bytesUp = 0;
  #bytesDown = 0;

  /** `welcomed` is called at every welcome; `leave`, if there is one, where the model is a module: it is not run here. */
  constructor(
    readonly gateway: Gateway,
    readonly job: string,
    device: Executor["device"],
    readonly reporter: Reporter,
    readonly welcomed: () => void,
    readonly leave: (() => void) | null = null,
    readonly trains = true,
  ) {
    this.#session = new Session(device, this.#random, leave === null, trains);
    this.#chunks = new Chunks(gateway, this.#uniform, ChunkCache.open(this.#uniform));
    const perform = (actions: readonly Action[]): void => this.#perform(actions);
    this.#predictions = new Predictions(this.#session, {
      device, perform, wake: () => this.#trainer.wake(),
      fetch: (path, isWanted) => this.#fetch(() => gateway.forward(path), () => !this.#isEnded && isWanted()),
    });
    this.#trainer = new Trainer(this.#session, reporter, perform, () => this.#progress(), this.#predictions);
  }

  /** Takes part until the job ends, `stop` is called, or it cannot go on. */
  async run(): Promise<void> {
    this.#connect();
    try {
      await this.#trainer.run();
    } catch (error) {
      console.error(error);
      this.#end({ state: "failed", message: `The gradient could not be computed: ${reasonOf(error)}` });
    }
  }

  /** Gives the leases back and leaves; resolves when the gateway has them, or a moment later. */
  async stop(): Promise<void> {
    const connection = this.#connection;
    this.#perform(this.#session.stop());
    this.#end(STOPPED);
    if (connection) await Promise.race([connection.done, pause(FAREWELL_MILLISECONDS)]);
  }

  /** Sends a raw item, again if need be; `settle` is told what became of it. */
  sendRaw(data: RawData, settle: (outcome: ItemOutcome) => void): void {
    this.#perform(this.#session.collect(data, settle, now()));
  }

  /** Asks what the model says of rows; `settle` gets the answer, once. */
  predict(rows: unknown, settle: (prediction: Prediction) => void): void {
    this.#predictions.ask(rows, settle);
  }

  /** The browser is online again: failures until now tell nothing of the service. */
  online(): void {
    this.#backoff.reset();
    hurry(this.#uniform);
  }

  #connect(): void {
    if (this.#isEnded) return;
    const connection: Connection = new Connection(this.gateway.open(this.job), {
      opened: () => {
        connection.send(encode(this.#session.hello()));
        this.#silence.expect();
      },
      text: (data) => this.#receive(connection, () => this.#text(data)),
      frame: (data) => this.#receive(connection, () => this.#session.receiveFrame(data)),
      closed: (code) => this.#closed(connection, code),
    });
    this.#connection = connection;
  }

  #tick(): void {
    this.#perform(this.#session.tick(now()));
    this.#trainer.wake();
  }

  #text(data: string): Action[] {
    const wasOpen = this.#session.isOpen;
    const actions = this.#session.receiveText(data, now());
    if (!wasOpen && this.#session.isOpen) {
      this.welcomed();
      if (!this.trains) this.reporter.state(WATCHING);
    }
    return actions;
  }

  #receive(connection: Connection, read: () => Action[]): void {
    if (connection !== this.#connection) return;
    this.#silence.end();
    try {
      this.#perform(read());
      if (this.#session.isAwaiting) this.#silence.expect();
      this.#trainer.wake();
    } catch (error) {
      // One of the two is too old, and going on would not mend it.
      console.error(error);
      this.#end({ state: "failed", message: MISUNDERSTOOD });
    }
  }

  #closed(connection: Connection, code: number): void {
    if (connection !== this.#connection) return;
    if (connection.lastedMilliseconds > GOOD_CONNECTION_MILLISECONDS) this.#backoff.reset();
    this.#perform(this.#session.closed(code));
  }

  #giveUp(): void {
    console.warn("The gateway has not answered for half a minute.");
    if (this.#connection) this.#closed(this.#connection, ABNORMAL);
  }

  #hangUp(): void {
    this.#silence.end();
    this.#bytesUp += this.#connection?.bytesUp ?? 0;
    this.#bytesDown += this.#connection?.bytesDown ?? 0;
    this.#connection?.close();
    this.#connection = null;
  }

  async #reconnect(atLeastSeconds: number): Promise<void> {
    this.#hangUp();
    this.reporter.state(AWAY);
    // What the gateway has asked for is waited for, also by who was offline meanwhile.
    if (atLeastSeconds > 0) await pause(1000 * atLeastSeconds);
    await pauseBeforeRetry(1000 * this.#backoff.nextSeconds());
    this.#connect();
  }

  #perform(actions: readonly Action[]): void {
    for (const action of actions) this.#act(action);
    const at = this.#isEnded ? null : this.#session.tickAtMilliseconds;
    if (at === null) this.#ticker.clear();
    else this.#ticker.set(at - now());
  }

  #act(action: Action): void {
    switch (action.do) {
      case "send": return this.#connection?.send(encode(action.message));
      case "sendFrame": return this.#sendFrame(action.bytes);
      case "prepare": return void this.#prepare(action.welcome);
      case "loadChunk": return void this.#loadChunk(action.welcome, action.grant);
      case "reconnect": return void this.#reconnect(action.atLeastSeconds);
      case "end": return this.#end(action.state);
    }
  }

  #sendFrame(bytes: Uint8Array<ArrayBuffer>): void {
    this.#connection?.send(bytes);
    this.#silence.expect();
  }

  async #prepare(welcome: Welcome): Promise<void> {
    this.#preparing = welcome;
    this.reporter.state(PREPARING);
    const isWanted = (): boolean => !this.#isEnded && this.#preparing === welcome;
    try {
      const make = await this.#fetchModel(welcome, isWanted);
      if (!make) return;
      this.reporter.state(PREPARING);
      const executor = await make(this.#session.backend);
      // A slow preparation must not replace the executor of a run that came later, nor outlive the replica.
      if (isWanted()) this.#prepared(welcome, executor);
      else executor.dispose();
    } catch (error) {
      console.error(error);
      if (isWanted()) this.#end({ state: "failed", message: `This model does not run here: ${reasonOf(error)}` });
    }
  }

  /** What makes the executor of the run's model; null when it is no longer wanted. */
  async #fetchModel(welcome: Welcome, isWanted: () => boolean): Promise<((device: Device) => Promise<Executor>) | null> {
    if (welcome.model === "module") {
      if (this.leave) {
        this.leave();
        return null;
      }
      const source = await this.#fetch(() => this.gateway.module(welcome.program), isWanted);
      if (source === null) return null;
      const model = new ModuleModel(await importModule(source), welcome);
      return (device) => Executor.ofModule(model, device);
    }
    const program = await this.#fetch(() => this.gateway.program(welcome.program), isWanted);
    return program && ((device) => Executor.create(program, device));
  }

  #fetch<T>(get: () => Promise<T>, isWanted: () => boolean): Promise<T | null> {
    return insist(get, this.#uniform, isWanted, (error) => {
      console.warn(error);
      this.reporter.state(AWAY);
    });
  }

  #prepared(welcome: Welcome, executor: Executor): void {
    this.#trainer.executor?.dispose();
    this.#trainer.executor = executor;
    this.#session.prepared(welcome.run);
    this.#trainer.wake();
  }

  async #loadChunk(welcome: Welcome, grant: Grant): Promise<void> {
    const { run } = welcome;
    try {
      this.#session.chunkLoaded(run, grant, await this.#chunks.get(welcome, grant));
    } catch (error) {
      console.warn(error);
      this.#perform(this.#session.chunkFailed(run, grant, now()));
    }
    this.#trainer.wake();
  }

  #end(state: State): void {
    if (this.#isEnded) return;
    this.#isEnded = true;
    this.#ticker.clear();
    this.#hangUp();
    this.#trainer.end();
    this.#predictions.end(state.message);
    this.reporter.end(this.#progress(), state);
  }

  #progress(): Progress {
    const { counters, training, backend } = this.#session;
    const { bytesUp = 0, bytesDown = 0 } = this.#connection ?? {};
    return {
      steps: counters.steps, rows: counters.rows, loss: counters.loss, pushes: counters.pushes,
      acknowledged: counters.acknowledged, busy: counters.busy, rejected: counters.rejected, dropped: counters.dropped,
      stepMilliseconds: counters.stepMilliseconds, versions: training ? [...training.parameters.versions] : [], backend,
      bytesUp: this.#bytesUp + bytesUp, bytesDown: this.#bytesDown + bytesDown + this.#chunks.bytes,
    };
  }
}

/** Finds the job (null: the newest that runs) and a device for it, waiting for the service if it is away. */
export async function prepareRunner(
  gateway: Gateway, job: string | null, backend: Backend, reporter: Reporter, welcomed: () => void, leave: (() => void) | null,
  trains: boolean,
): Promise<Runner> {
  reporter.state(CONNECTING);
  const backoff = new Backoff(Math.random);
  for (;;) {
    try {
      if (job !== null) await gateway.requireJob(job);
      const name = job ?? (await gateway.newestJob());
      return new Runner(gateway, name, await chooseDevice(backend), reporter, welcomed, leave, trains);
    } catch (error) {
      if (error instanceof NoJobError) throw error;
      console.warn(error);
      reporter.state(AWAY);
      await pauseBeforeRetry(1000 * backoff.nextSeconds());
    }
  }
}
