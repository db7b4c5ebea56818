// Fetches chunks from where a job's author has put them. Where that fails the gateway is asked. Keeps nothing.

import { reasonOf } from "../errors";
import type { Grant } from "../protocol";
import { verified } from "./gateway";
import type { Network } from "./network";

/** In a row: after so many nothing more is asked there, for each would be waited for. */
const MOST_FAILURES = 3;

/** As long as a chunk takes on a slow line: whoever does not answer by then is as good as away. */
const TIMEOUT_MILLISECONDS = 15_000;

/** The chunks at `url`, an address that ends with a slash, by their names. */
export class Mirror {
  #failures = 0;
  #hasTold = false;

  constructor(readonly url: string, readonly network: Network) {}

  /** A leased chunk, checked; null if it cannot be had here. */
  async chunk(grant: Grant, cache: RequestCache): Promise<ArrayBuffer | null> {
    if (grant.sha256 === null || this.#failures >= MOST_FAILURES) return null;
    try {
      const body = await this.#fetch(grant, `${this.url}${grant.sha256}`, cache);
      this.#failures = 0;
      return body;
    } catch (error) {
      this.#failures += 1;
      if (!this.#hasTold) console.warn(`Chunks cannot be had from ${this.url}, and come from the gateway: ${reasonOf(error)}`);
      this.#hasTold = true;
      return null;
    }
  }

  async #fetch(grant: Grant, address: string, cache: RequestCache): Promise<ArrayBuffer> {
    const signal = AbortSignal.timeout(TIMEOUT_MILLISECONDS);
    // The author's server learns nothing of the page or of who sits before it.
    const response = await this.network.get(address, { cache, signal, credentials: "omit", referrerPolicy: "no-referrer" });
    if (!response.ok) throw new Error(`expected ${address} to answer 200, got ${response.status}`);
    return verified(await response.arrayBuffer(), grant, this.url);
  }
}
