/** Taking part: the button, the replica behind it, and your own contribution. */

import { Awake } from "./awake.js";
import { element, write } from "./elements.js";
import { bytes, count, real } from "./format.js";
import { loadReplica, type Progress, type Replica, type StateName } from "./replica.js";
import type { JobStatus } from "./status.js";
import { backendWords, costWords, overWords, replicaWords } from "./words.js";

/** Numbers change faster than they can be read: shown this often at most. */
const SHOW_EVERY_MILLISECONDS = 250;

/** States in which a replica does no more. */
const ENDED: ReadonlySet<StateName> = new Set(["finished", "stopped", "failed"]);

export class Participation {
  private readonly section = element("join");
  private readonly button = element<HTMLButtonElement>("join-button");
  private readonly awake = new Awake();
  private replica: Replica | null = null;
  /** The replica whose numbers are shown: after Stop its last ones are still on their way. */
  private counted: Replica | null = null;
  private isLoading = false;
  private status: JobStatus | null = null;
  /** The run that this tab last joined: it joins each at most once by itself, and once more after each of its ends. */
  private joinedRun: string | null = null;
  private progress: Progress | null = null;
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
    // A run that trains again after its end was resumed: there is something to join anew.
    if (status.state === "finished") this.joinedRun = null;
    this.showOffer(status);
    this.showButton();
    if (this.joinAtOnce && !this.replica && !this.isLoading && status.state === "running" && this.joinedRun !== status.run) void this.join();
  }

  private async join(): Promise<void> {
    const status = this.status;
    if (!status || this.isLoading) return;
    this.joinedRun = status.run;
    this.progress = null;
    this.showState("connecting", "");
    this.isLoading = true;
    this.showButton();
    try {
      this.replica = await loadReplica({ job: status.job });
    } catch (error) {
      this.isLoading = false;
      this.ended("failed", `The worker could not be loaded: ${reasonOf(error)}`);
      return;
    }
    this.isLoading = false;
    this.showButton();
    this.changed();
    await this.run(this.replica);
  }

  /** Runs a replica until the gateway has welcomed it; after that only its events speak. */
  private async run(replica: Replica): Promise<void> {
    this.counted = replica;
    replica.addEventListener("state", (event) => {
      if (replica === this.replica) this.heard(event.detail.state, event.detail.message);
    });
    replica.addEventListener("progress", (event) => {
      if (replica === this.counted) this.count(event.detail);
    });
    try {
      await replica.start();
    } catch (error) {
      // Its last state said so already, unless it could not even begin.
      if (replica === this.replica) this.ended("failed", reasonOf(error));
    }
  }

  private leave(): void {
    this.joinAtOnce = false;
    this.replica?.stop();
    if (this.replica) this.ended("stopped", "");
  }

  private heard(state: StateName, message: string): void {
    if (ENDED.has(state)) this.ended(state, message);
    else this.showState(state, message);
  }

  private ended(state: StateName, message: string): void {
    this.replica = null;
    this.awake.release();
    this.showState(state, message);
    this.showButton();
    this.changed();
  }

  private count(progress: Progress): void {
    this.progress = progress;
    this.showTimer ??= window.setTimeout(() => {
      this.showTimer = null;
      this.showProgress();
    }, SHOW_EVERY_MILLISECONDS);
  }

  private showState(state: StateName, message: string): void {
    this.section.dataset.state = state;
    element("contribution").hidden = false;
    write(element("connection"), replicaWords(state, message));
  }

  /** What there is to take part in; what has ended offers nothing. */
  private showOffer(status: JobStatus): void {
    const over = status.state === "finished" && !this.replica;
    this.section.classList.toggle("over", over);
    const [title, text] = over ? overWords(status) : ["Train it with us", costWords(status)];
    write(element("join-title"), title);
    write(element("join-text"), text);
  }

  private showButton(): void {
    write(this.button, this.replica ? "Stop" : "Take part");
    this.button.classList.toggle("stop", this.replica !== null);
    this.button.disabled = this.status === null || this.isLoading;
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

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
