import assert from "node:assert/strict";
import { test } from "node:test";
import { ScreenLock, type Lock } from "../page/screen-lock.js";

/** Locks that the browser gives when `give` is called; `held` counts those that nobody released. */
class Browser {
  held = 0;
  readonly #waiting: (() => void)[] = [];

  readonly request = (): Promise<Lock> =>
    new Promise((resolve) => {
      this.#waiting.push(() => {
        this.held += 1;
        resolve({ release: () => Promise.resolve(void (this.held -= 1)) });
      });
    });

  give(): void {
    this.#waiting.shift()?.();
  }
}

test("a lock that comes after the release is given back", async () => {
  const browser = new Browser();
  const screen = new ScreenLock(browser.request);
  const holding = screen.hold();
  await screen.release();
  browser.give();
  await holding;
  assert.equal(browser.held, 0);
});

test("of two locks that were asked for one is held, and none after the release", async () => {
  const browser = new Browser();
  const screen = new ScreenLock(browser.request);
  const holding = [screen.hold(), screen.hold()];
  browser.give();
  browser.give();
  await Promise.all(holding);
  assert.equal(browser.held, 1);
  await screen.release();
  assert.equal(browser.held, 0);
});

test("a refusal is told", async () => {
  const screen = new ScreenLock(() => Promise.reject(new Error("low battery")));
  await assert.rejects(screen.hold(), /low battery/);
});
