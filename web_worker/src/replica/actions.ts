// What the deciding code asks the acting code to do, and what a page is told. Does nothing itself.

import type { FromReplica, Grant, Welcome } from "../protocol";

export type StateName = "connecting" | "preparing" | "training" | "waiting" | "finished" | "stopped" | "failed";

/** What a replica is doing, with a sentence that a person understands. */
export interface State {
  readonly state: StateName;
  readonly message: string;
}

/** How far a replica has come. Times in milliseconds, sizes in bytes. */
export interface Progress {
  readonly steps: number;
  readonly rows: number;
  readonly loss: number | null;
  readonly pushes: number;
  readonly acknowledged: number;
  readonly busy: number;
  readonly rejected: number;
  readonly dropped: number;
  readonly stepMilliseconds: number | null;
  readonly versions: readonly number[];
  readonly backend: string;
  readonly bytesUp: number;
  readonly bytesDown: number;
}

/** What became of a raw item: so many rows, or why there are none. */
export interface ItemOutcome {
  readonly status: "rows" | "discarded" | "rejected";
  readonly rows: number;
  readonly why: string | null;
}

export type Action =
  | { readonly do: "send"; readonly message: FromReplica }
  | { readonly do: "sendFrame"; readonly bytes: Uint8Array<ArrayBuffer> }
  | { readonly do: "prepare"; readonly welcome: Welcome }
  | { readonly do: "loadChunk"; readonly welcome: Welcome; readonly grant: Grant }
  | { readonly do: "reconnect"; readonly atLeastSeconds: number }
  | { readonly do: "end"; readonly state: State };

export const send = (message: FromReplica): Action => ({ do: "send", message });
