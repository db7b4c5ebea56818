/**
 * What the page's address asks for: `?job=NAME` picks a job, `?join` takes part at once. Of a job with a page of its own, `?job=NAME`
 * alone is that page's address, and `&status` ours.
 */

export interface Address {
  readonly job: string | null;
  readonly join: boolean;
}

export function readAddress(search: string): Address {
  const query = new URLSearchParams(search);
  const join = query.get("join");
  return { job: query.get("job") || null, join: join !== null && join !== "0" && join !== "false" };
}

/** The address that picks `job`. Picking never joins: consent was given to another job. */
export function pickAddress(job: string): string {
  return `?${new URLSearchParams({ job }).toString()}`;
}
