/** The page at `/`: asks the gateway for its job once a second and shows it; volunteers take part with one button. */

import { readAddress } from "./address.js";
import { type Curve, lastIndex, mergeCurve } from "./curve.js";
import { Curves } from "./curves.js";
import { element } from "./elements.js";
import { Field } from "./field.js";
import { Gateway, UnknownJob } from "./gateway.js";
import { Notice, showView } from "./notice.js";
import { Overview } from "./overview.js";
import { Participation } from "./participation.js";
import { chooseJob, Picker } from "./picker.js";
import { poll, type PollClock } from "./poll.js";
import type { JobStatus } from "./status.js";

/** The gateway's answers are cached for a second: asking more often shows nothing new. */
const SHOWN_SECONDS = 1;
/** A hidden tab has no reader; its replica has its own socket. */
const HIDDEN_SECONDS = 15;
/** What has ended changes only when its name is submitted again. */
const FINISHED_SECONDS = 5;
const JOBS_SECONDS = 20;

const address = readAddress(location.search);
const gateway = new Gateway(document.baseURI);
const notice = new Notice();
const overview = new Overview();
const curves = new Curves();
const picker = new Picker();
const field = new Field(element("field"));
const participation = new Participation(address.join, showField);

let job = address.job;
let jobs: readonly JobStatus[] = [];
let curve: Curve | null = null;
let status: JobStatus | null = null;
let isAway = false;

async function askJob(): Promise<number> {
  if (job === null) {
    jobs = await gateway.jobs();
    job = chooseJob(jobs);
    if (job === null) {
      notice.showNoJob();
      return pause(FINISHED_SECONDS);
    }
  }
  try {
    show(await askStatus(job));
  } catch (error) {
    if (!(error instanceof UnknownJob)) throw error;
    await showUnknown(job);
    return pause(FINISHED_SECONDS);
  }
  return pause(status?.state === "finished" ? FINISHED_SECONDS : SHOWN_SECONDS);
}

/** One status. The points after those we know are of no use when the run is another: then all are asked for. */
async function askStatus(name: string): Promise<JobStatus> {
  const after = lastIndex(curve);
  const answer = await gateway.job(name, after);
  return curve !== null && after >= 0 && answer.run !== curve.run ? gateway.job(name, -1) : answer;
}

function show(answer: JobStatus): void {
  status = answer;
  isAway = false;
  curve = mergeCurve(curve, answer);
  showView("job");
  picker.show(jobs, answer.job);
  overview.show(answer, curve);
  curves.show(curve, answer);
  participation.show(answer);
  showField();
}

function showField(): void {
  if (status) field.show(status.replicas, participation.replicas);
}

async function showUnknown(name: string): Promise<void> {
  jobs = await gateway.jobs();
  notice.showUnknownJob(name, jobs);
  // A job that nobody named was chosen for us: it is gone, so choose again.
  if (address.job === null) job = null;
}

/** The other jobs, for the picker; the first answer is not waited for when the address names a job. */
async function askJobs(): Promise<number> {
  if (job === null) return SHOWN_SECONDS;
  jobs = await gateway.jobs();
  picker.show(jobs, job);
  return pause(JOBS_SECONDS);
}

function showFailure(error: unknown, retrySeconds: number): void {
  // Once an outage: a tab may be left open for days.
  if (!isAway) console.warn("The gateway gave no status:", error);
  isAway = true;
  if (!status) notice.showAway();
  // A result stays true when the service is shut down after it.
  else if (status.state === "running") overview.showAway(retrySeconds);
}

function pause(seconds: number): number {
  return document.visibilityState === "hidden" ? Math.max(seconds, HIDDEN_SECONDS) : seconds;
}

const clock: PollClock = {
  random: Math.random,
  sleep: (seconds) =>
    new Promise((wake) => {
      const awake = (): void => {
        if (document.visibilityState === "hidden") return;
        done();
      };
      const done = (): void => {
        clearTimeout(timer);
        document.removeEventListener("visibilitychange", awake);
        removeEventListener("online", awake);
        wake();
      };
      const timer = setTimeout(done, seconds * 1000);
      document.addEventListener("visibilitychange", awake);
      addEventListener("online", awake);
    }),
};

const forever = new AbortController().signal;
void poll({ ask: askJob, failed: showFailure }, clock, forever);
void poll({ ask: askJobs, failed: () => undefined }, clock, forever);
