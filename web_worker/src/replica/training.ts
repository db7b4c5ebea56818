// Decides how one run is trained: what to lease, step, push, fetch and when. Returns actions; touches no socket and no clock.
// Without a welcomed socket it says nothing: a later gradient before the resent earlier ones would make those duplicates.

import { BY_NAME, type Codec } from "../codecs";
import { NotFiniteError } from "../errors";
import { HEADER_BYTES, Kind, pack, type Frame } from "../frames";
import { arraysOf, holds, type Part } from "../precision";
import type { Ack, FromReplica, Grant, Welcome } from "../protocol";
import { Accumulator, type Sum } from "./accumulator";
import { send, type Action, type State } from "./actions";
import { Ahead } from "./ahead";
import { Batches, type Batch, type Chunk } from "./batches";
import type { Counters } from "./counters";
import { Leases } from "./leases";
import { Outbox, type LeaseRows } from "./outbox";
import { Parameters, requireUsable } from "./parameters";
import { Random } from "./random";

/** So many useless gradients in a row, each from fresh parameters, mean that the model has diverged for good. */
const MAX_USELESS_STEPS = 20;

/** How long a chunk that could not be fetched is left to others before more are asked for. */
const CHUNK_RETRY_SECONDS = 5;

/** The most leases that the protocol allows in one `release`. */
const MAX_RELEASED = 64;

/** The most minibatches that the protocol allows in one `dropped`. */
const MAX_DROPPED = 1000;

const DIVERGED: State = { state: "failed", message: "The model gives no finite numbers any more; it has diverged." };

/** The state of one replica in one run. Times are milliseconds of one monotonic clock. */
export class Training {
  readonly parameters: Parameters;
  readonly #welcome: Welcome;
  readonly #arrays: readonly (readonly Part[])[];
  readonly #batches: Batches;
  readonly #accumulator: Accumulator;
  readonly #outbox: Outbox;
  readonly #leases = new Leases();
  readonly #loading = new Set<number>();
  readonly #noise: Random;
  readonly #uniforms: Float32Array;
  #stepsToFetch = 0;
  #askedFor: string | null = null;
  #asks = 0;
  readonly #ahead = new Ahead();
  #uselessSteps = 0;
  #isStarving = true;
  #isConnected = false;
  /** Leases trained whole of which the gateway has not been told. */
  #trained: number[] = [];
  /** Minibatches dropped of which the gateway has not been told. */
  #dropped = 0;
  /** Leases whose chunks could not be had while the socket was away: they are still this replica's. */
  #failed: number[] = [];
  /** What the gateway of this socket understands. While a service is upgraded, the next may be of another version. */
  #features: readonly string[] = [];

  /** One that does not train takes no rows, and fetches only when somebody wants the newest parameters. */
  constructor(welcome: Welcome, readonly counters: Counters, noise: Random, readonly trains = true) {
    this.#welcome = welcome;
    this.#noise = noise;
    this.parameters = new Parameters(welcome.shards, welcome.training);
    this.#arrays = welcome.shards.map((shard) => arraysOf(welcome.parameters, shard));
    this.#batches = new Batches(welcome.batch);
    this.#accumulator = new Accumulator(this.parameters.values.length);
    this.#outbox = new Outbox(welcome.shards.length, welcome.credit);
    this.#uniforms = new Float32Array(Math.max(...welcome.shards.map(({ size }) => size)));
  }

  /** Why the gateway gave no chunk when it was last asked, if it said so. */
  get waitReason(): string | null {
    return this.#leases.reason;
  }

  /** The leases that are not trained yet. */
  get held(): readonly number[] {
    return this.#leases.held;
  }

  /** Whether there is something to train with. */
  get isReady(): boolean {
    return this.parameters.complete && this.#hasRows;
  }

  /** How often parameters were asked for. */
  get asks(): number {
    return this.#asks;
  }

  /** Asks for parameters that are newer than those here, unless that question stands. */
  refresh(): Action[] {
    return this.#fetch();
  }

  /** The gateway has said `welcome`, for the first time or again under the same identity. */
  connected(welcome: Welcome, now: number): Action[] {
    this.#isConnected = true;
    this.#askedFor = null;
    this.#features = welcome.features;
    this.#leases.disconnect();
    this.#outbox.credit = welcome.credit;
    const settled = this.#outbox.reconnect(welcome.applied);
    this.counters.acknowledged += settled.length;
    for (const rows of settled) this.#settle(rows);
    // What is sent again goes before the sum that grew meanwhile: sequence numbers only increase.
    return [...this.#giveUpFailed(), ...this.#tellTrained(), ...(this.trains ? this.#fetch() : []), ...this.tick(now)];
  }

  /** The socket is gone: until `connected` nothing is sent, asked or marked as sent. */
  disconnected(): void {
    this.#isConnected = false;
    this.#leases.disconnect();
  }

  granted(grants: readonly Grant[], now: number): Action[] {
    this.#leases.grant(grants);
    for (const { lease } of grants) this.#loading.add(lease);
    const load = grants.map((grant): Action => ({ do: "loadChunk", welcome: this.#welcome, grant }));
    // While nothing was trained, nothing was fetched: the chunk and newer parameters now travel together.
    return [...load, ...this.#fetch(), ...this.#askForChunks(now)];
  }

  waited(seconds: number, reason: string | null, now: number): Action[] {
    this.#leases.wait(seconds, reason, now);
    return [];
  }

  chunkLoaded({ lease, epoch, chunk }: Grant, rows: Chunk): void {
    if (!this.#loading.delete(lease)) return;
    this.#batches.add(lease, rows, [this.#welcome.training.seed, epoch, chunk]);
  }

  chunkFailed({ lease }: Grant, now: number): Action[] {
    if (!this.#loading.delete(lease)) return [];
    this.#leases.drop(lease, CHUNK_RETRY_SECONDS, now);
    this.#failed.push(lease);
    return this.#giveUpFailed();
  }

  /** Parameters of one shard came; throws when they are not fit for use. */
  fetched(frame: Frame): void {
    this.parameters.offer(frame);
  }

  answered(ack: Ack, now: number): Action[] {
    if (ack.status === "busy") this.counters.busy += 1;
    if (ack.status === "rejected") this.counters.rejected += 1;
    this.#ahead.answered(ack);
    const settled = this.#outbox.answer(ack, now);
    if (!settled) return this.#pushIfDue(now);
    this.counters.acknowledged += 1;
    this.#settle(settled);
    return [...this.#tellTrained(), ...this.#pushIfDue(now)];
  }

  /** Time has passed: asks again, sends again. */
  tick(now: number): Action[] {
    return [...this.#askForChunks(now), ...this.#sendFrames(now), ...this.#pushIfDue(now)];
  }

  /** Whether an answer to a gradient is due. */
  get isAwaiting(): boolean {
    return this.#outbox.isAwaiting;
  }

  /** When `tick` will next have something to do, or null. */
  get tickAtMilliseconds(): number | null {
    const { retryAtMilliseconds } = this.#outbox;
    const due = [this.#leases.askAtMilliseconds(this.#chunksInHand), retryAtMilliseconds, this.#ahead.expiresAtMilliseconds];
    const times = due.filter((time) => time !== null);
    return times.length === 0 ? null : Math.min(...times);
  }

  /** Adopts parameters if that is due, and gives the next minibatch, or null when there is nothing to train now. */
  next(now: number): { batch: Batch | null; actions: Action[] } {
    const isDue = this.#stepsToFetch === 0 || this.#isAhead(now);
    // Without rows nothing is fetched: a crowd that waits for work would load every version for nothing.
    const adopted = isDue && this.#hasRows ? this.#adoptAndFetch() : [];
    // Before another minibatch comes on top: what could not go out earlier may go now.
    const actions = [...adopted, ...this.#pushIfDue(now)];
    if (this.#mustWait(now) || !this.parameters.complete || !this.#hasRows) {
      this.#noteHunger();
      return { batch: null, actions: [...actions, ...this.#askForChunks(now)] };
    }
    if (this.#stepsToFetch === 0) this.#stepsToFetch = this.#welcome.training.n_fetch;
    // Not at once: a shard that is replaced before the next minibatch needs no step.
    this.parameters.settle();
    const batch = this.#batches.next() ?? this.#batches.flush();
    this.#isStarving = false;
    return { batch, actions: [...actions, ...this.#askForChunks(now)] };
  }

  /** A minibatch's gradient is here, computed from `parameters.values`. */
  stepped(batch: Batch, loss: number, gradient: Float32Array, now: number): Action[] {
    this.#stepsToFetch = Math.max(0, this.#stepsToFetch - 1);
    try {
      requireUsable(loss, gradient);
    } catch (error) {
      return this.#dropUseless(error, batch.leases, 1);
    }
    this.#uselessSteps = 0;
    this.counters.stepped(loss, batch.rows);
    this.#accumulator.add(gradient, loss, batch, this.parameters.versions);
    this.parameters.step(gradient);
    return this.#pushIfDue(now);
  }

  /** Gives everything back; nothing of it will be trained here. */
  release(): Action[] {
    const { held } = this.#leases;
    const messages = Math.ceil(held.length / MAX_RELEASED);
    return Array.from({ length: messages }, (_, i) => held.slice(i * MAX_RELEASED, (i + 1) * MAX_RELEASED)).flatMap(
      (leases) => this.#say({ type: "release", leases }),
    );
  }

  #giveUpFailed(): Action[] {
    if (!this.#isConnected || this.#failed.length === 0) return [];
    const leases = this.#failed.slice(-MAX_RELEASED);
    this.#failed = [];
    return [send({ type: "release", leases })];
  }

  get #chunksInHand(): number {
    return this.#loading.size + this.#batches.chunks;
  }

  // Once a hunger: it lasts while a chunk travels, and `next` is asked many times meanwhile.
  #noteHunger(): void {
    if (this.#hasRows || this.#isStarving || !this.parameters.complete) return;
    this.#isStarving = true;
    this.#leases.starve();
  }

  // Fewer rows than a minibatch wait for the next chunk, unless there is none.
  get #hasRows(): boolean {
    const least = this.#isLastInHand ? 1 : this.#welcome.batch.rows;
    return this.#batches.rows >= least;
  }

  get #isLastInHand(): boolean {
    return this.#leases.isDry && this.#loading.size === 0;
  }

  // An answer that is on its way is worth waiting for, with the minibatch that would complete a push still to compute: it
  // is then computed from newer parameters. A sum of more minibatches would move the model hardly further and use up the
  // job's epochs, so that more are summed only while a shard is busy or the network away.
  #mustWait(now: number): boolean {
    const { n_push, max_accumulate } = this.#welcome.training;
    const { minibatches } = this.#accumulator;
    // Whatever else holds: the gateway closes the socket of one who sums more.
    if (minibatches >= Math.max(n_push, max_accumulate)) return true;
    if (this.#outbox.isBusy || !this.#isConnected) return false;
    return minibatches >= n_push - 1 && (!this.#outbox.hasRoom || this.#isAhead(now));
  }

  // A replica faster than the way of its gradients and back would otherwise push many from nearly the same parameters.
  #isAhead(now: number): boolean {
    return this.#ahead.count(now) >= this.#welcome.training.max_ahead;
  }

  #say(message: FromReplica): Action[] {
    return this.#isConnected ? [send(message)] : [];
  }

  #askForChunks(now: number): Action[] {
    // Not even asked for: a question counts as asked, and none would answer it.
    if (!this.#isConnected || !this.trains) return [];
    const count = this.#leases.ask(this.#chunksInHand, now);
    return count === 0 ? [] : [send({ type: "lease", count })];
  }

  #adoptAndFetch(): Action[] {
    this.parameters.adopt();
    this.#ahead.adopted(this.parameters.versions[0] ?? 0);
    return this.#fetch();
  }

  // The same question twice would be answered no sooner: the first one stands until there is a newer version.
  #fetch(): Action[] {
    const have = this.parameters.have;
    if (!this.#isConnected || have.join() === this.#askedFor) return [];
    this.#askedFor = have.join();
    this.#asks += 1;
    return [send({ type: "fetch", have })];
  }

  #pushIfDue(now: number): Action[] {
    if (!this.#isConnected) return [];
    const { minibatches } = this.#accumulator;
    const isLast = this.#isLastInHand && this.#batches.rows === 0;
    const isDue = minibatches >= this.#welcome.training.n_push || (isLast && minibatches > 0);
    return isDue && this.#outbox.hasRoom ? [...this.#push(this.#accumulator.take(), now), ...this.#sendFrames(now)] : [];
  }

  #push(sum: Sum, now: number): Action[] {
    try {
      const frames = this.#welcome.shards.map((_, shard) => this.#encode(sum, shard));
      this.#ahead.pushed(this.#outbox.nextSequence, now);
      this.#outbox.add(frames, sum.leases);
      this.counters.pushes += 1;
      return [];
    } catch (error) {
      // Finite gradients may still have an infinite sum.
      return this.#dropUseless(error, sum.leases, sum.minibatches);
    }
  }

  #encode(sum: Sum, shard: number): Uint8Array<ArrayBuffer> {
    const { offset, size } = this.#welcome.shards[shard]!;
    const values = sum.gradient.subarray(offset, offset + size);
    const codec = this.#pushCodec(values, shard);
    const uniforms = this.#uniforms.subarray(0, size);
    if (codec.usesNoise) this.#noise.fill(uniforms);
    const payload = codec.encode(values, uniforms);
    return pack({
      kind: Kind.GRADIENT, codec: codec.number, shard, count: size, sequence: this.#outbox.nextSequence,
      version: sum.baseVersions[shard]!, loss: sum.loss, rows: sum.rows, minibatches: sum.minibatches, payload,
    });
  }

  #pushCodec(gradient: Float32Array, shard: number): Codec {
    const { training, max_frame_bytes } = this.#welcome;
    const codec = BY_NAME[training.push_codec];
    // int8 has a scale for each block, and holds every gradient.
    if (codec !== BY_NAME.f16 || holds("f16", gradient, this.#arrays[shard]!)) return codec;
    // A gateway that takes no such frame, or none so large, gets the halves, the largest of them cut.
    const fits = HEADER_BYTES + BY_NAME.f32.payloadBytes(gradient.length) <= max_frame_bytes;
    return fits && this.#features.includes("wide") ? BY_NAME.f32 : codec;
  }

  #sendFrames(now: number): Action[] {
    if (!this.#isConnected) return [];
    return this.#outbox.takeSendable(now).map((bytes) => ({ do: "sendFrame", bytes }));
  }

  // The rows count as trained: given back, they would come to the next replica and be as useless there, for ever.
  #dropUseless(error: unknown, leases: LeaseRows, minibatches: number): Action[] {
    if (!(error instanceof NotFiniteError)) throw error;
    this.counters.dropped += minibatches;
    this.#dropped += minibatches;
    this.#uselessSteps += 1;
    if (this.#uselessSteps >= MAX_USELESS_STEPS) {
      // Nobody else could tell the operator: the service has seen none of these gradients.
      const useless = this.#say({ type: "useless", minibatches: this.#uselessSteps });
      return [...this.#tellDropped(), ...useless, { do: "end", state: DIVERGED }];
    }
    this.parameters.forget();
    this.#stepsToFetch = 0;
    this.#settle(leases);
    return [...this.#tellTrained(), ...this.#fetch()];
  }

  #settle(leases: LeaseRows): void {
    this.#trained.push(...this.#leases.settle(leases));
  }

  // A lease may be trained whole while the socket is away: useless gradients settle rows without an answer.
  #tellTrained(): Action[] {
    if (!this.#isConnected) return [];
    const trained = this.#trained;
    this.#trained = [];
    return [...this.#tellDropped(), ...trained.map((lease) => send({ type: "trained", lease }))];
  }

  #tellDropped(): Action[] {
    // An older gateway would close the socket; a later one hears of them all.
    if (!this.#isConnected || !this.#features.includes("dropped")) return [];
    const actions: Action[] = [];
    for (; this.#dropped > 0; this.#dropped -= Math.min(MAX_DROPPED, this.#dropped)) {
      actions.push(send({ type: "dropped", minibatches: Math.min(MAX_DROPPED, this.#dropped) }));
    }
    return actions;
  }
}
