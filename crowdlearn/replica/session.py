"""Decides what a replica says in its conversation with a gateway, across reconnects. Returns actions; does no I/O."""

from __future__ import annotations

import numpy as np

from crowdlearn import protocol
from crowdlearn.frames import unpack
from crowdlearn.protocol import (
    Ack,
    Close,
    ErrorMessage,
    Finished,
    FromGateway,
    Grant,
    Hello,
    ItemAnswer,
    Leased,
    Wait,
    Welcome,
)
from crowdlearn.replica.actions import Action, End, Prepare, Reconnect, State
from crowdlearn.replica.batches import Batch, Chunk
from crowdlearn.replica.closing import FAILURES
from crowdlearn.replica.counters import Counters
from crowdlearn.replica.items import Items, Raw
from crowdlearn.replica.training import Training

ENDED = "The job has ended."

MAX_REFUSALS = 5
"""So many closes for a malformed frame, and no gradient taken in between: the next ones would be refused too."""

MODULE = "This job's model is an ES module, which only browsers can run. Replicas in Python need a job with a JAX loss."

REASONS = {
    "until": "The model has reached its goal.",
    "patience": "The model does not get better any more.",
    "epochs": "All the data has been trained.",
    "diverged": "The model has diverged, and the job has ended.",
    "stopped": "The operator has stopped this job.",
}


MAX_LISTED = 64
"""The most leases that the protocol allows in `hello`."""


class Session:
    """One replica's conversation. Times are seconds of one monotonic clock."""

    def __init__(self, backend: str, noise: np.random.Generator) -> None:
        self.backend, self._noise = backend, noise
        self.counters = Counters()
        self.training: Training | None = None
        self._items = Items()
        self.open = False
        """Whether the gateway has welcomed this socket."""
        self.prepared_run: str | None = None
        self._welcome: Welcome | None = None
        self._gateways_reason: str | None = None
        self._retry_seconds = 0.0
        self._refusals = 0
        """Closes for a malformed frame since a gradient was last taken."""

    @property
    def run(self) -> str | None:
        """The run that it takes part in, once it is welcome."""
        return self._welcome.run if self._welcome else None

    @property
    def ready(self) -> bool:
        """Whether the program of this run is compiled."""
        return self.run is not None and self.prepared_run == self.run

    def hello(self) -> Hello:
        """The first message on a new socket."""
        known = self._welcome
        return Hello(
            protocol=protocol.VERSION,
            replica=known.replica if known else None,
            run=known.run if known else None,
            backend=self.backend,
            features=list(protocol.REPLICA_FEATURES),
            leases=self.training.held[-MAX_LISTED:] if self.training is not None else [],
        )

    def receive_text(self, text: str, now: float) -> list[Action]:
        """A text message came; raises MessageError when it is none of the protocol's."""
        return self._receive(protocol.decode_from_gateway(text), now)

    def receive_frame(self, data: bytes) -> list[Action]:
        """A binary message came; raises FrameError or NotFiniteError when it is not fit for use."""
        if self.training is not None:
            self.training.fetched(unpack(data))
        return []

    def closed(self, code: int) -> list[Action]:
        """The socket is closed: what now?"""
        self.open = False
        self._items.disconnected()
        if self.training is not None:
            self.training.disconnected()
        if code == Close.MALFORMED_FRAME and self._refusals < MAX_REFUSALS:
            # Which of the unanswered frames it was, nobody says: all are dropped, and their leases lapse.
            self._refusals += 1
            return self._start_anew()
        if code in FAILURES:
            return [End(State("failed", self._gateways_reason or FAILURES[code]))]
        if code == Close.NORMAL:
            return [End(State("finished", ENDED))]
        seconds, self._retry_seconds = self._retry_seconds, 0.0
        return [Reconnect(seconds)]

    def prepared(self, run: str) -> None:
        """The program of `run` is compiled."""
        if run == self.run:
            self.prepared_run = run

    def chunk_loaded(self, run: str, grant: Grant, chunk: Chunk) -> None:
        """A chunk of `run` is here."""
        if run == self.run and self.training is not None:
            self.training.chunk_loaded(grant, chunk)

    def chunk_failed(self, run: str, grant: Grant, now: float) -> list[Action]:
        """A chunk of `run` could not be had."""
        return self.training.chunk_failed(grant, now) if run == self.run and self.training is not None else []

    def next(self, now: float) -> tuple[Batch | None, list[Action]]:
        """The next minibatch, or None when there is nothing to train now."""
        return self.training.next(now) if self.ready and self.training is not None else (None, [])

    def collect(self, raw: Raw, now: float) -> list[Action]:
        """A raw item is to be sent."""
        return self._items.add(raw, now)

    def tick(self, now: float) -> list[Action]:
        """Time has passed."""
        trained = self.training.tick(now) if self.open and self.training is not None else []
        return [*trained, *self._items.send(now)]

    @property
    def tick_at_seconds(self) -> float | None:
        """When `tick` will next have something to do, or None."""
        training_at = self.training.tick_at_seconds if self.open and self.training is not None else None
        times = (training_at, self._items.retry_at_seconds)
        return min((at for at in times if at is not None), default=None)

    def stop(self) -> list[Action]:
        """What to say before leaving at once."""
        return self.training.release() if self.open and self.training is not None else []

    def _receive(self, message: FromGateway, now: float) -> list[Action]:
        match message:
            case Welcome():
                return self._welcomed(message, now)
            case Ack(reason="expired"):
                return self._start_anew()
            case Finished():
                return [End(State("finished", REASONS.get(message.reason, ENDED)))]
            case ErrorMessage():
                self._gateways_reason, self._retry_seconds = message.message, message.retry_seconds or 0.0
                return []
            case ItemAnswer():
                return self._items.answered(message, now)
            case _:
                return self._train(message, now)

    def _train(self, message: Ack | Leased | Wait, now: float) -> list[Action]:
        if self.training is None:
            return []
        if isinstance(message, Ack):
            if message.status in ("accepted", "duplicate"):
                self._refusals = 0
            return self.training.answered(message, now)
        if isinstance(message, Leased):
            return self.training.granted(message.leases, now)
        return self.training.waited(message.seconds, message.reason, now)

    def _welcomed(self, welcome: Welcome, now: float) -> list[Action]:
        if welcome.model != "program":
            return [End(State("failed", MODULE))]
        before, self._welcome = self._welcome, welcome
        self.open, self._gateways_reason = True, None
        same_run = before is not None and before.run == welcome.run
        # Gradients are numbered by identity: those of another one would be counted as new ones of this one.
        if not same_run or before is None or before.replica != welcome.replica or self.training is None:
            self.training = Training(welcome, self.counters, self._noise)
        prepare: list[Action] = [] if self.ready else [Prepare(welcome)]
        return [*prepare, *self.training.connected(welcome, now), *self._items.connected(welcome, now)]

    def _start_anew(self) -> list[Action]:
        self.open = False
        self._items.disconnected()
        self._welcome = self.training = None
        return [Reconnect()]
