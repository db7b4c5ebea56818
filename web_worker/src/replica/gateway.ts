// The gateway's addresses and what is fetched from them by HTTP. Keeps nothing.

import { readForward, readProgram, type Forward, type Program } from "../program";
import type { Grant } from "../protocol";
import { list, object, text } from "../schema";
import { DIRECT, type Network, type Socket } from "./network";
import { sha256 } from "./sha256";

/** There is nothing to take part in: no job runs here, or none of that name. Trying again would not help. */
export class NoJobError extends Error {
  override name = "NoJobError";
}

/** The gateway did not answer, or not with what was asked for. Trying again may help. */
export class UnreachableError extends Error {
  override name = "UnreachableError";
}

/** The gateway answers, but will not give what was asked for. */
export class RefusedError extends Error {
  override name = "RefusedError";
}

/** A chunk's bytes are not those that its name says. */
export class DamagedError extends Error {
  override name = "DamagedError";
}

/** Client errors that pass by themselves: 408 request timeout, 429 too many requests. */
const PASSING = [408, 429];

const readJobs = object({ jobs: list(object({ job: text(), state: text() })) });

/** A gateway at `base`, an address that ends with a slash. */
export class Gateway {
  constructor(readonly base: string, readonly network: Network = DIRECT) {}

  /** A socket of the job, which opens. */
  open(job: string): Socket {
    return this.network.open(this.#url(`jobs/${job}/socket`).replace(/^http/, "ws"));
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

  /** Throws UnreachableError when trying again may help, RefusedError or ProgramError when it would not. */
  async program(path: string): Promise<Program> {
    return readProgram(JSON.parse(await this.module(path)));
  }

  /** A forward program; throws as `program` does. */
  async forward(path: string): Promise<Forward> {
    return readForward(JSON.parse(await this.module(path)));
  }

  /** The text of a model that is an ES module; throws as `program` does. */
  async module(path: string): Promise<string> {
    const response = await this.#get(path.replace(/^\//, ""), {});
    return reached(response.text(), `${response.url} broke off`);
  }

  /** A leased chunk, checked; throws UnreachableError, RefusedError or DamagedError. */
  async chunk(job: string, run: string, grant: Grant, cache: RequestCache): Promise<ArrayBuffer> {
    const response = await this.#get(`jobs/${job}/${run}/chunks/${grant.sha256 ?? grant.chunk}`, { cache });
    return verified(await reached(response.arrayBuffer(), `${response.url} broke off`), grant, this.base);
  }

  #url(path: string): string {
    return new URL(path, this.base).href;
  }

  async #get(path: string, options: { cache?: RequestCache }): Promise<Response> {
    const response = await this.#answer(path, options);
    this.#requireOk(response);
    return response;
  }

  #answer(path: string, options: { cache?: RequestCache }): Promise<Response> {
    return reached(this.network.get(this.#url(path), options), `${this.base} does not answer`);
  }

  #requireOk({ ok, status, url }: Response): void {
    if (ok) return;
    const message = `expected ${url} to answer 200, got ${status}`;
    throw status >= 500 || PASSING.includes(status) ? new UnreachableError(message) : new RefusedError(message);
  }
}

/** The bytes of a chunk that came from `place`; throws DamagedError unless they are what its name says. */
export async function verified(body: ArrayBuffer, { chunk, sha256: name }: Grant, place: string): Promise<ArrayBuffer> {
  const got = name === null ? null : await sha256(body);
  if (got === name) return body;
  throw new DamagedError(`chunk ${chunk} of ${place} expects the SHA-256 ${name}, got ${got}`);
}

async function reached<T>(answer: Promise<T>, message: string): Promise<T> {
  try {
    return await answer;
  } catch (error) {
    throw new UnreachableError(message, { cause: error });
  }
}
