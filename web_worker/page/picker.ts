/** Picks among several jobs. Hidden while there is only one. */

import { pickAddress } from "./address.js";
import { element, make } from "./elements.js";
import type { JobStatus } from "./status.js";

export class Picker {
  private readonly home = element("picker");
  private readonly select = element<HTMLSelectElement>("picker-jobs");
  private shown = "";

  constructor() {
    this.select.addEventListener("change", () => location.assign(pickAddress(this.select.value)));
  }

  show(jobs: readonly JobStatus[], current: string): void {
    const wanted = JSON.stringify([current, ...jobs.map((job) => [job.job, job.state])]);
    if (wanted === this.shown) return;
    this.shown = wanted;
    this.home.hidden = jobs.length < 2 || !jobs.some((job) => job.job === current);
    this.select.replaceChildren(
      ...jobs.map((job) => {
        const option = make("option", "", job.state === "finished" ? `${job.job} (finished)` : job.job);
        option.value = job.job;
        option.selected = job.job === current;
        return option;
      }),
    );
  }
}

/** The job to show when the address names none: the newest that runs, or the newest. `jobs` are newest first. */
export function chooseJob(jobs: readonly JobStatus[]): string | null {
  return (jobs.find((job) => job.state === "running") ?? jobs[0])?.job ?? null;
}
