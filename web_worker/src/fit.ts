// Decides whether a frame fits the job: its kind, shard, codec, count and length. Decodes no values.

import { BY_NAME, type Codec } from "./codecs";
import { FrameError } from "./errors";
import { Kind, type Frame } from "./frames";
import type { CodecName, Shard } from "./protocol";

/**
 * The codec of a frame; throws FrameError unless the frame is of `kind` and fits its shard in the job's `codec`, or as f32:
 * that is how parameters go that the job's codec cannot hold, and gradients that f16 cannot.
 */
export function requireFit(frame: Frame, kind: Kind, shards: readonly Shard[], codec: CodecName): Codec {
  if (frame.kind !== kind) throw new FrameError(`expected a frame of kind ${kind}, got ${frame.kind}`);
  const mayBeWide = kind === Kind.PARAMETERS || codec === "f16";
  const fit = mayBeWide && frame.codec === BY_NAME.f32.number ? BY_NAME.f32 : BY_NAME[codec];
  if (frame.codec !== fit.number) throw new FrameError(`expected codec ${fit.number} (${fit.name}), got ${frame.codec}`);
  const shard = shards[frame.shard];
  if (!shard) throw new FrameError(`the job has ${shards.length} shards, got shard ${frame.shard}`);
  if (frame.count !== shard.size) {
    throw new FrameError(`shard ${frame.shard} expects ${shard.size} values, got ${frame.count}`);
  }
  const bytes = fit.payloadBytes(frame.count);
  if (frame.payload.byteLength !== bytes) {
    throw new FrameError(`${fit.name} of ${frame.count} values is ${bytes} bytes, got ${frame.payload.byteLength}`);
  }
  if (kind === Kind.GRADIENT) requireNumbered(frame);
  return fit;
}

function requireNumbered(frame: Frame): void {
  if (frame.sequence < 1) throw new FrameError(`a gradient's sequence is at least 1, got ${frame.sequence}`);
  if (frame.minibatches < 1) throw new FrameError(`a gradient holds at least 1 minibatch, got ${frame.minibatches}`);
}
