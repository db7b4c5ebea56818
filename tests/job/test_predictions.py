"""What browsers run of `predict`: for which rows it is traced, what the program gives, and what is only warned of."""

from __future__ import annotations

import json
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from crowdlearn import Data, Job, Normal
from crowdlearn.errors import JobError
from crowdlearn.job import CompiledJob
from crowdlearn.program import decode
from crowdlearn.program.interpret import apply

ROWS = 8
X = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
Y = (np.arange(20) % 3).astype(np.uint8)


def scores(params, batch):
    return jnp.tanh(batch["x"] @ params["w"] + params["b"])


def loss(params, batch):
    return jnp.mean((scores(params, batch).sum(1) - batch["y"].astype(jnp.float32)) ** 2)


def job(predict) -> Job:
    params = {"w": Normal((4, 3)), "b": Normal((3,))}
    return Job(name="some", params=params, loss=loss, predict=predict, data=Data({"x": X, "y": Y}), batch_size=ROWS)


def answers(compiled: CompiledJob, x: np.ndarray) -> dict[str, np.ndarray]:
    """What the forward program gives for these rows of `x`, whatever is said of `y`."""
    assert compiled.predict is not None
    document = json.loads(compiled.predict)
    outputs = document.pop("outputs")
    # Read as a program whose loss and gradients are anything: equations and values are written alike.
    program = decode(json.dumps({**document, "loss": 0, "gradients": []}).encode())
    values = dict(program.constants)
    for index, array in zip(program.parameters, compiled.spec.parameters, strict=True):
        size = int(np.prod(array.shape))
        values[index] = compiled.parameters[array.offset : array.offset + size].reshape(array.shape)
    values |= dict(zip(program.batch, (x, np.zeros(len(x), np.uint8)), strict=True))
    for equation in program.equations:
        values[equation.outputs[0]] = apply(equation, values)
    return {each["name"]: values[each["value"]] for each in outputs}


def in_jax(compiled: CompiledJob, predict, x: np.ndarray):
    named = {
        a.name: compiled.parameters[a.offset : a.offset + int(np.prod(a.shape))].reshape(a.shape)
        for a in compiled.spec.parameters
    }
    return predict(named, {"x": jnp.asarray(x)})


def test_predict_is_traced_for_one_row_and_gives_what_jax_gives() -> None:
    compiled = job(scores).compile()
    assert compiled.spec.predicts
    assert compiled.warnings == ()
    answer = answers(compiled, X[:1])
    assert {name: array.shape for name, array in answer.items()} == {"prediction": (1, 3)}
    np.testing.assert_allclose(answer["prediction"], in_jax(compiled, scores, X[:1]), rtol=1e-5)


def test_outputs_are_named_and_keep_their_types() -> None:
    def predict(params, batch):
        found = scores(params, batch)
        return {"top": jnp.argmax(found, axis=1), "scores": found, "again": found}

    compiled = job(predict).compile()
    answer = answers(compiled, X[:1])
    expected = in_jax(compiled, predict, X[:1])
    assert list(answer) == ["again", "scores", "top"]
    assert answer["top"].dtype == np.int32
    for name in answer:
        np.testing.assert_allclose(answer[name], expected[name], rtol=1e-5)


@pytest.mark.parametrize(
    "predict",
    [
        lambda params, batch: scores(params, {"x": batch["x"].reshape(ROWS, 4)}),
        lambda params, batch: jnp.squeeze(scores(params, batch)),
    ],
)
def test_a_predict_of_batch_size_rows_only_is_traced_for_them(predict) -> None:
    compiled = job(predict).compile()
    assert compiled.warnings == ()
    answer = answers(compiled, X[:ROWS])
    np.testing.assert_allclose(answer["prediction"], in_jax(compiled, predict, X[:ROWS]), rtol=1e-5)


def test_what_no_program_holds_is_a_warning_with_its_line_and_the_job_trains() -> None:
    compiled = job(lambda params, batch: jnp.linalg.svd(batch["x"] * params["w"][0, 0])[1]).compile()
    assert compiled.predict is None
    assert not compiled.spec.predicts
    (warning,) = compiled.warnings
    assert "no predictions, neither in browsers nor as ONNX: predict uses `svd` at tests/job/test_predictions.py:" in (
        warning
    )


def test_a_result_that_is_not_one_for_each_row_is_a_warning() -> None:
    compiled = job(lambda params, batch: {"mean": scores(params, batch).mean(0)}).compile()
    assert compiled.predict is None
    (warning,) = compiled.warnings
    assert "expects a result for each row, along the first axis, got float32[3] for 8 rows as `mean`" in warning
    assert "tests/job/test_predictions.py:" in warning


def test_a_forward_program_is_refused_by_who_knows_losses_only() -> None:
    compiled = job(scores).compile()
    assert compiled.predict is not None
    with pytest.raises(JobError, match="missing required field `loss`"):
        decode(compiled.predict)


def test_a_job_without_predict_gives_no_predictions() -> None:
    compiled = replace(job(scores), predict=None).compile()
    assert (compiled.predict, compiled.spec.predicts) == (None, False)
