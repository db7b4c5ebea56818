// Keeps chunks that were fetched, for later epochs. Fetches nothing.

import type { Chunk } from "./batches";

/** 32 MiB: a small dataset whole; a volunteer's memory is not ours to fill. */
const MOST_BYTES = 32 << 20;

const sizeOf = ({ arrays }: Chunk): number => arrays.reduce((sum, { byteLength }) => sum + byteLength, 0);

/** The chunks used last, by name; a name means the same content for ever. */
export class Shelf {
  readonly #chunks = new Map<string, Chunk>();
  #bytes = 0;

  constructor(readonly mostBytes = MOST_BYTES) {}

  take(name: string): Chunk | null {
    const chunk = this.#chunks.get(name);
    if (!chunk) return null;
    // A Map remembers the order of insertion: what was used last goes to its end.
    this.#chunks.delete(name);
    this.#chunks.set(name, chunk);
    return chunk;
  }

  put(name: string, chunk: Chunk): void {
    if (this.take(name)) return;
    this.#chunks.set(name, chunk);
    this.#bytes += sizeOf(chunk);
    for (const [oldest, old] of this.#chunks) {
      if (this.#bytes <= this.mostBytes) break;
      this.#chunks.delete(oldest);
      this.#bytes -= sizeOf(old);
    }
  }
}
