/** Taking part: the button, the replica behind it, and your own contribution. */

import { Awake } from "./awake.js";
import { element, write } from "./elements.js";
import { bytes, count, real } from "./format.js";
import { loadReplica, type Replica, type ReplicaProgress, type ReplicaState } from "./replica.js";
import type { JobStatus } from "./status.js";
import { backendWords, costWords, replicaWords } from "./words.js";

/** Numbers change faster than they can be read: shown this often at most. */
const SHOW_EVERY_MILLISECONDS = 250;

/** States in which a replica does no more. */
const ENDED: ReadonlySet<ReplicaState> = new Set(["finished", "stopped", "failed"]);

export class Participation {
  private readonly section = element("join");
  private readonly button = element<HTMLButtonElement>("join-button");
  private readonly awake = new Awake();
  private replica: Replica | null = null;
  private status: JobStatus | null = null;
  /** The run that this tab last joined: it joins each at most once by itself. */
  private joinedRun: string | null = null;
  private progress: ReplicaProgress | null = null;
  private showTimer: number | null = null;

  /** `joinAtOnce` is the address's `?join`; it holds for later runs too, until someone presses Stop. */
  constructor(
    private joinAtOnce: boolean,
    private readonly changed: () => void,
  ) {
    this.button.addEventListener("click", () => {
      if (this.replica) this.leave();
      else void this.join();
    });
    addEventListener("pagehide", () => this.replica?.stop());
    this.showHint();
  }

  /** How many replicas run in this tab. */
  get replicas(): number {
    return this.replica ? 1 : 0;
  }

  show(status: JobStatus): void {
    this.status = status;
    this.showOffer(status);
    this.showButton();
    if (this.joinAtOnce && !this.replica && status.state === "running" && this.joinedRun !== status.run) void this.join();
  }

  private async join(): Promise<void> {
    const status = this.status;
    if (!status) return;
    this.joinedRun = status.run;
    this.progress = null;
    this.showState("connecting", "");
    this.button.disabled = true;
    try {
      const replica = await loadReplica({ job: status.job });
      this.replica = replica;
      replica.addEventListener("state", (event) => this.heard(replica, event));
      replica.addEventListener("progress", (event) => this.counted(replica, event));
      await replica.start();
    } catch (error) {
      this.replica = null;
      this.showState("failed", error instanceof Error ? error.message : String(error));
    }
    this.button.disabled = false;
    this.showButton();
    this.changed();
  }

  private leave(): void {
    this.joinAtOnce = false;
    this.replica?.stop();
    this.ended("stopped", "");
  }

  private heard(replica: Replica, event: Event): void {
    if (replica !== this.replica) return;
    const { state, message } = (event as CustomEvent<{ state: ReplicaState; message: string | null }>).detail;
    if (ENDED.has(state)) this.ended(state, message ?? "");
    else this.showState(state, message ?? "");
  }

  private ended(state: ReplicaState, message: string): void {
    this.replica = null;
    this.awake.release();
    this.showState(state, message);
    this.showButton();
    this.changed();
  }

  private counted(replica: Replica, event: Event): void {
    if (replica !== this.replica) return;
    this.progress = (event as CustomEvent<ReplicaProgress>).detail;
    this.showTimer ??= window.setTimeout(() => {
      this.showTimer = null;
      this.showProgress();
    }, SHOW_EVERY_MILLISECONDS);
  }

  private showState(state: ReplicaState, message: string): void {
    this.section.dataset.state = state;
    element("contribution").hidden = false;
    write(element("connection"), replicaWords(state, message));
  }

  /** What there is to take part in; what has ended offers nothing. */
  private showOffer(status: JobStatus): void {
    const over = status.state === "finished" && !this.replica;
    this.section.classList.toggle("over", over);
    write(element("join-title"), over ? "This job is finished" : "Train it with us");
    write(element("join-text"), over ? "There is nothing left to compute. Thank you to everyone who took part." : costWords(status));
  }

  private showButton(): void {
    write(this.button, this.replica ? "Stop" : "Take part");
    this.button.classList.toggle("stop", this.replica !== null);
    this.button.disabled = this.status === null;
  }

  private showProgress(): void {
    const own = this.progress;
    if (!own) return;
    write(element("own-acknowledged"), count(own.acknowledged));
    write(element("own-rows"), count(own.rows));
    write(element("own-step"), own.stepMilliseconds === null ? "–" : `${own.stepMilliseconds.toFixed(own.stepMilliseconds < 10 ? 1 : 0)} ms`);
    write(element("own-loss"), own.loss === null ? "–" : real(own.loss));
    write(element("own-backend"), backendWords(own.backend));
    write(element("own-up"), bytes(own.bytesUp));
    write(element("own-down"), bytes(own.bytesDown));
  }

  /** A word of warning where data costs money. */
  private showHint(): void {
    const connection = (navigator as Navigator & { readonly connection?: { readonly saveData?: boolean; readonly type?: string } }).connection;
    const metered = connection?.saveData === true || connection?.type === "cellular";
    element("join-hint").hidden = !metered;
    write(element("join-hint"), metered ? "You seem to be on a metered connection: better on Wi-Fi." : "");
  }
}
