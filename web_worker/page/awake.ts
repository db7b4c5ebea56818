/** Keeps the screen on, if asked to: a phone that goes dark stops computing. Off by default. */

import { element } from "./elements.js";

export class Awake {
  private readonly label = element("awake");
  private readonly box = element<HTMLInputElement>("awake-box");
  private lock: WakeLockSentinel | null = null;
  private wanted = false;

  constructor() {
    // Missing outside https and in some browsers: then there is nothing to offer.
    this.label.hidden = !("wakeLock" in navigator);
    this.box.addEventListener("change", () => void this.hold(this.box.checked));
    // A browser takes the lock away from a hidden tab.
    document.addEventListener("visibilitychange", () => void this.hold(this.wanted));
  }

  /** Lets the screen sleep again. */
  release(): void {
    this.box.checked = false;
    void this.hold(false);
  }

  private async hold(wanted: boolean): Promise<void> {
    this.wanted = wanted;
    try {
      if (!wanted) await this.lock?.release();
      else if (document.visibilityState === "visible") this.lock = await navigator.wakeLock.request("screen");
    } catch {
      // Refused, mostly for a low battery: say so by taking the tick back.
      this.wanted = false;
      this.box.checked = false;
    }
  }
}
