// Keeps chunks in the browser's own cache, for later epochs and visits: by name, within so many bytes. Fetches nothing.

/** What is kept on a volunteer's disk for all jobs of a page: a thousand chunks. */
const MOST_BYTES = 256 << 20;

/** Looking through a thousand entries takes 25 ms: so many chunks are kept between two looks. Other tabs may keep as many. */
const LOOK_EVERY = 16;

const CACHE = "crowdlearn-chunks";

/** Entries have addresses. Nobody has this one; it tells how large the chunk is without reading it. */
const addressOf = (name: string, bytes: number): string => `https://chunks.invalid/${name}?bytes=${bytes}`;
const bytesOf = ({ url }: Request): number => Number(new URL(url).searchParams.get("bytes"));

/** The chunks of all replicas of an origin. Whoever takes one checks it: others can write there too. */
export class ChunkCache {
  #last: Promise<void> = Promise.resolve();
  #isFull = false;
  /** In it, as far as is known: at the last look, and what was put since. */
  #bytes = 0;
  #putSinceLook = LOOK_EVERY;

  private constructor(readonly cache: Cache, readonly uniform: () => number, readonly mostBytes: number) {}

  /** Null where the browser has none: for pages that come over plain HTTP, and in a sandbox, where asking throws. */
  static async open(uniform: () => number, mostBytes = MOST_BYTES): Promise<ChunkCache | null> {
    try {
      return new ChunkCache(await globalThis.caches.open(CACHE), uniform, mostBytes);
    } catch {
      return null;
    }
  }

  /** The chunk of a name that has so many bytes, unchecked; null if it is not here. */
  async take(name: string, bytes: number): Promise<ArrayBuffer | null> {
    try {
      const found = await this.cache.match(addressOf(name, bytes));
      return found ? await found.arrayBuffer() : null;
    } catch (error) {
      // A person may clear it at any time.
      console.debug("A chunk cannot be read from the browser's cache.", error);
      return null;
    }
  }

  /** Keeps a chunk, one after the other; resolves when that is done, or the disk has no room. */
  put(name: string, body: ArrayBuffer): Promise<void> {
    this.#last = this.#last.then(() => (this.#isFull ? undefined : this.#put(name, body))).catch((error: unknown) => {
      console.debug("The browser's cache takes no more chunks.", error);
      this.#isFull = true;
    });
    return this.#last;
  }

  async #put(name: string, body: ArrayBuffer): Promise<void> {
    const size = body.byteLength;
    if (size > this.mostBytes) return;
    if (this.#putSinceLook >= LOOK_EVERY || this.#bytes + size > this.mostBytes) await this.#makeRoom(size);
    await this.cache.put(addressOf(name, size), new Response(body));
    this.#bytes += size;
    this.#putSinceLook += 1;
  }

  // Which one goes is drawn: of rows that are read in circles, what was used longest ago is what comes next.
  async #makeRoom(size: number): Promise<void> {
    const room = Math.max(size, Math.min(LOOK_EVERY * size, this.mostBytes / 16));
    const kept = [...(await this.cache.keys())];
    let total = kept.reduce((sum, entry) => sum + bytesOf(entry), 0);
    // Where one does not fit, room for more than one, or each would have to be looked for.
    const limit = this.mostBytes - (total + size > this.mostBytes ? room : size);
    while (kept.length > 0 && total > limit) {
      const [gone] = kept.splice(Math.floor(this.uniform() * kept.length), 1);
      total -= bytesOf(gone!);
      await this.cache.delete(gone!);
    }
    this.#bytes = total;
    this.#putSinceLook = 0;
  }
}
