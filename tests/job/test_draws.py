"""Numbers that a loss draws in Python are frozen in its program: that is said, with the line and what to write."""

from __future__ import annotations

import functools
import inspect
import itertools
import random
import re
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crowdlearn import Data, Job, Normal

X = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
DATA = Data({"x": X}, {"x": X[:4]})
FIXED = np.random.default_rng(1).normal(size=4).astype(np.float32)
DRAWS = np.random.default_rng(2)
COUNT = itertools.count(1)


def warnings_of(loss: Any) -> tuple[str, ...]:
    return Job(name="drawn", params={"w": Normal(4)}, loss=loss, data=DATA, batch_size=4).compile().warnings


def plain(p: Any, b: Any, noise: Any = 0.0) -> Any:
    return jnp.mean((b["x"] @ p["w"] + noise - 1) ** 2)


def numpys(p: Any, b: Any) -> Any:
    return plain(p, b, np.random.normal(size=b["x"].shape[:1]))


def pythons(p: Any, b: Any) -> Any:
    return plain(p, b, random.gauss(0, 1))


def a_mask(p: Any, b: Any) -> Any:
    return plain({"w": jnp.where(np.random.rand(4) < 0.5, p["w"], 0.1 * p["w"])}, b)


def from_the_system(p: Any, b: Any) -> Any:
    return plain(p, b, np.random.default_rng().normal())


def from_a_generator_of_the_file(p: Any, b: Any) -> Any:
    return plain(p, b, DRAWS.normal())


def the_time(p: Any, b: Any) -> Any:
    return plain(p, b, time.time() % 1)


def whole_seconds(p: Any, b: Any) -> Any:
    return plain(p, b, jax.random.normal(jax.random.key(int(time.time()))))


def a_counter(p: Any, b: Any) -> Any:
    return plain(p, b, float(next(COUNT)))


def an_index(p: Any, b: Any) -> Any:
    first = random.randrange(1 << 30) % 3
    return plain(p, {"x": b["x"][first : first + 1]})


def a_branch(p: Any, b: Any) -> Any:
    return plain(p, b) if random.random() < 0.5 else plain(p, b) ** 2


def in_a_scan(p: Any, b: Any) -> Any:
    def step(total: Any, row: Any) -> Any:
        return total + (row @ p["w"] + random.random() - 1) ** 2, None

    return jax.lax.scan(step, 0.0, b["x"])[0]


def shuffled(p: Any, b: Any) -> Any:
    return jnp.mean(b["x"][np.random.permutation(len(b["x"]))] @ p["w"] * np.arange(len(b["x"])))


LOSSES = [
    numpys, pythons, a_mask, from_the_system, from_a_generator_of_the_file, the_time, whole_seconds, a_counter,
    an_index, a_branch, in_a_scan, shuffled,
]  # fmt: skip


@pytest.mark.parametrize(
    "loss",
    [*LOSSES, *map(jax.jit, LOSSES)],
    ids=[*(loss.__name__ for loss in LOSSES), *(f"jit of {loss.__name__}" for loss in LOSSES)],
)
def test_a_number_that_python_draws_anew_is_said_with_the_line_and_what_to_write(loss: Any) -> None:
    (note,) = warnings_of(loss)
    assert re.match(r"the loss uses numbers at \S*test_draws\.py:\d+ that Python draws anew at every call", note)
    assert "take `rng` as the third argument" in note


def added(p: Any, b: Any) -> Any:
    drawn = random.random()
    return plain(p, b) + drawn


def test_the_line_is_the_one_where_the_number_is_used() -> None:
    (note,) = warnings_of(added)
    assert f"test_draws.py:{added.__code__.co_firstlineno + 2} that Python draws" in note


@jax.jit
def drawn_within(x: Any) -> Any:
    scaled = x * 2
    return scaled + np.random.default_rng().normal()


def test_a_draw_in_a_function_under_jit_has_its_own_line() -> None:
    (note,) = warnings_of(lambda p, b: plain(p, b, drawn_within(p["w"][0])))
    assert f"test_draws.py:{inspect.unwrap(drawn_within).__code__.co_firstlineno + 3} that Python draws" in note


def seeded(p: Any, b: Any) -> Any:
    np.random.seed(3)
    return plain(p, b, np.random.normal(size=len(b["x"])) + np.random.default_rng(4).normal())


def with_a_key(p: Any, b: Any, rng: Any) -> Any:
    return plain(p, b, jax.random.normal(rng, (len(b["x"]),)) + jax.random.normal(jax.random.key(1)))


def with_nan(p: Any, b: Any) -> Any:
    return plain({"w": jnp.where(jnp.isnan(p["w"]), np.nan, p["w"])}, b, np.array([np.nan, FIXED[0]])[1])


@pytest.mark.parametrize(
    "loss",
    [plain, jax.jit(plain), jax.jit(seeded), functools.partial(plain, noise=FIXED), seeded, with_a_key, with_nan],
)
def test_constants_and_noise_of_a_key_are_nothing_to_say(loss: Any) -> None:
    assert warnings_of(loss) == ()


def test_a_script_s_own_draws_go_on_as_if_nothing_had_been_traced() -> None:
    random.seed(5)
    np.random.seed(5)
    expected = random.random(), np.random.rand()
    random.seed(5)
    np.random.seed(5)
    now = time.time
    warnings_of(plain)
    assert (random.random(), np.random.rand()) == expected
    assert time.time is now
