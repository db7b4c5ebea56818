"""The network of the first CrowdLearn, with its model as an ES module: examples/mnist_module.js.

crowdlearn up examples/mnist_module.py --browsers 2

The environment variable MNIST names an `mnist.npz` in Keras's layout. Without it the digits that come with scikit-learn
are enlarged to the size of MNIST's, so that nothing is downloaded.
"""

import os

import numpy as np
from mnist_data import find_mnist

from crowdlearn import Adagrad, Data, Job, Normal


def enlarged_digits():
    """1,797 digits of 8x8 pixels as 28x28: each pixel three times in both directions, and a margin of 2."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = (digits.images * (255 / 16)).astype(np.uint8)
    images = np.pad(pixels.repeat(3, axis=1).repeat(3, axis=2), ((0, 0), (2, 2), (2, 2)))
    shuffle = np.random.default_rng(0).permutation(len(images))
    return images.reshape(-1, 784)[shuffle], digits.target.astype(np.uint8)[shuffle]


if "MNIST" in os.environ:
    with np.load(find_mnist()) as mnist:
        train = {"image": mnist["x_train"].reshape(-1, 784), "label": mnist["y_train"]}
        held_out = {"image": mnist["x_test"].reshape(-1, 784), "label": mnist["y_test"]}
else:
    images, labels = enlarged_digits()
    train, held_out = ({"image": images[rows], "label": labels[rows]} for rows in (slice(1437), slice(1437, None)))

job = Job(
    name="mnist-module",
    params={
        "W1": Normal((784, 100), std=0.05),
        "b1": np.zeros(100),
        "W2": Normal((100, 10), std=0.1),
        "b2": np.zeros(10),
    },
    model="mnist_module.js",
    data=Data(train, held_out),
    batch_size=100 if "MNIST" in os.environ else 32,
    epochs=40,
    until="accuracy >= 0.93",
    # These gradients are small: an accumulator that starts from less adapts to them at once.
    optimizer=Adagrad(learning_rate=0.015, initial_accumulator=0.001),
)
