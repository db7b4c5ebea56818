"""A job that trains on what replicas send: what its author may write, and what it compiles to without a row."""

from __future__ import annotations

import re
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from crowdlearn import SGD, Data, Job, Stream
from crowdlearn.chunks import read_chunk
from crowdlearn.errors import JobError
from crowdlearn.job.native import first_batch
from crowdlearn.job.prediction import to_onnx
from crowdlearn.job.scoring import Scorer
from crowdlearn.program import decode
from crowdlearn.spec import StreamSpec, decode_spec, encode_spec

SCHEMA = {"y": ("int32", ()), "x": ("float32", (3,))}
X = np.arange(60, dtype=np.float32).reshape(20, 3) / 60
Y = (np.arange(20) % 2).astype(np.int32)

NO_PREPROCESS = "a job with a stream expects preprocess, a function that makes rows of a raw item, got none"
NO_STREAM = "preprocess expects a stream of raw items, Data(stream=Stream(...)), got none"


def loss(params, batch):
    return jnp.mean((batch["x"] @ params["w"] - batch["y"].astype(jnp.float32)) ** 2)


def metrics(params, batch):
    return {"positive": jnp.mean(batch["x"] @ params["w"] > 0)}


def preprocess(raw):
    return {"x": raw["x"], "y": raw["y"]}


JOB = Job(
    name="stream",
    params={"w": np.ones(3, np.float32)},
    loss=loss,
    metrics=metrics,
    data=Stream(schema=SCHEMA),
    preprocess=preprocess,
    batch_size=4,
)
MIXED = replace(JOB, data=Data(train={"x": X, "y": Y}, stream=Stream(schema=SCHEMA)), epochs=3)


def refused(job: Job = JOB, **changes) -> str:
    with pytest.raises(JobError) as caught:
        replace(job, **changes).compile()
    return str(caught.value)


def test_a_stream_compiles_from_its_schema_alone() -> None:
    compiled = JOB.compile()
    spec = compiled.spec
    assert [(a.name, a.dtype, a.shape) for a in spec.batch.arrays] == [("x", "float32", (3,)), ("y", "int32", ())]
    assert (spec.train_rows, spec.epochs, spec.farmed_leases, spec.total_leases) == (0, 0, 0, 2**53 - 1)
    assert list(compiled.train) == list(compiled.held_out) == []
    assert spec.metrics == ("loss", "positive")
    assert [value.shape for value in decode(compiled.program).values][:1] == [(3,)]
    assert decode_spec(encode_spec(spec)) == spec


def test_services_read_what_the_author_wrote() -> None:
    given = Stream(
        schema=SCHEMA, train_on="both", policy="decay", pool_rows=np.int64(800), half_life=50, held_out_every=10,
        held_out_rows=99, keep_raw=60, max_item_bytes=1000, max_rows_per_item=7, items_per_second=5,
        bytes_per_second=9000, item_seconds=2,
    )  # fmt: skip
    assert replace(JOB, data=given).compile().spec.stream == StreamSpec(
        train_on="both", policy="decay", pool_rows=800, half_life_rows=50, lease_rows=16, held_out_every=10,
        held_out_rows=99, keep_raw_seconds=60, max_item_bytes=1000, max_rows_per_item=7, items_per_second=5,
        bytes_per_second=9000, item_seconds=2,
    )  # fmt: skip


def test_a_row_decays_to_half_in_a_quarter_of_the_pool_unless_told() -> None:
    stream = replace(JOB, data=Stream(schema=SCHEMA, pool_rows=800)).compile().spec.stream
    assert stream is not None
    assert stream.half_life_rows == 200


def test_a_mixed_job_has_its_epochs_first() -> None:
    compiled = MIXED.compile()
    spec = compiled.spec
    assert (spec.train_rows, spec.epochs, spec.farmed_leases) == (20, 3, 15)
    assert sum(len(read_chunk(chunk, spec.batch.arrays)["x"]) for chunk in compiled.train) == 20
    assert spec.initial_loss is not None


def test_a_stream_is_scored_in_as_many_rows_as_there_are() -> None:
    compiled = JOB.compile()
    scorer, flat = Scorer(compiled.metrics), np.ones(3, np.float32)
    for rows in (1, 16, 128):
        x, y = np.ones((rows, 3), "<f4"), np.zeros(rows, "<i4")
        count, values = scorer.score_chunk(flat, x.tobytes() + y.tobytes())
        assert (count, values.tolist()) == (rows, [9.0, 1.0])


def test_any_number_of_rows_is_scored_as_the_mean_over_them() -> None:
    scorer, flat = Scorer(JOB.compile().metrics), np.array([1, 0, 0], np.float32)
    # 150 rows: one call of 128, one of 16, six of 1.
    x, y = np.zeros((150, 3), "<f4"), np.zeros(150, "<i4")
    x[:, 0] = np.arange(150) % 5
    rows, values = scorer.score_rows(flat, x.tobytes() + y.tobytes())
    assert rows == 150
    # Squares of 0 to 4 are 6 in the mean, and four of five are positive.
    np.testing.assert_allclose(values, [6.0, 0.8], rtol=1e-6)


def test_held_out_rows_of_both_kinds_are_scored() -> None:
    data = Data(train={"x": X, "y": Y}, held_out={"x": X[:5], "y": Y[:5]}, stream=Stream(schema=SCHEMA))
    compiled = replace(MIXED, data=data).compile()
    scorer = Scorer(compiled.metrics)
    assert [scorer.score_chunk(compiled.parameters, chunk)[0] for chunk in compiled.held_out] == [5]
    assert compiled.spec.held_out_rows == 5


def test_a_stream_is_tried_on_held_out_rows_where_they_are_a_minibatch() -> None:
    held_out = {"x": X + 5, "y": Y}
    compiled = replace(JOB, data=Data(held_out=held_out, stream=Stream(schema=SCHEMA))).compile()
    np.testing.assert_array_equal(first_batch(compiled)["x"], X[:4] + 5)
    assert not compiled.is_made_up
    assert compiled.spec.initial_loss == pytest.approx(float(loss({"w": np.ones(3)}, {"x": X[:4] + 5, "y": Y[:4]})))
    few = {name: array[:3] for name, array in held_out.items()}
    compiled = replace(JOB, data=Data(held_out=few, stream=Stream(schema=SCHEMA))).compile()
    assert compiled.is_made_up
    assert len(first_batch(compiled)["x"]) == 4


def test_no_row_no_first_loss_and_no_first_norm() -> None:
    job = replace(JOB, optimizer=SGD(learning_rate=0.1, clip_norm=None))
    spec = job.compile().spec
    assert (spec.initial_loss, spec.initial_norms) == (None, ())


def test_a_loss_that_is_not_finite_of_made_up_rows_may_be_of_the_streams() -> None:
    def of_labels(params, batch):
        return jnp.mean(jnp.log(batch["y"].astype(jnp.float32))) * jnp.sum(params["w"])

    assert replace(JOB, loss=of_labels, metrics=None).compile().spec.initial_loss is None
    job = replace(MIXED, loss=of_labels, metrics=None)
    with pytest.raises(JobError, match="expects a finite number for the first minibatch"):
        job.compile()


def test_made_up_rows_let_no_gradient_be_zero_for_want_of_inputs() -> None:
    batch = first_batch(JOB.compile())
    assert batch["x"].shape == (4, 3)
    assert ((batch["x"] > 0) & (batch["x"] < 1)).all()
    assert batch["y"].tolist() == [0, 0, 0, 0]


def test_predict_is_tried_and_exported_from_the_schema() -> None:
    job = replace(JOB, predict=lambda params, batch: {"score": batch["x"] @ params["w"]})
    job.compile()
    model = to_onnx(job, {"w": np.ones(3, np.float32)}, "here", {})
    assert (model.inputs, model.outputs, model.rows) == (("x",), ("score",), None)
    assert refused(predict=lambda params, batch: batch["z"]).startswith("predict raised KeyError")


def test_a_streams_target_needs_held_out_items() -> None:
    assert "give Stream(held_out_every=10)" in refused(until="positive >= 0.5")
    job = replace(JOB, data=Stream(schema=SCHEMA, held_out_every=10), until="positive >= 0.5")
    assert str(job.compile().spec.until) == "positive >= 0.5"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preprocess": None}, NO_PREPROCESS),
        ({"preprocess": 3}, "preprocess expects a function of one raw item, got 3"),
        ({"data": Data({"x": X, "y": Y})}, NO_STREAM),
        ({"patience": 3}, "patience 3 counts epochs of training rows, of which a stream has none"),
        (
            {"data": Data(train={"x": X}, stream=Stream(schema=SCHEMA))},
            "training data expects the stream's schema, x: float32 of shape (3,), y: int32 of shape (), "
            "got x: float32 of shape (3,)",
        ),
        (
            {"data": Data(held_out={"x": X, "y": Y, "z": Y}, stream=Stream(schema=SCHEMA))},
            "held-out data expects the stream's schema, x: float32 of shape (3,), y: int32 of shape (), "
            "got x: float32 of shape (3,), y: int32 of shape (), z: int32 of shape ()",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_a_stream_is_told(changes, message) -> None:
    assert refused(**changes) == message


def test_preprocess_takes_one_item_and_returns() -> None:
    def of_two(raw, more):
        return None

    def yields(raw):
        yield None

    async def later(raw):
        return None

    assert re.fullmatch(
        r"preprocess expects a function of one raw item, got one of raw, more from .*:\d+", refused(preprocess=of_two)
    )
    assert "got one of nothing" in refused(preprocess=lambda: None)
    assert "expects a function that returns, got one that yields" in refused(preprocess=yields)
    assert "got a coroutine from" in refused(preprocess=later)
    for fine in (lambda raw: None, lambda raw, more=3: None, lambda *raw: None, dict):
        assert replace(JOB, preprocess=fine).preprocess is fine


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Stream(), "Stream expects schema, got nothing"),
        (lambda: Stream(schema=SCHEMA, window=3), "Stream has no field 'window'; it has schema, train_on, policy,"),
        (lambda: Stream(schema={}), "schema expects the arrays of a row by name, such as"),
        (lambda: Stream(schema={3: ("int32", ())}), "schema expects names that are strings, such as 'x', got 3"),
        (
            lambda: Stream(schema={"x": "float32"}),
            "schema of x expects a type and the shape of a row, such as ('float32', (28, 28)), got 'float32'",
        ),
        (lambda: Stream(schema={"x": (np.float64, ())}), "got 'float64': write float32"),
        (lambda: Stream(schema={"x": ("words", ())}), "got 'words'"),
        (lambda: Stream(schema={"x": ("int32", (-1,))}), "shape of x in the schema expects at least 0, got -1"),
        (lambda: Stream(schema={"x": ("int32", (0,))}), "schema expects at least one value in a row"),
        (lambda: Stream(schema=SCHEMA, train_on="all"), "train_on expects pool or sender or both, got 'all'"),
        (lambda: Stream(schema=SCHEMA, policy="fifo"), "policy expects window or reservoir or decay, got 'fifo'"),
        (lambda: Stream(schema=SCHEMA, pool_rows=10**9), "pool_rows expects at most 67,108,864, got 1,000,000,000"),
        (lambda: Stream(schema=SCHEMA, half_life=9), "half_life 9 expects policy='decay', got 'window'"),
        (lambda: Stream(schema=SCHEMA, held_out_every=1), "held_out_every expects 0 or at least 2, got 1"),
        (lambda: Stream(schema=SCHEMA, item_seconds=0), "item_seconds expects more than 0, got 0"),
        (lambda: Stream(schema=SCHEMA, keep_raw=-1), "keep_raw expects at least 0, got -1"),
        (lambda: Data(held_out={"x": X}), "Data expects train, or a stream, got held_out"),
        (lambda: Data({"x": X}, stream=SCHEMA), "stream expects Stream(schema={...}), got"),
        (lambda: Data(stream=Stream(schema=SCHEMA), chunk_url="https://a.b/"), "expects train, got only a stream"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_stream_is_told_with_what_was_expected(make, message) -> None:
    with pytest.raises(JobError) as caught:
        make()
    assert message in str(caught.value)
