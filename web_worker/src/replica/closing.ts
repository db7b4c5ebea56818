// Says what each close code of docs/protocol.md means for a replica. Closes and opens nothing.

import { Close } from "../protocol";

/** So many closes for a malformed frame, and no gradient taken in between: the next ones would be refused too. */
const MAX_REFUSALS = 5;

export type Closing = { then: "reconnect" } | { then: "start anew" } | { then: "finish" } | { then: "fail"; message: string };

const BUG = "The gateway refused what this page sent. Please reload the page; if it happens again, tell the operator.";

const FAILURES: Readonly<Record<number, string>> = {
  [Close.TOO_BIG]: BUG,
  [Close.MALFORMED_MESSAGE]: BUG,
  [Close.OUT_OF_ORDER]: BUG,
  [Close.MALFORMED_FRAME]: BUG,
  [Close.UNSUPPORTED_PROTOCOL]: "This page is out of date. Please reload it.",
  [Close.UNKNOWN_JOB]: "There is no such job here (any more).",
};

/**
 * What to do after a close with `code`. Codes that the protocol does not name are the network's: try again.
 *
 * @param refusals - closes for a malformed frame before this one, since a gradient was last taken
 */
export function afterClose(code: number, refusals: number): Closing {
  if (code === Close.NORMAL) return { then: "finish" };
  if (code === Close.MALFORMED_FRAME && refusals < MAX_REFUSALS) return { then: "start anew" };
  const message = FAILURES[code];
  return message === undefined ? { then: "reconnect" } : { then: "fail", message };
}
