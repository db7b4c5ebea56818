"""A jaxpr in float64: every function and model that programs are tested on, against JAX's float32."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from crowdlearn.job import float64
from tests.job.functions import FUNCTIONS, LOOKUPS
from tests.job.models import MODELS

UNDETERMINED = ("acosh_near_one", "large_angles", "fmod_of_large")
"""What float32 makes of these inputs is another number than what float64 does: 1 + 1e-6 x has five bits of x left."""

KNOWN = {
    name: model
    for name, model in {**FUNCTIONS, **LOOKUPS, **MODELS}.items()
    if name.partition("(")[0] not in UNDETERMINED
}
SAMPLE = [*MODELS, *[name for name in KNOWN if name not in MODELS][::4]]
"""Each is compiled in two widths, which takes a second."""
CONDITIONED = 2e-4
"""float32's error of the worst of them, which cancel on purpose."""


def in_both_widths(function, *inputs):
    closed, leaves = jax.make_jaxpr(function)(*inputs), jax.tree.leaves(inputs)
    with jax.enable_x64(True):
        # Compiled at once: one primitive after the other takes a minute for a transformer.
        wide = [np.asarray(each) for each in jax.jit(lambda *given: float64.evaluate(closed, given))(*leaves)]
    return [np.asarray(each) for each in jax.tree.leaves(jax.jit(function)(*inputs))], wide


@pytest.mark.parametrize("name", SAMPLE)
def test_float64_gives_what_float32_does_to_its_precision(name):
    model = KNOWN[name]
    single, double = in_both_widths(jax.value_and_grad(model.loss), *model.inputs())
    assert {each.dtype for each in double} == {np.dtype(np.float64)}
    scale = np.sqrt(sum(np.sum(np.square(each)) for each in double[1:]))
    for one, two in zip(single, double, strict=True):
        assert np.linalg.norm(one - two) <= CONDITIONED * max(scale, np.linalg.norm(two))


def test_what_float32_rounds_away_is_there_in_float64():
    single, double = in_both_widths(lambda x: x + 1e8, jnp.float32(0.25))
    assert (single[0], double[0]) == (1e8, 1e8 + 0.25)


def test_loops_of_unknown_length_and_branches_are_followed():
    def halved(x):
        x = lax.while_loop(lambda s: s > 1, lambda s: s / 2, x)
        return lax.cond(x > 0.6, lambda s: s + 1e8, lambda s: -s, x)

    single, double = in_both_widths(halved, jnp.float32(96.0))
    assert (single[0], double[0]) == (1e8, 1e8 + 0.75)  # 96 / 2^7 = 0.75


def test_a_scatter_adds_in_float64():
    rows = jnp.array([1e8, 1.0, -1e8], jnp.float32)
    single, double = in_both_widths(lambda x: jnp.zeros(1).at[jnp.zeros(3, jnp.int32)].add(x), rows)
    assert double[0].tolist() == [1.0]
    assert single[0].tolist() != [1.0]
