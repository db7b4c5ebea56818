// The errors of the wire, one class a cause, twins of crowdlearn/errors.py. Each says what was expected and what came.

/** A text message is not one of docs/protocol.md. */
export class MessageError extends Error {
  override name = "MessageError";
}

/** A binary message is not a frame, or its payload has the wrong length. */
export class FrameError extends Error {
  override name = "FrameError";
}

/** A value that has to be finite is NaN or infinite. */
export class NotFiniteError extends Error {
  override name = "NotFiniteError";
}

/** A program breaks docs/program.md, or asks for a primitive this executor does not have. */
export class ProgramError extends Error {
  override name = "ProgramError";
}

/** A model that is an ES module breaks docs/modules.md, or one of its functions fails. */
export class ModelError extends Error {
  override name = "ModelError";

  /** An error of the module's own code, told with the line in `file` that it came from; a ModelError stays what it is. */
  static from(error: unknown, file: string, what: string): ModelError {
    if (error instanceof ModelError) return error;
    const line = lineOf(error, file);
    const at = line ? ` at ${line}` : "";
    const primitive = WITHOUT_DERIVATIVE.exec(reasonOf(error))?.[1];
    if (primitive) return new ModelError(`${what} has no gradient: jax-js cannot differentiate ${primitive}${at}; ${WITHOUT_GRADIENT}`, { cause: error });
    const kind = error instanceof Error ? error.name : "an error";
    return new ModelError(`${what} raised ${kind}${at}: ${reasonOf(error)}`, { cause: error });
  }
}

/** What jax-js says of a primitive that it has no derivative of. */
const WITHOUT_DERIVATIVE =
  /(?:JVP rule not implemented for|JVP rule for:|Backward pass not implemented for|Nonlinear operation in backward pass for) (?:reduce op: )?(\w+)/;
const WITHOUT_GRADIENT = "write it in functions that have a derivative, or compute it in preprocess if it needs no params";

/** The first line of `file` in an error's stack, as `model.js:12`. */
function lineOf(error: unknown, file: string): string | null {
  const stack = error instanceof Error ? (error.stack ?? "") : "";
  const escaped = file.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  const line = new RegExp(`(?:^|[\\s(@/])${escaped}:(\\d+)`, "m").exec(stack)?.[1];
  return line === undefined ? null : `${file}:${line}`;
}

/** Why `Replica.predict` gives nothing. */
export type PredictionReason =
  /** The rows are not such as the job has. */
  | "input"
  /** The job has no `predict` that browsers can run. */
  | "unavailable"
  /** The replica has ended. */
  | "ended"
  /** It could not be computed here. */
  | "failed";

/** What a page asks the model has no answer. */
export class PredictionError extends Error {
  override name = "PredictionError";

  constructor(readonly reason: PredictionReason, message: string, options?: ErrorOptions) {
    super(message, options);
  }
}

/** What an unknown thrown value says, for logs and for people. */
export function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
