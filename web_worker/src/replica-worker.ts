// Runs one replica inside a Web Worker. The page's side of it is worker.ts.

import { Participant } from "./participant";
import { DIRECT } from "./replica/network";
import type { ToWorker } from "./worker-messages";

const participant = new Participant((message) => self.postMessage(message), DIRECT);

self.onmessage = ({ data }: MessageEvent<ToWorker>): void => participant.hear(data);
