"""Digits that visitors draw: the model begins with nothing, and learns from every drawing what they say it is.

crowdlearn up examples/draw/draw.py

The page sends strokes. `preprocess` makes pictures of them, as large and as centred as those of MNIST, and more as
others may draw them: so a few drawings teach what takes thousands of pictures otherwise.
"""

import jax
import jax.numpy as jnp
import numpy as np

from crowdlearn import Adam, Job, Normal, Stream

SIDE = 28
"""Pixels of a picture's side, as in MNIST."""

LARGEST = 17.0
"""What a drawing's longer side has, without the width of the line: with it about 20, as in MNIST."""

RADIUS = 1.2
"""Half a line's width, in pixels."""

VARIANTS = 11
"""Pictures of a drawing beside itself: turned, slanted, stretched, moved and drawn with other pens."""

MOST_POINTS = 1000
"""The page sends half of them at most."""


def read(raw):
    """Strokes, each float32 (points, 2) from 0 to 1, and the digit; None unless they are as the page sends them."""
    if not isinstance(raw, dict) or raw.get("digit") not in range(10) or not raw.get("strokes"):
        return None
    strokes = [np.array(stroke, np.float32) for stroke in raw["strokes"]]
    if not all(stroke.ndim == 2 and stroke.shape[1:] == (2,) for stroke in strokes):
        return None
    points = np.concatenate(strokes)
    if not 0 < len(points) <= MOST_POINTS or not ((points >= -1) & (points <= 2)).all():
        return None
    return strokes, int(raw["digit"])


def rasterise(strokes, radius=RADIUS, bend=None, move=(0.0, 0.0)):
    """A picture, float32 (28, 28) from 0 to 1: the strokes as large as fits, the middle of the ink in its middle.

    `bend` is a 2x2 matrix, `move` in pixels. draw.html does the same without them, to show what the model sees.
    """
    if bend is not None:
        strokes = [stroke @ bend.T for stroke in strokes]
    extent = np.ptp(np.concatenate(strokes), axis=0).max()
    scale = LARGEST / extent if extent > 0 else 0.0
    # A dot is a line from itself to itself.
    starts = scale * np.concatenate([stroke[: max(1, len(stroke) - 1)] for stroke in strokes])
    steps = scale * np.concatenate([stroke[min(1, len(stroke) - 1) :] for stroke in strokes]) - starts
    lengths = np.hypot(*steps.T)
    centre = np.average(starts + steps / 2, axis=0, weights=lengths + 1e-3)
    x, y = (starts - centre + SIDE / 2 + np.array(move)).astype(np.float32).T[:, :, None]
    right, down = steps.astype(np.float32).T[:, :, None]
    # Of each piece of a line to the middle of each pixel.
    row, column = np.mgrid[:SIDE, :SIDE].astype(np.float32).reshape(2, 1, -1) + 0.5
    away_x, away_y = column - x, row - y
    along = np.clip((away_x * right + away_y * down) / np.maximum(right**2 + down**2, 1e-9), 0, 1)
    squares = (away_x - along * right) ** 2 + (away_y - along * down) ** 2
    return np.clip(0.5 + radius - np.sqrt(squares.min(axis=0)), 0, 1).reshape(SIDE, SIDE)


def preprocess(raw):
    found = read(raw)
    if found is None:
        return None
    strokes, digit = found
    # The same drawing gives the same rows, whoever makes them.
    random = np.random.default_rng(np.concatenate(strokes).view(np.uint32).ravel())
    pictures = [rasterise(strokes)]
    for _ in range(VARIANTS):
        turn, slant = random.normal(0, 0.14), random.normal(0, 0.18)
        wide, high = np.exp(random.normal(0, 0.14, 2))
        bend = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ [[wide, slant], [0, high]]
        pictures.append(rasterise(wobbled(strokes, random), random.uniform(0.9, 1.8), bend, random.normal(0, 0.8, 2)))
    return [{"picture": picture, "digit": digit} for picture in pictures]


def wobbled(strokes, random):
    """The strokes as a less steady hand draws them: moved by slow waves."""
    waves, phases = random.normal(0, 0.02, (2, 2)), random.uniform(0, 2 * np.pi, (2, 2))
    return [
        stroke
        + (waves[:, None] * np.sin(2 * np.pi * stroke[None] * [[[1.0]], [[2.0]]] + phases[:, None])).sum(axis=0)[
            :, ::-1
        ]
        for stroke in strokes
    ]


def convolved(images, kernels, bias):
    images = jax.lax.conv_general_dilated(
        images, kernels, window_strides=(2, 2), padding="VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jax.nn.relu(images + bias)


def scores(params, batch):
    images = convolved(batch["picture"][..., None], params["K1"], params["k1"])
    images = convolved(images, params["K2"], params["k2"])
    hidden = jax.nn.relu(images.reshape(len(images), -1) @ params["W1"] + params["b1"])
    return hidden @ params["W2"] + params["b2"]


def predict(params, batch):
    return jax.nn.softmax(scores(params, batch))


def loss(params, batch):
    # A tenth is spread over all digits: certain of the first ones, the model would be slow to believe in others.
    wanted = 0.9 * jax.nn.one_hot(batch["digit"], 10) + 0.01
    return -jnp.mean(jnp.sum(wanted * jax.nn.log_softmax(scores(params, batch)), axis=1))


def metrics(params, batch):
    return {"accuracy": jnp.mean(jnp.argmax(scores(params, batch), axis=1) == batch["digit"])}


job = Job(
    name="draw",
    # 21,000 parameters: a gradient of so few is soon sent by a phone.
    params={
        "K1": Normal((5, 5, 1, 8), std=0.2),
        "k1": np.zeros(8),
        "K2": Normal((5, 5, 8, 16), std=0.1),
        "k2": np.zeros(16),
        "W1": Normal((256, 64), std=0.05),
        "b1": np.zeros(64),
        "W2": Normal((64, 10), std=0.1),
        "b2": np.zeros(10),
    },
    loss=loss,
    metrics=metrics,
    predict=predict,
    data=Stream(schema={"picture": ("float32", (SIDE, SIDE)), "digit": ("int32", ())}, train_on="both"),
    preprocess=preprocess,
    page="draw.html",
    batch_size=32,
    optimizer=Adam(learning_rate=0.002),
)
