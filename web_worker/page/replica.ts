/** The public module `worker.js` as the page sees it: loaded at run time, and only when someone takes part. */

export type ReplicaState = "connecting" | "preparing" | "training" | "waiting" | "finished" | "stopped" | "failed";

/** What a replica has done so far. */
export interface ReplicaProgress {
  readonly steps: number;
  readonly rows: number;
  readonly loss: number | null;
  readonly pushes: number;
  readonly acknowledged: number;
  readonly busy: number;
  readonly stepMilliseconds: number | null;
  readonly backend: string;
  readonly bytesUp: number;
  readonly bytesDown: number;
}

export interface ReplicaOptions {
  readonly job: string;
}

export interface Replica extends EventTarget {
  start(): unknown;
  stop(): unknown;
}

interface WorkerModule {
  readonly Replica: new (options: ReplicaOptions) => Replica;
}

/** A fresh replica of `job`; downloads `worker.js` the first time. */
export async function loadReplica(options: ReplicaOptions): Promise<Replica> {
  // Beside assets/, not in it; computed, so that the bundler leaves it alone.
  const address = new URL("../worker.js", import.meta.url).href;
  const module = (await import(address)) as WorkerModule;
  return new module.Replica(options);
}
