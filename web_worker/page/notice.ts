/** What fills the page when there is no job to show. */

import { pickAddress } from "./address.js";
import { element, make, write } from "./elements.js";
import type { JobStatus } from "./status.js";

export type View = "loading" | "job" | "notice";

export class Notice {
  private readonly command = element("notice-command");
  private readonly jobs = element("notice-jobs");

  /** The gateway is there, and has nothing to train. */
  showNoJob(): void {
    this.say("Nothing to train yet", "This gateway has no job. Its operator submits one like this, and it appears here by itself:");
    this.command.hidden = false;
  }

  /** The address names a job the gateway does not know. */
  showUnknownJob(name: string, jobs: readonly JobStatus[]): void {
    this.say(
      `No job named ${name}`,
      jobs.length > 0 ? "This gateway trains these:" : "It may not have been submitted yet. If it is, it appears here by itself:",
    );
    this.command.hidden = jobs.length > 0;
    this.jobs.hidden = jobs.length === 0;
    this.jobs.replaceChildren(...jobs.map(link));
  }

  /** The first question was not answered. */
  showAway(): void {
    this.say("The gateway does not answer", "It may be starting, or your network may be away. This page keeps asking.");
    this.command.hidden = true;
    this.jobs.hidden = true;
  }

  private say(title: string, text: string): void {
    write(element("notice-title"), title);
    write(element("notice-text"), text);
    showView("notice");
  }
}

/** Which part of the page is seen. */
export function showView(view: View): void {
  document.body.dataset.view = view;
}

function link(job: JobStatus): HTMLElement {
  const item = make("li");
  const anchor = make("a", "", job.job);
  anchor.href = pickAddress(job.job);
  item.append(anchor, job.state === "finished" ? " finished" : " running");
  return item;
}
