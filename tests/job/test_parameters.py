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
        ({"w": "zeros"}, r"parameter w expects float numbers, got a str \('zeros'\): what is not trained belongs"),
        ({"w": np.array(0)}, r"parameter w expects float numbers, got int64 \(0\): write 0.0 to train it"),
        (
            {"w": (4, 3)},
            r"parameter w/0 expects .*\(4\): write 4.0 to train it, Normal\(\(3, 4\)\) if it is of a shape",
        ),
        ({"w": np.zeros}, "got a builtin_function_or_method.*; of a function that makes arrays, give what it returns"),
        ({"w": np.array([True])}, "parameter w expects float numbers, got bool.*a mask is not trained"),
        ({"w": np.ones(2, complex)}, "parameter w expects float numbers, got complex numbers.*x.real and x.imag"),
        ({"w": jax.nn.relu}, r"parameter w expects float numbers, got a custom_jvp \(relu\)"),
        ({"w": jax.random.key(0)}, "parameter w expects float numbers, got a random key.*third parameter, `key`"),
        ({"w": jax.ShapeDtypeStruct((2,), "float32")}, r"got a shape without values \(2,\)"),
        ({"w": np.array([1e300])}, r"parameter w expects finite initial values.*beyond 3.4e\+38"),
        ({"w": np.ma.masked_equal([1.0, 2.0], 2)}, "got a masked array, of which 1 are masked"),
        ({"w": Normal(2.5)}, "parameter w expects a shape of positive whole numbers, got 2.5"),
        ({"w": Normal((2,), std="1")}, "parameter w expects a std that is a number, got '1'"),
        (
            {"w": {"shape": (2.0,), "init_std": 1}},
            r"parameter w expects a shape of positive whole numbers, got \(2.0,\)",
        ),
        ({0: np.ones(2), "w": np.ones(2)}, "names that are all strings, or all integers, got a mixture"),
        ({"a": {"w": np.ones(2)}, "a/w": np.ones(2)}, "parameters expect different names, got 'a/w' twice"),
        ({"__metadata__": np.ones(2)}, "a name that files of weights can hold, got '__metadata__'"),
        (
            lambda key, size: {},
            "params expects a function of nothing or of a key, got one of key, size at .*test_param",
        ),
        (lambda: None, "a job has at least one parameter array, got none"),
        (lambda: 1 / 0, "the init function raised ZeroDivisionError at tests/job/test_parameters.py"),
    ],
)
def test_what_is_no_parameter_is_refused(given, message):
    with pytest.raises(JobError, match=message):
        initialise(given, 0)


def test_names_that_are_integers_become_strings():
    parameters = initialise({1: np.ones(2), 0: np.zeros(1)}, 0)
    assert [array.name for array in parameters.arrays] == ["0", "1"]
    np.testing.assert_array_equal(parameters.cut(parameters.flat)[1], [1, 1])


def test_parameters_of_any_byte_order_and_precision_become_float32():
    tree = {"a": np.array([1.5], ">f8"), "b": np.array([2], ">f2"), "c": np.array([3], np.longdouble), "d": 4.0}
    flat = initialise(tree | {"e": jnp.array([5], jnp.bfloat16)}, 0).flat
    assert flat.dtype == np.dtype("float32")
    assert flat.dtype.isnative
    np.testing.assert_array_equal(flat, [1.5, 2, 3, 4, 5])


def test_parameters_called_shape_and_scale_are_parameters():
    tree = {"weibull": {"shape": [np.ones(())], "scale": np.zeros(2)}, "gamma": {"shape": np.ones(3), "rate": 2.0}}
    parameters = initialise(tree, 0)
    names = ["gamma/rate", "gamma/shape", "weibull/scale", "weibull/shape/0"]
    assert [array.name for array in parameters.arrays] == names
    assert parameters.cut(parameters.flat)["weibull"]["shape"][0] == 1


def test_a_parameter_called_shape_alone_is_one_unless_it_is_a_size():
    assert [array.name for array in initialise({"shape": np.ones(3)}, 0).arrays] == ["shape"]
    assert [array.name for array in initialise({"a": {"shape": (3,)}}, 0).arrays] == ["a"]


def test_what_may_be_a_description_or_parameters_is_refused():
    with pytest.raises(
        JobError, match=r"expects shape, init_mean and init_std, got scale beside shape=2.*array of floats"
    ):
        initialise({"weibull": {"shape": 2, "scale": 3.0}}, 0)


@jax.tree_util.register_pytree_with_keys_class
class Module:
    """A model as Equinox makes them: arrays, an activation and a count in one pytree."""

    def __init__(self, layers, activation, count, table):
        self.layers, self.activation, self.count, self.table = layers, activation, count, table

    def tree_flatten_with_keys(self):
        key = jax.tree_util.GetAttrKey
        return [(key(name), value) for name, value in vars(self).items()], None

    @classmethod
    def tree_unflatten(cls, _, children):
        return cls(*children)


def test_of_a_module_only_the_float_arrays_are_parameters():
    module = Module([np.ones((2, 3)), {"b": jnp.zeros(3), "none": None}], jnp.tanh, 7, np.arange(2))
    parameters = initialise({"encoder": module, "scale": np.ones(1)}, 0)
    names = ["encoder/layers/0", "encoder/layers/1/b", "scale"]
    assert [array.name for array in parameters.arrays] == names
    back = parameters.cut(2 * parameters.flat)
    assert back["encoder"].activation is jnp.tanh
    assert back["encoder"].count == 7
    assert back["encoder"].table is module.table
    np.testing.assert_array_equal(back["encoder"].layers[0], 2 * np.ones((2, 3)))
