// Bounds a replica's local steps as the service bounds its own. Keeps nothing.

import type { Training } from "../protocol";

/**
 * Subtracts from the local parameters what a shard's gradient of one minibatch calls for.
 *
 * A step of gradient descent, clipped like the service's, and of a Euclidean norm of at most `reach`: so far the service
 * moves the shard for a minibatch. That knows what no replica does: accumulators, moments, warm-up, staleness.
 */
export function stepLocally(values: Float32Array, gradient: Float32Array, training: Training, reach: number): void {
  const bound = Math.fround(training.clip_value ?? Infinity);
  let squares = 0;
  for (let i = 0; i < gradient.length; i++) squares += clip(gradient[i]!, bound) ** 2;
  const length = Math.sqrt(squares);
  if (length === 0) return;
  const most = Math.min(length, training.clip_norm ?? Infinity);
  const factor = Math.fround(Math.min(training.local_learning_rate * most, reach) / length);
  // Rounded to float32 as NumPy rounds it.
  for (let i = 0; i < values.length; i++) values[i]! -= Math.fround(factor * clip(gradient[i]!, bound));
}

/** The Euclidean distance of two vectors. */
export function distance(one: Float32Array, other: Float32Array): number {
  let squares = 0;
  for (let i = 0; i < one.length; i++) squares += (one[i]! - other[i]!) ** 2;
  return Math.sqrt(squares);
}

function clip(value: number, bound: number): number {
  return value > bound ? bound : value < -bound ? -bound : value;
}
