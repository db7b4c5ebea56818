"""What browsers compute is what JAX computes: every model, function and primitive on WebAssembly in a real Chromium."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import jax
import numpy as np
import pytest

from crowdlearn.program import Equation, Program, ValueType, encode, trace
from crowdlearn.program.types import PRIMITIVES
from services.cli.program_page import Answer, Backend, Case, Failure, ProgramPage, headless_chromium
from tests.job import equations
from tests.job.equations import EQUATIONS
from tests.job.functions import FUNCTIONS, LOOKUPS
from tests.job.models import MODELS, Model
from tests.job.oracle import equations_by_jax, gradients_by_jax

pytestmark = pytest.mark.browser

TOLERANCE = 1e-4
"""Of a gradient's norm."""

TYPICAL = 1e-5
"""Half of them are within this: single precision, summed in another order."""

GPU_BACKENDS: tuple[Backend, ...] = ("webgpu", "webgl")
GPU_MODELS = (
    *("relu", "gelu", "embedding", "gru", "transformer", "convolutional", "picked_cross_entropy"),
    *("probits", "missing_values", "undefined", "long_sum", "whole_products", "large_constants"),
)
GPU_EQUATIONS = tuple({each.primitive: name for name, each in reversed(EQUATIONS.items())}.values())
"""The first of each primitive: GPUs need not know NaN and infinity, which the later ones try."""

WEB_WORKER = Path(__file__).parent.parent.parent / "web_worker"
Answers = Mapping[str, Answer | Failure]


@pytest.fixture(scope="module")
def executor() -> Iterator[ProgramPage]:
    """A page with the replica's executor, of today's sources."""
    subprocess.run(["node", "build.mjs", "--check"], cwd=WEB_WORKER, check=True)
    with headless_chromium() as chromium, chromium.new_context() as context:
        yield ProgramPage(context.new_page())


def as_case(
    program: Program, parameters: Iterable[np.ndarray], batch: Iterable[np.ndarray], key: np.ndarray | None
) -> Case:
    flat = np.concatenate([np.asarray(array, np.float32).ravel() for array in parameters])
    return Case(encode(program), flat, tuple(batch), (0, 0) if key is None else (int(key[0]), int(key[1])))


def cut(answer: Answer, shapes: Iterable[np.ndarray]) -> list[np.ndarray]:
    """The flat gradient as one flat array for each of those it belongs to."""
    return np.split(answer.gradient, np.cumsum([each.size for each in shapes])[:-1])


def of_model(model: Model) -> Case:
    program = trace(model.loss, model.parameters, model.batch)
    batch = [model.batch[name] for name in sorted(model.batch)]
    return as_case(program, jax.tree.leaves(model.parameters), batch, model.key)


def of_equation(case: equations.Equation, output: np.ndarray) -> Case:
    """A program whose only gradient is the equation's output. What is padded with stays a constant, as when traced."""
    constants = {i: x for i, x in enumerate(case.inputs) if case.primitive == "pad" and i == 1}
    key = case.inputs[0] if case.primitive == "random_bits" else None
    fed = [i for i in range(len(case.inputs)) if i not in constants and key is None]
    count = len(case.inputs)
    values = [ValueType(x.shape, x.dtype.name) for x in (*case.inputs, output)]
    values += [ValueType(output.shape, "float32"), ValueType(output.shape, "float32"), ValueType((), "float32")]
    result, parameter, converted, loss = range(count, count + 4)
    program = Program(
        values=tuple(values),
        parameters=(parameter,),
        batch=tuple(fed),
        key=None if key is None else 0,
        constants={**constants, loss: np.zeros((), np.float32)},
        equations=(
            Equation(case.primitive, tuple(range(count)), (result,), dict(case.options)),
            Equation("convert_element_type", (result,), (converted,), {"dtype": "float32"}),
        ),
        loss=loss,
        gradients=(converted,),
    )
    return as_case(program, [np.zeros(output.shape)], [case.inputs[i] for i in fed], key)


@pytest.fixture(scope="module")
def gradients(executor: ProgramPage) -> Answers:
    """The browser's losses and gradients."""
    return executor.run_all({name: of_model(each) for name, each in {**MODELS, **FUNCTIONS, **LOOKUPS}.items()}, "wasm")


@pytest.fixture(scope="module")
def outputs(executor: ProgramPage) -> Answers:
    """The browser's values of single equations."""
    cases = {name: of_equation(each, equations_by_jax()[name]) for name, each in EQUATIONS.items()}
    return executor.run_all(cases, "wasm")


def require_gradients(answer: Answer | Failure, name: str) -> None:
    """Compares with JAX's."""
    assert isinstance(answer, Answer), answer
    loss, wanted = gradients_by_jax()[name]
    assert answer.loss == pytest.approx(loss, rel=TOLERANCE, abs=TOLERANCE)
    assert max(errors_of(answer, wanted)) <= TOLERANCE


def errors_of(answer: Answer, wanted: list[np.ndarray]) -> list[float]:
    """Each array's distance from JAX's, relative to the norm of that."""
    return [
        float(np.linalg.norm(got - expected.ravel()) / max(np.linalg.norm(expected), 1e-3))
        for got, expected in zip(cut(answer, wanted), wanted, strict=True)
    ]


def require_value(answer: Answer | Failure, name: str, relative: float = 2e-5) -> None:
    """Compares with that of `jax.lax`."""
    assert isinstance(answer, Answer), answer
    expected = equations_by_jax()[name].ravel().astype(np.float32)
    np.testing.assert_allclose(answer.gradient, expected, rtol=relative, atol=1e-6)


@pytest.mark.parametrize("name", {**MODELS, **FUNCTIONS, **LOOKUPS})
def test_a_browser_computes_the_loss_and_the_gradients_that_jax_does(name: str, gradients: Answers) -> None:
    require_gradients(gradients[name], name)


def test_there_are_25_models_and_their_gradients_are_typically_far_closer(gradients: Answers) -> None:
    answers = {name: answer for name in MODELS if isinstance(answer := gradients[name], Answer)}
    errors = [error for name, answer in answers.items() for error in errors_of(answer, gradients_by_jax()[name][1])]
    assert len(answers) >= 25
    assert np.median(errors) <= TYPICAL


@pytest.mark.parametrize("name", EQUATIONS)
def test_a_browser_gives_an_equation_the_value_that_jax_does(name: str, outputs: Answers) -> None:
    require_value(outputs[name], name)


def on_gpu(executor: ProgramPage, backend: Backend) -> Answers:
    """Values of one equation of each primitive, and gradients of some models: a GPU in software is slow."""
    cases = {name: of_model(MODELS[name]) for name in GPU_MODELS}
    cases |= {name: of_equation(EQUATIONS[name], equations_by_jax()[name]) for name in GPU_EQUATIONS}
    return executor.run_all(cases, backend)


@pytest.fixture(scope="module")
def gpu_answers(executor: ProgramPage) -> dict[Backend, Answers]:
    """On each backend that computes on a GPU, or here on SwiftShader, which imitates one."""
    return {backend: on_gpu(executor, backend) for backend in GPU_BACKENDS}


@pytest.mark.parametrize("backend", GPU_BACKENDS)
@pytest.mark.parametrize("name", GPU_MODELS)
def test_a_gpu_computes_the_gradients_that_jax_does(
    name: str, backend: Backend, gpu_answers: dict[Backend, Answers]
) -> None:
    require_gradients(gpu_answers[backend][name], name)


@pytest.mark.parametrize("backend", GPU_BACKENDS)
@pytest.mark.parametrize("name", GPU_EQUATIONS)
def test_a_gpu_gives_an_equation_the_value_that_jax_does(
    name: str, backend: Backend, gpu_answers: dict[Backend, Answers]
) -> None:
    require_value(gpu_answers[backend][name], name, relative=TOLERANCE)


def test_the_equations_cover_every_primitive() -> None:
    assert {each.primitive for each in EQUATIONS.values()} == PRIMITIVES
