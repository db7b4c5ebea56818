/** A status as the page's tests need it: mnist, running, with what a test says is different. */

import type { JobStatus } from "../page/status.js";

export function aStatus(over: Partial<JobStatus> = {}): JobStatus {
  return {
    job: "mnist",
    run: "3f0c5a9d2b11",
    state: "running",
    reason: null,
    parameters: 79510,
    bytesPerPush: 79902,
    rows: 6800,
    epochs: 10,
    batchRows: 100,
    optimizer: "adagrad",
    until: null,
    versions: [812, 811],
    updatesPerSecond: 96.1,
    replicas: 4,
    gateways: 2,
    minibatches: 820,
    dropped: 2,
    backlog: 3,
    epoch: 1.6,
    loss: null,
    metrics: null,
    progressive: null,
    stream: null,
    met: 0,
    patience: null,
    page: false,
    diverging: null,
    stalled: null,
    curve: [],
    ...over,
  };
}
