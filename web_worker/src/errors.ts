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
}

/** What an unknown thrown value says, for logs and for people. */
export function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
