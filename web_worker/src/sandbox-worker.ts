// Runs one replica inside the Web Worker of a sandbox. The page's side of it is sandbox.ts.

import { Participant } from "./participant";
import { RelayedNetwork } from "./relayed";
import type { FromSandbox, ToSandbox } from "./worker-messages";

self.onmessage = ({ ports: [port] }: MessageEvent<null>): void => {
  if (!port) return;
  const tell = (message: FromSandbox): void => port.postMessage(message);
  const network = new RelayedNetwork(tell);
  const participant = new Participant(tell, network);
  port.onmessage = ({ data }: MessageEvent<ToSandbox>) => {
    if (!network.hear(data)) participant.hear(data as Exclude<ToSandbox, { id: number }>);
  };
  tell({ type: "loaded" });
};
