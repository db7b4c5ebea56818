"""Small dense models, written as users would write them: what tracing is tested on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

ROWS, WIDTH, HIDDEN, CLASSES = 12, 7, 5, 4


class Model(NamedTuple):
    """A loss with parameters and a batch to try it on."""

    loss: Callable[[Any, Any], Any]
    parameters: Any
    batch: dict[str, np.ndarray]
    key: np.ndarray | None = None
    """Data of the random key, for a loss that takes one."""

    def inputs(self) -> tuple[Any, ...]:
        """What the loss is called with in JAX."""
        key = () if self.key is None else (jax.random.wrap_key_data(self.key),)
        return (self.parameters, self.batch, *key)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """Float32 noise."""
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def labels(classes: int = CLASSES, dtype: str = "uint8") -> np.ndarray:
    """A label a row."""
    return np.random.default_rng(3).integers(0, classes, ROWS).astype(dtype)


LAYERS = {
    "W1": normal(WIDTH, HIDDEN),
    "b1": normal(HIDDEN),
    "W2": normal(HIDDEN, CLASSES),
    "b2": normal(CLASSES),
}
ROWS_OF_X = {"x": normal(ROWS, WIDTH), "y": labels()}


def network(activation):
    """Logits of two layers."""

    def forward(params, batch):
        return activation(batch["x"] @ params["W1"] + params["b1"]) @ params["W2"] + params["b2"]

    return forward


def one_hot_cross_entropy(activation):
    """Softmax cross-entropy, labels as one-hot rows."""
    forward = network(activation)

    def loss(params, batch):
        wanted = jax.nn.one_hot(batch["y"], CLASSES)
        return -jnp.mean(jnp.sum(wanted * jax.nn.log_softmax(forward(params, batch)), axis=-1))

    return loss


def integer_cross_entropy(params, batch):
    """Softmax cross-entropy, labels as indices."""
    scores = jax.nn.log_softmax(network(jnp.tanh)(params, batch))
    return -jnp.take_along_axis(scores, batch["y"][:, None], axis=-1).mean()


def counted_cross_entropy(params, batch):
    """The same, indexed by a counter and the labels."""
    scores = jax.nn.log_softmax(network(jax.nn.relu)(params, batch))
    return -scores[jnp.arange(ROWS), batch["y"]].mean()


def logsumexp_cross_entropy(params, batch):
    """The same without log_softmax."""
    scores = network(jax.nn.sigmoid)(params, batch)
    chosen = jnp.sum(scores * jax.nn.one_hot(batch["y"], CLASSES), axis=1)
    return jnp.mean(jax.nn.logsumexp(scores, axis=1) - chosen)


def squared_error(params, batch):
    """Regression on a column."""
    return jnp.mean((batch["x"] @ params["w"] + params["b"] - batch["target"]) ** 2)


def huber(params, batch):
    """Regression that forgives outliers."""
    distance = jnp.abs((batch["x"] @ params["w"] + params["b"] - batch["target"])[:, 0])
    return jnp.where(distance < 1, 0.5 * distance**2, distance - 0.5).mean()


def logistic_regression(params, batch):
    """Binary labels as bool."""
    score = batch["x"] @ params["w"][:, 0]
    sign = jnp.where(batch["positive"], 1.0, -1.0)
    return jnp.mean(jax.nn.softplus(-sign * score))


def probits(params, batch):
    """Quantiles of a normal distribution: three quotients of polynomials, of which each element takes one."""
    chance = jax.nn.sigmoid(batch["x"] @ params["w"][:, 0])
    return jnp.mean(jax.scipy.stats.norm.ppf(chance) ** 2)


def missing_values(params, batch):
    """A regression on what is there, with NaN for what is not."""
    x = jnp.where(batch["x"] > 1, jnp.nan, batch["x"] * params["w"][:, 0])
    return (jnp.nanmean(x, axis=0) ** 2).sum() + jnp.where(jnp.isnan(jnp.sqrt(x)), 0.0, x).mean()


def undefined(params, batch):
    """Counts what no number is: shading languages leave open what logarithms and powers of negative numbers are."""
    x = batch["x"]
    logs = jnp.log(x)
    tried = (
        logs,
        jnp.log1p(2 * x),
        jnp.arctanh(3 * x),
        jnp.abs(x - 1) * x**0.7,
        jax.nn.sigmoid(logs),
        jax.lax.erf(logs),
    )
    share = sum((jnp.isnan(each).mean(axis=0) for each in tried), start=jnp.zeros(WIDTH))
    return jnp.mean((share @ params["w"] - 1) ** 2)


def long_sum(params, batch):
    """A mean of more elements than float32 can add up one after the other, in one row of a prime length."""
    return jnp.mean((batch["x"] * params["w"] - 1) ** 2)


def whole_products(params, batch):
    """Products of sums of whole numbers, and a sum of their differing bits."""
    words = batch["words"].astype(jnp.uint32)
    return jnp.mean((jnp.prod((words & 3) + 1, axis=1) + (words ^ 5).sum(1)) * params["w"][:, 0].sum())


def large_constants(params, batch):
    """Floats that are whole numbers beyond the integers of a shader: a mask among them."""
    score = batch["x"] @ params["w"][:, 0] * 3e9 / 1e20
    return jax.nn.logsumexp(jnp.where(batch["x"][:, 0] > 0, score * 3e10, -1e10))


def pixels(params, batch):
    """uint8 pixels, scaled."""
    x = batch["pixels"].astype(jnp.float32) / 255
    return one_hot_cross_entropy(jax.nn.relu)(params, {"x": x, "y": batch["y"]})


def weight_decay_and_norm(params, batch):
    """L2 on every leaf, and rows that are normalised."""
    hidden = jnp.tanh(batch["x"] @ params["W1"] + params["b1"])
    hidden = (hidden - hidden.mean(1, keepdims=True)) / jnp.sqrt(hidden.var(1, keepdims=True) + 1e-5)
    penalty = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))
    return jnp.mean((hidden @ params["W2"] + params["b2"]) ** 2) + 0.01 * penalty


def embedding(params, batch):
    """Rows of a table by index, and their mean."""
    words = params["table"][batch["words"]]
    return one_hot_cross_entropy(jnp.tanh)(params, {"x": words.mean(axis=1), "y": batch["y"]})


@jax.jit
def layer(params, x):
    """A layer under jit."""
    return jax.nn.relu(x @ params["w"] + params["b"])


def nested(params, batch):
    """A list of layers, jit, checkpoint and a pytree of tuples."""
    x = batch["x"]
    for each in params["layers"]:
        x = jax.checkpoint(layer)(each, x)
    scale, shift = params["head"]
    return jnp.mean((x * scale + shift) ** 2)


@jax.custom_vjp
def clipped(x):
    """The identity, whose gradient is clipped."""
    return x


clipped.defvjp(lambda x: (x, None), lambda _, g: (jnp.clip(g, -0.01, 0.01),))


def custom_gradient(params, batch):
    """A custom_vjp in the middle."""
    return jnp.mean(clipped(batch["x"] @ params["w"] + params["b"] - batch["target"]) ** 2)


def products(params, batch):
    """einsum, tensordot, transposes and a batched product."""
    q = jnp.einsum("nw,wh->nh", batch["x"], params["W1"])
    scores = jnp.einsum("nh,mh->nm", q, q) / 3
    mixed = jax.nn.softmax(scores, axis=-1) @ q
    outer = jnp.einsum("nh,nk->nhk", mixed, mixed)
    return jnp.tensordot(outer, params["W2"] @ params["W2"].T, 2).mean() + (params["b1"] * mixed.T.mean(1)).sum()


def shapes(params, batch):
    """Slices, concatenation, padding, reversal, stacking and a maximum."""
    x = jnp.concatenate([batch["x"][:, ::2], batch["x"][:, 1:3][:, ::-1]], axis=1)
    x = jnp.pad(x, ((0, 0), (1, 0)))[:, :HIDDEN] * params["b1"]
    x = jnp.stack([x, x**3, jnp.maximum(x, 0.1)], axis=0).max(axis=0)
    return jnp.sum(x.reshape(-1)[3:20]) + jnp.max(x) - jnp.min(params["W1"])


def convolutional(layout):
    """Two convolutions, with maximum and average pooling; images as bytes."""
    first = layout[0] == "NCHW"

    def pooled(x, operation, start):
        window = (1, 1, 2, 2) if first else (1, 2, 2, 1)
        return jax.lax.reduce_window(x, start, operation, window, window, "VALID")

    def block(x, kernel, bias, **options):
        kernel = kernel.transpose(3, 2, 0, 1) if first else kernel
        y = jax.lax.conv_general_dilated(x, kernel, dimension_numbers=layout, **options)
        return jax.nn.relu(y + (bias[:, None, None] if first else bias))

    def loss(params, batch):
        x = batch["image"].astype(jnp.float32)[..., None] / 255
        x = x.transpose(0, 3, 1, 2) if first else x
        x = pooled(block(x, params["k1"], params["c1"], window_strides=(1, 1), padding="VALID"), jax.lax.max, -jnp.inf)
        x = block(x, params["k2"], params["c2"], window_strides=(1, 1), padding="SAME")
        x = (pooled(x, jax.lax.add, 0.0) / 4).reshape(ROWS, -1)
        scores = jax.nn.log_softmax(x @ params["W"])
        return -jnp.take_along_axis(scores, batch["y"][:, None], axis=1).mean()

    return loss


def separable(params, batch):
    """A strided and a dilated convolution, one of each channel alone, and batch statistics."""
    x = batch["image"].astype(jnp.float32)[..., None] / 255
    layout = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}
    x = jax.lax.conv_general_dilated(x, params["k1"], (2, 2), "SAME", **layout)
    x = params["scale"] * (x - x.mean((0, 1, 2))) / jnp.sqrt(x.var((0, 1, 2)) + 1e-5) + params["c1"]
    x = jax.lax.conv_general_dilated(jnp.tanh(x), params["deep"], (1, 1), "SAME", feature_group_count=3, **layout)
    x = jax.lax.conv_general_dilated(jax.nn.silu(x), params["k2"], (1, 1), "SAME", rhs_dilation=(2, 2), **layout)
    return jnp.mean((x.mean((1, 2)) @ params["W"] - batch["y"][:, None]) ** 2)


def sequence(params, batch):
    """A convolution along time, then overlapping maxima."""
    x = jax.lax.conv_general_dilated(
        batch["x"][..., None], params["k"], (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")
    )
    x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 1), (1, 2, 1), "SAME")
    return jnp.mean(jnp.sin(x @ params["W"]) ** 2)


def normalised(x, scale):
    """Layer norm."""
    return scale * (x - x.mean(-1, keepdims=True)) * jax.lax.rsqrt(x.var(-1, keepdims=True) + 1e-5)


def transformer(params, batch):
    """Attention of two heads that sees neither the future nor padding, layer norm, GELU; predicts next words."""
    words = batch["text"].astype(jnp.int32)
    x = params["words"][words] + params["places"]
    length, width = x.shape[1:]
    q, k, v = (normalised(x, params["scale"]) @ params[name] for name in ("Q", "K", "V"))
    q, k, v = (each.reshape(*x.shape[:2], 2, width // 2) for each in (q, k, v))
    seen = jnp.tril(jnp.ones((length, length), bool)) & (words != 0)[:, None, None, :] | jnp.eye(length, dtype=bool)
    scores = jnp.where(seen, jnp.einsum("nqhc,nkhc->nhqk", q, k) / jnp.sqrt(width / 2), -jnp.inf)
    x = x + jnp.einsum("nhqk,nkhc->nqhc", jax.nn.softmax(scores), v).reshape(x.shape) @ params["O"]
    x = x + jax.nn.gelu(normalised(x, params["scale"]) @ params["W1"]) @ params["W2"]
    scores = jax.nn.log_softmax(x[:, :-1] @ params["words"].T)
    return -jnp.take_along_axis(scores, words[:, 1:, None], axis=-1).mean()


def gru(params, batch):
    """A gated recurrent unit, scanned along time."""

    def step(hidden, x):
        update, reset = jnp.split(jax.nn.sigmoid(x @ params["Wg"] + hidden @ params["Ug"]), 2, axis=-1)
        proposed = jnp.tanh(x @ params["W"] + (reset * hidden) @ params["U"])
        return update * hidden + (1 - update) * proposed, None

    first = jnp.zeros((ROWS, HIDDEN))
    last, _ = jax.lax.scan(step, first, batch["series"].transpose(1, 0, 2))
    return jnp.mean((last @ params["out"] - batch["target"]) ** 2)


def lstm(params, batch):
    """Long short-term memory over characters, scanned with the state as a tuple; a loss at each step."""
    letters = batch["text"].astype(jnp.int32)

    def step(state, letter):
        hidden, cell = state
        gates = jax.nn.one_hot(letter, 9) @ params["W"] + hidden @ params["U"] + params["b"]
        i, f, g, o = jnp.split(gates, 4, axis=-1)
        cell = jax.nn.sigmoid(f + 1) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
        hidden = jax.nn.sigmoid(o) * jnp.tanh(cell)
        return (hidden, cell), jax.nn.log_softmax(hidden @ params["out"])

    first = (jnp.zeros((ROWS, HIDDEN)), jnp.zeros((ROWS, HIDDEN)))
    _, scores = jax.lax.scan(step, first, letters[:, :-1].T)
    return -jnp.take_along_axis(scores, letters[:, 1:].T[..., None], axis=-1).mean()


def dropout_network(params, batch, key):
    """Dropout on the inputs and on a hidden layer, each with a key of its own."""
    first, second = jax.random.split(key)
    x = jnp.where(jax.random.bernoulli(first, 0.8, batch["x"].shape), batch["x"] / 0.8, 0)
    hidden = jax.nn.relu(x @ params["W1"] + params["b1"])
    hidden = hidden * jax.random.bernoulli(second, 0.5, hidden.shape) * 2
    scores = jax.nn.log_softmax(hidden @ params["W2"] + params["b2"])
    return -jnp.take_along_axis(scores, batch["y"][:, None], axis=-1).mean()


def rowwise_dropout(params, batch, key):
    """A network of one row, with a key for each row, as Equinox users write it."""

    def one(x, key):
        return jax.nn.tanh(x @ params["W1"]) * jax.random.bernoulli(jax.random.fold_in(key, 7), 0.7, (HIDDEN,))

    return jnp.mean((jax.vmap(one)(batch["x"], jax.random.split(key, ROWS)) @ params["W2"]) ** 2)


def variational(params, batch, key):
    """An autoencoder whose code is a sample of a normal distribution: noise with a gradient through it."""
    hidden = jnp.tanh(batch["x"] @ params["W1"] + params["b1"])
    mean, log_variance = jnp.split(hidden @ params["code"], 2, axis=-1)
    code = mean + jnp.exp(log_variance / 2) * jax.random.normal(key, mean.shape)
    error = jnp.sum((code @ params["out"] - batch["x"]) ** 2, axis=-1)
    return jnp.mean(error - 0.5 * jnp.sum(1 + log_variance - mean**2 - jnp.exp(log_variance), axis=-1))


def noisy(params, batch, key):
    """Draws of many distributions, from raw key data too."""
    keys = jax.random.split(key, 8)
    x = batch["x"] + 0.1 * jax.random.truncated_normal(keys[0], -2, 2, batch["x"].shape)
    x = x + jax.random.uniform(jax.random.wrap_key_data(jax.random.key_data(keys[1])), (WIDTH,), minval=-1)
    chosen = jax.random.categorical(keys[2], x @ params["w"] * jnp.ones(3), axis=-1)
    x = x * jax.random.rademacher(keys[3], x.shape) + jax.random.laplace(keys[4], x.shape) * 0.1
    x = x + jax.random.randint(keys[5], x.shape, 0, 5) + chosen[:, None] + jax.random.gumbel(keys[6], x.shape)
    return jnp.mean((x @ params["w"] + params["b"] - batch["target"]) ** 2) + jax.random.exponential(keys[7])


def walk(params, batch, key):
    """A key carried through a loop."""

    def step(state, _):
        key, x = state
        key, here = jax.random.split(key)
        return (key, jnp.tanh(x * params["w"][:, 0] + jax.random.normal(here, x.shape))), None

    (_, x), _ = jax.lax.scan(step, (key, batch["x"]), None, length=3)
    return jnp.mean(x**2)


REGRESSION = {"w": normal(WIDTH, 1), "b": normal(1)}
TARGETS = {"x": normal(ROWS, WIDTH), "target": normal(ROWS, 1)}
BYTES = np.random.default_rng(1).integers(0, 256, (ROWS, WIDTH)).astype(np.uint8)
WORDS = np.random.default_rng(2).integers(0, 9, (ROWS, 3)).astype(np.int32)
NESTED = {
    "layers": [{"w": normal(WIDTH, WIDTH), "b": normal(WIDTH)}, {"w": normal(WIDTH, 1, seed=1), "b": normal(1)}],
    "head": (normal(1, seed=2), normal(1, seed=3)),
}

PICTURES = {"image": np.random.default_rng(4).integers(0, 256, (ROWS, 10, 10)).astype(np.uint8), "y": labels()}
KERNELS = {
    "k1": normal(3, 3, 1, 3),
    "c1": normal(3),
    "k2": normal(3, 3, 3, 4),
    "c2": normal(4),
    "W": normal(16, CLASSES),
}
SEPARABLE = {**KERNELS, "scale": normal(3, seed=1), "deep": normal(3, 3, 1, 3, seed=1), "W": normal(4, 1)}
SEPARABLE.pop("c2")

TEXT = np.random.default_rng(6).integers(0, 9, (ROWS, 6)).astype(np.uint8)
TRANSFORMER = {
    "words": normal(9, 8),
    "places": normal(6, 8),
    "scale": normal(8),
    **{name: normal(8, 8, seed=seed) / 3 for seed, name in enumerate("QKVO")},
    "W1": normal(8, 16) / 3,
    "W2": normal(16, 8) / 4,
}
GRU = {
    "Wg": normal(3, 2 * HIDDEN) / 2,
    "Ug": normal(HIDDEN, 2 * HIDDEN) / 2,
    "W": normal(3, HIDDEN) / 2,
    "U": normal(HIDDEN, HIDDEN) / 2,
    "out": normal(HIDDEN, 1),
}
LSTM = {
    "W": normal(9, 4 * HIDDEN) / 2,
    "U": normal(HIDDEN, 4 * HIDDEN) / 2,
    "b": normal(4 * HIDDEN) / 2,
    "out": normal(HIDDEN, 9),
}

KEY = np.array([0x12345678, 0xFEDCBA98], np.uint32)
VARIATIONAL = {"W1": normal(WIDTH, HIDDEN), "b1": normal(HIDDEN), "code": normal(HIDDEN, 4), "out": normal(2, WIDTH)}


def picked_cross_entropy(params, batch):
    """The scores of the labels, looked up along an axis."""
    scores = jax.nn.log_softmax(batch["x"] @ params["W"])
    return -jnp.mean(jnp.take_along_axis(scores, batch["y"][:, None], 1))


MODELS = {
    "sigmoid": Model(one_hot_cross_entropy(jax.nn.sigmoid), LAYERS, ROWS_OF_X),
    "tanh": Model(one_hot_cross_entropy(jnp.tanh), LAYERS, ROWS_OF_X),
    "relu": Model(one_hot_cross_entropy(jax.nn.relu), LAYERS, ROWS_OF_X),
    "gelu": Model(one_hot_cross_entropy(jax.nn.gelu), LAYERS, ROWS_OF_X),
    "exact_gelu": Model(one_hot_cross_entropy(lambda x: jax.nn.gelu(x, approximate=False)), LAYERS, ROWS_OF_X),
    "silu": Model(one_hot_cross_entropy(jax.nn.silu), LAYERS, ROWS_OF_X),
    "elu": Model(one_hot_cross_entropy(jax.nn.elu), LAYERS, ROWS_OF_X),
    "leaky_relu": Model(one_hot_cross_entropy(jax.nn.leaky_relu), LAYERS, ROWS_OF_X),
    "with_arrays_of_nothing": Model(
        lambda p, batch: jnp.sum(p["b"] ** 2) + (p["nothing"] @ batch["nothing"]).sum(),
        {"nothing": np.zeros((2, 0), np.float32), "b": LAYERS["b1"]},
        {"nothing": np.zeros((0, ROWS), np.float32)},
    ),
    "integer_cross_entropy": Model(integer_cross_entropy, LAYERS, ROWS_OF_X),
    "int32_labels": Model(integer_cross_entropy, LAYERS, {"x": normal(ROWS, WIDTH), "y": labels(dtype="int32")}),
    "counted_cross_entropy": Model(counted_cross_entropy, LAYERS, ROWS_OF_X),
    "logsumexp_cross_entropy": Model(logsumexp_cross_entropy, LAYERS, ROWS_OF_X),
    "picked_cross_entropy": Model(
        picked_cross_entropy,
        {"W": normal(4, 3)},
        {"x": normal(16, 4), "y": (np.arange(16) % 3).astype(np.int32)},
    ),
    "squared_error": Model(squared_error, REGRESSION, TARGETS),
    "huber": Model(huber, REGRESSION, TARGETS),
    "custom_gradient": Model(custom_gradient, REGRESSION, TARGETS),
    "logistic_regression": Model(logistic_regression, REGRESSION, {"x": normal(ROWS, WIDTH), "positive": labels() > 1}),
    "probits": Model(probits, REGRESSION, {"x": normal(ROWS, WIDTH)}),
    "missing_values": Model(missing_values, REGRESSION, {"x": normal(ROWS, WIDTH)}),
    "undefined": Model(undefined, REGRESSION, {"x": normal(ROWS, WIDTH)}),
    "long_sum": Model(long_sum, {"w": normal(1)}, {"x": np.full((1, 400_009), 0.1, np.float32)}),
    "whole_products": Model(whole_products, REGRESSION, {"words": WORDS}),
    "large_constants": Model(large_constants, REGRESSION, {"x": normal(ROWS, WIDTH)}),
    "pixels": Model(pixels, LAYERS, {"pixels": BYTES, "y": labels()}),
    "weight_decay_and_norm": Model(weight_decay_and_norm, LAYERS, ROWS_OF_X),
    "embedding": Model(embedding, {**LAYERS, "table": normal(9, WIDTH)}, {"words": WORDS, "y": labels()}),
    "nested": Model(nested, NESTED, {"x": normal(ROWS, WIDTH)}),
    "products": Model(products, LAYERS, ROWS_OF_X),
    "shapes": Model(shapes, LAYERS, ROWS_OF_X),
    "convolutional": Model(convolutional(("NHWC", "HWIO", "NHWC")), KERNELS, PICTURES),
    "convolutional_channels_first": Model(convolutional(("NCHW", "OIHW", "NCHW")), KERNELS, PICTURES),
    "separable": Model(separable, SEPARABLE, PICTURES),
    "transformer": Model(transformer, TRANSFORMER, {"text": TEXT}),
    "gru": Model(gru, GRU, {"series": normal(ROWS, 6, 3), "target": normal(ROWS, 1)}),
    "lstm": Model(lstm, LSTM, {"text": TEXT}),
    "dropout": Model(dropout_network, LAYERS, ROWS_OF_X, KEY),
    "rowwise_dropout": Model(rowwise_dropout, LAYERS, ROWS_OF_X, KEY),
    "variational": Model(variational, VARIATIONAL, ROWS_OF_X, KEY),
    "noisy": Model(noisy, REGRESSION, TARGETS, KEY),
    "walk": Model(walk, REGRESSION, TARGETS, KEY),
    "sequence": Model(sequence, {"k": normal(3, 1, 4), "W": normal(4, 2)}, {"x": normal(ROWS, WIDTH)}),
}
