import assert from "node:assert/strict";
import { test } from "node:test";
import { headlineMetric, lastIndex, mergeCurve, metricNames, panels } from "../page/curve.js";
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
  assert.deepEqual(anew, { run: "ffffffffffff", points: [point(1, "train", { loss: 2.3 })] });
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
    { metric: "accuracy", target: 0.93, lines: [{ kind: "held_out", x: [0.2], y: [0.4] }] },
    {
      metric: "loss",
      target: null,
      lines: [
        { kind: "held_out", x: [0.2], y: [1.8] },
        { kind: "train", x: [0.1], y: [2] },
      ],
    },
  ]);
  assert.deepEqual(panels(curve, status, "version")[0]?.lines[0]?.x, [10]);
});

test("points that were written out of order are drawn in order", () => {
  const late = { ...point(2, "train", { loss: 1 }), seconds: 0.05 };
  const status = answer([point(1, "train", { loss: 2 }), late]);
  assert.deepEqual(panels(mergeCurve(null, status), status, "seconds")[1]?.lines[0], { kind: "train", x: [0.05, 0.1], y: [1, 2] });
});
