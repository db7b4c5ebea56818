/** Keeps the screen on, if asked to: a phone that goes dark stops computing. Off by default. */

import { element } from "./elements.js";
import { ScreenLock } from "./screen-lock.js";

export class Awake {
  private readonly label = element("awake");
  private readonly box = element<HTMLInputElement>("awake-box");
  private readonly screen = new ScreenLock(() => navigator.wakeLock.request("screen"));

  constructor() {
    // Missing outside https and in some browsers: then there is nothing to offer.
    this.label.hidden = !("wakeLock" in navigator);
    this.box.addEventListener("change", () => void this.follow());
    // A browser takes the lock away from a hidden tab.
    document.addEventListener("visibilitychange", () => void this.follow());
  }

  /** Lets the screen sleep again. */
  release(): void {
    this.box.checked = false;
    void this.follow();
  }

  private async follow(): Promise<void> {
    try {
      if (!this.box.checked) await this.screen.release();
      else if (document.visibilityState === "visible") await this.screen.hold();
    } catch {
      // Refused, mostly for a low battery: say so by taking the tick back.
      this.box.checked = false;
      void this.screen.release();
    }
  }
}
