/** The held-out metric and value that end a job, as `until` writes them. */

export interface Target {
  readonly metric: string;
  readonly relation: ">=" | "<=";
  readonly value: number;
}

/** Reads `METRIC >= VALUE` or `METRIC <= VALUE`; null when there is no target or another version wrote it otherwise. */
export function readTarget(until: string | null): Target | null {
  const match = /^\s*(\w+)\s*(>=|<=)\s*([-+0-9.eE]+)\s*$/.exec(until ?? "");
  if (!match) return null;
  const [, metric = "", relation, digits] = match;
  const value = Number(digits);
  return Number.isFinite(value) ? { metric, relation: relation === ">=" ? ">=" : "<=", value } : null;
}
