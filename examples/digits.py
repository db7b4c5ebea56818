"""The smallest job: 8x8 digits that come with scikit-learn, and a network of two layers. The demo trains it.

crowdlearn up examples/digits.py --browsers 2
"""

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

from crowdlearn import Adagrad, Data, Job, Normal

digits = load_digits()
labels = digits.target.astype(np.uint8)
shuffle = np.random.default_rng(0).permutation(len(labels))
train, held_out = shuffle[:1437], shuffle[1437:]

# Pixels around zero: without that, gradients which are a little stale make the loss swing.
mean, deviation = digits.data[train].mean(axis=0), digits.data[train].std(axis=0)
images = ((digits.data - mean) / (deviation + 1)).astype(np.float32)


def predict(params, batch):
    hidden = jax.nn.relu(batch["image"] @ params["W1"] + params["b1"])
    return hidden @ params["W2"] + params["b2"]


def loss(params, batch):
    wanted = jax.nn.one_hot(batch["label"], 10)
    return -jnp.mean(jnp.sum(wanted * jax.nn.log_softmax(predict(params, batch)), axis=1))


def metrics(params, batch):
    return {"accuracy": jnp.mean(jnp.argmax(predict(params, batch), axis=1) == batch["label"])}


job = Job(
    name="digits",
    params={
        "W1": Normal((64, 64), std=0.1),
        "b1": np.zeros(64),
        "W2": Normal((64, 10), std=0.1),
        "b2": np.zeros(10),
    },
    loss=loss,
    metrics=metrics,
    predict=predict,
    data=Data(
        train={"image": images[train], "label": labels[train]},
        held_out={"image": images[held_out], "label": labels[held_out]},
    ),
    batch_size=32,
    epochs=30,
    until="accuracy >= 0.95",
    optimizer=Adagrad(learning_rate=0.05),
)
