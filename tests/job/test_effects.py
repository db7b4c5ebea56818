"""Prints, checks, breakpoints and callbacks in what is scored: they leave no trace, or are refused with their line."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import checkify, io_callback

from crowdlearn import Data, Job
from crowdlearn.errors import JobError
from crowdlearn.job.scoring import Scorer
from crowdlearn.program import trace

X = np.arange(24, dtype=np.float32).reshape(8, 3) / 24


def plain(p, b):
    return jnp.mean((b["x"] @ p["w"] - 1) ** 2)


def printing(p, b):
    jax.debug.print("{}", p["w"][0])
    return plain(p, b)


def printing_in_order(p, b):
    jax.debug.print("{}", p["w"][0], ordered=True)
    return plain(p, b)


def calling_back(p, b):
    jax.debug.callback(lambda value: None, p["w"][0])
    return plain(p, b)


def printing_in_a_scan(p, b):
    def step(total, row):
        jax.debug.print("{}", total)
        return total + (row @ p["w"] - 1) ** 2, None

    return lax.scan(step, 0.0, b["x"])[0] / b["x"].shape[0]


def printing_in_a_branch(p, b):
    return lax.cond(p["w"][0] > 5, lambda: plain(p, b) + 1, lambda: printing(p, b))


def printing_under_jit(p, b):
    return jax.jit(printing)(p, b)


def printing_under_checkpoint(p, b):
    return jax.checkpoint(printing)(p, b)


def printing_under_vmap(p, b):
    def row(x):
        jax.debug.print("{}", x[0])
        return (x @ p["w"] - 1) ** 2

    return jnp.mean(jax.vmap(row)(b["x"]))


@jax.custom_vjp
def watched(x):
    jax.debug.print("{}", x[0])
    return x


watched.defvjp(lambda x: (x, None), lambda _, g: (g,))


def printing_in_a_custom_derivative(p, b):
    return plain({"w": watched(p["w"])}, b)


def printing_before_a_solve(p, b):
    jax.debug.print("{}", p["w"][0])
    return plain({"w": jnp.linalg.solve(2 * jnp.eye(3), 2 * p["w"])}, b)


def checking(p, b):
    checkify.check(p["w"][0] > 0, "must be positive")
    return plain(p, b)


def debug_checking(p, b):
    checkify.debug_check(p["w"][0] > 0, "must be positive")
    return plain(p, b)


def stopping(p, b):
    jax.debug.breakpoint()
    return plain(p, b)


def checkified(p, b):
    return checkify.checkify(checking)(p, b)[1]


EFFECTS = [
    printing, printing_in_order, calling_back, printing_in_a_scan, printing_in_a_branch, printing_under_jit,
    printing_under_checkpoint, printing_under_vmap, printing_in_a_custom_derivative, printing_before_a_solve, checking,
    debug_checking, stopping, checkified,
]  # fmt: skip


def job(loss, metrics=None):
    data = Data({"x": X[:4]}, {"x": X[4:]})
    return Job(name="loud", params={"w": np.ones(3)}, loss=loss, metrics=metrics, data=data, batch_size=2)


@pytest.mark.parametrize("loss", EFFECTS)
def test_what_reaches_only_the_host_leaves_no_trace_in_training_or_scoring(loss):
    flat = np.array([1, 2, 3], np.float32)
    compiled = job(loss, lambda p, b: {"again": loss(p, b)}).compile()
    assert compiled.warnings == ()  # the numbers of checks are no draws
    score = Scorer(compiled.metrics).score(flat, compiled.held_out)
    expected = float(plain({"w": flat}, {"x": X[4:]}))
    assert score["loss"] == pytest.approx(expected, rel=1e-6)
    assert score["again"] == pytest.approx(expected, rel=1e-6)


def test_mutable_arrays_keep_their_order():
    def metrics(p, b):
        total = jax.new_ref(jnp.zeros(()))
        jax.debug.print("{}", p["w"])
        total[...] = total[...] + 2
        total[...] = total[...] * 3
        return {"six": total[...]}

    compiled = job(plain, metrics).compile()
    assert Scorer(compiled.metrics).score(compiled.parameters, compiled.held_out)["six"] == 6


def callback(p, b):
    value = jax.pure_callback(lambda x: np.float32(x.sum()), jax.ShapeDtypeStruct((), "float32"), b["x"])
    return {"sum": value}


def test_a_callback_whose_result_is_scored_is_refused_with_its_line():
    with pytest.raises(JobError, match=r"^metrics uses `pure_callback` at .*test_effects.py:\d+.*with jax.numpy"):
        job(plain, callback).compile()


def test_a_callback_in_the_loss_is_refused_with_its_line():
    def loss(w, b):
        io_callback(lambda x: None, None, w)
        return jnp.sum(w)

    with pytest.raises(JobError, match=r"raised ValueError at .*test_effects.py:\d+.*to print, use jax.debug.print"):
        trace(loss, np.ones(3, np.float32), {"x": X[:2]})
