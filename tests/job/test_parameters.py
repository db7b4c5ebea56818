"""Initial values from what a user may give, and their way into a flat vector and back."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crowdlearn import Normal
from crowdlearn.errors import JobError
from crowdlearn.job.parameters import initialise


class Layer(NamedTuple):
    w: np.ndarray
    b: np.ndarray


def test_any_pytree_is_named_by_its_paths():
    tree = {"layers": [Layer(np.ones((2, 3)), np.zeros(3))], "scale": (np.float32(2),)}
    parameters = initialise(tree, 0)
    assert [array.name for array in parameters.arrays] == ["layers/0/w", "layers/0/b", "scale/0"]
    assert [array.offset for array in parameters.arrays] == [0, 6, 9]
    np.testing.assert_array_equal(parameters.flat, [1] * 6 + [0] * 3 + [2])


def test_a_flat_vector_is_cut_into_what_the_user_gave():
    tree = {"layers": [Layer(np.ones((2, 3)), np.zeros(3))], "scale": (np.float32(2),)}
    parameters = initialise(tree, 0)
    back = parameters.cut(parameters.flat)
    assert isinstance(back["layers"][0], Layer)
    assert jax.tree.structure(back) == jax.tree.structure(tree)
    np.testing.assert_array_equal(back["layers"][0].w, np.ones((2, 3)))
    assert back["scale"][0] == 2


def test_a_single_array_is_a_model_too():
    parameters = initialise(Normal((2, 2), mean=3, std=0), 0)
    assert [(array.name, array.shape) for array in parameters.arrays] == [("parameters", (2, 2))]
    np.testing.assert_array_equal(parameters.flat, [3, 3, 3, 3])


def test_a_normal_array_has_the_mean_and_deviation_that_were_asked_for():
    flat = initialise({"w": {"shape": [100, 100], "init_mean": 1.0, "init_std": 0.2}}, 0).flat
    assert flat.mean() == pytest.approx(1.0, abs=0.01)
    assert flat.std() == pytest.approx(0.2, abs=0.01)


def test_equal_shapes_start_with_different_noise():
    flat = initialise({"a": Normal(5), "b": Normal(5)}, 0).flat
    assert not np.array_equal(flat[:5], flat[5:])


@jax.tree_util.register_pytree_node_class
class Callable:
    """A model as Equinox makes them: a pytree that can be called."""

    def __init__(self, weight):
        self.weight = weight

    def __call__(self, x):
        return self.weight * x

    def tree_flatten(self):
        return [self.weight], None

    @classmethod
    def tree_unflatten(cls, _, leaves):
        return cls(*leaves)


def test_a_pytree_that_can_be_called_is_no_init_function():
    parameters = initialise(Callable(np.array([2.0, 3.0])), 0)
    np.testing.assert_array_equal(parameters.flat, [2, 3])
    assert parameters.tree([np.float32(5)])(2) == 10


def test_an_init_function_may_take_nothing():
    np.testing.assert_array_equal(initialise(lambda: {"w": jnp.ones(2)}, 0).flat, [1, 1])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"w": np.zeros(2, np.int32)}, "parameter w expects float numbers, got int32"),
        ({"w": np.array([np.nan])}, "parameter w expects finite initial values, got some that are not"),
        ({"w": np.zeros((0, 3))}, r"parameter w expects at least one value, got shape \(0, 3\)"),
        ({"w": Normal((2, -1))}, r"parameter w expects a shape of positive whole numbers, got \(2, -1\)"),
        ({"w": Normal(2, std=-1)}, "parameter w expects a std of at least 0, got -1"),
        ({"w": {"shape": (2,), "stddev": 1}}, "parameter w expects shape, init_mean and init_std, got stddev"),
        ({"w": "zeros"}, "parameter w expects float numbers, got <U5"),
        (lambda: 1 / 0, "the init function raised ZeroDivisionError at tests/job/test_parameters.py"),
    ],
)
def test_what_is_no_parameter_is_refused(given, message):
    with pytest.raises(JobError, match=message):
        initialise(given, 0)
