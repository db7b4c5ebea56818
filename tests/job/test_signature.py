"""Which parameter of a loss is given a random key, and what is said where none is."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crowdlearn.errors import JobError
from crowdlearn.program import trace
from crowdlearn.program.signature import call_of, require_pair

W = np.ones(4, np.float32)
BATCH = {"x": np.ones((3, 4), np.float32)}


def noise(w, batch, key):
    x = batch["x"] @ w
    return jnp.mean(x if key is None else x * jax.random.uniform(key, x.shape))


def needed(p, b, anything):
    return noise(p, b, anything)


def with_rng(p, b, rng=None):
    return noise(p, b, rng)


def with_key(p, b, key=None):
    return noise(p, b, key)


def keyword_only(p, b, *, rng_key=None):
    return noise(p, b, rng_key)


def required_keyword(p, b, *, dropout_key):
    return noise(p, b, dropout_key)


def after_another(p, b, train=True, rng=None):
    assert train is True
    return noise(p, b, rng)


def camel(p, b, dropoutRng=None):
    return noise(p, b, dropoutRng)


def decorated(function):
    @functools.wraps(function)
    def passes_on(*args, **kwargs):
        return function(*args, **kwargs)

    return passes_on


def by_name_only(function):
    @functools.wraps(function)
    def passes_on(params, batch, **kwargs):
        return function(params, batch, **kwargs)

    return passes_on


class Loss:
    def __call__(self, p, b, rng=None):
        return noise(p, b, rng)

    def method(self, p, b, rng=None):
        return noise(p, b, rng)


@pytest.mark.parametrize(
    "loss",
    [
        needed,
        with_rng,
        with_key,
        keyword_only,
        required_keyword,
        after_another,
        camel,
        Loss(),
        Loss().method,
        functools.partial(after_another, train=True),
        functools.partial(with_rng, rng=None),
        jax.jit(with_rng),
        decorated(with_rng),
        decorated(keyword_only),
        by_name_only(with_rng),
        lambda p, b, prng=None: noise(p, b, prng),
    ],
)
def test_a_parameter_that_is_for_a_key_is_given_one(loss):
    program = trace(loss, W, BATCH)
    assert program.key is not None
    assert any(equation.primitive == "random_bits" for equation in program.equations)


def test_several_keys_differ():
    def loss(p, b, dropout_rng=None, *, noise_key=None):
        return jnp.sum(p) * (jax.random.uniform(dropout_rng) - jax.random.uniform(noise_key))

    key = jax.random.key(3)
    first, second = jax.random.split(key)
    expected = 4 * (jax.random.uniform(first) - jax.random.uniform(second))
    assert call_of(loss)(W, BATCH, key) == pytest.approx(float(expected))
    assert expected != 0


@pytest.mark.parametrize(
    ("loss", "note"),
    [
        (lambda p, b, seed=0: noise(p, b, None), "parameter seed keeps its default, 0: call it `key`"),
        (lambda p, b, r=None: noise(p, b, r), "parameter r keeps its default, None: call it `key`"),
        (lambda p, b, key=0: noise(p, b, None), "parameter key keeps its default, 0"),
        (lambda *args: noise(args[0], args[1], None), "the loss takes *args and is given no random key there"),
        (lambda p, b, **more: noise(p, b, more.get("rng")), "the loss takes **more and is given no random key there"),
    ],
)
def test_it_is_said_where_a_loss_that_may_want_a_key_is_given_none(loss, note):
    assert trace(loss, W, BATCH).key is None
    (said,) = call_of(loss).notes
    assert note in said


@pytest.mark.parametrize("loss", [lambda p, b: noise(p, b, None), lambda p, b, scale=2.0: noise(p, b, None)])
def test_a_loss_without_noise_is_not_talked_of(loss):
    assert trace(loss, W, BATCH).key is None
    assert call_of(loss).notes == ()


def test_a_key_that_is_bound_already_is_no_keys_place():
    bound = functools.partial(with_rng, rng=5)
    assert call_of(bound).takes_key is False


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (
            lambda p: 0.0,
            "expects (params, batch), and a random key as the third if it wants one, got a function of p from",
        ),
        (lambda: 0.0, "got a function of nothing from"),
        (lambda p, rng, b: 0.0, "expects (params, batch, key) in this order, got p, rng, b from"),
        (lambda p, b, key, state: 0.0, "got one that also takes state from"),
        (lambda p, b, *, train: 0.0, "got one that also takes train from"),
    ],
)
def test_a_loss_that_cannot_be_called_is_refused_with_its_line(loss, message):
    with pytest.raises(JobError) as caught:
        call_of(loss)
    assert message in str(caught.value)
    assert "test_signature.py:" in str(caught.value)


def test_metrics_get_no_key():
    require_pair("metrics", lambda p, b, key=None: {})
    with pytest.raises(
        JobError, match=r"metrics expects a function of \(params, batch\).*got one of p, b, key from .*test_s"
    ):
        require_pair("metrics", lambda p, b, key: {})


@pytest.mark.parametrize(("name", "takes_key"), [("keys", True), ("attention_keys", False), ("random_state", False)])
def test_a_name_that_may_mean_something_else_gets_no_key_and_a_note(name, takes_key):
    scope = {}
    exec(f"def loss(p, b, *, {name}=None): return 0.0", scope)
    call = call_of(scope["loss"])
    assert call.takes_key is takes_key
    assert any(f"parameter {name} keeps its default, None" in note for note in call.notes) is not takes_key
