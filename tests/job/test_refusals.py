"""What a job is refused for: always with the user's line, before anything is stored."""

from __future__ import annotations

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import sparse

from crowdlearn.errors import JobError, UnsupportedModelError
from crowdlearn.program import trace
from tests.job.models import normal

W = normal(4)
BATCH = {"x": normal(3, 4), "pixels": np.zeros((3, 4), np.uint8)}


def line_of(function, text: str) -> str:
    """`test_refusals.py:N` of the line of `function` that holds `text`."""
    lines, first = inspect.getsourcelines(function)
    return f"test_refusals.py:{first + next(n for n, line in enumerate(lines) if text in line)}"


def refused(loss, kind: type[Exception] = UnsupportedModelError, parameters=W) -> str:
    with pytest.raises(kind) as caught:
        trace(loss, parameters, BATCH)
    return str(caught.value)


def test_a_primitive_that_browsers_lack_is_named_with_the_users_line_and_what_to_write_instead():
    def loss(w, batch):
        x = batch["x"] * w
        return jnp.sum(jnp.linalg.svd(x, compute_uv=False))

    message = refused(loss)
    assert "`svd`" in message
    assert line_of(loss, "jnp.linalg") in message
    assert "write jnp.linalg.norm(x) for the norm of all elements" in message


def updates_a_reference(w, batch):
    kept = jax.new_ref(jnp.zeros(4))
    kept[...] = w
    return jnp.sum(kept[...])


WITH_ADVICE = {
    "tridiagonal_solve": (
        lambda w, batch: jnp.sum(lax.linalg.tridiagonal_solve(jnp.ones(4), 3 * jnp.ones(4), jnp.ones(4), w[:, None])),
        "write jnp.linalg.solve of the whole matrix, of at most 8 rows, or a lax.scan along the rows",
    ),
    "shard_map": (
        lambda w, batch: jnp.sum(jax.pmap(lambda x: x / lax.psum(x, "devices"), axis_name="devices")(w[None])),
        "write the loss for one device, with jnp.sum and jnp.mean over axes of the minibatch instead",
    ),
    "reduce_xor": (
        lambda w, batch: jnp.sum(w) + lax.reduce_xor(batch["pixels"].astype(jnp.int32), (0, 1)),
        "or lax.associative_scan(jnp.bitwise_xor, x)[-1] instead",
    ),
    "bcoo_todense": (
        lambda w, batch: jnp.sum(sparse.BCOO.fromdense(w[:, None], nse=4).todense()),
        "write a dense array, or indices and values as arrays of the batch with jax.ops.segment_sum instead",
    ),
    "new_ref": (updates_a_reference, "write x = x.at[i].set(value), which gives a new array, instead"),
}


@pytest.mark.parametrize("name", WITH_ADVICE)
def test_what_else_a_user_may_call_is_refused_with_what_to_write(name):
    loss, advice = WITH_ADVICE[name]
    message = refused(loss)
    assert f"the loss uses `{name}` at " in message
    assert advice in message


@pytest.mark.parametrize("name", ["inv", "cholesky", "det"])
def test_a_matrix_of_more_than_eight_rows_is_refused_with_its_size(name):
    def loss(w, batch):
        return jnp.sum(getattr(jnp.linalg, name)(jnp.eye(9) + w[0]))

    message = refused(loss)
    assert "of a matrix of 9 x 9 (at most 8 x 8)" in message
    assert line_of(loss, "jnp.linalg") in message


def test_an_iterative_solver_is_refused_for_its_loop_of_unknown_length():
    def loss(w, batch):
        matrix = jnp.outer(w, w) + jnp.eye(4)
        z, _ = jax.scipy.sparse.linalg.cg(lambda v: matrix @ v, batch["x"].mean(0))
        return jnp.sum(z**2)

    message = refused(loss)
    assert "`while` in JAX's `cg_solve`, a loop of as many steps as the data ask for" in message
    assert line_of(loss, "linalg.cg") in message or line_of(loss, "matrix @ v") in message
    assert "crowdlearn.bounded_while" in message


def test_a_loop_of_the_users_own_is_refused_as_such_also_where_jax_differentiates_it():
    def loss(w, batch):
        return jnp.sum(w) + jax.lax.while_loop(lambda c: c < w[0], lambda c: c * 2, jax.lax.stop_gradient(w[1]))

    assert "the loss uses `while`, a loop of as many steps as the data ask for" in refused(loss)


@pytest.mark.parametrize("name", ["fft", "rfft"])
def test_a_fourier_transform_is_refused_by_its_name(name):
    def loss(w, batch):
        return jnp.abs(getattr(jnp.fft, name)(batch["x"] * w)).sum()

    message = refused(loss)
    assert "the loss uses `fft` at" in message
    assert line_of(loss, "jnp.fft") in message
    assert "a product with a constant Fourier matrix" in message


def test_complex_numbers_are_refused_with_what_made_them():
    def loss(w, batch):
        return jnp.abs(batch["x"] * w + 1j).sum()

    message = refused(loss)
    assert "values of type complex64, made by `convert_element_type`" in message
    assert line_of(loss, "1j") in message
    assert "the real and the imaginary part as two arrays" in message


def test_the_gradient_of_a_while_loop_is_refused_with_a_bounded_one_instead():
    def loss(w, batch):
        return lax.while_loop(lambda z: z.sum() < 9, lambda z: z * 2, w**2).sum()

    message = refused(loss, JobError)
    assert line_of(loss, "while_loop") in message
    assert "write crowdlearn.bounded_while(cond, body, init, max_steps=...)" in message


def test_the_gradient_of_a_product_by_index_is_refused_unless_no_index_repeats():
    def loss(w, batch):
        return jnp.ones(3).at[jnp.array([0, 2, 0, 1])].multiply(w).sum()

    message = refused(loss, JobError)
    assert line_of(loss, "multiply") in message
    assert "unique_indices=True" in message


def test_an_update_under_a_mask_of_values_is_refused_with_where():
    def loss(w, batch):
        return batch["x"].at[batch["x"] < 0].set(w[0]).sum()

    message = refused(loss, JobError)
    assert line_of(loss, "set(") in message
    assert "for x.at[mask].set(y) write jnp.where(mask, y, x)" in message


def test_clz_of_narrow_integers_is_refused():
    def loss(w, batch):
        return (lax.clz(batch["pixels"]).astype(jnp.float32) @ w).sum()

    message = refused(loss)
    assert "`clz` of uint8" in message
    assert line_of(loss, "lax.clz") in message


def test_windows_that_may_lie_over_one_another_are_refused_beyond_a_size():
    def loss(w, batch):
        starts = batch["pixels"].reshape(-1, 1).astype(jnp.int32)
        numbers = lax.ScatterDimensionNumbers((1,), (), (0,))
        rows = jnp.tile(batch["x"].reshape(-1, 1), (1, 1_000)) * w[0]
        return lax.stop_gradient(lax.scatter(jnp.zeros(10_000), starts, rows, numbers)).sum() + w.sum()

    message = refused(loss)
    assert "12 windows of 1,000 elements each" in message
    assert line_of(loss, "lax.scatter(") in message


def test_a_sort_of_too_many_is_refused_with_how_many():
    def loss(w, batch):
        return jnp.sum(jnp.sort(jnp.tile(w, 10_000))[:3])

    message = refused(loss)
    assert "a sort of 40,000 elements, 1 times" in message
    assert line_of(loss, "jnp.sort") in message


def test_the_line_is_inside_the_users_jitted_function_not_where_it_is_called():
    @jax.jit
    def inner(x):
        return jnp.fft.fft(x).real

    def loss(w, batch):
        return inner(batch["x"] @ w).sum()

    message = refused(loss)
    assert line_of(inner, "jnp.fft") in message


def test_a_loop_of_unknown_length_is_refused_with_a_python_loop_instead():
    def loss(w, batch):
        steps = lax.stop_gradient(batch["x"].sum()).astype(jnp.int32)
        return (w * lax.fori_loop(0, steps, lambda _, x: x * 2, 1.0)).sum()

    message = refused(loss)
    assert "`while`" in message
    assert line_of(loss, "fori_loop") in message
    assert "write crowdlearn.bounded_while(cond, body, init, max_steps=...)" in message


def test_a_scan_of_too_many_steps_is_refused_with_how_many():
    def loss(w, batch):
        return lax.scan(lambda x, _: (jnp.sin(x) * w, None), w, None, length=9_999)[0].sum()

    message = refused(loss)
    assert "a scan of 9,999 steps" in message
    assert line_of(loss, "lax.scan") in message
    assert "scan fewer steps" in message


def test_what_the_loss_does_not_need_is_not_refused():
    def loss(w, batch):
        jnp.linalg.inv(batch["x"].T @ batch["x"])
        jax.debug.print("{}", w)
        return (batch["x"] @ w).sum()

    assert trace(loss, W, BATCH).equations


def test_arithmetic_on_narrow_integers_is_refused_because_they_overflow():
    def loss(w, batch):
        brighter = batch["pixels"] + 1
        return (brighter.astype(jnp.float32) @ w).sum()

    message = refused(loss)
    assert "add of uint8" in message
    assert line_of(loss, "+ 1") in message
    assert "x.astype(jnp.float32)" in message


def test_narrow_integers_may_be_compared_moved_selected_and_widened():
    def loss(w, batch):
        pixels = batch["pixels"][:, ::-1].reshape(-1)[:4]
        bright = jnp.where(pixels > 100, pixels, jnp.maximum(pixels, 7))
        return (bright.astype(jnp.float32) * w).sum()

    assert trace(loss, W, BATCH).equations


def test_a_narrowing_conversion_is_refused():
    def loss(w, batch):
        return (batch["x"].astype(jnp.int8).astype(jnp.float32) @ w).sum()

    assert "conversion from float32 to int8" in refused(loss)


def test_other_floats_are_refused():
    def loss(w, batch):
        return (batch["x"].astype(jnp.bfloat16) @ w.astype(jnp.bfloat16)).sum().astype(jnp.float32)

    message = refused(loss)
    assert "bfloat16" in message
    assert line_of(loss, "bfloat16") in message


def test_shifts_of_narrow_integers_are_refused():
    def loss(w, batch):
        return ((batch["pixels"] << 1).astype(jnp.float32) @ w).sum()

    assert "shift_left of uint8" in refused(loss)


def test_a_key_that_depends_on_data_is_refused():
    def loss(w, batch, key):
        key = jax.random.fold_in(key, batch["pixels"][0, 0])
        return (w * jax.random.normal(key, w.shape)).sum()

    message = refused(loss)
    assert "a random key that depends on data" in message
    assert line_of(loss, "fold_in") in message
    assert "by numbers that are fixed" in message


def test_arithmetic_on_a_keys_data_is_refused():
    def loss(w, batch, key):
        return (w * jax.random.key_data(key).astype(jnp.float32)[0]).sum()

    message = refused(loss)
    assert "`convert_element_type` of a random key's data" in message
    assert line_of(loss, "key_data") in message


def test_a_key_put_together_from_others_is_refused():
    def loss(w, batch, key):
        data = jax.random.key_data(key)
        return (w * jax.random.normal(jax.random.wrap_key_data(data[::-1]), w.shape)).sum()

    assert "a random key put together from parts of others" in refused(loss)


def test_keys_of_another_generator_are_refused():
    def loss(w, batch):
        return (w * jax.random.normal(jax.random.key(3, impl="rbg"), w.shape)).sum()

    message = refused(loss)
    assert "rbg" in message
    assert "threefry2x32" in message


def test_draws_that_are_rejected_until_one_fits_are_refused():
    def loss(w, batch, key):
        return (w * jax.random.gamma(key, 2.0, w.shape)).sum()

    message = refused(loss)
    assert "`random_gamma`" in message
    assert line_of(loss, "gamma") in message
    assert "make the draws beforehand" in message


@pytest.mark.parametrize(
    ("draw", "advice"),
    [
        (lambda key: jax.random.poisson(key, 3.0, (2,)), "write jnp.round(rate + jnp.sqrt(rate) * jax.random.normal("),
        (lambda key: jax.random.binomial(key, 9, 0.5, (2,)), "write jnp.sum(jax.random.bernoulli(key, p, (n, *shape))"),
        (lambda key: jax.random.multinomial(key, 9, jnp.ones(2) / 2), "write jnp.sum(jax.nn.one_hot(jax.random.categ"),
    ],
    ids=["poisson", "binomial", "multinomial"],
)
def test_draws_by_a_loop_are_refused_by_their_name(draw, advice, request):
    def loss(w, batch, key):
        return w.sum() * draw(key).sum()

    message = refused(loss)
    assert f"`jax.random.{request.node.callspec.id}`, a loop of as many steps as its draws ask for at " in message
    assert "tests/job/test_refusals.py:" in message
    assert advice in message
    assert "draw them with numpy.random before the job starts, as an array of the data" in message


def test_a_large_constant_is_refused():
    table = jnp.zeros((1025, 1024)).at[0, 0].set(1)

    def loss(w, batch):
        return (table.sum() * w).sum()

    assert "a constant array of 1,049,600 elements" in refused(loss)


def test_a_loss_that_is_no_scalar_is_refused_with_its_line():
    def loss(w, batch):
        return batch["x"] @ w

    message = refused(loss, JobError)
    assert "returns one float32" in message
    assert "got float32[3]" in message
    assert line_of(loss, "def loss") in message


def test_a_loss_that_returns_nothing_is_refused():
    def loss(w, batch):
        batch["x"] @ w

    assert "got a NoneType" in refused(loss, JobError)


def test_a_wrong_name_lists_the_right_ones():
    def loss(params, batch):
        return (batch["image"] @ params["w"]).sum()

    message = refused(loss, JobError, {"w": W})
    assert "KeyError" in message
    assert line_of(loss, "image") in message
    assert "the parameters are ['w'] float32[4]; the batch has ['pixels'] uint8[3, 4], ['x'] float32[3, 4]" in message


def test_a_loss_that_raises_is_reported_with_its_line():
    def loss(w, batch):
        return (batch["x"] @ w[:2]).sum()

    message = refused(loss, JobError)
    assert "the loss raised TypeError" in message
    assert line_of(loss, "w[:2]") in message


def test_a_branch_on_a_value_is_reported_with_its_line():
    def loss(w, batch):
        if w[0] > 0:
            return w.sum()
        return batch["x"].sum()

    message = refused(loss, JobError)
    assert "TracerBoolConversionError" in message
    assert line_of(loss, "if w[0]") in message
