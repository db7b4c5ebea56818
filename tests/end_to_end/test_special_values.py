"""What functions make of zeros, infinities, NaN and very large numbers is what JAX makes of them, on every backend."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.special as special
import numpy as np
import pytest
from jax import lax

from crowdlearn.program import encode, trace
from services.cli.program_page import BACKENDS, Answer, Backend, Case, Failure, ProgramPage, headless_chromium

pytestmark = pytest.mark.browser

VALUES = np.array(
    [0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 0.5, 2.5, -2.5, 100.0, -100.0, 1e-20, 1e20, -1e20, 3e38, -3e38],
    np.float32,
)

# Powers of what is negative and infinite, and sums that overflow in another order, are left out: see docs/program.md.
FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    **{
        each.__name__: each for each in (jnp.log, jnp.log1p, jnp.log2, jnp.exp, jnp.exp2, jnp.expm1, jnp.sqrt, jnp.cbrt)
    },
    **{each.__name__: each for each in (jnp.sin, jnp.cos, jnp.tanh, jnp.sinh, jnp.cosh, jnp.arctan, jnp.arcsin)},
    **{each.__name__: each for each in (jnp.arccos, jnp.arcsinh, jnp.arccosh, jnp.arctanh, jnp.floor, jnp.round)},
    **{each.__name__: each for each in (special.erf, special.erfc, special.ndtri, special.log_ndtr, special.entr)},
    **{each.__name__: each for each in (lax.erf_inv, lax.rsqrt, lax.sign, jnp.abs, jax.nn.sigmoid, jax.nn.softplus)},
    **{each.__name__: each for each in (jax.nn.relu, jax.nn.silu, jax.nn.log_sigmoid)},
    "the square root as a power": lambda x: jnp.abs(x) ** 0.5,
    "the quotient of one": lambda x: 1 / x,
    "the quotient of itself": lambda x: x / x,
    "the difference to itself": lambda x: x - x,
    "the product with 0": lambda x: x * 0.0,
    "the remainder of 3": lambda x: lax.rem(x, jnp.float32(3)),
    "the remainder of 3 by it": lambda x: lax.rem(jnp.float32(3), x),
    "the angle over 1": lambda x: jnp.arctan2(x, 1.0),
    "the angle of 1 over it": lambda x: jnp.arctan2(1.0, x),
    "the angle over itself": lambda x: jnp.arctan2(x, x),
    "the angle over -1": lambda x: jnp.arctan2(x, -1.0),
    "the larger of 1": lambda x: jnp.maximum(x, 1.0),
    "the smaller of 1": lambda x: jnp.minimum(x, 1.0),
    "whether it is less": lambda x: jnp.where(x < 1, 1.0, 0.0),
    "whether it is not less": lambda x: jnp.where(~(x < 1), 1.0, 0.0),
    "whether it is at least": lambda x: jnp.where(x >= 1, 1.0, 0.0),
    "whether it equals itself": lambda x: jnp.where(x == x, 1.0, 0.0),
    "whether it is another": lambda x: jnp.where(x != jnp.float32(1), 1.0, 0.0),
    "the whole number": lambda x: x.astype(jnp.int32).astype(jnp.float32),
    "the natural number": lambda x: jnp.abs(x).astype(jnp.uint32).astype(jnp.float32),
    "what is clipped": lambda x: jnp.clip(x, -1, 1),
    "the largest": lambda x: jnp.max(x, keepdims=True) + 0 * jnp.where(jnp.isfinite(x), x, 0),
    "the smallest": lambda x: jnp.min(x, keepdims=True) + 0 * jnp.where(jnp.isfinite(x), x, 0),
    "the logarithm of a sum of exponentials": lambda x: jnp.logaddexp(x, 1.0),
    "the logarithm of the gamma function": special.gammaln,
    "twice the logarithm of the gamma function": lambda x: special.betaln(jnp.where(jnp.abs(x) < 1e3, x, 1.0), 2.0),
}


def loss_of(function: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    """A loss whose gradient by `w` is what the function gives."""
    return lambda params, batch: jnp.sum(params["w"] * function(batch["x"]))


@cache
def cases() -> dict[str, Case]:
    like = {"w": VALUES}, {"x": VALUES}
    programs = {name: trace(loss_of(function), *like) for name, function in FUNCTIONS.items()}
    return {name: Case(encode(program), np.ones_like(VALUES), [VALUES]) for name, program in programs.items()}


@pytest.fixture(scope="module", params=BACKENDS)
def answers(request: pytest.FixtureRequest) -> Iterator[dict[str, Answer | Failure]]:
    """What a browser says of each function, in one page."""
    backend: Backend = request.param
    with headless_chromium() as chromium, chromium.new_context() as context:
        yield ProgramPage(context.new_page()).run_all(cases(), backend)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_special_values_are_what_jax_makes_of_them(name: str, answers: dict[str, Answer | Failure]) -> None:
    answer = answers[name]
    assert isinstance(answer, Answer), answer
    wanted = np.asarray(jax.jit(FUNCTIONS[name])(VALUES))
    # Numbers below 1e-37 are denormal, or zero. Of 1 the logarithm of the gamma function is 0, by a difference.
    absolute = 1e-6 if "gamma" in name else 1e-37
    np.testing.assert_allclose(answer.gradient, wanted, rtol=1e-5, atol=absolute)
