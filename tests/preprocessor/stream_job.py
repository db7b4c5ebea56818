"""A job file whose `preprocess` does what an item says: well, and badly in every way that there is."""

import os
import signal
import time
from contextlib import suppress

import numpy as np

from crowdlearn import Job, Stream

HOARD = []


def loss(params, batch):
    import jax.numpy as jnp

    return jnp.mean((batch["x"] @ params["w"] - batch["y"]) ** 2)


def row(value):
    return {"x": np.full(3, value, np.float32), "y": np.float32(value)}


def preprocess(raw):
    if isinstance(raw, bytes):
        return row(len(raw))
    if "value" in raw:
        return row(raw["value"])
    if "rows" in raw:
        return [row(value) for value in raw["rows"]]
    return BAD[raw["do"]](raw)


def raises(_):
    raise ValueError("a secret of the author's")


def quotes(_):
    raise ValueError("half a character: \ud800")


class MuteError(Exception):
    def __str__(self):
        raise RuntimeError


def is_mute(_):
    raise MuteError


def loops(_):
    while True:
        pass


def swallows(_):
    while True:
        with suppress(BaseException):
            time.sleep(10)


def faults(_):
    os.kill(os.getpid(), signal.SIGSEGV)


def hoards(_):
    HOARD.append(bytearray(2 << 30))


def hoards_little_by_little(_):
    while True:
        HOARD.append(bytearray(64 << 20))


def process_of(_):
    return row(os.getpid() % 1000)


BAD = {
    "raise": raises,
    "quote": quotes,
    "mute": is_mute,
    "exit": lambda _: exit(3),
    "loop": loops,
    "swallow": swallows,
    "fault": faults,
    "hoard": hoards,
    "hoard little by little": hoards_little_by_little,
    "crash": lambda _: os._exit(9),
    "wrong shape": lambda _: {"x": np.zeros(4, np.float32), "y": 0.0},
    "wrong names": lambda _: {"x": np.zeros(3, np.float32)},
    "no row": lambda _: "a string",
    "nan": lambda _: row(float("nan")),
    "nothing": lambda _: None,
    "a million": lambda _: [row(1.0)] * 1_000_000,
    "process": process_of,
}

job = Job(
    name="stream",
    params={"w": np.ones(3, np.float32)},
    loss=loss,
    data=Stream(schema={"x": ("float32", (3,)), "y": ("float32", ())}, item_seconds=60.0, max_rows_per_item=10),
    preprocess=preprocess,
    batch_size=4,
)
