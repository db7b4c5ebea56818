/** How far the axes of a panel reach, and where a target's line goes among them. Pure. */

import { isShare } from "./format.js";

export type Range = readonly [min: number, max: number];

/** Increments of a time axis, in seconds: what people count in. */
export const TIME_STEPS: readonly number[] = [
  0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800,
];

/** The y axis: holds the data and the target with some air; shares stay within 0 to 1, and losses begin at 0. */
export function valueRange(metric: string, data: Range | null, target: number | null): Range {
  const [low, high] = data ?? (isShare(metric) ? [0, 1] : [0, target ?? 1]);
  const min = Math.min(low, target ?? low);
  const max = Math.max(high, target ?? high);
  const air = (max - min || Math.abs(max) || 1) * 0.08;
  if (isShare(metric)) {
    // Tenths while they are not too coarse, so that the axis begins and ends on a labelled line.
    const step = max - min > 0.25 ? 0.1 : 0.02;
    const bottom = Math.max(0, Math.floor(Math.min(min, 1 - step) / step + 1e-9) * step);
    return [bottom, Math.min(1, Math.max(Math.ceil(max / step - 1e-9) * step, bottom + step))];
  }
  return [min >= 0 ? 0 : min - air, max + air];
}

/** The x axis: from the start of the job; never empty. */
export function startRange(longest: number, shortest: number): Range {
  return [0, Math.max(longest, shortest)];
}
