/** What the page says in sentences: of a job, of its state, of your own replica. Pure. */

import { count, duration, metricValue, real, roughBytes, targetValue } from "./format.js";
import type { StateName } from "./replica.js";
import { type Divergence, gradientsAbsorbed, type JobStatus, type Stall } from "./status.js";
import { readTarget } from "./target.js";

const OPTIMIZERS: Readonly<Record<string, string>> = {
  sgd: "SGD",
  momentum: "momentum SGD",
  rmsprop: "RMSprop",
  adagrad: "Adagrad",
  adam: "Adam",
};

/** What the job trains, in one sentence. */
export function jobSentence(status: JobStatus): string {
  const optimizer = OPTIMIZERS[status.optimizer] ?? status.optimizer;
  const aim = readTarget(status.until);
  const end = aim ? `until ${targetWords(status)}` : endOf(status);
  return (
    `${count(status.parameters)} parameters learn from ${sourceWords(status)}, ` +
    `${count(status.batchRows)} at a time, with ${optimizer}, ${end}.`
  );
}

function endOf({ stream, epochs }: JobStatus): string {
  if (stream) return "without an end";
  return `for ${epochs === 1 ? "1 epoch" : `${count(epochs)} epochs`}`;
}

function sourceWords({ stream, rows }: JobStatus): string {
  const farmed = `${count(rows)} rows`;
  if (!stream) return farmed;
  return rows === 0 ? "what pages send" : `${farmed} and what pages send`;
}

/** What a stream has come to, once its epochs are trained; null before, and of a job without one. */
export function streamWords({ stream, epoch, epochs }: JobStatus): string | null {
  if (!stream || epoch < epochs) return null;
  const items = stream.gaveRows + stream.discarded + stream.rejected;
  const pool = `${count(stream.poolRows)} ${stream.poolRows === 1 ? "row" : "rows"} to train on`;
  return `${count(items)} ${items === 1 ? "item" : "items"} received, ${pool}`;
}

/** `accuracy ≥ 93 %`, or an empty string without a target. */
export function targetWords(status: JobStatus): string {
  const target = readTarget(status.until);
  if (!target) return status.until ?? "";
  const sign = target.relation === ">=" ? "≥" : "≤";
  return `${target.metric.replaceAll("_", " ")}\u00a0${sign}\u00a0${targetValue(target.metric, target.value)}`;
}

export type Lamp = "loading" | "training" | "idle" | "stalled" | "finished" | "away";

/** The job's state: which lamp, and which words. */
export function jobState(status: JobStatus, seconds: number | null): { readonly lamp: Lamp; readonly words: string } {
  if (status.state === "finished") return { lamp: "finished", words: endWords(status, seconds) + dropWords(status) };
  if (status.stalled) return { lamp: "stalled", words: stallWords(status.stalled) };
  if (status.diverging) return { lamp: "stalled", words: `${divergenceWords(status.diverging)}. ${REMEDY}` };
  if (status.replicas === 0) return { lamp: "idle", words: "Waiting for someone to take part" };
  return { lamp: "training", words: `Training now${dropWords(status)}` };
}

/** What is said of a job more than a hundredth of whose minibatches were dropped. */
function dropWords({ dropped, minibatches }: JobStatus): string {
  if (dropped <= 0.01 * minibatches) return "";
  return `; ${count(dropped)} of ${count(minibatches)} minibatches were dropped: they gave no finite numbers`;
}

function stallWords({ reason, seconds }: Stall): string {
  const since = `Stalled for ${duration(seconds)}`;
  if (reason === "not-finite") return `${since}: its loss is not a finite number any more. Its operator has to act`;
  return `${since}: gradients are refused (${reason}). If that lasts, its operator has to act`;
}

const REMEDY = "Its operator can submit it anew, with a smaller learning rate or clip_norm";

/** `Diverges: its training loss is 1e+28, and began at 2.3`. */
function divergenceWords({ where, metric, certain, value, first }: Divergence): string {
  if (value !== null) {
    const began = first === null ? "" : `, and began at ${real(first)}`;
    return `Diverges: its ${where === "held_out" ? "held-out" : "training"} loss is ${real(value)}${began}`;
  }
  const what = `its held-out ${metric.replaceAll("_", " ")} is not a finite number`;
  return certain ? `Diverges: ${what} any more` : `Cannot be scored, or diverges: ${what}`;
}

function endWords(status: JobStatus, seconds: number | null): string {
  const words = reasonWords(status, seconds);
  // What reached its target is good, whatever came after it.
  if (!status.diverging || status.reason === "until" || status.reason === "diverged") return words;
  return `${words}. ${divergenceWords(status.diverging)}`;
}

function reasonWords(status: JobStatus, seconds: number | null): string {
  const gradients = `${count(gradientsAbsorbed(status))} gradients`;
  const effort = seconds === null ? gradients : `${duration(seconds)} and ${gradients}`;
  if (status.reason === "until") return `Finished: reached ${targetWords(status)} after ${effort}`;
  if (status.reason === "patience") return `Finished: no better score in ${epochs(status.patience)}, after ${effort}`;
  if (status.reason === "epochs") return `Finished: all ${count(status.epochs)} epochs done after ${effort}`;
  if (status.reason === "stopped") return `Stopped by its operator after ${effort}`;
  if (status.reason === "diverged") return `Ended because the model diverged, after ${effort}`;
  return `Finished after ${effort}`;
}

function epochs(count: number | null): string {
  return count === null ? "a while" : `${String(count)} ${count === 1 ? "epoch" : "epochs"}`;
}

/** Title and text where one could take part, of a job that has ended. */
export function overWords({ reason }: Pick<JobStatus, "reason">): readonly [string, string] {
  if (reason === "stopped") return ["This job was stopped", "It may go on later. Thank you to everyone who took part."];
  if (reason === "diverged") return ["This job has failed", "Its model diverged. Thank you to everyone who took part."];
  return ["This job is finished", "There is nothing left to compute. Thank you to everyone who took part."];
}

/** Under the headline: how far it is to the target. */
export function aimWords(status: JobStatus, metric: string, value: number | undefined): string {
  const target = readTarget(status.until);
  if (!target || target.metric !== metric) return status.state === "finished" ? "final value" : "newest value";
  const aim = targetValue(metric, target.value);
  if (value === undefined) return `target ${aim}`;
  const reached = target.relation === ">=" ? value >= target.value : value <= target.value;
  if (reached && status.reason === "until") return `target ${aim} reached`;
  if (reached && status.state === "finished") return `target ${aim} met by the last scoring`;
  // Asynchronous training swings: one scoring that meets the target does not end the job.
  if (status.met === 0) return `target ${aim}`;
  return `target ${aim} met ${status.met === 1 ? "once" : `${count(status.met)} times`}; it needs two in a row`;
}

/** What the number of replicas counts; of more than one gateway, how many they are spread over. */
export function replicasLabel({ gateways }: Pick<JobStatus, "gateways">): string {
  return gateways > 1 ? `Replicas on ${count(gateways)} gateways` : "Replicas at work";
}

/** What taking part costs and does. */
export function costWords(status: JobStatus): string {
  const aboutYou = status.stream ? "nothing about you is sent but what you enter in a page of this job" : "nothing about you is sent";
  return (
    "Your processor works in the background of this tab, sending about " +
    `${roughBytes(status.bytesPerPush)} per gradient and receiving the new parameters; ` +
    `nothing is installed, ${aboutYou}, and closing the tab stops it at any time.`
  );
}

const REPLICA_STATES: Readonly<Record<StateName, string>> = {
  connecting: "Connecting to the gateway",
  preparing: "Fetching the model and preparing it for this browser",
  training: "Computing gradients",
  waiting: "Waiting for rows to train on",
  finished: "The job has ended. Thank you!",
  stopped: "Stopped. Thank you for your help!",
  failed: "This browser cannot take part",
};

/** Your own replica's state in plain words: its message, which knows more, or ours where there is none. */
export function replicaWords(state: StateName, message: string): string {
  return message === "" ? REPLICA_STATES[state] : message.replace(/\.$/, "");
}

/** `WebGPU`, `WebAssembly`, or the replica's own word. */
export function backendWords(backend: string): string {
  const names: Readonly<Record<string, string>> = { webgpu: "WebGPU", wasm: "WebAssembly", webgl: "WebGL", cpu: "JavaScript" };
  return names[backend] ?? backend;
}

/** What a screen reader says of a panel. */
export function panelWords(metric: string, value: number | undefined, status: JobStatus): string {
  const aim = readTarget(status.until);
  const target = aim?.metric === metric ? `, target ${targetValue(metric, aim.value)}` : "";
  const newest = value === undefined ? "no points yet" : `newest value ${metricValue(metric, value)}`;
  return `Curve of ${metric.replaceAll("_", " ")}: ${newest}${target}`;
}
