// Runs one replica inside a Web Worker. The page's side of it is worker.ts.

import { reasonOf } from "./errors";
import { Gateway, NoJobError } from "./replica/gateway";
import { Reporter } from "./replica/reporter";
import { prepareRunner, type Runner } from "./replica/runner";
import { hurry } from "./replica/scheduling";
import type { FromWorker, ToWorker } from "./worker-messages";

const tell = (message: FromWorker): void => self.postMessage(message);

const reporter = new Reporter({
  state: (state) => tell({ type: "state", state }),
  progress: (progress) => tell({ type: "progress", progress }),
});

let runner: Runner | null = null;

async function start({ base, job, backend }: Extract<ToWorker, { type: "start" }>): Promise<void> {
  try {
    runner = await prepareRunner(new Gateway(base), job, backend, reporter, () => tell({ type: "welcomed" }));
    await runner.run();
  } catch (error) {
    if (!(error instanceof NoJobError)) console.error(error);
    reporter.state({ state: "failed", message: reasonOf(error) });
  }
}

function online(): void {
  if (runner) runner.online();
  else hurry(Math.random);
}

async function stop(): Promise<void> {
  await runner?.stop();
  tell({ type: "gone" });
}

self.onmessage = ({ data }: MessageEvent<ToWorker>): void => {
  switch (data.type) {
    case "start": return void start(data);
    case "online": return online();
    case "stop": return void stop();
  }
};
