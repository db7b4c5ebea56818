// What the page's side and the Web Worker tell each other.

import type { AskedRows } from "./asked-rows";
import type { PredictionReason } from "./errors";
import type { Result } from "./executor/predictor";
import type { ItemOutcome, Progress, State } from "./replica/actions";
import type { Backend } from "./replica/device";
import type { RawData } from "./replica/items";

export type ToWorker =
  | {
      readonly type: "start"; readonly base: string; readonly job: string | null; readonly backend: Backend;
      /** Or only says so where the model is a module. */
      readonly runsModules: boolean;
      readonly trains: boolean;
    }
  /** A raw item to send. The page keeps it under its `key` until it is answered. */
  | { readonly type: "raw"; readonly key: number; readonly data: RawData }
  /** What does the model say of these rows? The page keeps them under their `key` until it is answered. */
  | { readonly type: "predict"; readonly key: number; readonly rows: AskedRows }
  /** The browser says that it is online again, which not every browser tells its workers. */
  | { readonly type: "online" }
  | { readonly type: "stop" };

export type FromWorker =
  | { readonly type: "welcomed" }
  | { readonly type: "state"; readonly state: State }
  | { readonly type: "progress"; readonly progress: Progress }
  | { readonly type: "answered"; readonly key: number; readonly outcome: ItemOutcome }
  | { readonly type: "predicted"; readonly key: number; readonly results: Readonly<Record<string, Result>> }
  | { readonly type: "unpredicted"; readonly key: number; readonly reason: PredictionReason; readonly message: string }
  /** The job's model is a module: somebody's program, which is to run in a sandbox. */
  | { readonly type: "module" }
  | { readonly type: "gone" };

/** What a worker in a sandbox hears besides: it reaches no network, so the page asks for it. `id` is of its question or socket. */
export type ToSandbox =
  | ToWorker
  | { readonly type: "answer"; readonly id: number; readonly status: number; readonly url: string; readonly body: ArrayBuffer }
  | { readonly type: "unreachable"; readonly id: number; readonly message: string }
  | { readonly type: "opened"; readonly id: number }
  | { readonly type: "received"; readonly id: number; readonly data: string | ArrayBuffer }
  | { readonly type: "closed"; readonly id: number; readonly code: number };

/** What a worker in a sandbox says besides. */
export type FromSandbox =
  | FromWorker
  | { readonly type: "loaded" }
  | { readonly type: "ask"; readonly id: number; readonly url: string; readonly cache: RequestCache }
  | { readonly type: "open"; readonly id: number; readonly url: string }
  | { readonly type: "send"; readonly id: number; readonly data: string | Uint8Array<ArrayBuffer> }
  | { readonly type: "close"; readonly id: number };
