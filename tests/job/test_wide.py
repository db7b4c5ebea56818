"""Whole numbers that int32 cannot hold are refused, not wrapped around in silence; others are taken as they are."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crowdlearn import Data, Job
from crowdlearn.errors import UnsupportedModelError

DATA = Data({"i": np.arange(8, dtype=np.int32), "x": np.linspace(-1, 1, 8, dtype=np.float32)})
LARGE = np.int64(10**10)
TABLE = np.array([2**40, 3, 0, 1])
INDICES = np.array([0, 2**32 + 1])
UNSIGNED = np.array([2**63 + 5], np.uint64)
SCALAR = np.array(2**33)
FACTORS = np.arange(4) - 2**31


def job(loss) -> Job:
    return Job(name="wide", params={"w": np.ones(4)}, loss=loss, data=DATA, batch_size=4)


def mean(p, x):
    return jnp.mean(p["w"]) * jnp.mean(x)


@pytest.mark.parametrize("is_wide", [False, True], ids=["int32", "x64"])
@pytest.mark.parametrize(
    ("loss", "number", "became"),
    [
        (lambda p, b: mean(p, b["x"]) * LARGE, "10,000,000,000", "1,410,065,408"),
        (lambda p, b: mean(p, b["i"] + LARGE), "10,000,000,000", "1,410,065,408"),
        (lambda p, b: mean(p, b["i"] < LARGE), "10,000,000,000", "1,410,065,408"),
        (lambda p, b: mean(p, jnp.where(b["i"] > 1, -LARGE, b["x"])), "-10,000,000,000", "-1,410,065,408"),
        (lambda p, b: mean(p, b["x"]) * jnp.mean(jnp.full(2, 3 * 10**9)), "3,000,000,000", "-1,294,967,296"),
    ],
    ids=["factor", "addend", "bound", "case", "filling"],
)
def test_a_whole_number_beyond_int32_is_refused_with_its_line(loss, number, became, is_wide):
    with jax.enable_x64(is_wide), pytest.raises(UnsupportedModelError) as refused:
        job(loss).compile()
    assert f"the loss uses the whole number {number}, beyond int32 at tests/job/test_wide.py:" in str(refused.value)
    assert f"JAX without x64 makes {became} of it: write smaller integers, or a float" in str(refused.value)


@pytest.mark.parametrize(
    ("loss", "number", "became"),
    [
        (lambda p, b: jnp.sum(TABLE * jnp.mean(p["w"])), "1,099,511,627,776", "0"),
        (lambda p, b: jnp.asarray(TABLE) @ p["w"], "1,099,511,627,776", "0"),
        (lambda p, b: jnp.sum(jnp.where(jnp.asarray(TABLE) > 5, p["w"], 0.0)) + p["w"][0], "1,099,511,627,776", "0"),
        (lambda p, b: jnp.sum(p["w"][INDICES]), "4,294,967,297", "1"),
        (lambda p, b: jnp.sum(UNSIGNED * p["w"]), "9,223,372,036,854,775,813", "5"),
        (lambda p, b: jnp.sum(SCALAR * p["w"]), "8,589,934,592", "0"),
        (lambda p, b: jnp.sum(LARGE % 7 * p["w"] * np.int64(2**32 + 1)), "4,294,967,296", "1"),
        (lambda p, b: jax.jit(lambda w: jnp.sum(FACTORS * w * TABLE))(p["w"]), "1,099,511,627,776", "0"),
        (lambda p, b: jax.lax.scan(lambda c, k: (c + k * p["w"][0], None), 0.0, TABLE)[0], "1,099,511,627,776", "0"),
    ],
    ids=["factors", "product", "mask", "indices", "unsigned", "scalar", "folded", "jit", "scan"],
)
def test_an_array_beside_the_loss_beyond_int32_is_refused_also_after_jax_has_wrapped_it(loss, number, became):
    jax.jit(lambda w: (w + TABLE, w + UNSIGNED, w + SCALAR))(np.ones(4, np.float32))
    for _ in range(2):
        with pytest.raises(UnsupportedModelError) as refused:
            job(loss).compile()
        assert f"the loss uses the whole number {number}, beyond int32 at tests/job/test_wide.py:" in str(refused.value)
        assert f"JAX without x64 makes {became} of it: write smaller integers, or a float" in str(refused.value)


@pytest.mark.parametrize(
    "loss",
    [
        lambda p, b: jnp.sum(FACTORS * p["w"]),
        lambda p, b: jnp.sum(p["w"][INDICES % 4]) + TABLE.astype(np.float32) @ p["w"],
        lambda p, b: mean(p, b["i"] + np.int64(2**31 - 1)),
        lambda p, b: mean(p, b["i"] + np.int64(-(2**31))),
        lambda p, b: mean(p, b["x"]) * np.float64(1e10) / 3e9,
        lambda p, b: mean(p, b["i"].astype(jnp.uint32) * np.uint32(2654435761) % 7),
        lambda p, b, key: mean(p, jax.random.randint(key, (4,), 0, 99) + jax.random.normal(key, (4,))),
    ],
    ids=["array", "made beforehand", "greatest", "least", "floats", "hash", "draws"],
)
def test_what_int32_or_a_float_can_hold_is_taken(loss):
    assert job(loss).compile().warnings == ()
