// Says what each close code of docs/protocol.md means for a replica. Closes and opens nothing.

import { Close } from "../protocol";

export type Closing = { then: "reconnect" } | { then: "finish" } | { then: "fail"; message: string };

const BUG = "The gateway refused what this page sent. Please reload the page; if it happens again, tell the operator.";

const FAILURES: Readonly<Record<number, string>> = {
  [Close.TOO_BIG]: BUG,
  [Close.MALFORMED_MESSAGE]: BUG,
  [Close.OUT_OF_ORDER]: BUG,
  [Close.MALFORMED_FRAME]: BUG,
  [Close.UNSUPPORTED_PROTOCOL]: "This page is out of date. Please reload it.",
  [Close.UNKNOWN_JOB]: "There is no such job here (any more).",
};

/** What to do after a close with `code`. Codes that the protocol does not name are the network's: try again. */
export function afterClose(code: number): Closing {
  if (code === Close.NORMAL) return { then: "finish" };
  const message = FAILURES[code];
  return message === undefined ? { then: "reconnect" } : { then: "fail", message };
}
