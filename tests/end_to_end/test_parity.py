"""What browsers compute is what JAX computes: every model, function and primitive on WebAssembly in a real Chromium."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from playwright.sync_api import Browser, Page

from crowdlearn.program import Equation, Program, ValueType, encode, trace
from crowdlearn.program.types import PRIMITIVES
from tests.end_to_end.web_site import serving
from tests.job import equations
from tests.job.equations import EQUATIONS
from tests.job.functions import FUNCTIONS, LOOKUPS
from tests.job.models import MODELS, Model
from tests.job.oracle import equations_by_jax, gradients_by_jax

pytestmark = pytest.mark.browser

TOLERANCE = 1e-4
"""Of a gradient's norm. Most are within 1e-6: single precision, summed in another order."""

WEB_WORKER = Path(__file__).parent.parent.parent / "web_worker"
RUN_ALL = """async (cases) => {
    const answers = [];
    for (const [program, parameters, batch] of cases) {
        const failed = ({ message }) => ({ failure: message });
        answers.push(await runProgram(JSON.parse(program), parameters, batch).catch(failed));
    }
    return answers;
}"""

Case = tuple[Program, Iterable[np.ndarray], Iterable[np.ndarray]]
Answers = Mapping[str, dict[str, Any]]


@pytest.fixture(scope="module")
def executor(chromium: Browser) -> Iterator[Page]:
    """A page with the replica's executor, of today's sources."""
    subprocess.run(["node", "build.mjs", "--tests"], cwd=WEB_WORKER, check=True)
    with serving(WEB_WORKER / "dist" / "test") as site, chromium.new_context() as context:
        page = context.new_page()
        page.goto(f"{site}harness.js")  # any page of the site will do
        page.evaluate("import('/harness.js')")
        yield page


def flat(arrays: Iterable[np.ndarray]) -> list[list[float]]:
    return [np.asarray(array, np.float64).ravel().tolist() for array in arrays]


def run(executor: Page, cases: Mapping[str, Case]) -> Answers:
    """Runs all in one round trip."""
    sent = [[encode(program).decode(), flat(w), flat(batch)] for program, w, batch in cases.values()]
    return dict(zip(cases, executor.evaluate(RUN_ALL, sent), strict=True))


def of_model(model: Model) -> Case:
    program = trace(model.loss, model.parameters, model.batch)
    return program, jax.tree.leaves(model.parameters), [model.batch[name] for name in sorted(model.batch)]


def of_equation(case: equations.Equation, output: np.ndarray) -> Case:
    """A program whose only gradient is the equation's output. What is padded with stays a constant, as when traced."""
    constants = {i: x for i, x in enumerate(case.inputs) if case.primitive == "pad" and i == 1}
    count = len(case.inputs)
    values = [ValueType(x.shape, x.dtype.name) for x in (*case.inputs, output)]
    values += [ValueType(output.shape, "float32"), ValueType(output.shape, "float32"), ValueType((), "float32")]
    result, parameter, converted, loss = range(count, count + 4)
    program = Program(
        values=tuple(values),
        parameters=(parameter,),
        batch=tuple(i for i in range(count) if i not in constants),
        constants={**constants, loss: np.zeros((), np.float32)},
        equations=(
            Equation(case.primitive, tuple(range(count)), (result,), dict(case.options)),
            Equation("convert_element_type", (result,), (converted,), {"dtype": "float32"}),
        ),
        loss=loss,
        gradients=(converted,),
    )
    return program, [np.zeros(output.shape)], [x for i, x in enumerate(case.inputs) if i not in constants]


@pytest.fixture(scope="module")
def gradients(executor: Page) -> Answers:
    """The browser's losses and gradients."""
    return run(executor, {name: of_model(each) for name, each in {**MODELS, **FUNCTIONS, **LOOKUPS}.items()})


@pytest.fixture(scope="module")
def outputs(executor: Page) -> Answers:
    """The browser's values of single equations."""
    return run(executor, {name: of_equation(each, equations_by_jax()[name]) for name, each in EQUATIONS.items()})


@pytest.mark.parametrize("name", {**MODELS, **FUNCTIONS, **LOOKUPS})
def test_a_browser_computes_the_loss_and_the_gradients_that_jax_does(name: str, gradients: Answers) -> None:
    answer, (loss, wanted) = gradients[name], gradients_by_jax()[name]
    assert "failure" not in answer, answer["failure"]
    assert answer["loss"] == pytest.approx(loss, rel=TOLERANCE, abs=TOLERANCE)
    for got, expected in zip(answer["gradients"], wanted, strict=True):
        distance = np.linalg.norm(np.array(got) - expected.ravel())
        assert distance <= TOLERANCE * max(np.linalg.norm(expected), 1e-3)


@pytest.mark.parametrize("name", EQUATIONS)
def test_a_browser_gives_an_equation_the_value_that_jax_does(name: str, outputs: Answers) -> None:
    answer, expected = outputs[name], equations_by_jax()[name]
    assert "failure" not in answer, answer["failure"]
    (got,) = answer["gradients"]
    np.testing.assert_allclose(got, expected.ravel().astype(np.float32), rtol=2e-5, atol=1e-6)


def test_the_equations_cover_every_primitive() -> None:
    assert {each.primitive for each in EQUATIONS.values()} == PRIMITIVES
