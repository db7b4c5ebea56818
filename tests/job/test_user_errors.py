"""Mistakes in a user's functions: one message with their line and what to write instead, never a traceback of JAX."""

from __future__ import annotations

import inspect
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics
from jax import lax

from crowdlearn import Data, Job, Normal, bounded_while
from crowdlearn.errors import JobError
from crowdlearn.job.prediction import to_onnx

X = np.random.default_rng(0).normal(size=(64, 4)).astype("f4")
Y = (X[:, 0] > 0).astype("i4")
DATA = Data({"x": X[:48], "y": Y[:48]}, {"x": X[48:], "y": Y[48:]})


def scores(p, b):
    return b["x"] @ p["w"]


def plain(p, b):
    return jnp.mean((scores(p, b) - b["y"]) ** 2)


def assigns(p, b):
    x = b["x"]
    x[0] = 1
    return jnp.mean(x)


def fills(p, b):
    out = np.zeros(8)
    out[0] = scores(p, b)[0]
    return out.sum()


def branches(p, b):
    if scores(p, b).sum() > 0:
        return plain(p, b)
    return 0.0


def counts(p, b):
    total = 0.0
    for _ in range(b["y"].sum()):
        total += p["w"][0]
    return total


KEPT = []


def keeps(p, b):
    KEPT.append(scores(p, b))
    return KEPT[0].sum() + plain(p, b)


LOSSES = {
    "np.exp": (lambda p, b: np.exp(scores(p, b)).mean(), "write it with jax.numpy"),
    "np.asarray": (lambda p, b: np.asarray(scores(p, b)).mean(), "write it with jax.numpy"),
    "sklearn": (lambda p, b: sklearn.metrics.log_loss(b["y"], scores(p, b)), "write it with jax.numpy"),
    "float": (lambda p, b: float(plain(p, b)), "keep the array"),
    "item": (lambda p, b: plain(p, b).item(), "keep the array"),
    "math": (lambda p, b: math.exp(p["w"][0]), "math.exp(x)"),
    "if": (branches, "jnp.where(condition, a, b)"),
    "and": (lambda p, b: 1.0 if (b["y"][0] > 0 and b["y"][1] > 0) else 0.0, "& and | for and and or"),
    "max": (lambda p, b: max(scores(p, b)), "jnp.maximum for max"),
    "range": (counts, "take sizes from x.shape"),
    "list index": (lambda p, b: [1.0, 2.0][b["y"][0]], "jnp.asarray(x)[i]"),
    "mask": (lambda p, b: scores(p, b)[b["y"] == 1].mean(), "jnp.where(mask, x, 0.0)"),
    "unique": (lambda p, b: jnp.unique(b["y"]).sum() * 1.0, "size="),
    "sizes": (lambda p, b: scores(p, b).reshape(b["y"].sum(), -1).mean(), "take them from x.shape"),
    "assignment": (assigns, "x = x.at[i].set(value)"),
    "filling": (fills, "keep the array"),
    "torch": (lambda p, b: scores(p, b).detach().mean(), "arrays of JAX have no `.detach`"),
    "format": (lambda p, b: plain(p, b) + 0 * len(f"{p['w'][0]:.2f}"), "jax.debug.print"),
    "byte order": (lambda p, b: (b["x"] * np.ones(4, ">f4")).mean(), "x.astype(x.dtype.newbyteorder('='))"),
    "byte order of an index": (lambda p, b: b["x"][:, np.arange(4, dtype=">i4")].mean(), "x.dtype.newbyteorder('=')"),
    "fields": (lambda p, b: (p["w"] + np.zeros(4, [("a", "f4")])).mean(), "a field of a structured array, x['name']"),
    "shapes": (lambda p, b: (b["x"] @ p["w"][:2]).mean(), "['w'] float32[4]; the batch has ['x'] float32[8, 4]"),
    "broadcast": (lambda p, b: (b["x"] + p["w"][:3]).mean(), "the batch has ['x'] float32[8, 4]"),
    "name": (lambda p, b: b["z"].mean(), "'z'; the parameters are ['w'] float32[4]; the batch has"),
    "undefined": (lambda p, b: undefined + 1, "name 'undefined' is not defined"),  # noqa: F821 - a mistake on purpose
    "exit": (lambda p, b: exit(3), "raised SystemExit"),
    "nothing": (lambda p, b: None, "got a NoneType from"),
    "tuple": (lambda p, b: (plain(p, b), 1), "a tuple of 2 from"),
    "text": (lambda p, b: "0.5", "got a str from"),
    "integer": (lambda p, b: 3, "got int32[] from"),
    "vector": (scores, "got float32[8] from"),
    "conditions": (lambda p, b: jax.lax.cond(b["y"] > 0, lambda: 1.0, lambda: 0.0), "jnp.any(x) or jnp.all(x)"),
    "choose": (lambda p, b: jnp.choose(b["y"], [b["x"][:, 0], p["w"][1]]).mean(), "write mode='clip'"),
    "narrow": (lambda p, b: plain(p, b) + jnp.arange(300.0)[b["y"].astype(jnp.int8)].mean(), "x.astype(jnp.int32)"),
    "half": (lambda p, b: plain(p, b).astype(jnp.bfloat16), "got bfloat16[] from"),
}


def line_of(function) -> str:
    lines, first = inspect.getsourcelines(function)
    return f"test_user_errors.py:{first}" if len(lines) == 1 else "test_user_errors.py:"


def refused(**fields) -> str:
    given = {"name": "a", "params": {"w": Normal(4)}, "loss": plain, "data": DATA, "batch_size": 8} | fields
    with pytest.raises(JobError) as caught:
        Job(**given).compile()
    return str(caught.value)


@pytest.mark.parametrize("name", LOSSES)
def test_a_mistake_in_a_loss_is_told_with_its_line_and_what_to_write(name):
    loss, remedy = LOSSES[name]
    message = refused(loss=loss)
    assert message.startswith("the loss ")
    assert line_of(loss) in message
    assert remedy in message
    assert "\n" not in message
    assert " at 0x" not in message


def test_an_update_by_a_function_is_told_what_has_a_gradient():
    message = refused(loss=lambda p, b: p["w"].at[:2].apply(jnp.sin).sum() + plain(p, b))
    assert "write .at[i].set(f(x[i])) for .at[i].apply(f)" in message


def test_a_loop_that_cannot_be_bounded_is_told_with_the_users_line():
    def loops(p, b):
        return bounded_while(lambda x: x > 1, lambda x: x / 2, plain(p, b), max_steps=p["w"][0])

    message = refused(loss=loops)
    assert message.startswith("bounded_while expects max_steps, a whole number of 0 or more, got ")
    assert re.search(r"\(at tests/job/test_user_errors.py:\d+\)$", message)


def test_a_value_kept_from_an_earlier_call_is_told():
    KEPT.clear()
    assert "a value of one call was kept for another" in refused(loss=keeps)


METRICS = {
    "accuracy_score": (lambda p, b: {"a": sklearn.metrics.accuracy_score(b["y"], scores(p, b) > 0)}, "jax.numpy"),
    "roc_auc_score": (lambda p, b: {"a": sklearn.metrics.roc_auc_score(b["y"], scores(p, b))}, "jax.numpy"),
    "float": (lambda p, b: {"a": float(plain(p, b))}, "keep the array"),
    "list": (lambda p, b: [plain(p, b)], "returns scalars by name, such as {'accuracy': ...}, got a list of 1 from"),
    "nothing": (lambda p, b: None, "got nothing (None): is a `return` missing? from"),
    "text": (lambda p, b: {"a": "x"}, "metric a expects a scalar, got a str from"),
    "none": (lambda p, b: {"a": None}, "metric a expects a scalar, got a NoneType from"),
    "several": (lambda p, b: {"a": [1.0, 2.0]}, "metric a expects a scalar, got a list of 2 from"),
    "vector": (lambda p, b: {"a": scores(p, b)}, "metric a expects a scalar, got float32[16] from"),
    "complex": (lambda p, b: {"a": 1j}, "metric a expects a scalar, got complex64[] from"),
    "key": (lambda p, b: {"a": jax.random.key(0)}, "metric a expects a scalar, got key<fry>[] from"),
    "three": (lambda p, b, key: {"a": 1.0}, "a function of (params, batch), which gets no random key"),
    "rows": (lambda p, b: {"a": b["x"].reshape(8, 4).mean()}, "the batch has ['x'] float32[16, 4]"),
}


@pytest.mark.parametrize("name", METRICS)
def test_a_mistake_in_metrics_is_told_with_its_line_and_what_to_write(name):
    metrics, remedy = METRICS[name]
    message = refused(metrics=metrics)
    assert remedy in message
    assert line_of(metrics) in message


def test_metrics_without_held_out_rows_are_said_not_to_be_computed():
    fields = {"name": "a", "params": {"w": Normal(4)}, "loss": plain, "metrics": METRICS["several"][0], "batch_size": 8}
    (note,) = Job(**fields, data=Data(DATA.train)).compile().warnings
    assert note.startswith("metrics are not computed: they are measured on held-out rows, and there are none")


@pytest.mark.parametrize("value", [1.5, np.float64(1.5), np.int32(2), True])
def test_a_metric_may_be_a_number_of_python_or_numpy(value):
    job = Job(name="a", params={"w": Normal(4)}, loss=plain, metrics=lambda p, b: {"a": value}, data=DATA, batch_size=8)
    assert job.compile().spec.metrics == ("loss", "a")


@pytest.mark.parametrize(
    ("init", "message"),
    [
        (lambda key: 1 / 0, "the init function raised ZeroDivisionError at tests/job/test_user_errors.py:"),
        (lambda key: {"w": np.random.normal(key, (4,))}, "the init function raised TypeError at tests/job/test_user"),
        (lambda key: (n for n in range(3)), "got a generator"),
        (lambda: lambda: 1, "got a function"),
    ],
)
def test_a_mistake_in_a_function_of_parameters_is_told(init, message):
    assert message in refused(params=init)


@pytest.mark.parametrize(
    ("predict", "message"),
    [
        (
            lambda p, b: np.tanh(scores(p, b)),
            "predict raised TracerArrayConversionError at tests/job/test_user_err",
        ),
        (
            lambda p, b: None,
            "predict returns an array, or arrays by name, got a NoneType from tests/job/test",
        ),
        (
            lambda p, b: {"a": "x"},
            "predict returns an array, or arrays by name, got a str from tests/job/test",
        ),
        (lambda p, b, key: scores(p, b), "predict expects a function of (params, batch)"),
        (lambda p, b: b["z"] @ p["w"], "predict raised KeyError at tests/job/test_user_errors.py:"),
        (lambda p, b: jax.lax.erf_inv(scores(p, b)), "predict uses `erf_inv`, which is not written as ONNX"),
    ],
)
def test_a_mistake_in_predict_is_told_with_its_line_before_anything_is_trained(predict, message):
    job = Job(name="a", params={"w": Normal(4)}, loss=plain, predict=predict, data=DATA, batch_size=8)
    for tried in (job.compile, lambda: to_onnx(job, {"w": np.ones(4, np.float32)}, "a test", {})):
        with pytest.raises(JobError) as caught:
            tried()
        assert message in str(caught.value)


def test_what_no_program_can_hold_of_predict_is_told_by_export():
    predict = lambda p, b: jnp.linalg.svd(b["x"] * p["w"])[1]  # noqa: E731
    job = Job(name="a", params={"w": Normal(4)}, loss=plain, predict=predict, data=DATA, batch_size=8)
    with pytest.raises(JobError, match=r"predict uses `svd` at tests/job/test_user_errors\.py:"):
        to_onnx(job, {"w": np.ones(4, np.float32)}, "a test", {})


def reshapes(p, b):
    return jnp.mean(b["x"].reshape(8, 4) @ p["w"])


def adds(p, b):
    return jnp.mean(scores(p, b) + jnp.arange(8))


def multiplies(p, b):
    return jnp.mean(jnp.eye(8) @ scores(p, b))


def joins(p, b):
    return jnp.mean(jnp.concatenate([b["x"], jnp.ones((8, 1))], 1) @ jnp.append(p["w"], 1.0))


def maps(p, b):
    return jnp.mean(jax.vmap(lambda i, row: i * row @ p["w"])(jnp.arange(8), b["x"]))


def asserts(p, b):
    assert b["x"].shape == (8, 4)
    return plain(p, b)


@pytest.mark.parametrize("loss", [reshapes, adds, multiplies, joins, maps, asserts])
def test_a_loss_that_has_the_rows_of_a_minibatch_in_it_is_told_so(loss):
    message = refused(loss=loss)
    assert re.match(rf"the loss of held-out data raised \w+ at \S*{line_of(loss)}", message), message
    assert message.endswith(
        "; rows are scored 16 at once, and a minibatch has 8: take their number from the batch, such as "
        "len(batch[NAME]), and not from a constant or an array of that many"
    )


def test_an_error_of_another_kind_in_held_out_data_is_told_as_it_is():
    KEPT.clear()

    def keeps_once(p, b):
        # In the trace for held-out rows alone, which is the first of 16.
        return plain(p, b) + (float(p["w"][0]) if len(b["x"]) == 16 else 0.0)

    assert "keep the array" in refused(loss=keeps_once)
    assert "rows are scored" not in refused(loss=keeps_once)


NO_DERIVATIVE = {
    "tridiagonal": (lambda p, b: jnp.mean(lax.linalg.tridiagonal(p["w"][:, None] * p["w"])[0]), "without matrix"),
    "hessenberg": (lambda p, b: jnp.mean(lax.linalg.hessenberg(p["w"][:, None] * p["w"])[0]), "without matrix"),
    "symmetric_product": (
        lambda p, b: jnp.mean(lax.linalg.symmetric_product(p["w"][:, None], jnp.eye(4))), "write alpha * x @ x.T + beta"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NO_DERIVATIVE)
def test_a_function_without_a_derivative_is_told_with_what_to_write(name):
    loss, advice = NO_DERIVATIVE[name]
    message = refused(loss=loss)
    assert f"rule for '{name}' not implemented" in message
    assert advice in message


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (np.arange(4), "params expects float numbers, got int64[4]: write floats"),
        (Normal((0,)), "params expects a shape of positive whole numbers, got (0,)"),
        (np.full(4, np.nan), "params expects finite initial values"),
        ("x", "params expects float numbers, got a str"),
        (lambda: np.arange(4), "params expects float numbers, got int64[4]"),
        ([np.arange(4)], "parameter 0 expects float numbers, got int64[4]"),
        ({"parameters": np.arange(4)}, "parameter parameters expects float numbers, got int64[4]"),
    ],
)
def test_params_that_are_one_array_are_told_as_params(params, message):
    assert refused(loss=plain, params=params).startswith(message)
