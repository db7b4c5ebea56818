// The local copy of the parameters: shards that arrive, local steps, versions. Knows no socket.

import { byNumber, isFinite } from "../codecs";
import { requireFit } from "../fit";
import { Kind, type Frame } from "../frames";
import type { CodecName, Shard } from "../protocol";
import { NotFiniteError } from "../errors";

/** A shard's version when nothing of it is here. */
const NONE = -1;

/** The flat vector and its shards' versions. */
export class Parameters {
  readonly values: Float32Array<ArrayBuffer>;
  readonly #versions: number[];
  readonly #arrived = new Map<number, Frame>();

  constructor(readonly shards: readonly Shard[], readonly codec: CodecName) {
    this.values = new Float32Array(shards.reduce((end, { offset, size }) => Math.max(end, offset + size), 0));
    this.#versions = shards.map(() => NONE);
  }

  /** For each shard the version that local values descend from. */
  get versions(): readonly number[] {
    return this.#versions;
  }

  /** For each shard the newest version here, adopted or not. */
  get have(): number[] {
    return this.#versions.map((version, shard) => this.#arrived.get(shard)?.version ?? version);
  }

  /** Whether there is something of every shard to train with. */
  get complete(): boolean {
    return this.have.every((version) => version !== NONE);
  }

  /** Keeps a shard that arrived until `adopt`; throws FrameError or NotFiniteError when it is not fit for use. */
  offer(frame: Frame): void {
    requireFit(frame, Kind.PARAMETERS, this.shards, this.codec).check(frame.payload, frame.count);
    this.#arrived.set(frame.shard, frame);
  }

  /** Replaces the local values of every shard that arrived, local steps included, as Downpour does. */
  adopt(): void {
    for (const [index, frame] of this.#arrived) {
      const { offset, size } = this.shards[index]!;
      byNumber(frame.codec).decode(frame.payload, this.values.subarray(offset, offset + size));
      this.#versions[index] = frame.version;
    }
    this.#arrived.clear();
  }

  /** One local step of gradient descent. */
  step(gradient: Float32Array, learningRate: number): void {
    const { values } = this;
    for (let i = 0; i < values.length; i++) values[i]! -= learningRate * gradient[i]!;
  }

  /** Forgets everything, so that all shards are fetched anew. */
  forget(): void {
    this.#versions.fill(NONE);
    this.#arrived.clear();
  }
}

/** Throws NotFiniteError unless loss and gradient are finite. */
export function requireUsable(loss: number, gradient: Float32Array): void {
  if (!Number.isFinite(loss)) throw new NotFiniteError(`expected a finite loss, got ${loss}`);
  if (!isFinite(gradient)) throw new NotFiniteError("expected a finite gradient, got NaN or infinity in it");
}
