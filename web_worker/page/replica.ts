/** Loads the public module `worker.js` at run time, and only when someone takes part. Its types are known beforehand. */

import type { Replica, ReplicaOptions } from "../src/worker.js";

export type { Progress, Replica, State, StateName } from "../src/worker.js";

/** A fresh replica; downloads `worker.js` the first time. */
export async function loadReplica(options: ReplicaOptions): Promise<Replica> {
  // Beside assets/, not in it; computed, so that the bundler leaves it alone.
  const address = new URL("../worker.js", import.meta.url).href;
  const module = (await import(address)) as typeof import("../src/worker.js");
  return new module.Replica(options);
}
