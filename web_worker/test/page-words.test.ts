import assert from "node:assert/strict";
import { test } from "node:test";
import { pickAddress, readAddress } from "../page/address.js";
import { bytes, countTick, duration, metricValue, percent, rate, real, roughBytes, targetValue, timeTick, valueTick } from "../page/format.js";
import { readTarget } from "../page/target.js";
import { aimWords, costWords, jobSentence, jobState, replicasLabel, replicaWords, streamWords } from "../page/words.js";
import { aStatus } from "./page-status.js";

/** Units stand behind a no-break space; tests read better with a plain one. */
function plain(text: string): string {
  return text.replaceAll("\u00a0", " ");
}

test("a share is rounded down: 92.96 % has not reached 93 %", () => {
  assert.equal(plain(percent(0.9296)), "92.9 %");
  assert.equal(plain(percent(0.57)), "57.0 %");
  assert.equal(plain(percent(1)), "100.0 %");
});

test("a metric's name decides between per cent and a plain number", () => {
  assert.equal(plain(metricValue("accuracy", 0.912)), "91.2 %");
  assert.equal(metricValue("loss", 0.4123), "0.412");
  assert.equal(plain(targetValue("accuracy", 0.93)), "93 %");
  assert.equal(plain(targetValue("accuracy", 0.955)), "95.5 %");
  assert.equal(targetValue("loss", 0.35), "0.35");
});

test("numbers keep about three digits", () => {
  assert.deepEqual([0, 0.00032, 0.41234, 12.345, 1234.5, 1e28].map(real), ["0.000", "3.2e-4", "0.412", "12.3", "1,235", "1.0e+28"]);
  assert.deepEqual([0, 0.5, 96.13, 1234].map(rate), ["0", "0.50", "96.1", "1,234"]);
  assert.deepEqual([0, 999, 79902, 19_176_480, 2.5e12].map(bytes), ["0 B", "999 B", "79.9 KB", "19.2 MB", "2.5 TB"]);
  assert.equal(roughBytes(79902), "80 KB");
});

test("durations and ticks read as people say them", () => {
  assert.deepEqual([7.6, 84, 120, 7500].map(duration), ["8 s", "1 min 24 s", "2 min", "2 h 5 min"]);
  assert.deepEqual([timeTick(0, 20, 80), timeTick(20, 20, 80)], ["0", "20 s"]);
  assert.deepEqual([timeTick(90, 30, 200), timeTick(300, 60, 600)], ["1:30", "5 min"]);
  assert.deepEqual([timeTick(5400, 1800, 9000), timeTick(7200, 3600, 90000)], ["1:30 h", "2 h"]);
  assert.deepEqual([500, 1500, 20000, 3e6].map(countTick), ["500", "1.5k", "20k", "3M"]);
});

test("the values of an axis have as many decimals as its step", () => {
  assert.deepEqual([0, 1, 2.5].map((value) => valueTick(value, 0.5)), ["0.0", "1.0", "2.5"]);
  assert.deepEqual([[2, 1], [0.75, 0.25], [20, 10], [0.0004, 0.0001]].map(([value = 0, step = 0]) => valueTick(value, step)), [
    "2", "0.75", "20", "4.0e-4",
  ]);
});

test("a target reads as the job's author wrote it, and nonsense as none", () => {
  assert.deepEqual(readTarget("accuracy >= 0.93"), { metric: "accuracy", relation: ">=", value: 0.93 });
  assert.deepEqual(readTarget("loss<=3e-1"), { metric: "loss", relation: "<=", value: 0.3 });
  assert.equal(readTarget("accuracy > 1"), null);
  assert.equal(readTarget(null), null);
});

test("the job is one sentence, with its target or its epochs", () => {
  assert.equal(
    plain(jobSentence(aStatus({ until: "accuracy >= 0.93" }))),
    "79,510 parameters learn from 6,800 rows, 100 at a time, with Adagrad, until accuracy ≥ 93 %.",
  );
  assert.match(jobSentence(aStatus({ optimizer: "lion" })), /with lion, for 10 epochs\.$/);
});

test("the state says why a job ended", () => {
  const ended = (reason: string | null): string =>
    plain(jobState(aStatus({ state: "finished", reason, until: "accuracy >= 0.93" }), 84).words);
  assert.equal(ended("until"), "Finished: reached accuracy ≥ 93 % after 1 min 24 s and 811 gradients");
  assert.equal(ended("epochs"), "Finished: all 10 epochs done after 1 min 24 s and 811 gradients");
  assert.equal(
    plain(jobState(aStatus({ state: "finished", reason: "patience", patience: 3 }), 84).words),
    "Finished: no better score in 3 epochs, after 1 min 24 s and 811 gradients",
  );
  assert.equal(ended("stopped"), "Stopped by its operator after 1 min 24 s and 811 gradients");
  assert.equal(ended("diverged"), "Ended because the model diverged, after 1 min 24 s and 811 gradients");
  assert.equal(ended(null), "Finished after 1 min 24 s and 811 gradients");
});

test("a running job without replicas waits for someone", () => {
  assert.equal(jobState(aStatus({ replicas: 0 }), null).lamp, "idle");
  assert.equal(jobState(aStatus(), null).lamp, "training");
});

test("a job that does not get on says why, whether or not someone is here", () => {
  const stalled = { reason: "not-finite", refused: 40, seconds: 95 };
  const { lamp, words } = jobState(aStatus({ replicas: 0, stalled }), null);
  assert.equal(lamp, "stalled");
  assert.equal(plain(words), "Stalled for 1 min 35 s: its loss is not a finite number any more. Its operator has to act");
  const passing = jobState(aStatus({ stalled: { ...stalled, reason: "expired" } }), null).words;
  assert.match(passing, /gradients are refused \(expired\)\. If that lasts, its operator has to act$/);
  assert.equal(jobState(aStatus({ state: "finished", reason: "stopped", stalled: null }), null).lamp, "finished");
});

test("more than a hundredth of the minibatches dropped is said, of a job that runs and of one that has ended", () => {
  const few = { minibatches: 800, dropped: 8 }, many = { minibatches: 800, dropped: 9 };
  assert.equal(jobState(aStatus(few), null).words, "Training now");
  assert.equal(jobState(aStatus(many), null).words, "Training now; 9 of 800 minibatches were dropped: they gave no finite numbers");
  const { words } = jobState(aStatus({ ...many, state: "finished", reason: "epochs" }), 84);
  assert.match(words, /^Finished: all 10 epochs done after .*; 9 of 800 minibatches were dropped: they gave no finite numbers$/);
});

test("the aim says when it is reached, in either direction", () => {
  const accuracy = aStatus({ until: "accuracy >= 0.93" });
  assert.equal(plain(aimWords(accuracy, "accuracy", 0.92)), "target 93 %");
  const until = { state: "finished", reason: "until", met: 2 } as const;
  assert.equal(plain(aimWords(aStatus({ until: "accuracy >= 0.93", ...until }), "accuracy", 0.93)), "target 93 % reached");
  assert.equal(plain(aimWords(aStatus({ until: "loss <= 0.3", ...until }), "loss", 0.29)), "target 0.3 reached");
  assert.equal(aimWords(aStatus(), "loss", 0.5), "newest value");
});

test("a target that was met, but not twice in a row, says so", () => {
  const met = (met: number, value: number): string =>
    plain(aimWords(aStatus({ until: "accuracy >= 0.93", met }), "accuracy", value));
  assert.equal(met(1, 0.94), "target 93 % met once; it needs two in a row");
  assert.equal(met(1, 0.91), "target 93 % met once; it needs two in a row");
  assert.equal(met(3, 0.91), "target 93 % met 3 times; it needs two in a row");
  const ended = aStatus({ until: "accuracy >= 0.93", met: 1, state: "finished", reason: "epochs" });
  assert.equal(plain(aimWords(ended, "accuracy", 0.94)), "target 93 % met by the last scoring");
});

test("a run that diverges says so, while it goes on and after its end", () => {
  const training = { where: "training", metric: "loss", certain: true, value: 1e28, first: 2.3 } as const;
  const { lamp, words } = jobState(aStatus({ diverging: training }), null);
  assert.equal(lamp, "stalled");
  assert.equal(words, "Diverges: its training loss is 1.0e+28, and began at 2.300. Its operator can submit it anew, with a smaller learning rate or clip_norm");
  const heldOut = { where: "held_out", metric: "top_5", certain: true, value: null, first: null } as const;
  assert.match(jobState(aStatus({ diverging: heldOut }), null).words, /^Diverges: its held-out top 5 is not a finite number any more/);
  const unsure = { ...heldOut, certain: false };
  assert.match(jobState(aStatus({ diverging: unsure }), null).words, /^Cannot be scored, or diverges: its held-out top 5 is not/);
  const exploded = { ...training, where: "held_out" } as const;
  assert.match(jobState(aStatus({ diverging: exploded }), null).words, /^Diverges: its held-out loss is 1\.0e\+28, and began/);
  const ended = jobState(aStatus({ state: "finished", reason: "epochs", diverging: heldOut }), 84);
  assert.match(plain(ended.words), /^Finished: all 10 epochs done .* gradients\. Diverges: its held-out top 5/);
  const good = jobState(aStatus({ state: "finished", reason: "until", until: "accuracy >= 0.93", diverging: heldOut }), 84);
  assert.doesNotMatch(good.words, /Diverges/);
});

test("replicas on several gateways say so", () => {
  assert.deepEqual([0, 1, 2, 1200].map((gateways) => replicasLabel({ gateways })), [
    "Replicas at work", "Replicas at work", "Replicas on 2 gateways", "Replicas on 1,200 gateways",
  ]);
});

test("the offer names its cost", () => {
  assert.match(costWords(aStatus()), /about 80 KB per gradient/);
});

test("a replica's own words go before ours", () => {
  assert.equal(replicaWords("training", "Computing gradients."), "Computing gradients");
  assert.equal(replicaWords("waiting", ""), "Waiting for rows to train on");
});

test("the address picks a job and may join, but picking never joins", () => {
  assert.deepEqual(readAddress("?job=mnist&join"), { job: "mnist", join: true });
  assert.deepEqual(readAddress("?join=0"), { job: null, join: false });
  assert.equal(pickAddress("mnist-2"), "?job=mnist-2");
});

test("a stream has no epochs: what pages sent is told instead", () => {
  const stream = { gaveRows: 1200, discarded: 30, rejected: 4, poolRows: 1000 };
  const status = aStatus({ stream, rows: 0, epochs: 0, epoch: 0 });
  assert.equal(streamWords(status), "1,234 items received, 1,000 rows to train on");
  assert.equal(jobSentence(status), "79,510 parameters learn from what pages send, 100 at a time, with Adagrad, without an end.");
  assert.match(costWords(status), /nothing about you is sent but what you enter in a page of this job/);
  assert.equal(streamWords(aStatus()), null);
});

test("a job with rows of its own has its epochs first, and what pages send after them", () => {
  const stream = { gaveRows: 1, discarded: 0, rejected: 0, poolRows: 1 };
  assert.equal(streamWords(aStatus({ stream })), null);
  assert.equal(streamWords(aStatus({ stream, epoch: 10 })), "1 item received, 1 row to train on");
  assert.match(jobSentence(aStatus({ stream })), /learn from 6,800 rows and what pages send, .* without an end\.$/);
});
