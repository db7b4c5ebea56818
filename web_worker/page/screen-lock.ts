/** Holds one lock on the screen while it is wanted, however long the browser takes to give it. Knows no page. */

/** What of a WakeLockSentinel is used. */
export interface Lock {
  release(): Promise<void>;
}

export class ScreenLock {
  private lock: Lock | null = null;
  private wanted = false;

  constructor(private readonly request: () => Promise<Lock>) {}

  /** Asks for a lock; throws when the browser refuses. One that comes after `release` is given back at once. */
  async hold(): Promise<void> {
    this.wanted = true;
    const lock = await this.request();
    const useless = this.wanted ? this.lock : lock;
    if (this.wanted) this.lock = lock;
    await useless?.release();
  }

  /** Lets the screen sleep again. */
  async release(): Promise<void> {
    this.wanted = false;
    const { lock } = this;
    this.lock = null;
    await lock?.release();
  }
}
