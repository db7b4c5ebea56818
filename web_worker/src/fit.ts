// Decides whether a frame fits the job: its kind, shard, codec, count and length. Decodes no values.

import { BY_NAME } from "./codecs";
import { FrameError } from "./errors";
import { Kind, type Frame } from "./frames";
import type { CodecName, Shard } from "./protocol";

/** Throws FrameError unless `frame` is of `kind` and fits its shard in `codec`. */
export function requireFit(frame: Frame, kind: Kind, shards: readonly Shard[], codec: CodecName): void {
  if (frame.kind !== kind) throw new FrameError(`expected a frame of kind ${kind}, got ${frame.kind}`);
  const { number, payloadBytes } = BY_NAME[codec];
  if (frame.codec !== number) throw new FrameError(`expected codec ${number} (${codec}), got ${frame.codec}`);
  const shard = shards[frame.shard];
  if (!shard) throw new FrameError(`the job has ${shards.length} shards, got shard ${frame.shard}`);
  if (frame.count !== shard.size) {
    throw new FrameError(`shard ${frame.shard} expects ${shard.size} values, got ${frame.count}`);
  }
  const bytes = payloadBytes(frame.count);
  if (frame.payload.byteLength !== bytes) {
    throw new FrameError(`${codec} of ${frame.count} values is ${bytes} bytes, got ${frame.payload.byteLength}`);
  }
  if (kind === Kind.GRADIENT) requireNumbered(frame);
}

function requireNumbered(frame: Frame): void {
  if (frame.sequence < 1) throw new FrameError(`a gradient's sequence is at least 1, got ${frame.sequence}`);
  if (frame.minibatches < 1) throw new FrameError(`a gradient holds at least 1 minibatch, got ${frame.minibatches}`);
}
