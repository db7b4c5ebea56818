// Brings leased chunks: from memory, the browser's cache, the author's own server or the gateway. Decides nothing else.

import type { Grant, Welcome } from "../protocol";
import { bytesOf, readChunk, type Chunk } from "./batches";
import type { ChunkCache } from "./chunk-cache";
import { download } from "./downloads";
import type { Gateway } from "./gateway";
import { Mirror } from "./mirror";
import { sha256 } from "./sha256";
import { Shelf } from "./shelf";

/** Whether a lease is of rows from the pool, drawn for it alone: no use to keep them, and nobody but the gateway has them. */
const isOfPool = ({ stream }: Welcome, { lease, chunk }: Grant): boolean => stream !== null && lease === chunk;

/** The chunks of one replica. */
export class Chunks {
  readonly #shelf = new Shelf();
  #mirror: Mirror | null = null;
  #bytes = 0;

  /** `cache` is null where the browser has none: its HTTP cache then does what it can. */
  constructor(readonly gateway: Gateway, readonly uniform: () => number, readonly cache: Promise<ChunkCache | null>) {}

  /** Bytes that came over the network. */
  get bytes(): number {
    return this.#bytes;
  }

  /** A leased chunk; throws when a few attempts have failed. */
  async get(welcome: Welcome, grant: Grant): Promise<Chunk> {
    const key = `${welcome.run}/${grant.sha256 ?? grant.chunk}`;
    const chunk = this.#shelf.take(key) ?? readChunk(await this.#body(welcome, grant), grant.rows, welcome.batch);
    this.#shelf.put(key, chunk);
    return chunk;
  }

  async #body(welcome: Welcome, grant: Grant): Promise<ArrayBuffer> {
    if (isOfPool(welcome, grant)) return this.#fetch(welcome, grant, "no-store");
    const cache = await this.cache;
    const { sha256: name } = grant;
    // Without a name nobody could tell whether it is still the same.
    if (name === null || cache === null) return this.#fetch(welcome, grant, null);
    const kept = await cache.take(name, bytesOf(grant.rows, welcome.batch));
    if (kept !== null && (await sha256(kept)) === name) return kept;
    // Once on a disk is enough.
    const body = await this.#fetch(welcome, grant, "no-store");
    void cache.put(name, body);
    return body;
  }

  async #fetch(welcome: Welcome, grant: Grant, mode: RequestCache | null): Promise<ArrayBuffer> {
    const mirror = isOfPool(welcome, grant) ? null : this.#mirrorOf(welcome);
    const mirrored = await mirror?.chunk(grant, mode ?? "default");
    // What is wrong in the browser's HTTP cache stays there unless it is asked for anew.
    const body = mirrored ?? (await download((attempt) => {
      return this.gateway.chunk(welcome.job, welcome.run, grant, mode ?? (attempt > 1 ? "reload" : "default"));
    }, this.uniform));
    this.#bytes += body.byteLength;
    return body;
  }

  #mirrorOf({ chunk_url: url }: Welcome): Mirror | null {
    if (url === null || !this.gateway.network.reachesAll) return null;
    if (this.#mirror?.url !== url) this.#mirror = new Mirror(url, this.gateway.network);
    return this.#mirror;
  }
}
