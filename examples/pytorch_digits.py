"""A PyTorch module that browsers train: a small convolutional network on the digits that come with scikit-learn.

crowdlearn up examples/pytorch_digits.py --browsers 2    # needs pip install crowdlearn[torch]
python examples/pytorch_digits.py pytorch-digits.safetensors    # the trained module, in PyTorch again
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from crowdlearn import Adagrad, Data, Job
from crowdlearn.torch import from_module, load_weights

digits = load_digits()
images = (digits.images.astype(np.float32)[:, None] - 5) / 16
labels = digits.target.astype(np.uint8)
shuffle = np.random.default_rng(0).permutation(len(labels))
train, held_out = shuffle[:1437], shuffle[1437:]

torch.manual_seed(0)
module = nn.Sequential(
    nn.Conv2d(1, 8, 3, padding=1),
    nn.GroupNorm(2, 8),
    nn.ReLU(),
    nn.MaxPool2d(2),
    nn.Flatten(),
    nn.Linear(128, 10),
)
params, apply = from_module(module)


def loss(params, batch):
    log_p = jax.nn.log_softmax(apply(params, batch["image"], train=True))
    return -jnp.mean(jnp.sum(log_p * jax.nn.one_hot(batch["label"], 10), axis=1))


def metrics(params, batch):
    return {"accuracy": jnp.mean(jnp.argmax(apply(params, batch["image"]), axis=1) == batch["label"])}


job = Job(
    name="pytorch-digits",
    params=params,
    loss=loss,
    metrics=metrics,
    data=Data(
        train={"image": images[train], "label": labels[train]},
        held_out={"image": images[held_out], "label": labels[held_out]},
    ),
    batch_size=32,
    epochs=20,
    until="accuracy >= 0.95",
    optimizer=Adagrad(learning_rate=0.03),
)

if __name__ == "__main__":
    load_weights(module, sys.argv[1])
    with torch.no_grad():
        guesses = module.eval()(torch.from_numpy(images[held_out])).argmax(dim=1).numpy()
    print(f"PyTorch gets {np.mean(guesses == labels[held_out]):.4f} of the held-out digits right")
