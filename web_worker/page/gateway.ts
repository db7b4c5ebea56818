/** Asks the gateway that served this page. The only module of the page that fetches. */

import { type JobStatus, readJobs, readStatus } from "./status.js";

/** A status is a few kilobytes: after this long the gateway counts as away. */
const TIMEOUT_MILLISECONDS = 10_000;

/** The gateway answers, but knows no job of that name. */
export class UnknownJob extends Error {
  override readonly name = "UnknownJob";
}

export class Gateway {
  /** `base` is the page's address: a gateway may be served under a path. */
  constructor(private readonly base: string) {}

  /** All jobs, newest first. */
  async jobs(): Promise<readonly JobStatus[]> {
    return readJobs(await this.get("jobs"));
  }

  /** One job, with the points of its curve after `index`; throws UnknownJob. */
  async job(name: string, index: number): Promise<JobStatus> {
    const query = index < 0 ? "" : `?after=${index}`;
    return readStatus(await this.get(`jobs/${encodeURIComponent(name)}${query}`));
  }

  private async get(path: string): Promise<unknown> {
    const response = await fetch(new URL(path, this.base), {
      cache: "no-cache",
      credentials: "same-origin",
      signal: AbortSignal.timeout(TIMEOUT_MILLISECONDS),
    });
    if (response.status === 404) throw new UnknownJob(path);
    if (!response.ok) throw new Error(`${path} expects 200, got ${response.status}`);
    return response.json();
  }
}
