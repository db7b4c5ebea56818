"""A job as a user writes it: what it compiles to, and what it is refused for."""

from __future__ import annotations

import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
import pytest

from crowdlearn import SGD, Adagrad, Adam, Data, Downpour, Job, Momentum, Normal, RMSprop
from crowdlearn.chunks import read_chunk
from crowdlearn.errors import JobError, SetupError
from crowdlearn.job.scoring import Scorer
from crowdlearn.program import decode, evaluate
from crowdlearn.sharding import Shard
from crowdlearn.spec import Headline, decode_spec, encode_spec
from crowdlearn.weights import named

X = np.arange(120, dtype=np.float64).reshape(40, 3) / 120
Y = (np.arange(40) % 2).astype(np.int64)


def loss(params, batch):
    return jnp.mean((batch["x"] @ params["w"] + params["b"] - batch["y"].astype(jnp.float32)) ** 2)


def square(params, batch):
    return jnp.mean((batch["x"] @ params["w"]) ** 2)


def metrics(params, batch):
    return {"positive": jnp.mean(batch["x"] @ params["w"] > 0)}


JOB = Job(
    name="line",
    params={"w": Normal(3), "b": np.zeros(())},
    loss=loss,
    metrics=metrics,
    data=Data(train={"x": X[:32], "y": Y[:32]}, held_out={"x": X[32:], "y": Y[32:]}),
    batch_size=4,
)


def refused(**changes) -> str:
    with pytest.raises(JobError) as caught:
        replace(JOB, **changes).compile()
    return str(caught.value)


def test_a_compiled_job_holds_everything_that_services_need():
    compiled = JOB.compile(run="0123456789ab", now=5.0)
    spec = compiled.spec
    assert (spec.name, spec.run, spec.created_seconds) == ("line", "0123456789ab", 5.0)
    assert [(p.name, p.shape, p.offset) for p in spec.parameters] == [("b", (), 0), ("w", (3,), 1)]
    assert spec.shards == (Shard(0, 4),)
    assert [(a.name, a.dtype, a.shape) for a in spec.batch.arrays] == [("x", "float32", (3,)), ("y", "int32", ())]
    assert (spec.train_rows, spec.held_out_rows, spec.held_out_arrays) == (32, 8, ("x", "y"))
    assert spec.metrics == ("loss", "positive")
    assert (spec.training.push_codec, spec.training.fetch_codec) == ("int8", "f16")
    assert decode_spec(encode_spec(spec)) == spec


def test_its_chunks_hold_every_training_row_once_in_another_order():
    compiled = JOB.compile()
    assert len(list(compiled.train)) == compiled.spec.train_chunks
    rows = [read_chunk(chunk, compiled.spec.batch.arrays)["x"] for chunk in compiled.train]
    assert [len(part) for part in rows] == [compiled.spec.rows_of_chunk(i) for i in range(len(rows))]
    got = np.concatenate(rows)
    assert not np.array_equal(got, X[:32].astype(np.float32))
    np.testing.assert_array_equal(got[np.argsort(got[:, 0])], X[:32].astype(np.float32))


def test_its_program_computes_the_users_loss():
    compiled = JOB.compile()
    program = decode(compiled.program)
    b, w = compiled.parameters[:1].reshape(()), compiled.parameters[1:]
    batch = {"x": X[:4].astype(np.float32), "y": Y[:4].astype(np.int32)}
    value, _ = evaluate(program, [b, w], [batch["x"], batch["y"]])
    assert value == pytest.approx(float(loss({"w": w, "b": b}, batch)), rel=1e-6)


def test_the_same_seed_gives_the_same_job_and_another_does_not():
    first, second = (JOB.compile(run="0" * 12, now=0.0) for _ in range(2))
    other = replace(JOB, seed=1).compile(run="0" * 12, now=0.0)
    np.testing.assert_array_equal(first.parameters, second.parameters)
    assert list(first.train) == list(second.train)
    assert first.program == second.program
    assert not np.array_equal(first.parameters, other.parameters)
    assert list(first.train) != list(other.train)


def test_each_compilation_is_a_new_run():
    assert JOB.compile().spec.run != JOB.compile().spec.run


def test_its_scoring_function_weighs_chunks_by_their_rows():
    compiled = JOB.compile()
    flat = np.array([0.5, 1, 2, 3], np.float32)
    tree = {"b": flat[0], "w": flat[1:]}
    batch = {"x": X[32:].astype(np.float32), "y": Y[32:].astype(np.int32)}
    scored = Scorer(compiled.metrics).score(flat, compiled.held_out)
    assert scored["loss"] == pytest.approx(float(loss(tree, batch)), rel=1e-6)
    assert scored["positive"] == 1.0


def noisy_loss(params, batch, key):
    return loss(params, batch) + jax.random.uniform(key)


def test_a_loss_with_a_key_is_scored_with_the_key_of_the_jobs_seed():
    compiled = replace(JOB, loss=noisy_loss, seed=7).compile()
    flat = np.array([0.5, 1, 2, 3], np.float32)
    batch = {"x": X[32:].astype(np.float32), "y": Y[32:].astype(np.int32)}
    expected = float(noisy_loss({"b": flat[0], "w": flat[1:]}, batch, jax.random.key(7)))
    scorer = Scorer(compiled.metrics)
    assert scorer.score(flat, compiled.held_out)["loss"] == pytest.approx(expected, rel=1e-6)
    assert scorer.score(flat, compiled.held_out) == scorer.score(flat, compiled.held_out)
    assert decode(compiled.program).key is not None


def test_metrics_may_measure_the_loss_without_the_noise():
    def metrics(params, batch):
        return {"loss": loss(params, batch), "half": 0.5}

    compiled = replace(JOB, loss=noisy_loss, metrics=metrics, until=None).compile()
    flat = np.array([0.5, 1, 2, 3], np.float32)
    batch = {"x": X[32:].astype(np.float32), "y": Y[32:].astype(np.int32)}
    expected = float(loss({"b": flat[0], "w": flat[1:]}, batch))
    scored = Scorer(compiled.metrics).score(flat, compiled.held_out)
    assert list(scored) == ["loss", "half"]
    assert scored["loss"] == pytest.approx(expected, rel=1e-6)


def test_a_last_chunk_of_fewer_rows_is_scored_too(monkeypatch):
    monkeypatch.setattr("crowdlearn.chunks.CHUNK_BYTES", 16 * 4)
    compiled = JOB.compile()
    assert [len(chunk) // 16 for chunk in compiled.held_out] == [4, 4]
    job = replace(JOB, data=Data(JOB.data.train, {"x": X[33:], "y": Y[33:]}))
    compiled = job.compile()
    assert [len(chunk) // 16 for chunk in compiled.held_out] == [4, 3]
    flat = np.array([0.5, 1, 2, 3], np.float32)
    batch = {"x": X[33:].astype(np.float32), "y": Y[33:].astype(np.int32)}
    expected = float(loss({"b": flat[0], "w": flat[1:]}, batch))
    assert Scorer(compiled.metrics).score(flat, compiled.held_out)["loss"] == pytest.approx(expected, rel=1e-6)


def test_without_held_out_data_nothing_is_scored():
    compiled = replace(JOB, data=Data(JOB.data.train)).compile()
    assert compiled.metrics is None
    assert list(compiled.held_out) == []
    assert compiled.spec.held_out_chunks == 0


def test_every_optimizer_reaches_the_spec_with_its_own_defaults():
    for optimizer, rate in ((SGD(), 0.1), (Momentum(), 0.01), (RMSprop(), 0.001), (Adagrad(), 0.05), (Adam(), 0.001)):
        spec = replace(JOB, optimizer=optimizer).compile().spec
        assert (spec.optimizer.name, spec.optimizer.learning_rate) == (optimizer.name, rate)
        assert spec.training.local_learning_rate == rate


def test_every_hyperparameter_reaches_the_spec():
    optimizer = Adam(learning_rate=0.2, b1=0.8, b2=0.9, epsilon=1e-3, warmup_steps=7, weight_decay=0.1, clip_value=2.0)
    downpour = Downpour(
        n_push=3, n_fetch=2, local_learning_rate=0.01, max_accumulate=5, max_ahead=4, shard_size=2048, push_codec="f16",
        fetch_codec="f32", expected_staleness=4, staleness_limit=9,
    )  # fmt: skip
    job = replace(JOB, optimizer=optimizer, downpour=downpour, seed=3, epochs=2, until="positive <= 0.5")
    spec = job.compile().spec
    for name in ("learning_rate", "b1", "b2", "epsilon", "warmup_steps", "weight_decay", "clip_value", "clip_norm"):
        assert getattr(spec.optimizer, name) == getattr(optimizer, name)
    expected = {"n_push": 3, "n_fetch": 2, "local_learning_rate": 0.01, "max_accumulate": 5, "max_ahead": 4}
    expected |= {"push_codec": "f16", "fetch_codec": "f32", "seed": 3, "clip_value": 2.0, "clip_norm": 1.0}
    assert msgspec.structs.asdict(spec.training) == expected
    assert (spec.staleness.expected, spec.staleness.limit, spec.epochs) == (4, 9, 2)
    assert str(spec.until) == "positive <= 0.5"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"name": "My Job"},
            "a job's name expects at most 63 lowercase letters, digits and hyphens",
        ),
        ({"loss": 3}, "loss expects a function of (params, batch), got 3"),
        ({"data": {"x": X}}, "data expects Data(train={...}, held_out={...}), got a dict: write Data(x)"),
        ({"data": (X, Y)}, "data expects Data(train={...}, held_out={...}), got a tuple: give each array a name"),
        ({"downpour": {}}, "downpour expects Downpour(...), got a dict"),
        ({"data": Data(X)}, "training data expects arrays by name, such as {'x': x, 'y': y}, got one array: give it"),
        (
            {"data": Data(np.zeros(4, [("x", "f4", 3), ("y", "f4")]))},
            "got a structured array: write {name: x[name] for name in x.dtype.names}, of x, y",
        ),
        ({"optimizer": "adam"}, "optimizer expects an optimizer such as Adagrad(learning_rate=0.05), got 'adam'"),
        ({"batch_size": 0}, "batch_size expects at least 1, got 0"),
        ({"batch_size": 4.5}, "batch_size expects a whole number, got 4.5"),
        ({"batch_size": 33}, "batch_size expects at most 32, the training rows, got 33"),
        ({"epochs": 0}, "epochs expects at least 1, got 0"),
        ({"until": "accuracy > 0.9"}, "until is 'METRIC >= VALUE' or 'METRIC <= VALUE', got 'accuracy > 0.9'"),
        ({"until": "positive >= 1e400"}, "until compares with a finite number, got '1e400'"),
        ({"until": "accuracy >= 0.9"}, "until expects one of loss, positive, got 'accuracy' in 'accuracy >= 0.9'"),
        ({"params": {}}, "a job has at least one parameter array, got none"),
        ({"data": Data({})}, "training data expects arrays by name, got {}"),
        ({"data": Data({"x": X, "y": Y[:3]})}, "training arrays expect equally many rows, got {'x': 40, 'y': 3}"),
        (
            {"data": Data({"x": X, "y": Y}, {"x": X[:, :2], "y": Y})},
            "held-out array x expects rows of shape (3,), as in training, got (2,)",
        ),
        ({"data": Data({"x": X, "y": Y}, {"x": X})}, "held-out array y expects rows of shape (), as in training"),
        (
            {"metrics": lambda p, b: 3.0},
            "metrics returns scalars by name, such as {'accuracy': ...}, got float32[] from tests/job/test_jobs.py:",
        ),
        ({"metrics": lambda p, b: {"loss": 1.0}}, "of letters, digits and _ other than 'loss', got 'loss'"),
        ({"metrics": lambda p, b: {"wide": b["x"]}}, "metric wide expects a scalar, got float32[8, 3] from tests/job"),
        ({"metrics": lambda p, b: {"a": b["z"]}}, "metrics raised KeyError at tests/job/test_jobs.py:"),
    ],
)
def test_a_mistake_is_told_with_what_was_expected_and_what_came(changes, message):
    assert message in refused(**changes)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SGD(learning_rate=0), "learning_rate expects more than 0, got 0"),
        (lambda: SGD(learning_rate=float("nan")), "learning_rate expects a number, got nan"),
        (lambda: Momentum(momentum=1.0), "momentum expects at least 0 and less than 1, got 1.0"),
        (lambda: Adagrad(clip_norm=-1), "clip_norm expects more than 0, got -1"),
        (lambda: Adam(warmup_steps=-1), "warmup_steps expects at least 0, got -1"),
        (lambda: Downpour(n_push=0), "n_push expects at least 1, got 0"),
        (lambda: Downpour(push_codec="f64"), "push_codec expects one of f32, f16, int8, got 'f64'"),
        (lambda: Downpour(shard_size=100), "shard_size expects at least 1,024, got 100"),
        (lambda: Downpour(expected_staleness=5, staleness_limit=4), "staleness_limit expects at least 5, got 4"),
    ],
)
def test_a_hyperparameter_out_of_range_is_refused_at_once(make, message):
    with pytest.raises(JobError, match=message.replace("(", r"\(")):
        make()


def test_patience_is_stored_in_epochs_with_the_loss_of_the_untrained_model():
    spec = replace(JOB, patience=3, min_improvement=0.01).compile().spec
    assert decode_spec(encode_spec(spec)) == spec
    assert (spec.patience, spec.min_improvement) == (3.0, 0.01)
    params = named(spec.parameters, JOB.compile().parameters)
    assert spec.initial_loss == pytest.approx(float(loss(params, {"x": X[:4], "y": Y[:4]})), rel=1e-5)
    assert (JOB.compile().spec.patience, JOB.compile().spec.min_improvement) == (None, 0.0)


def test_the_norms_of_the_first_gradient_are_known_where_nothing_is_clipped():
    wide = replace(JOB, params={"w": Normal((3, 700))}, loss=square, metrics=None, downpour=Downpour(shard_size=1024))
    compiled = replace(wide, optimizer=SGD(learning_rate=0.1, clip_norm=None)).compile()
    spec = compiled.spec
    slope = np.ravel(jax.grad(square)(named(spec.parameters, compiled.parameters), {"x": jnp.float32(X[:4])})["w"])
    norms = [np.linalg.norm(slope[shard.slice]) for shard in spec.shards]
    assert len(norms) == 3
    assert spec.initial_norms == pytest.approx(norms, rel=1e-5)
    assert wide.compile().spec.initial_norms == ()


def test_the_headline_is_the_metric_of_the_target_or_else_the_loss():
    assert JOB.compile().spec.headline == Headline("loss", higher=False)
    assert replace(JOB, until="positive >= 0.5").compile().spec.headline == Headline("positive", higher=True)
    assert replace(JOB, until="positive <= 0.5").compile().spec.headline == Headline("positive", higher=False)
    assert replace(JOB, data=Data(JOB.data.train), metrics=None).compile().spec.headline is None


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"patience": 0}, "patience expects more than 0, got 0"),
        ({"patience": -1.5}, "patience expects more than 0, got -1.5"),
        ({"patience": "3"}, "patience expects a number, got '3'"),
        ({"patience": True}, "patience expects a number, got True"),
        ({"patience": float("nan")}, "patience expects a number, got nan"),
        ({"patience": 3, "min_improvement": -0.1}, "min_improvement expects at least 0, got -0.1"),
        ({"min_improvement": 0.1}, "min_improvement 0.1 is what patience waits for: give patience too"),
        ({"patience": 3, "data": Data(JOB.data.train)}, "patience 3 expects held-out data, got none"),
    ],
)
def test_what_patience_cannot_wait_for_is_refused(fields, expected):
    assert expected in refused(**fields)


def test_until_needs_held_out_data():
    assert "until 'loss <= 1' expects held-out data, got none" in refused(data=Data(JOB.data.train), until="loss <= 1")


def test_without_jax_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", None)
    with pytest.raises(SetupError, match=r"models need jax, which is not installed: pip install crowdlearn\[jax\]"):
        JOB.compile()


def test_a_seed_has_32_bits():
    assert replace(JOB, seed=2**32 - 1).compile().spec.training.seed == 4_294_967_295
    with pytest.raises(JobError, match="seed expects at most 4,294,967,295, got 4,294,967,296"):
        replace(JOB, seed=2**32)


def test_a_key_of_the_init_function_comes_from_the_seed():
    def init(key):
        return {"w": jax.random.normal(key, (3,)), "b": jnp.zeros(())}

    first, second = (replace(JOB, params=init).compile().parameters for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, replace(JOB, params=init, seed=1).compile().parameters)


def test_a_loss_that_is_not_finite_from_the_first_is_refused_with_the_line_from_which_on_it_is_not() -> None:
    def loss(p, batch):
        far = jnp.mean(batch["x"] @ p["W"])
        return far * jnp.log(p["W"][0, 0] - 1.0) * 0

    wrong = Job(name="nan", params={"W": np.ones((2, 1))}, loss=loss, data=Data({"x": np.ones((4, 2))}), batch_size=2)
    line = loss.__code__.co_firstlineno + 2
    with pytest.raises(
        JobError, match=rf"got nan from \S*test_jobs\.py:{line}: look for logarithms and quotients of 0"
    ):
        wrong.compile()
