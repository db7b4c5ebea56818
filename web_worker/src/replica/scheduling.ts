// Waiting: for messages, for a signal, for a time. Decides nothing.

/** Milliseconds of a clock that never jumps. */
export const now = (): number => performance.now();

export const pause = (milliseconds: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** Once the browser is online again, whoever waits to try again does so within a second. */
const HURRY_MILLISECONDS = 1000;

const retries = new Set<Timer>();

/** Waits before the service is tried again; `hurry` makes it short. */
export function pauseBeforeRetry(milliseconds: number): Promise<void> {
  return new Promise((resolve) => {
    const timer = new Timer(() => {
      retries.delete(timer);
      resolve();
    });
    retries.add(timer);
    timer.set(milliseconds);
  });
}

/** The browser is online again: a crowd that lost its network comes back at once, and each at a moment of its own. */
export function hurry(uniform: () => number): void {
  for (const timer of retries) timer.set(HURRY_MILLISECONDS * uniform());
}

const waiting: (() => void)[] = [];
let channel: MessageChannel | null = null;

// Opened at its first use: an open port keeps node alive, and with it a test that never computes.
function openChannel(): MessageChannel {
  const opened = new MessageChannel();
  opened.port1.onmessage = () => waiting.shift()?.();
  return opened;
}

/** Lets messages and timers in between two steps. Unlike `setTimeout(0)`, browsers do not slow it down when repeated. */
export function yieldToMessages(): Promise<void> {
  return new Promise((resolve) => {
    waiting.push(resolve);
    channel ??= openChannel();
    channel.port2.postMessage(null);
  });
}

/** A sleeper and whoever wakes it. A call of `wake` before `sleep` is not lost. */
export class Alarm {
  #isDue = false;
  #resolve: (() => void) | null = null;

  wake(): void {
    this.#isDue = true;
    this.#resolve?.();
  }

  async sleep(): Promise<void> {
    if (!this.#isDue) await new Promise<void>((resolve) => (this.#resolve = resolve));
    this.#isDue = false;
    this.#resolve = null;
  }
}

/** One timer that is set anew each time. */
export class Timer {
  #handle: ReturnType<typeof setTimeout> | null = null;

  constructor(readonly due: () => void) {}

  set(milliseconds: number): void {
    this.clear();
    this.#handle = setTimeout(() => {
      this.#handle = null;
      this.due();
    }, Math.max(0, milliseconds));
  }

  clear(): void {
    if (this.#handle !== null) clearTimeout(this.#handle);
    this.#handle = null;
  }
}
