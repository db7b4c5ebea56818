// Cuts chunks into shuffled minibatches of one size; rows left over carry over into the next chunk. Fetches nothing.

import { FrameError } from "../errors";
import type { BatchData } from "../executor/executor";
import { sizeOf } from "../program";
import type { BatchArray, BatchLayout, DType } from "../protocol";
import { Random } from "./random";

type Stored = Float32Array | Int32Array | Uint32Array | Int8Array | Uint8Array | Int16Array | Uint16Array;

const STORED = {
  float32: Float32Array, int32: Int32Array, uint32: Uint32Array, int8: Int8Array,
  uint8: Uint8Array, int16: Int16Array, uint16: Uint16Array, bool: Uint8Array,
} as const satisfies Record<DType, unknown>;

/** A chunk's rows, array by array, in the types they were sent in. */
export interface Chunk {
  readonly rows: number;
  readonly arrays: readonly Stored[];
}

/** One minibatch. `arrays` is reused by the next one. `rows` counts new rows, `leases` says whose they are. */
export interface Batch {
  readonly arrays: readonly BatchData[];
  /** The minibatch's random key, two words: made of the seeds of the first row's chunk and the row's place in it. */
  readonly key: Uint32Array<ArrayBuffer>;
  readonly rows: number;
  readonly leases: ReadonlyMap<number, number>;
}

const valuesPerRow = ({ shape }: BatchArray): number => sizeOf(shape);

/** Bytes of a chunk of so many rows. */
export function bytesOf(rows: number, layout: BatchLayout): number {
  return layout.arrays.reduce((sum, array) => sum + rows * valuesPerRow(array) * STORED[array.dtype].BYTES_PER_ELEMENT, 0);
}

/** Reads a chunk's body; throws FrameError when its length does not fit. */
export function readChunk(body: ArrayBuffer, rows: number, layout: BatchLayout): Chunk {
  let offset = 0;
  const arrays = layout.arrays.map((array) => {
    const type = STORED[array.dtype];
    const count = rows * valuesPerRow(array);
    const end = offset + count * type.BYTES_PER_ELEMENT;
    if (end > body.byteLength) throw new FrameError(`a chunk of ${rows} rows needs ${end} bytes, got ${body.byteLength}`);
    // Nothing lies between the arrays, so that one may start where its type may not: copying aligns it.
    const stored = new type(body.slice(offset, end));
    offset = end;
    return stored;
  });
  if (offset !== body.byteLength) throw new FrameError(`a chunk of ${rows} rows has ${offset} bytes, got ${body.byteLength}`);
  return { rows, arrays };
}

interface Row { readonly chunk: Chunk; readonly index: number }

interface Pile {
  readonly lease: number;
  readonly chunk: Chunk;
  readonly seeds: readonly number[];
  readonly order: Uint32Array;
  taken: number;
}

function keyOf({ seeds, taken }: Pile): Uint32Array<ArrayBuffer> {
  const random = new Random(...seeds, taken);
  return Uint32Array.of(random.bits(), random.bits());
}

/** The rows in hand. */
export class Batches {
  readonly #layout: BatchLayout;
  readonly #buffers: readonly BatchData[];
  readonly #piles: Pile[] = [];
  #previous: Row[] = [];

  constructor(layout: BatchLayout) {
    this.#layout = layout;
    this.#buffers = layout.arrays.map((array) => {
      const count = layout.rows * valuesPerRow(array);
      if (array.dtype === "float32") return new Float32Array(count);
      return array.dtype === "uint32" ? new Uint32Array(count) : new Int32Array(count);
    });
  }

  /** Chunks of which rows are left. */
  get chunks(): number {
    return this.#piles.length;
  }

  /** Rows that are left. */
  get rows(): number {
    return this.#piles.reduce((sum, { order, taken }) => sum + order.length - taken, 0);
  }

  /** Adds a chunk's rows, shuffled from `seeds`, behind those in hand. */
  add(lease: number, chunk: Chunk, seeds: readonly number[]): void {
    const order = new Random(...seeds).permutation(chunk.rows);
    if (chunk.rows > 0) this.#piles.push({ lease, chunk, seeds, order, taken: 0 });
  }

  /** The next full minibatch, or null when there are too few rows. */
  next(): Batch | null {
    return this.rows < this.#layout.rows ? null : this.#compose(this.#layout.rows);
  }

  /** A minibatch of the last rows, filled up with rows that were trained just before: shapes are static. */
  flush(): Batch | null {
    return this.rows === 0 ? null : this.#compose(Math.min(this.rows, this.#layout.rows));
  }

  #compose(count: number): Batch {
    const key = keyOf(this.#piles[0]!);
    const leases = new Map<number, number>();
    const fresh = Array.from({ length: count }, () => this.#take(leases));
    const fill = this.#previous.length > 0 ? this.#previous : fresh;
    const rows = Array.from({ length: this.#layout.rows }, (_, i) => fresh[i] ?? fill[i % fill.length]!);
    rows.forEach((row, position) => this.#copy(row, position));
    this.#previous = rows;
    return { arrays: this.#buffers, key, rows: count, leases };
  }

  #take(leases: Map<number, number>): Row {
    const pile = this.#piles[0]!;
    const row = { chunk: pile.chunk, index: pile.order[pile.taken]! };
    pile.taken += 1;
    leases.set(pile.lease, (leases.get(pile.lease) ?? 0) + 1);
    if (pile.taken === pile.order.length) this.#piles.shift();
    return row;
  }

  #copy({ chunk, index }: Row, position: number): void {
    this.#layout.arrays.forEach((array, i) => {
      const width = valuesPerRow(array);
      this.#buffers[i]!.set(chunk.arrays[i]!.subarray(index * width, (index + 1) * width), position * width);
    });
  }
}
