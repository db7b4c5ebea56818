"""A small transformer that learns to write like Shakespeare, character by character.

crowdlearn up examples/sonnets.py --browsers 2
python examples/sonnets.py sonnets.safetensors    # writes a poem with the weights

Guessing each letter of the held-out sonnets by the frequencies of letters takes 4.5 bits, of pairs of letters 3.4 bits.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from crowdlearn import Adam, Data, Downpour, Job, Normal, load_weights

LENGTH, WIDTH, HEADS, BLOCKS, RECENT = 32, 64, 4, 1, 4
TEXT = (Path(__file__).parent / "data" / "sonnets.txt").read_text()
LETTERS = sorted(set(TEXT))
HELD_OUT_SONNETS = 8


def windows(sonnets, stride):
    """Pieces of LENGTH letters and the letter after each of them, as numbers of LETTERS."""
    letters = np.array([LETTERS.index(letter) for letter in "\n\n".join(sonnets)], np.uint8)
    return {"text": np.lib.stride_tricks.sliding_window_view(letters, LENGTH + 1)[::stride]}


sonnets = TEXT.strip().split("\n\n")
train = windows(sonnets[:-HELD_OUT_SONNETS], stride=5)
held_out = windows(sonnets[-HELD_OUT_SONNETS:], stride=LENGTH)


def normalise(x, scale):
    x = x - x.mean(axis=-1, keepdims=True)
    return scale * x / jnp.sqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 1e-5)


def recent(x):
    """Each letter beside the RECENT - 1 before it: spares the attention the learning of what is near."""
    return jnp.concatenate([jnp.pad(x, ((0, 0), (n, 0), (0, 0)))[:, : x.shape[1]] for n in range(RECENT)], axis=-1)


def attend(block, x):
    """Every letter looks at those before it and at itself."""
    q, k, v = jnp.moveaxis((x @ block["qkv"]).reshape(*x.shape[:2], 3, HEADS, WIDTH // HEADS), 2, 0)
    scores = jnp.einsum("nqhc,nkhc->nhqk", q, k) / np.sqrt(WIDTH / HEADS)
    before = jnp.tril(jnp.ones((x.shape[1], x.shape[1]), bool))
    weights = jax.nn.softmax(jnp.where(before, scores, -1e9))
    return jnp.einsum("nhqk,nkhc->nqhc", weights, v).reshape(x.shape) @ block["out"]


def predict(params, letters):
    """The logits of the letter after each of `letters`, (rows, length) to (rows, length, letters)."""
    x = recent(params["letters"][letters.astype(jnp.int32)]) @ params["mix"]
    for block in params["blocks"]:
        x = x + attend(block, normalise(x, block["scale1"]))
        x = x + jax.nn.gelu(normalise(x, block["scale2"]) @ block["up"]) @ block["down"]
    return normalise(x, params["scale"]) @ params["head"]


def loss(params, batch):
    log_p = jax.nn.log_softmax(predict(params, batch["text"][:, :-1]))
    wanted = jax.nn.one_hot(batch["text"][:, 1:], len(LETTERS))
    return -jnp.mean(jnp.sum(log_p * wanted, axis=-1))


def metrics(params, batch):
    return {"bits_per_letter": loss(params, batch) / np.log(2)}


def block():
    return {
        "scale1": np.ones(WIDTH),
        "qkv": Normal((WIDTH, 3 * WIDTH), std=0.1),
        "out": Normal((WIDTH, WIDTH), std=0.06),
        "scale2": np.ones(WIDTH),
        "up": Normal((WIDTH, 4 * WIDTH), std=0.1),
        "down": Normal((4 * WIDTH, WIDTH), std=0.03),
    }


job = Job(
    name="sonnets",
    params={
        "letters": Normal((len(LETTERS), WIDTH), std=0.5),
        "mix": Normal((RECENT * WIDTH, WIDTH), std=0.1),
        "blocks": [block() for _ in range(BLOCKS)],
        "scale": np.ones(WIDTH),
        "head": Normal((WIDTH, len(LETTERS)), std=0.1),
    },
    loss=loss,
    metrics=metrics,
    data=Data(train, held_out),
    batch_size=32,
    epochs=6,
    until="bits_per_letter <= 2.9",
    optimizer=Adam(learning_rate=0.004),
    # Attention minds stale gradients: at a staleness of 4 it needs twice as many of them.
    downpour=Downpour(max_ahead=1),
)


def write(params, letters, temperature=0.6, seed=0):
    """A text of so many letters, one after the other."""
    rng, next_letter = np.random.default_rng(seed), jax.jit(lambda window: predict(params, window)[0, -1])
    text = "\n" * LENGTH
    for _ in range(letters):
        window = np.array([[LETTERS.index(letter) for letter in text[-LENGTH:]]])
        likely = np.exp(np.asarray(next_letter(window), np.float64) / temperature)
        text += rng.choice(LETTERS, p=likely / likely.sum())
    return text.strip()


if __name__ == "__main__":
    print(write(jax.tree.map(jnp.asarray, load_weights(sys.argv[1])), 500))
