"""Logistic regression on the breast cancer data that come with scikit-learn; the same optimum as scikit-learn's own.

crowdlearn up examples/logistic_regression.py --browsers 2
"""

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_breast_cancer

from crowdlearn import Adagrad, Data, Job

measurements, benign = load_breast_cancer(return_X_y=True)
shuffle = np.random.default_rng(0).permutation(len(benign))
train, held_out = shuffle[:455], shuffle[455:]

mean, deviation = measurements[train].mean(axis=0), measurements[train].std(axis=0)
features = ((measurements - mean) / deviation).astype(np.float32)

PENALTY = 1 / len(train)
"""As scikit-learn's C=1: that sums the losses of all rows where this takes their mean."""


def score(params, batch):
    return batch["features"] @ params["weights"] + params["bias"]


def loss(params, batch):
    sign = jnp.where(batch["benign"], 1.0, -1.0)
    return jnp.mean(jax.nn.softplus(-sign * score(params, batch))) + PENALTY / 2 * jnp.sum(params["weights"] ** 2)


def metrics(params, batch):
    return {"accuracy": jnp.mean((score(params, batch) > 0) == batch["benign"])}


job = Job(
    name="logistic-regression",
    params={"weights": np.zeros(30), "bias": np.zeros(())},
    loss=loss,
    metrics=metrics,
    data=Data(
        train={"features": features[train], "benign": benign[train].astype(bool)},
        held_out={"features": features[held_out], "benign": benign[held_out].astype(bool)},
    ),
    batch_size=91,
    epochs=120,
    optimizer=Adagrad(learning_rate=0.2),
)
