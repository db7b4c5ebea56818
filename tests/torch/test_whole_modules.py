"""Modules of Equinox and Flax as parameters: which of their leaves are trained, and what the loss gets back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import linen, nnx

from crowdlearn import Data, Job, load_weights, weights
from crowdlearn.errors import JobError
from crowdlearn.job.native import first_batch, native_step
from crowdlearn.job.parameters import initialise
from crowdlearn.job.prediction import to_onnx
from crowdlearn.job.scoring import Scorer
from crowdlearn.program import decode
from crowdlearn.program.execution import Executor

X = np.random.default_rng(0).normal(size=(64, 4)).astype("f4")
DATA = Data({"x": X[:48]}, {"x": X[48:]})
KEY = np.array([0, 0], np.uint32)


class Net(eqx.Module):
    """Layers, an activation, a table of integers, no bias, a static size and a Python float."""

    mlp: eqx.nn.MLP
    norm: eqx.nn.LayerNorm
    drop: eqx.nn.Dropout
    act: Callable
    table: jax.Array
    bias: None
    size: int = eqx.field(static=True)
    scale: float

    def __init__(self, key):
        self.mlp = eqx.nn.MLP(4, 3, 8, 2, use_bias=False, key=key)
        self.norm, self.drop, self.act = eqx.nn.LayerNorm(3), eqx.nn.Dropout(0.5), jax.nn.tanh
        self.table, self.bias, self.size, self.scale = jnp.array([2, 0]), None, 3, 2.0

    def __call__(self, x, key=None):
        hidden = self.drop(self.norm(self.mlp(x)), key=key, inference=key is None)
        return self.act(hidden)[self.table].sum() * self.scale


def loss(model, batch, key):
    keys = jax.random.split(key, batch["x"].shape[0])
    return jnp.mean((jax.vmap(model)(batch["x"], keys) - 1) ** 2)


def metrics(model, batch):
    return {"mean": jnp.mean(jax.vmap(model)(batch["x"]))}


def predict(model, batch):
    return jax.vmap(model)(batch["x"])


def job(params, loss=loss, **more):
    return Job(name="whole", params=params, loss=loss, data=DATA, batch_size=8, **more)


def test_of_an_equinox_module_the_inexact_arrays_are_trained_under_the_names_of_their_paths():
    model = Net(jax.random.key(0))
    names = [array.name for array in initialise(model, 0).arrays]
    assert names[:3] == ["mlp/layers/0/weight", "mlp/layers/1/weight", "mlp/layers/2/weight"]
    assert names[-2:] == ["norm/weight", "norm/bias"]
    assert len(names) == len(jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array)))


def test_its_gradient_scores_and_predictions_are_those_of_equinox():
    model = Net(jax.random.key(0))
    whole = job(model, metrics=metrics, predict=predict)
    compiled = whole.compile()
    batch = first_batch(compiled)
    native = native_step(whole, compiled, batch, 1, 1)
    value, gradient = Executor(decode(compiled.program)).step(compiled.parameters, list(batch.values()), KEY)
    expected, tree = eqx.filter_value_and_grad(loss)(model, batch, jax.random.key(0))
    flat = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
    assert value == pytest.approx(float(expected), rel=1e-5) == native.loss
    np.testing.assert_allclose(gradient, flat, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(native.gradient, flat, rtol=1e-4, atol=1e-5)
    score = Scorer(compiled.metrics).score(compiled.parameters, compiled.held_out)
    assert score["mean"] == pytest.approx(float(metrics(model, {"x": X[48:]})["mean"]), rel=1e-4, abs=1e-6)
    named = weights.named(compiled.spec.parameters, compiled.parameters)
    assert to_onnx(whole, named, "a test", {}).outputs == ("prediction",)


def test_a_function_of_a_key_may_make_it():
    made, given = job(Net).compile(), job(Net(jax.random.key(0))).compile()
    assert made.program == given.program
    np.testing.assert_array_equal(made.parameters, given.parameters)


def test_trained_weights_come_back_as_a_module(tmp_path: Path):
    model, file = Net(jax.random.key(0)), tmp_path / "net.safetensors"
    parameters = initialise(model, 0)
    weights.save(file, parameters.arrays, 2 * parameters.flat)
    back = load_weights(file, like=model)
    assert isinstance(back, Net)
    assert back.act is model.act
    np.testing.assert_array_equal(back.mlp.layers[0].weight, 2 * model.mlp.layers[0].weight)


def test_a_part_of_it_is_trained_after_a_partition():
    model = Net(jax.random.key(0))
    arrays, rest = eqx.partition(model, lambda leaf: leaf is model.norm.bias)
    compiled = job(arrays, lambda p, b: jnp.mean(jax.vmap(eqx.combine(p, rest))(b["x"]))).compile()
    assert [array.name for array in compiled.spec.parameters] == ["norm/bias"]


def test_parameters_of_nnx_are_trained_after_a_split():
    graph, state, rest = nnx.split(nnx.Linear(4, 1, rngs=nnx.Rngs(0)), nnx.Param, ...)
    compiled = job(state, lambda p, b: jnp.mean(nnx.merge(graph, p, rest)(b["x"]) ** 2)).compile()
    assert sorted(array.shape for array in compiled.spec.parameters) == [(1,), (4, 1)]


class State:
    def __init__(self):
        self.params, self.opt_state = np.ones(2), np.zeros(2)


jax.tree_util.register_pytree_node(State, lambda s: ((s.params, s.opt_state), None), lambda _, children: State())


@pytest.mark.parametrize(
    ("params", "kind", "remedy"),
    [
        (lambda: nnx.Linear(4, 1, rngs=nnx.Rngs(0)), "a Linear", "nnx.split(module, nnx.Param, ...)"),
        (linen.Dense(1), "a Dense", 'params=lambda key: module.init(key, example)["params"]'),
        (torch.nn.Linear(4, 1), "a Linear", "crowdlearn.torch.from_module(module)"),
        (State(), "a State", "params=state.params"),
        (eqx.nn.make_with_state(eqx.nn.BatchNorm)(4, "rows", mode="batch"), "a State", "give the model alone"),
    ],
)
def test_what_has_other_arrays_than_parameters_is_refused_with_what_to_write(params, kind, remedy):
    with pytest.raises(JobError) as caught:
        initialise(params, 0)
    assert f"got {kind}: " in str(caught.value)
    assert remedy in str(caught.value)
