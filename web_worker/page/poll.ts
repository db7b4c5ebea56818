/** Asks again and again: after a pause while all is well, with backoff and jitter while it is not. Knows no addresses. */

/** While the gateway is away: the first pause, and the longest. */
const FIRST_RETRY_SECONDS = 1;
const LONGEST_RETRY_SECONDS = 30;

export interface PollClock {
  /** Resolves after so many seconds, or sooner when there is a reason to look at once (the tab is shown again). */
  readonly sleep: (seconds: number) => Promise<void>;
  /** Uniform in [0, 1). */
  readonly random: () => number;
}

export interface PollTask {
  /** Asks once, and says after how many seconds to ask again. */
  readonly ask: () => Promise<number>;
  /** Told of each failure, and how long the pause will be. */
  readonly failed: (error: unknown, retrySeconds: number) => void;
}

/** Doubles from one second to thirty; half of it is random, so that volunteers do not come back all at once. */
export function retrySeconds(failures: number, random: number): number {
  const longest = Math.min(LONGEST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2 ** failures);
  return longest / 2 + (longest / 2) * random;
}

/** Polls until `signal` aborts. */
export async function poll(task: PollTask, clock: PollClock, signal: AbortSignal): Promise<void> {
  let failures = 0;
  while (!signal.aborted) {
    let pause: number;
    try {
      pause = await task.ask();
      failures = 0;
    } catch (error) {
      pause = retrySeconds(failures, clock.random());
      failures += 1;
      task.failed(error, pause);
    }
    if (!signal.aborted) await clock.sleep(pause);
  }
}
