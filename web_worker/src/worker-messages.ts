// What the page's side and the Web Worker tell each other.

import type { Progress, State } from "./replica/actions";
import type { Backend } from "./replica/device";

export type ToWorker =
  | { readonly type: "start"; readonly base: string; readonly job: string | null; readonly backend: Backend }
  /** The browser says that it is online again, which not every browser tells its workers. */
  | { readonly type: "online" }
  | { readonly type: "stop" };

export type FromWorker =
  | { readonly type: "welcomed" }
  | { readonly type: "state"; readonly state: State }
  | { readonly type: "progress"; readonly progress: Progress }
  | { readonly type: "gone" };
