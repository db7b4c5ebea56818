/** The job at a glance: its name, state, headline value and figures. Shows what it is given. */

import { pickAddress } from "./address.js";
import { type Curve, headlineMetric, trainingSeconds } from "./curve.js";
import { element, write } from "./elements.js";
import { Epochs } from "./epochs.js";
import { count, metricTitle, metricValue, rate } from "./format.js";
import { gradientsAbsorbed, type JobStatus } from "./status.js";
import { aimWords, jobSentence, jobState, type Lamp, replicasLabel, streamWords } from "./words.js";

export class Overview {
  private readonly state = element("state");
  private readonly epochs = new Epochs();

  show(status: JobStatus, curve: Curve): void {
    const state = jobState(status, trainingSeconds(curve));
    write(element("job-name"), status.job);
    write(element("job-sentence"), jobSentence(status));
    this.showState(state.lamp, state.words);
    element("own-page").hidden = !status.page;
    element<HTMLAnchorElement>("own-page-link").href = pickAddress(status.job);
    this.showHeadline(status, curve);
    write(element("figure-replicas"), count(status.replicas));
    write(element("figure-replicas-label"), replicasLabel(status));
    write(element("figure-updates"), rate(status.updatesPerSecond));
    write(element("figure-gradients"), count(gradientsAbsorbed(status)));
    write(element("figure-backlog"), count(status.backlog));
    const endless = streamWords(status);
    if (endless === null) this.epochs.show(status.epoch, status.epochs);
    else this.epochs.showEndless(endless);
  }

  /** The gateway is away: what is shown stays, and the state says that it is old. */
  showAway(retrySeconds: number): void {
    this.showState("away", "Gateway away");
    write(element("state-countdown"), `next try in ${Math.max(1, Math.round(retrySeconds))} s`);
  }

  private showState(lamp: Lamp, words: string): void {
    this.state.dataset.state = lamp;
    element("job").classList.toggle("stale", lamp === "away");
    write(element("state-words"), words);
    write(element("state-countdown"), "");
  }

  private showHeadline(status: JobStatus, curve: Curve): void {
    const metric = headlineMetric(curve, status);
    const heldOut = status.metrics?.[metric];
    const fresh = status.progressive?.[metric];
    const value = heldOut ?? fresh ?? (metric === "loss" ? (status.loss ?? undefined) : undefined);
    const known = fresh === undefined ? "training" : "fresh";
    const where = heldOut === undefined && value !== undefined ? known : "held-out";
    const shown = value === undefined ? "–" : metricValue(metric, value);
    write(element("headline-label"), `${metricTitle(metric)} on ${where} data`);
    const [digits = "", unit = ""] = shown.split("\u00a0");
    write(element("headline-digits"), digits);
    element("headline-digits").classList.toggle("none", value === undefined);
    write(element("headline-unit"), unit);
    write(element("headline-aim"), aimWords(status, metric, heldOut));
    document.title = value === undefined ? `${status.job} · CrowdLearn` : `${shown} · ${status.job} · CrowdLearn`;
  }
}
