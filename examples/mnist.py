"""Handwritten digits and the network of the first CrowdLearn: 784 pixels, 100 hidden units, 10 classes.

crowdlearn up examples/mnist.py --browsers 4

The environment variable MNIST names an `mnist.npz` in Keras's layout; without it the file is downloaded once.
"""

import jax
import jax.numpy as jnp
import numpy as np
from mnist_data import find_mnist

from crowdlearn import Adagrad, Data, Job, Normal

with np.load(find_mnist()) as mnist:
    train = {"image": mnist["x_train"].reshape(-1, 784), "label": mnist["y_train"]}
    held_out = {"image": mnist["x_test"].reshape(-1, 784), "label": mnist["y_test"]}

# Each pixel around zero. The mean image in every input is a direction in which the loss curves five times as much as in
# any other, and a stale gradient overshoots there first: docs/scaling.md, Learning.
mean_image = (train["image"].mean(axis=0) / 255).astype(np.float32)


def predict(params, batch):
    pixels = batch["image"].astype(jnp.float32) / 255 - mean_image
    hidden = jax.nn.relu(pixels @ params["W1"] + params["b1"])
    return hidden @ params["W2"] + params["b2"]


def loss(params, batch):
    wanted = jax.nn.one_hot(batch["label"], 10)
    return -jnp.mean(jnp.sum(wanted * jax.nn.log_softmax(predict(params, batch)), axis=1))


def metrics(params, batch):
    return {"accuracy": jnp.mean(jnp.argmax(predict(params, batch), axis=1) == batch["label"])}


job = Job(
    name="mnist",
    params={
        "W1": Normal((784, 100), std=0.05),
        "b1": np.zeros(100),
        "W2": Normal((100, 10), std=0.1),
        "b2": np.zeros(10),
    },
    loss=loss,
    metrics=metrics,
    predict=predict,
    data=Data(train, held_out),
    batch_size=100,
    epochs=40,
    until="accuracy >= 0.93",
    # Chosen for crowds: 8 to 32 replicas are soonest with it of what was tried; one alone would stand larger steps.
    optimizer=Adagrad(learning_rate=0.03, initial_accumulator=0.01),
)
