"""What a user chooses about training, in groups: the optimizer, and how replicas work together. Each has a default."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar, get_args

from crowdlearn.codecs import BY_NAME, INT8_BLOCK
from crowdlearn.errors import JobError
from crowdlearn.fields import at_least, count, explained, number, positive
from crowdlearn.frames import HEADER_BYTES
from crowdlearn.protocol import CodecName, ReplicaTraining
from crowdlearn.settings import MAX_FRAME_BYTES
from crowdlearn.spec import OptimizerName, OptimizerSpec, StalenessSpec


@explained
@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """What every optimizer has. Use one of its subclasses."""

    name: ClassVar[OptimizerName]

    learning_rate: float = 0.05
    """The step size."""
    warmup_steps: int = 0
    """The learning rate rises linearly from 0 over so many gradients of a shard."""
    weight_decay: float = 0.0
    """L2: this times the parameters is added to the gradient, once for each minibatch in it."""
    clip_value: float | None = None
    """Each element of a minibatch's gradient is clipped to [-clip_value, clip_value]; None does not clip."""
    clip_norm: float | None = 1.0
    """A shard's part of a minibatch's gradient is scaled down to this Euclidean norm; None does not."""

    def __post_init__(self) -> None:
        _set(self, "learning_rate", positive("learning_rate", self.learning_rate))
        _set(self, "warmup_steps", count("warmup_steps", self.warmup_steps, 0))
        _set(self, "weight_decay", at_least("weight_decay", self.weight_decay, 0))
        for name in ("clip_value", "clip_norm"):
            if getattr(self, name) is not None:
                _set(self, name, positive(name, getattr(self, name)))
        for name in ("momentum", "decay", "b1", "b2"):
            if hasattr(self, name):
                _set(self, name, number(name, getattr(self, name)))
                if not 0 <= getattr(self, name) < 1:
                    raise JobError(f"{name} expects at least 0 and less than 1, got {getattr(self, name)}")
        for name in ("epsilon", "initial_accumulator"):
            if hasattr(self, name):
                _set(self, name, at_least(name, getattr(self, name), 0))

    def spec(self) -> OptimizerSpec:
        """As it is stored."""
        return OptimizerSpec(name=self.name, **asdict(self))


@explained
@dataclass(frozen=True, kw_only=True)
class SGD(Optimizer):
    """Plain stochastic gradient descent."""

    name = "sgd"
    learning_rate: float = 0.1
    """The step size."""


@explained
@dataclass(frozen=True, kw_only=True)
class Momentum(Optimizer):
    """Stochastic gradient descent with a velocity. Asynchrony adds momentum of its own: choose less than usual."""

    name = "momentum"
    learning_rate: float = 0.01
    """The step size."""
    momentum: float = 0.9
    """The decay of the velocity."""


@explained
@dataclass(frozen=True, kw_only=True)
class RMSprop(Optimizer):
    """Divides by a moving average of squared gradients: Tieleman and Hinton 2012."""

    name = "rmsprop"
    learning_rate: float = 0.001
    """The step size."""
    decay: float = 0.9
    """The decay of the average."""
    epsilon: float = 1e-7
    """Added to the divisor."""


@explained
@dataclass(frozen=True, kw_only=True)
class Adagrad(Optimizer):
    """Divides by the root of the sum of squared gradients: Duchi et al. 2011. Dean et al. 2012 found it robust here."""

    name = "adagrad"
    initial_accumulator: float = 0.1
    """What the sum starts from; 0 makes the first step learning_rate * sign(gradient)."""
    epsilon: float = 1e-7
    """Added to the divisor."""


@explained
@dataclass(frozen=True, kw_only=True)
class Adam(Optimizer):
    """Moving averages of the gradient and of its square: Kingma and Ba 2015."""

    name = "adam"
    learning_rate: float = 0.001
    """The step size."""
    b1: float = 0.9
    """The decay of the average gradient."""
    b2: float = 0.999
    """The decay of the average squared gradient."""
    epsilon: float = 1e-7
    """Added to the divisor."""


@explained
@dataclass(frozen=True, kw_only=True)
class Downpour:
    """How replicas and the parameter service work together: Dean et al. 2012."""

    n_push: int = 1
    """A replica sums the gradients of so many minibatches, stepping locally in between, before it pushes them."""
    n_fetch: int = 1
    """A replica adopts new parameters at most every so many minibatches."""
    local_learning_rate: float | None = None
    """The step size of a replica's local steps: plain SGD, clipped as the optimizer's, and never farther than the
    service moves the parameters for a minibatch. None takes the optimizer's learning rate; 0 takes no local steps."""
    max_accumulate: int = 8
    """A replica that is told `busy` sums at most so many minibatches before it waits."""
    max_ahead: int = 2
    """At most so many gradients of its own are missing in a replica's parameters; beyond, it waits for newer ones (up
    to a second), so that few gradients are stale however fast it computes: bounded staleness, Ho et al. 2013."""
    warmup: int = 0
    """So many gradients one replica makes alone before the others are let in: Dean et al. 2012, section 4.1."""
    shard_size: int = 131_072
    """The most parameters in a shard; 131,072 make a frame of 128 KiB as int8, and of 256 KiB as f16."""
    push_codec: CodecName = "int8"
    """How gradients travel: `f32`, `f16`, or `int8` with stochastic rounding. What f16 cannot hold goes as f32."""
    fetch_codec: CodecName = "f16"
    """How parameters travel. A shard that the codec cannot hold, as one with a bias of 200,000, goes as f32."""
    expected_staleness: int = 32
    """A gradient that at most so many others have overtaken makes a full step; beyond, its step shrinks."""
    staleness_limit: int = 1024
    """A gradient that more than so many others have overtaken is dropped."""

    def __post_init__(self) -> None:
        for name in ("n_push", "n_fetch", "max_accumulate", "max_ahead"):
            _set(self, name, count(name, getattr(self, name), 1))
        _set(self, "warmup", count("warmup", self.warmup, 0))
        _set(self, "shard_size", count("shard_size", self.shard_size, INT8_BLOCK))
        _set(self, "expected_staleness", count("expected_staleness", self.expected_staleness, 0))
        _set(self, "staleness_limit", count("staleness_limit", self.staleness_limit, self.expected_staleness))
        if self.local_learning_rate is not None:
            _set(self, "local_learning_rate", at_least("local_learning_rate", self.local_learning_rate, 0))
        for name in ("push_codec", "fetch_codec"):
            if getattr(self, name) not in get_args(CodecName):
                raise JobError(f"{name} expects one of {', '.join(get_args(CodecName))}, got {getattr(self, name)!r}")
        self._require_small_frames()

    def _require_small_frames(self) -> None:
        # Gradients that f16 cannot hold go as f32.
        for name in {self.fetch_codec, "f32" if self.push_codec == "f16" else self.push_codec}:
            size = HEADER_BYTES + BY_NAME[name].payload_bytes(self.shard_size)
            if size > MAX_FRAME_BYTES:
                raise JobError(
                    f"shard_size expects frames of at most {MAX_FRAME_BYTES:,} bytes, "
                    f"got {size:,} for {self.shard_size:,} values as {name}"
                )

    def training(self, optimizer: Optimizer, seed: int) -> ReplicaTraining:
        """What replicas are told, who bound their local steps as `optimizer` does."""
        local = optimizer.learning_rate if self.local_learning_rate is None else self.local_learning_rate
        return ReplicaTraining(
            n_push=self.n_push,
            n_fetch=self.n_fetch,
            local_learning_rate=local,
            max_accumulate=max(self.max_accumulate, self.n_push),
            max_ahead=self.max_ahead,
            push_codec=self.push_codec,
            fetch_codec=self.fetch_codec,
            seed=seed,
            clip_value=optimizer.clip_value,
            clip_norm=optimizer.clip_norm,
        )

    def staleness(self) -> StalenessSpec:
        """What aggregators are told."""
        return StalenessSpec(expected=self.expected_staleness, limit=self.staleness_limit)


def _set(frozen: object, name: str, value: float) -> None:
    # Numbers of NumPy become Python's: a job's specification is JSON.
    object.__setattr__(frozen, name, value)
