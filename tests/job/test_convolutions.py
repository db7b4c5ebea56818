"""Convolutions and pooling in every layout and with every option, against JAX."""

from __future__ import annotations

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from crowdlearn.program import Program, evaluate, trace
from tests.job.models import MODELS, normal

IMAGES = normal(3, 9, 8, 4)
"""Rows, height, width, channels."""


def weighed(y):
    """A number in which every element of `y` counts differently."""
    return jnp.sum(y * jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape))


def agrees(loss, *arrays: np.ndarray) -> Program:
    """Compares value and gradients for all arrays with JAX; returns the program."""
    program = trace(loss, arrays, {})
    expected, wanted = jax.value_and_grad(loss)(arrays, {})
    got, gradients = evaluate(program, arrays, [])
    assert got == pytest.approx(float(expected), rel=1e-4, abs=1e-4)
    for gradient, exact in zip(gradients, wanted, strict=True):
        np.testing.assert_allclose(gradient, exact, rtol=1e-4, atol=2e-5 * max(1.0, float(np.abs(exact).max())))
    return program


def convolution(layout=("NHWC", "HWIO", "NHWC"), strides=(1, 1), padding="VALID", **options):
    def loss(arrays, batch):
        images, kernel = arrays
        y = lax.conv_general_dilated(images, kernel, strides, padding, dimension_numbers=layout, **options)
        return weighed(jnp.tanh(y))

    return loss


CONVOLUTIONS = {
    "valid": {},
    "same": {"padding": "SAME"},
    "strided": {"strides": (2, 3)},
    "strided_same": {"strides": (2, 2), "padding": "SAME"},
    "padded_unevenly": {"padding": ((0, 2), (3, 1))},
    "cropped": {"padding": ((-1, -2), (1, -1))},
    "dilated_kernel": {"rhs_dilation": (2, 3)},
    "dilated_strided": {"rhs_dilation": (2, 1), "strides": (2, 2), "padding": "SAME"},
    "dilated_images": {"lhs_dilation": (2, 3), "padding": ((1, 1), (2, 2))},
    "dilated_both": {"lhs_dilation": (2, 1), "rhs_dilation": (1, 2), "padding": ((2, 2), (2, 2)), "strides": (1, 2)},
    "far_padding": {"padding": ((7, 0), (0, 9)), "strides": (2, 2)},
}


def _fits(name: str, kernel: tuple[int, int]) -> bool:
    """Whether any window of the kernel fits into the images."""
    arrays = (IMAGES, normal(*kernel, 4, 5))
    return 0 not in jax.eval_shape(lambda a: lax.conv_general_dilated(*a, **_plain(CONVOLUTIONS[name])), arrays).shape


def _plain(options: dict) -> dict:
    plain = {"padding": "VALID", "dimension_numbers": ("NHWC", "HWIO", "NHWC"), **options}
    return {"window_strides": plain.pop("strides", (1, 1)), **plain}


KERNELS = [(3, 3), (1, 1), (5, 2), (8, 7)]


@pytest.mark.parametrize(("name", "kernel"), [(n, k) for n in CONVOLUTIONS for k in KERNELS if _fits(n, k)])
def test_a_convolution_and_its_gradients_are_those_of_jax(name, kernel):
    agrees(convolution(**CONVOLUTIONS[name]), IMAGES, normal(*kernel, 4, 5))


@pytest.mark.parametrize("features", [4, 8, 12])
@pytest.mark.parametrize("groups", [2, 4])
@pytest.mark.parametrize("options", [{}, {"strides": (2, 2), "padding": "SAME"}, {"rhs_dilation": (2, 2)}])
def test_a_grouped_convolution_and_its_gradients_are_those_of_jax(options, groups, features):
    agrees(convolution(feature_group_count=groups, **options), IMAGES, normal(3, 2, 4 // groups, features))


def test_a_convolution_of_groups_of_rows_is_that_of_jax():
    agrees(convolution(batch_group_count=3), IMAGES, normal(3, 3, 4, 6))


@pytest.mark.parametrize("layout", [("NCHW", "OIHW", "NCHW"), ("NHWC", "OIHW", "NCHW"), ("HWNC", "IOHW", "CNHW")])
def test_layouts_are_those_of_jax(layout):
    order = ["NHWC".index(letter) for letter in layout[0]]
    kernel = ["HWIO".index(letter) for letter in layout[1]]
    options = {"strides": (2, 1), "padding": "SAME"}
    agrees(convolution(layout, **options), IMAGES.transpose(order), normal(3, 2, 4, 5).transpose(kernel))


@pytest.mark.parametrize("rank", [1, 3])
def test_convolutions_along_one_axis_and_along_three_are_those_of_jax(rank):
    space = "DHW"[3 - rank :]
    layout = (f"N{space}C", f"{space}IO", f"N{space}C")
    images, kernel = normal(2, *(6, 5, 7)[:rank], 3), normal(*(3, 2, 2)[:rank], 3, 4)
    agrees(convolution(layout, (2,) * rank, "SAME"), images, kernel)


def test_a_transposed_convolution_is_that_of_jax():
    def loss(arrays, batch):
        return weighed(lax.conv_transpose(*arrays, (2, 2), "SAME"))

    agrees(loss, IMAGES, normal(3, 3, 4, 5))


POOLS = {
    "tiles": ((1, 2, 2, 1), (1, 2, 2, 1), "VALID"),
    "tiles_same": ((1, 2, 3, 1), (1, 2, 3, 1), "SAME"),
    "overlapping": ((1, 3, 3, 1), (1, 2, 2, 1), "VALID"),
    "overlapping_same": ((1, 3, 2, 1), (1, 1, 1, 1), "SAME"),
    "far_apart": ((1, 2, 2, 1), (1, 3, 4, 1), "VALID"),
    "over_channels": ((1, 1, 1, 2), (1, 1, 1, 1), "SAME"),
    "whole": ((1, 9, 8, 1), (1, 9, 8, 1), "VALID"),
}


@pytest.mark.parametrize("operation", [lax.max, lax.min, lax.add])
@pytest.mark.parametrize("name", POOLS)
def test_pooling_and_its_gradient_are_those_of_jax(name, operation):
    start = {"max": -jnp.inf, "min": jnp.inf, "add": 0.0}[operation.__name__]

    def loss(arrays, batch):
        return weighed(jnp.sin(lax.reduce_window(arrays[0], start, operation, *POOLS[name])))

    agrees(loss, IMAGES)


@pytest.mark.parametrize("window", [(2, 2), (3, 2)])
def test_of_equal_elements_the_first_gets_the_gradient_of_maximum_pooling(window):
    def loss(arrays, batch):
        return weighed(lax.reduce_window(arrays[0], -jnp.inf, lax.max, (1, *window, 1), (1, 2, 2, 1), "VALID"))

    agrees(loss, np.maximum(np.round(IMAGES), 0))


def test_pooling_with_dilations_is_that_of_jax():
    def loss(arrays, batch):
        return weighed(
            lax.reduce_window(
                arrays[0],
                0.0,
                lax.add,
                (1, 2, 2, 1),
                (1, 2, 1, 1),
                ((0, 0), (1, 2), (0, 1), (0, 0)),
                base_dilation=(1, 2, 1, 1),
                window_dilation=(1, 1, 3, 1),
            )
        )

    agrees(loss, IMAGES)


def primitives(name: str) -> Counter[str]:
    model = MODELS[name]
    return Counter(equation.primitive for equation in trace(model.loss, model.parameters, model.batch).equations)


def test_the_patches_that_made_a_result_serve_the_gradient_of_its_kernel():
    # Two convolutions, and the gradients for two kernels and one image.
    assert primitives("convolutional")["patches"] == 2


def test_channels_in_second_place_cost_no_transpose_of_images_within_the_network():
    model = MODELS["convolutional_channels_first"]
    program = trace(model.loss, model.parameters, model.batch)
    turned = [e for e in program.equations if e.primitive == "transpose" and program.values[e.outputs[0]].rank == 4]
    # Where the images are flattened, there and back; and the kernel for the gradient of its input.
    assert len(turned) == 3
