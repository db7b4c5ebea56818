"""A job as its author writes it. How it is compiled is `compilation`'s."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crowdlearn.data import Data
from crowdlearn.dataset import Told
from crowdlearn.errors import JobError
from crowdlearn.fields import at_least, count, explained, positive
from crowdlearn.job.compilation import CompiledJob, compile_job
from crowdlearn.job.hyperparameters import Adagrad, Downpour, Optimizer
from crowdlearn.job.scoring import Metrics
from crowdlearn.program.forward import Predict
from crowdlearn.program.signature import Loss, require_single
from crowdlearn.spec import JOB_NAME, CurvePoint, parse_target
from crowdlearn.stream import Stream

MAX_SEED = 2**32 - 1
"""JAX takes the lower 32 bits of a larger one, or all 64 where x64 is on: replicas could not agree on its keys."""


@explained
@dataclass(frozen=True, kw_only=True)
class Job:
    """One model to train, written with JAX. docs/jobs.md explains every field.

    Raises:
        JobError: a field is not what it should be; the message says what was expected and what came.
    """

    name: str
    """Lowercase letters, digits and hyphens, at most 63: it is part of addresses."""
    params: Any
    """The parameters: names to `Normal(shape, mean, std)`, to `{"shape": .., "init_mean": .., "init_std": ..}` or to
    arrays; any pytree of those; or a function, of nothing or of a JAX key, that returns a pytree of arrays."""
    loss: Loss | None = None
    """`loss(params, batch)` or `loss(params, batch, key)`: the mean loss of a minibatch, one float32. `batch` holds
    arrays by the names in `data`; `key` is a random key of JAX, new for every minibatch."""
    model: str | Path | None = None
    """Instead of `loss`: the file of an ES module that exports one (docs/modules.md), relative to the job file."""
    data: Data
    """The training and held-out rows: arrays, files or functions; or a `Stream`, of what replicas send."""
    preprocess: Callable[[Any], Any] | None = None
    """`preprocess(raw)`: what to train on of one raw item, which is any JSON value or bytes: None, one row (arrays by
    name, as the stream's `schema` says), or a list of rows. It runs where `crowdlearn preprocessor` or `up` does."""
    page: str | Path | None = None
    """A page of the job's own: an HTML file, relative to the job file, which gateways serve to whoever opens the job,
    in the place of theirs (docs/data.md, A page of the job's own)."""
    metrics: Metrics | None = None
    """`metrics(params, batch)`: scalars by name, of a held-out chunk; chunks are averaged, weighed by their rows. The
    loss is measured without being asked for; only where it takes a key may `metrics` return a `loss` instead."""
    predict: Predict | None = None
    """`predict(params, batch)`: what the model says of rows, an array or arrays by name; `crowdlearn export` writes it
    as ONNX."""
    batch_size: int = 100
    """Rows of a minibatch."""
    epochs: int = 10
    """How often every training row is used before the job ends; a job with a stream goes on with that."""
    until: str | None = None
    """A held-out metric that ends the job: `accuracy >= 0.95`, `loss <= 0.1`."""
    patience: float | None = None
    """Epochs, or a fraction of one: the job ends when so many are trained and the held-out metric of `until`, or else
    the held-out loss, is no better. None trains on."""
    min_improvement: float = 0.0
    """What `patience` takes for better: by at least so much. 0 takes anything."""
    optimizer: Optimizer = field(default_factory=Adagrad)
    """What the parameter service does with gradients: SGD, Momentum, RMSprop, Adagrad or Adam."""
    downpour: Downpour = field(default_factory=Downpour)
    """How replicas and the parameter service work together."""
    on_progress: Callable[[CurvePoint], Any] | None = None
    """`on_progress(point)`: called where `crowdlearn up` or `watch` runs, for each point of the curves: `point.kind` is
    `train`, `held_out` or `progressive`, `point.values` the loss and metrics by name, at so many gradients,
    `point.version`, and `point.seconds` since the job was created."""
    seed: int = 0
    """Of initial values, of every shuffle and every random key; at most MAX_SEED."""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not re.fullmatch(JOB_NAME, self.name):
            raise JobError(
                f"a job's name expects at most 63 lowercase letters, digits and hyphens (not first), got {self.name!r}"
            )
        if (self.loss is None) == (self.model is None):
            got = "neither" if self.loss is None else "both"
            raise JobError(f"a job expects either loss (a function) or model (a JavaScript file), got {got}")
        for function in ("loss", "metrics", "predict"):
            value = getattr(self, function)
            if not callable(value) and value is not None:
                raise JobError(f"{function} expects a function of (params, batch), got {value!r:.80}")
        if not callable(self.on_progress) and self.on_progress is not None:
            raise JobError(f"on_progress expects a function of one point of a curve, got {self.on_progress!r:.80}")
        if not isinstance(self.model, str | Path | None):
            raise JobError(f"model expects the path of a JavaScript file, got {self.model!r:.80}")
        if not isinstance(self.page, str | Path | None):
            raise JobError(f"page expects the path of an HTML file, got {self.page!r:.80}")
        if isinstance(self.data, Stream):
            object.__setattr__(self, "data", Data(stream=self.data))
        for name, kind in (("data", Data), ("optimizer", Optimizer), ("downpour", Downpour)):
            if not isinstance(getattr(self, name), kind):
                raise JobError(f"{name} expects {_EXAMPLES[name]}, got {_shown(getattr(self, name), name)}")
        for name, least, most in (("batch_size", 1, None), ("epochs", 1, None), ("seed", 0, MAX_SEED)):
            # Numbers of NumPy become Python's: a job's specification is JSON.
            object.__setattr__(self, name, count(name, getattr(self, name), least, most))
        if self.until is not None:
            if not isinstance(self.until, str):
                raise JobError(f"until expects a string such as 'accuracy >= 0.95', got {self.until!r:.80}")
            parse_target(self.until)
            if not self.data.has_held_out:
                raise JobError(f"until {self.until!r} expects held-out data, got none{self._held_out_advice()}")
        self._require_patience()
        self._require_preprocess()

    def _held_out_advice(self) -> str:
        return "" if self.data.stream is None else ": give Stream(held_out_every=10), say, or Data(held_out=...)"

    def _require_preprocess(self) -> None:
        given, stream = self.preprocess, self.data.stream
        if given is not None and not callable(given):
            raise JobError(f"preprocess expects a function of one raw item, got {given!r:.80}")
        if given is not None:
            require_single("preprocess", given, "one raw item")
        if stream is not None and given is None:
            raise JobError("a job with a stream expects preprocess, a function that makes rows of a raw item, got none")
        if stream is None and given is not None:
            raise JobError("preprocess expects a stream of raw items, Data(stream=Stream(...)), got none")

    def _require_patience(self) -> None:
        object.__setattr__(self, "min_improvement", at_least("min_improvement", self.min_improvement, 0))
        if self.patience is None:
            if self.min_improvement:
                raise JobError(
                    f"min_improvement {self.min_improvement:g} is what patience waits for: give patience too"
                )
            return
        object.__setattr__(self, "patience", positive("patience", self.patience))
        if self.data.train is None:
            raise JobError(f"patience {self.patience:g} counts epochs of training rows, of which a stream has none")
        if not self.data.has_held_out:
            raise JobError(f"patience {self.patience:g} expects held-out data, got none{self._held_out_advice()}")

    def compile(self, run: str | None = None, now: float | None = None, told: Told | None = None) -> CompiledJob:
        """Traces the model, or tries its module, traces `predict`, and lays out its data.

        Args:
            run: 12 hex digits; None draws them.
            now: when the job was created, Unix seconds; None reads the clock.
            told: called with how many rows, and bytes of them, were read of a source so far.
        Raises:
            JobError: the model, the data or `until` do not fit together; with the user's line where there is one.
            UnsupportedModelError: the model uses what browsers lack.
            SetupError: JAX is not installed.
        """
        return compile_job(self, run or secrets.token_hex(6), time.time() if now is None else now, told)


def _shown(value: Any, name: str) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__}: write {value.__name__}()"
    if type(value).__module__.startswith("optax"):
        return f"optax's {type(value).__name__}: the service applies gradients itself, with optimizers of its own"
    if isinstance(value, Mapping):
        return f"a {type(value).__name__}" + (": write Data(x)" if name == "data" else "")
    if name == "data" and isinstance(value, tuple | list):
        return f"a {type(value).__name__}: give each array a name, Data({{'x': x, 'y': y}})"
    # The repr of an array has several lines.
    return " ".join(repr(value).split())[:80]


_EXAMPLES = {
    "data": "Data(train={...}, held_out={...})",
    "optimizer": "an optimizer such as Adagrad(learning_rate=0.05)",
    "downpour": "Downpour(...)",
}
