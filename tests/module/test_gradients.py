"""Gradients of ES modules are those of JAX, also through routines of jax-js; those that it has not are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crowdlearn import Data, Job
from crowdlearn.errors import JobError
from crowdlearn.module import read as read_module
from crowdlearn.module.scorer import RunningModule

RNG = np.random.default_rng(1)
V = RNG.normal(size=4).astype(np.float32)
W = RNG.normal(size=(4, 4)).astype(np.float32) + 3 * np.eye(4, dtype=np.float32)
X = RNG.normal(size=(2, 4)).astype(np.float32)
WEIGHTS = "np.array([[1, 2, 3, 4], [2, 0, -1, 1], [5, -2, 1, 0], [3, 1, 1, -4]]).astype(np.float32)"
C = jnp.array([[1, 2, 3, 4], [2, 0, -1, 1], [5, -2, 1, 0], [3, 1, 1, -4]], jnp.float32)
POSITIVE = "np.dot(params.W, params.W.transpose())"

SAME: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "a sort along the first axis": (
        f"np.sum(np.sort(params.W, 0).mul({WEIGHTS}))",
        lambda p: jnp.sum(jnp.sort(p["W"], 0) * C),
    ),
    "the greatest two": (
        "np.sum(lax.topK(params.W, 2)[0].mul(np.array([1, 3])))",
        lambda p: jnp.sum(jax.lax.top_k(p["W"], 2)[0] * jnp.array([1, 3])),
    ),
    "a solution": ("np.sum(np.linalg.solve(params.W, params.v))", lambda p: jnp.sum(jnp.linalg.solve(p["W"], p["v"]))),
    "an inverse": (
        f"np.sum(np.linalg.inv(params.W).mul({WEIGHTS}))",
        lambda p: jnp.sum(jnp.linalg.inv(p["W"]) * C),
    ),
    "a determinant": ("np.linalg.det(params.W)", lambda p: jnp.linalg.det(p["W"])),
    "a decomposition": (
        f"np.sum(np.linalg.cholesky({POSITIVE}).mul({WEIGHTS}))",
        lambda p: jnp.sum(jnp.linalg.cholesky(p["W"] @ p["W"].T) * C),
    ),
    "a product with zeros": (
        "np.sum(np.prod(params.W.mul(np.array([[1, 0, 1, 1], [1, 1, 1, 1], [0, 1, 0, 1], [1, 1, 1, 1]])), 1)"
        ".mul(params.v))",
        lambda p: jnp.sum(jnp.prod(p["W"] * jnp.array([[1.0, 0, 1, 1], [1] * 4, [0, 1, 0, 1], [1] * 4]), 1) * p["v"]),
    ),
    "running products with a zero": (
        f"np.sum(np.cumprod(params.W.mul(np.array([1, 0, 1, 1])), 1).mul({WEIGHTS}))",
        lambda p: jnp.sum(jnp.cumprod(p["W"] * jnp.array([1.0, 0, 1, 1]), 1) * C),
    ),
    "float64 within": (
        "np.sum(params.v.astype(np.float64).mul(3)).astype(np.float32)",
        lambda p: jnp.sum(p["v"] * 3),
    ),
    "a remainder of integers": (
        "np.sum(params.v.mul(10).astype(np.int32).mod(3).astype(np.float32).mul(params.v))",
        lambda p: jnp.sum(jax.lax.rem((p["v"] * 10).astype(jnp.int32), 3) * p["v"]),
    ),
}


def job(folder: Path, expression: str) -> Job:
    (folder / "model.js").write_text(
        f"export function loss(params, batch, {{ np, nn, lax }}) {{\n  const two = 2;\n  return {expression};\n}}\n"
    )
    return Job(name="routines", model=folder / "model.js", params={"W": W, "v": V}, data=Data({"x": X}), batch_size=2)


@pytest.mark.parametrize("name", SAME)
def test_a_gradient_is_that_of_jax_through_routines_and_zeros_too(name: str, tmp_path: Path) -> None:
    expression, of_jax = SAME[name]
    spec = job(tmp_path, expression).compile().spec
    module = RunningModule(read_module(tmp_path / "model.js"), spec.parameters, spec.batch.arrays)
    loss, gradient = module.step(np.concatenate([W.ravel(), V]), 2, X.tobytes(), 0)
    module.close()
    expected, tree = jax.value_and_grad(of_jax)({"W": W, "v": V})
    assert loss == pytest.approx(float(expected), rel=1e-4)
    np.testing.assert_allclose(gradient, np.concatenate([tree["W"].ravel(), tree["v"]]), rtol=1e-3, atol=1e-4)
    assert np.abs(gradient).max() > 0.01


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        (
            "np.sum(np.linalg.eigh(params.W)[0])",
            "loss of model.js has no gradient: jax-js cannot differentiate jacobi_eigh at model.js:3; "
            "write it in functions that have a derivative, or compute it in preprocess if it needs no params",
        ),
        # Deeper below the module's line than the ten calls that V8 names by itself.
        ("np.sum(lax.reduceWindow(params.v, two, two))", "loss of model.js raised Error at model.js:3: pool() strides"),
        (
            "np.sum(params.v.astype(np.float16).astype(np.float32))",
            "compiling model.js raised Error: Cast<float16> not supported in wasm backend",
        ),
    ],
)
def test_what_has_no_gradient_is_refused_with_the_primitive_and_the_line(
    expression: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(JobError) as refused:
        job(tmp_path, expression).compile()
    assert message in str(refused.value).replace(f"{tmp_path}/", "")
