/** The points of one run, merged from answer to answer, and what of them goes into which panel. Draws nothing. */

import type { CurvePoint, JobStatus, PointKind } from "./status.js";
import { readTarget } from "./target.js";

/** The newest points may be slightly out of order, but not by more than a few. */
const NEWEST = 20;

/** As many as Redis keeps (`MAX_POINTS` in crowdlearn/store/curve.py): a tab left open shows what a new one would. */
export const MAX_POINTS = 5000;

const KINDS = ["held_out", "progressive", "train"] as const;

export type Axis = "seconds" | "version";

/** The newest known points of one run, by index. */
export interface Curve {
  readonly run: string;
  readonly points: readonly CurvePoint[];
  /**
   * Seconds from the job's creation to its first gradients: a job may wait for hours until someone takes part, and time
   * counts from there. 0 when the first points were never seen.
   */
  readonly startSeconds: number;
}

/** One line: parallel arrays, x ascending. */
export interface Line {
  readonly kind: PointKind;
  readonly x: readonly number[];
  readonly y: readonly number[];
}

/** One metric and its lines, held-out first, then progressive; `target` is where its dashed line goes. */
export interface Panel {
  readonly metric: string;
  readonly target: number | null;
  readonly lines: readonly Line[];
}

/** The index to ask points after: -1 asks for all of them. */
export function lastIndex(curve: Curve | null): number {
  return curve?.points.at(-1)?.index ?? -1;
}

/**
 * Adds the points of an answer. Another run starts anew, and so does a curve whose answer overlaps nothing we know:
 * a point that is already known is not added twice. Of more than `MAX_POINTS` the oldest go.
 */
export function mergeCurve(curve: Curve | null, status: JobStatus): Curve {
  const old = curve?.run === status.run ? curve : null;
  const known = old?.points ?? [];
  const after = known.at(-1)?.index ?? -Infinity;
  const fresh = status.curve.filter((point) => point.index > after).sort((a, b) => a.index - b.index);
  if (old && fresh.length === 0) return old;
  const points = [...known, ...fresh];
  // Read before the oldest go, and kept when they are gone: the axis must not jump in an open tab.
  return { run: status.run, points: points.slice(-MAX_POINTS), startSeconds: firstSeconds(points) ?? old?.startSeconds ?? 0 };
}

/** When the first gradients came; null when the first points are not here. */
function firstSeconds(points: readonly CurvePoint[]): number | null {
  if (points[0]?.index !== 1) return null;
  // Not the first point of all: the initial values may have been scored while the job still waited.
  return (points.find((point) => point.kind === "train") ?? points[0]).seconds;
}

/** Seconds from the first gradients to the newest point; null without points. */
export function trainingSeconds(curve: Curve): number | null {
  const last = curve.points.at(-1);
  return last ? last.seconds - curve.startSeconds : null;
}

/** The x of the newest point of all: how far the axis of every panel reaches. */
export function longest(curve: Curve, axis: Axis): number {
  return Math.max(0, ...curve.points.slice(-NEWEST).map((point) => position(curve, point, axis)));
}

/** The panels of a run: the target's metric first, then other held-out metrics, then what only training knows. */
export function panels(curve: Curve, status: JobStatus, axis: Axis): readonly Panel[] {
  const target = readTarget(status.until);
  return metricNames(curve, status).map((metric) => ({
    metric,
    target: target?.metric === metric ? target.value : null,
    lines: KINDS.map((kind) => line(curve, kind, metric, axis)).filter((candidate) => candidate.x.length > 0),
  }));
}

/** Names of metrics in the order of their panels; `loss` is always among them, as every job has one. */
export function metricNames(curve: Curve, status: JobStatus): readonly string[] {
  const target = readTarget(status.until);
  const names = new Set(target ? [target.metric] : []);
  const of = (kind: PointKind): string[] =>
    curve.points.filter((point) => point.kind === kind).flatMap((point) => Object.keys(point.values));
  const scored = [...Object.keys(status.metrics ?? {}), ...of("held_out"), ...of("progressive")];
  for (const name of scored) if (name !== "loss") names.add(name);
  names.add("loss");
  for (const name of of("train")) names.add(name);
  return [...names];
}

/** The metric the page shows large: the target's, or the first there is. */
export function headlineMetric(curve: Curve, status: JobStatus): string {
  return metricNames(curve, status)[0] ?? "loss";
}

function position(curve: Curve, point: CurvePoint, axis: Axis): number {
  return axis === "seconds" ? Math.max(0, point.seconds - curve.startSeconds) : point.version;
}

function line(curve: Curve, kind: PointKind, metric: string, axis: Axis): Line {
  const at = (point: CurvePoint): [number, number][] => {
    const y = point.values[metric];
    return point.kind === kind && y !== undefined ? [[position(curve, point, axis), y]] : [];
  };
  // Two evaluators, or a restart, may write points slightly out of order; a line needs its x ascending.
  const pairs = curve.points.flatMap(at).sort((a, b) => a[0] - b[0]);
  return { kind, x: pairs.map(([x]) => x), y: pairs.map(([, y]) => y) };
}
