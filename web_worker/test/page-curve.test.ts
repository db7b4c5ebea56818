import assert from "node:assert/strict";
import { test } from "node:test";
import { headlineMetric, lastIndex, longest, mergeCurve, MAX_POINTS, metricNames, panels, trainingSeconds } from "../page/curve.js";
import type { CurvePoint, JobStatus } from "../page/status.js";
import { aStatus } from "./page-status.js";

function point(index: number, kind: CurvePoint["kind"], values: Record<string, number>): CurvePoint {
  return { index, kind, seconds: index / 10, version: index * 5, values };
}

function answer(curve: readonly CurvePoint[], over: Partial<JobStatus> = {}): JobStatus {
  return aStatus({ until: "accuracy >= 0.93", curve, ...over });
}

test("an answer's points are added behind those we know, each once", () => {
  const first = mergeCurve(null, answer([point(1, "train", { loss: 2 }), point(2, "train", { loss: 1.5 })]));
  const second = mergeCurve(first, answer([point(2, "train", { loss: 1.5 }), point(3, "train", { loss: 1 })]));
  assert.deepEqual(second.points.map((known) => known.index), [1, 2, 3]);
  assert.equal(lastIndex(second), 3);
});

test("an answer without news leaves the curve as it is, so that nothing is drawn anew", () => {
  const curve = mergeCurve(null, answer([point(1, "train", { loss: 2 })]));
  assert.equal(mergeCurve(curve, answer([])), curve);
});

test("another run starts the curve anew", () => {
  const old = mergeCurve(null, answer([point(40, "train", { loss: 0.2 })]));
  const anew = mergeCurve(old, answer([point(1, "train", { loss: 2.3 })], { run: "ffffffffffff" }));
  assert.deepEqual(anew, { run: "ffffffffffff", points: [point(1, "train", { loss: 2.3 })], startSeconds: 0.1 });
});

test("a tab left open keeps the newest 5,000 points, and time goes on counting from the first", () => {
  const train = (from: number, to: number): CurvePoint[] =>
    Array.from({ length: to - from + 1 }, (_, i) => point(from + i, "train", { loss: 1 }));
  const full = mergeCurve(null, answer(train(1, 5000)));
  const later = mergeCurve(full, answer(train(5001, 5003)));
  assert.equal(MAX_POINTS, 5000);
  assert.deepEqual([later.points.length, later.points[0]?.index, lastIndex(later)], [5000, 4, 5003]);
  assert.equal(trainingSeconds(later), 500.3 - 0.1);
  assert.equal(trainingSeconds(mergeCurve(later, answer([point(5004, "train", { loss: 1 })]))), 500.4 - 0.1);
});

test("no curve asks for all points", () => {
  assert.equal(lastIndex(null), -1);
});

test("the target's metric comes first, then held-out metrics, then loss, then what only training knows", () => {
  const status = answer([point(1, "train", { loss: 2, penalty: 0.1 }), point(2, "held_out", { loss: 2, auc: 0.5, recall: 0.4 })], {
    until: "recall >= 0.9",
    metrics: { auc: 0.5, recall: 0.4, loss: 2 },
  });
  const curve = mergeCurve(null, status);
  assert.deepEqual(metricNames(curve, status), ["recall", "auc", "loss", "penalty"]);
  assert.equal(headlineMetric(curve, status), "recall");
});

test("a job without a target or a point still has a panel for its loss", () => {
  const status = answer([], { until: null });
  assert.deepEqual(panels(mergeCurve(null, status), status, "seconds"), [{ metric: "loss", target: null, lines: [] }]);
});

test("a panel holds the held-out line before the training line, over seconds or over gradients", () => {
  const status = answer([point(1, "train", { loss: 2 }), point(2, "held_out", { loss: 1.8, accuracy: 0.4 })], { metrics: { accuracy: 0.4 } });
  const curve = mergeCurve(null, status);
  assert.deepEqual(panels(curve, status, "seconds"), [
    { metric: "accuracy", target: 0.93, lines: [{ kind: "held_out", x: [0.1], y: [0.4] }] },
    {
      metric: "loss",
      target: null,
      lines: [
        { kind: "held_out", x: [0.1], y: [1.8] },
        { kind: "train", x: [0], y: [2] },
      ],
    },
  ]);
  assert.deepEqual(panels(curve, status, "version")[0]?.lines[0]?.x, [10]);
});

test("points that were written out of order are drawn in order", () => {
  const late = { ...point(3, "train", { loss: 1 }), seconds: 0.15 };
  const status = answer([point(1, "train", { loss: 3 }), point(2, "train", { loss: 2 }), late]);
  const line = panels(mergeCurve(null, status), status, "version")[1]?.lines[0];
  assert.deepEqual(line?.y, [3, 2, 1]);
  const times = panels(mergeCurve(null, status), status, "seconds")[1]?.lines[0];
  assert.deepEqual(times?.y, [3, 1, 2]);
});

test("time counts from the first gradients, however long the job had waited for them", () => {
  const at = (index: number, seconds: number): CurvePoint => ({ ...point(index, "train", { loss: 1 }), seconds });
  const curve = mergeCurve(null, answer([at(1, 3600), at(2, 3601), at(3, 3684)]));
  assert.equal(trainingSeconds(curve), 84);
  assert.equal(longest(curve, "seconds"), 84);
  assert.equal(longest(curve, "version"), 15);
});

test("a score of the initial values, long before, lies at the beginning", () => {
  const initial = { ...point(1, "held_out", { accuracy: 0.1 }), seconds: 2 };
  const first = { ...point(2, "train", { loss: 2 }), seconds: 600 };
  const status = answer([initial, first]);
  const [accuracy, loss] = panels(mergeCurve(null, status), status, "seconds");
  assert.deepEqual([accuracy?.lines[0]?.x, loss?.lines[0]?.x], [[0], [0]]);
});

test("when the first points are no longer kept, time counts from the job's creation", () => {
  const curve = mergeCurve(null, answer([point(900, "train", { loss: 1 })]));
  assert.equal(curve.startSeconds, 0);
  assert.equal(trainingSeconds(mergeCurve(null, answer([]))), null);
});

test("fresh rows have a line of their own, between held-out and training", () => {
  const status = answer([point(1, "train", { loss: 2 }), point(2, "progressive", { loss: 1.9, accuracy: 0.3 }), point(3, "held_out", { loss: 1.8 })]);
  const kinds = panels(mergeCurve(null, status), status, "version").map(({ metric, lines }) => [metric, lines.map(({ kind }) => kind)]);
  assert.deepEqual(kinds, [
    ["accuracy", ["progressive"]],
    ["loss", ["held_out", "progressive", "train"]],
  ]);
});
