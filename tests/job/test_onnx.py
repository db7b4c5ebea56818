"""ONNX as onnxruntime runs it, against JAX: every primitive alone, and the forward passes of whole models."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest
from jax import lax

from crowdlearn import Data, Job, Normal
from crowdlearn.errors import JobError, SetupError
from crowdlearn.job.prediction import to_onnx
from crowdlearn.program import onnx_export, onnx_graph
from crowdlearn.program.model import ValueType
from crowdlearn.program.onnx_export import OnnxModel
from crowdlearn.program.onnx_graph import Graph, Pair
from crowdlearn.program.onnx_operators import OPERATORS
from crowdlearn.program.types import PRIMITIVES
from crowdlearn.weights import named
from tests.job.equations import EQUATIONS
from tests.job.models import normal
from tests.job.oracle import equations_by_jax

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
NOT_IN_ONNX = {"erf_inv", "random_bits", "population_count", "bitcast_convert_type"}
NOT_IN_ONNX |= {"shift_left", "shift_right_logical", "shift_right_arithmetic"}
STOPS_THE_RUNTIME = ("by 0", "by 0 and -1", "by -1")
"""Equations whose integer division ends ONNX's runtime, with the process that it is in."""
"""Without an operator, and not to be composed of a few others."""

OTHERWISE = {"floats outside an integer's range", "reduce_max of special values", "reduce_min of special values"}
"""Where onnxruntime differs: it does not saturate such a conversion, and passes over NaN in a reduction."""


def run(data: bytes, inputs: Mapping[str, Any]) -> list[np.ndarray]:
    """What onnxruntime makes of a model."""
    return onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, dict(inputs))


def test_every_primitive_is_written_but_those_that_onnx_lacks():
    assert PRIMITIVES - OPERATORS.keys() == NOT_IN_ONNX


def one_operator(name: str) -> tuple[bytes, dict[str, np.ndarray], str]:
    """A model of one equation, with its inputs; and the type that its result should have."""
    primitive, inputs, options = EQUATIONS[name]
    graph = Graph((1, 1))
    names, declared, types = [], [], []
    for index, array in enumerate(inputs):
        pair = Pair(*[ValueType(array.shape, array.dtype.name)] * 2)
        declared.append(onnx_export._declared(graph, f"x{index}", pair, array.dtype.name))
        names.append(graph.cast(f"x{index}", pair.dtype) if pair.dtype != array.dtype.name else f"x{index}")
        types.append(pair)
    expected = equations_by_jax()[name]
    result = Pair(*[ValueType(expected.shape, expected.dtype.name)] * 2)
    value = OPERATORS[primitive](graph, names, types, (options, options), result)
    output = onnx_export._declared(graph, graph.output(value, "y"), result, result.dtype)
    model = onnx_export._model(graph, declared, [output], {})
    return model, {f"x{index}": np.asarray(array) for index, array in enumerate(inputs)}, result.dtype


# onnxruntime has few operators for uint32, which a forward pass does not use.
@pytest.mark.parametrize(
    "name",
    [
        name
        for name, equation in EQUATIONS.items()
        if equation.primitive not in NOT_IN_ONNX
        and not name.endswith(STOPS_THE_RUNTIME)
        and name not in OTHERWISE
        and all(array.dtype != np.uint32 for array in equation.inputs)
    ],
)
def test_an_equation_means_what_it_means_in_jax(name):
    model, inputs, dtype = one_operator(name)
    (got,) = run(model, inputs)
    expected = equations_by_jax()[name]
    assert (got.dtype.name, got.shape) == (dtype, expected.shape)
    if name.startswith("atan2"):
        # The negative zero is no other number here.
        got, expected = (np.where(inputs["x0"] == 0, 0, each) for each in (got, expected))
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=1e-6)


def example(name: str) -> Any:
    """A job of the examples, with its data small enough."""
    sys.path.insert(0, str(EXAMPLES))
    try:
        spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(EXAMPLES))
    return module.job


def exported(job: Job, weights: Mapping[str, np.ndarray] | None = None) -> tuple[OnnxModel, Any]:
    """The model as ONNX, with the initial values or others; and the parameters as `predict` takes them."""
    compiled = job.compile()
    arrays = weights or named(compiled.spec.parameters, compiled.parameters)
    return to_onnx(job, arrays, "the test", {"job": job.name, "versions": "[3]"}), arrays


def assert_same(job: Job, rows: list[int]) -> OnnxModel:
    """Asserts that onnxruntime predicts what JAX does, for each number of rows."""
    model, arrays = exported(job)
    for count in rows:
        batch = {name: np.resize(array, (count, *array.shape[1:])) for name, array in job.data.train.items()}
        (got,) = run(model.data, {name: batch[name] for name in model.inputs})
        expected = np.asarray(job.predict(dict(arrays), jax.tree.map(jnp.asarray, batch)))
        assert got.shape == expected.shape
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    return model


def test_the_digits_network_predicts_what_jax_does_for_any_number_of_rows():
    model = assert_same(example("digits"), [1, 32, 257])
    assert (model.inputs, model.outputs, model.rows) == (("image",), ("prediction",), None)


def small_mnist(monkeypatch, tmp_path):
    """Noise of the shape of MNIST: an export does not depend on what is trained."""
    rng = np.random.default_rng(0)
    arrays = {
        f"{kind}_{part}": rng.integers(0, 256, (rows, 28, 28), np.uint8) if kind == "x" else rng.integers(0, 10, rows)
        for part, rows in (("train", 200), ("test", 20))
        for kind in "xy"
    }
    np.savez(tmp_path / "mnist.npz", **arrays)
    monkeypatch.setenv("MNIST", str(tmp_path / "mnist.npz"))


@pytest.mark.parametrize("name", ["mnist", "mnist_cnn"])
def test_mnist_networks_predict_what_jax_does_for_any_number_of_rows(name, monkeypatch, tmp_path):
    small_mnist(monkeypatch, tmp_path)
    assert assert_same(example(name), [1, 100, 130]).rows is None


def layer_norm(x, scale):
    centred = x - x.mean(-1, keepdims=True)
    return centred * lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * scale


def transformer(p, batch):
    """One block with causal attention, a GELU network and tied embeddings, over words as int32."""
    words = batch["words"]
    x = p["embedding"][words] + p["position"]
    q, k, v = (jnp.reshape(layer_norm(x, p["scale"]) @ p[name], (*words.shape, 2, 8)) for name in "qkv")
    scores = jnp.einsum("bthd,bshd->bhts", q, k) / np.sqrt(8)
    scores = jnp.where(jnp.tril(jnp.ones((12, 12), bool)), scores, -1e9)
    x = x + jnp.einsum("bhts,bshd->bthd", jax.nn.softmax(scores), v).reshape(x.shape)
    x = x + jax.nn.gelu(layer_norm(x, p["scale"]) @ p["up"]) @ p["down"]
    return jax.nn.log_softmax(x @ p["embedding"].T)


def job_of(predict, params, **data) -> Job:
    """A job that is only there to be exported."""
    return Job(
        name="some",
        params=params,
        loss=lambda p, batch: sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(p)),
        predict=predict,
        data=Data(data),
        batch_size=10,
    )


def test_a_transformer_predicts_what_jax_does_for_any_number_of_rows():
    widths = {"embedding": (30, 16), "position": (12, 16), "q": (16, 16), "k": (16, 16), "v": (16, 16)}
    params = {name: Normal(shape, std=0.3) for name, shape in widths.items()}
    params |= {"up": Normal((16, 32)), "down": Normal((32, 16)), "scale": np.ones(16)}
    words = np.random.default_rng(0).integers(0, 30, (40, 12), np.int32)
    model = assert_same(job_of(transformer, params, words=words), [1, 10, 33])
    assert model.rows is None


def test_a_recurrent_network_predicts_what_jax_does_for_any_number_of_rows():
    def predict(p, batch):
        start = jnp.zeros((len(batch["x"]), 6))
        step = lambda state, x: (jnp.tanh(x @ p["W"] + state @ p["U"]), None)  # noqa: E731
        return lax.scan(step, start, jnp.swapaxes(batch["x"], 0, 1))[0]

    job = job_of(predict, {"W": Normal((3, 6)), "U": Normal((6, 6))}, x=normal(20, 5, 3))
    assert assert_same(job, [1, 10, 17]).rows is None


def test_outputs_have_the_names_that_predict_gives_and_parameters_their_own():
    def predict(p, batch):
        scores = batch["x"] @ p["layers"][0]["w"]
        return {"scores": scores, "x": scores.argmax(1)}

    model, _ = exported(job_of(predict, {"layers": [{"w": Normal((3, 4))}]}, x=normal(20, 3), y=normal(20)))
    # An output cannot be called like an input, and what is not used is no input.
    assert (model.inputs, model.outputs) == (("x",), ("scores", "x_out"))
    read = onnx.load_from_string(model.data)
    assert "layers/0/w" in [initializer.name for initializer in read.graph.initializer]
    assert {prop.key: prop.value for prop in read.metadata_props} == {"job": "some", "versions": "[3]"}
    assert read.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_a_model_that_depends_on_the_number_of_rows_is_written_for_that_of_the_job():
    def predict(p, batch):
        return (batch["x"] - batch["x"].mean(0)) * p["w"]

    job = job_of(predict, {"w": Normal((3,))}, x=normal(20, 3))
    assert assert_same(job, [10]).rows == 10


def test_a_model_that_takes_only_the_rows_of_the_job_is_written_for_them():
    job = job_of(lambda p, batch: batch["x"].reshape(10, 3) * p["w"], {"w": Normal((3,))}, x=normal(20, 3))
    assert assert_same(job, [10]).rows == 10


def test_what_onnx_lacks_is_named():
    with pytest.raises(JobError, match="predict uses `erf_inv`, which is not written as ONNX"):
        exported(job_of(lambda p, batch: lax.erf_inv(batch["x"] * p["w"]), {"w": Normal((3,))}, x=normal(20, 3)))


def test_predict_that_returns_something_else_is_named():
    with pytest.raises(
        JobError, match=r"predict returns an array, or arrays by name, got a tuple of 2 from .*test_onnx.py:"
    ):
        exported(job_of(lambda p, batch: (batch["x"], batch["x"]), {"w": Normal((3,))}, x=normal(20, 3)))


def test_a_job_without_predict_and_weights_of_another_model_are_refused():
    job = job_of(lambda p, batch: batch["x"] * p["w"], {"w": Normal((3,))}, x=normal(20, 3))
    with pytest.raises(JobError, match="missing: w; unknown: v"):
        exported(job, {"v": np.zeros(3, np.float32)})
    without = job_of(None, {"w": Normal((3,))}, x=normal(20, 3))
    with pytest.raises(JobError, match="job some expects predict=FUNCTION"):
        exported(without)


def test_without_onnx_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(SetupError, match=r"pip install crowdlearn\[onnx\]"):
        onnx_graph.import_onnx()
