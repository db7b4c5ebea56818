// The gateway's addresses and what is fetched from them by HTTP. Keeps nothing.

import { readProgram, type Program } from "../program";
import type { BatchLayout, Grant } from "../protocol";
import { list, object, text } from "../schema";
import { readChunk, type Chunk } from "./batches";

/** There is nothing to take part in: no job runs here, or none of that name. Trying again would not help. */
export class NoJobError extends Error {
  override name = "NoJobError";
}

/** The gateway did not answer, or not with what was asked for. Trying again may help. */
export class UnreachableError extends Error {
  override name = "UnreachableError";
}

const readJobs = object({ jobs: list(object({ job: text(), state: text() })) });

/** A gateway at `base`, an address that ends with a slash. */
export class Gateway {
  constructor(readonly base: string) {}

  socketUrl(job: string): string {
    return this.#url(`jobs/${job}/socket`).replace(/^http/, "ws");
  }

  /** The newest job that runs. */
  async newestJob(): Promise<string> {
    const { jobs } = readJobs(await (await this.#get("jobs", { cache: "no-store" })).json(), "");
    const running = jobs.find(({ state }) => state === "running");
    if (running) return running.job;
    throw new NoJobError(jobs.length > 0 ? "No job is running here now." : "There is no job here yet.");
  }

  /** Throws NoJobError unless there is a job of that name. */
  async requireJob(job: string): Promise<void> {
    const response = await this.#answer(`jobs/${encodeURIComponent(job)}`, { cache: "no-store" });
    if (response.status === 404) throw new NoJobError(`There is no job named "${job}" here.`);
    this.#requireOk(response);
  }

  async program(path: string): Promise<Program> {
    const response = await this.#get(path.replace(/^\//, ""), {});
    return readProgram(await response.json());
  }

  async chunk(job: string, run: string, { chunk, rows }: Grant, layout: BatchLayout): Promise<{ chunk: Chunk; bytes: number }> {
    const response = await this.#get(`jobs/${job}/${run}/chunks/${chunk}`, {});
    const body = await response.arrayBuffer();
    return { chunk: readChunk(body, rows, layout), bytes: body.byteLength };
  }

  #url(path: string): string {
    return new URL(path, this.base).href;
  }

  async #get(path: string, options: RequestInit): Promise<Response> {
    const response = await this.#answer(path, options);
    this.#requireOk(response);
    return response;
  }

  async #answer(path: string, options: RequestInit): Promise<Response> {
    try {
      return await fetch(this.#url(path), options);
    } catch (error) {
      throw new UnreachableError(`${this.base} does not answer`, { cause: error });
    }
  }

  #requireOk(response: Response): void {
    if (!response.ok) throw new UnreachableError(`expected ${response.url} to answer 200, got ${response.status}`);
  }
}
