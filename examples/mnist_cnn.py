"""Handwritten digits and a small convolutional network, that of jax-js's demo: 5x5x24, pool, 3x3x32, pool, 128, 10.

crowdlearn up examples/mnist_cnn.py --browsers 4

The environment variable MNIST names an `mnist.npz` in Keras's layout; without it the file is downloaded once.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from mnist_data import find_mnist

from crowdlearn import Adagrad, Data, Job, Normal

with np.load(find_mnist()) as mnist:
    train = {"image": mnist["x_train"], "label": mnist["y_train"]}
    held_out = {"image": mnist["x_test"], "label": mnist["y_test"]}


def convolve(x, kernel, bias):
    y = lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    pooled = lax.reduce_window(y, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    return jax.nn.relu(pooled + bias)


def predict(params, batch):
    # Around zero: without that, gradients which are a little stale make the loss swing.
    x = (batch["image"].astype(jnp.float32)[..., None] - 33) / 255
    x = convolve(x, params["K1"], params["b1"])
    x = convolve(x, params["K2"], params["b2"])
    x = jax.nn.relu(x.reshape(len(x), -1) @ params["W3"] + params["b3"])
    return x @ params["W4"] + params["b4"]


def loss(params, batch):
    wanted = jax.nn.one_hot(batch["label"], 10)
    return -jnp.mean(jnp.sum(wanted * jax.nn.log_softmax(predict(params, batch)), axis=1))


def metrics(params, batch):
    return {"accuracy": jnp.mean(jnp.argmax(predict(params, batch), axis=1) == batch["label"])}


job = Job(
    name="mnist-cnn",
    params={
        "K1": Normal((5, 5, 1, 24), std=0.2),
        "b1": np.zeros(24),
        "K2": Normal((3, 3, 24, 32), std=0.1),
        "b2": np.zeros(32),
        "W3": Normal((800, 128), std=0.05),
        "b3": np.zeros(128),
        "W4": Normal((128, 10), std=0.1),
        "b4": np.zeros(10),
    },
    loss=loss,
    metrics=metrics,
    predict=predict,
    data=Data(train, held_out),
    batch_size=100,
    epochs=20,
    until="accuracy >= 0.96",
    optimizer=Adagrad(learning_rate=0.015, initial_accumulator=0.001),
)
