"""The edge of one replica's websocket: performs what its session decides. Decides nothing about gradients."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from starlette.websockets import WebSocket, WebSocketDisconnect

from crowdlearn import metrics
from crowdlearn.errors import StoreUnavailableError, UnknownJobError
from crowdlearn.ledger import written
from crowdlearn.protocol import Ack, Close, Finished, Hello, ItemAnswer, Wait
from crowdlearn.settings import GatewaySettings
from crowdlearn.store import Appended, Entry, ItemAppended, NewItem, Store
from crowdlearn.store.outage import Outage
from services.gateway import session as actions
from services.gateway.chunks import Leases
from services.gateway.door import CROWDED_SECONDS, CrowdedError, Door
from services.gateway.identity import bare
from services.gateway.intake import Intake
from services.gateway.item_desk import ItemDesk
from services.gateway.items import NO_ITEMS
from services.gateway.note import Note
from services.gateway.outbox import Outbox
from services.gateway.run import Run, WaitReason
from services.gateway.runs import Runs
from services.gateway.session import Session
from services.gateway.welcome import welcome
from services.gateway.wire import EXTENSION, Wire

log = logging.getLogger(__name__)

AWAY_SECONDS = 1.0
"""While Redis is away a replica tries again no sooner: a Redis that was killed is seldom back in less."""


@dataclass(frozen=True)
class Gateway:
    """What all sockets share."""

    store: Store
    settings: GatewaySettings
    runs: Runs
    intake: Intake[Entry, Appended]
    items: Intake[NewItem, ItemAppended]
    outage: Outage
    door: Door = field(default_factory=Door)
    monotonic: Callable[[], float] = time.monotonic


class ReplicaSocket:
    """One accepted websocket.

    What a message asks for is done as it comes. What waits for Redis is left to a reader, and what the line does not
    take at once to a writer: most sockets need neither for most of the time.
    """

    def __init__(self, gateway: Gateway, websocket: WebSocket, job: str, network: str | None = None) -> None:
        """`network` is whom it shares an owner with, if anybody knows (see services.gateway.clients)."""
        self._gateway, self._websocket, self._job = gateway, websocket, job
        self._wire = cast(Wire, websocket.scope["extensions"][EXTENSION])
        self._session = Session(gateway.settings, gateway.monotonic())
        self._run: Run | None = None
        self._leases = Leases(gateway.store, gateway.settings, gateway.monotonic)
        self._reading = False
        # What the reader's next message calls for, if that was decided already.
        self._decided: actions.Action | None = None
        self.outbox = Outbox(self._wire)
        self._desk: ItemDesk | None = None
        self.network = network

    @property
    def held(self) -> set[int]:
        """The leases of which not all rows are in the streams."""
        return self._leases.held

    def extendable(self) -> list[int]:
        """The leases of the replica that are to be extended."""
        return self._leases.extendable(self._run.offset) if self._run is not None else []

    @property
    def trains(self) -> bool:
        """Whether a gradient of the replica has come lately."""
        return self._leases.trains

    @property
    def unsettled(self) -> bool:
        """Whether `settle` may have something to do."""
        return self._leases.unsettled

    async def settle(self) -> None:
        """Gives leases back whose rows do not come."""
        if self._run is not None:
            await self._leases.settle(self._run.spec)

    async def serve(self) -> None:
        """Talks until the socket is closed."""
        metrics.SOCKETS.inc()
        try:
            async with asyncio.TaskGroup() as tasks:
                self._wire.listen(self._heed)
                writer = tasks.create_task(self._write())
                await self._read()
                writer.cancel()
        finally:
            metrics.SOCKETS.dec()
            await self._leave()

    def finish(self, reason: str) -> None:
        """The job has ended."""
        self.outbox.say(Finished(reason=reason))
        self.hang_up(Close.NORMAL, "")

    def hang_up(self, code: Close | int, message: str, retry_seconds: float | None = None) -> None:
        """Says why, if there is something to say, and closes."""
        self._session.close()
        self.outbox.hang_up(code, message, retry_seconds)

    def let_in(self, waited_for: WaitReason, seconds: float) -> bool:
        """A replica that waits for just that is asked to come after so long; returns whether it waits."""
        if self._leases.waits_for != waited_for:
            return False
        self._leases.waits_for = None
        self.outbox.say(Wait(seconds=round(seconds, 3)))
        return True

    def landed(self, shard: int, sequence: int, appended: Appended) -> None:
        """A frame is in the stream."""
        assert self._run is not None
        self._run.landed(shard, appended.backlog_entries)
        self._answer(self._session.landed(shard, sequence, appended))
        if self._leases.landed():
            # Counted anew when the run is looked at.
            self._run.training += 1
        self._note()

    def crashed(self, shard: int, sequence: int) -> None:
        """A frame did not get into the stream."""
        assert self._run is not None
        self._run.crashed(shard)
        self._answer(self._session.crashed(shard, sequence, self._gateway.settings.busy_retry_seconds))

    def _heed(self, message: str | bytes) -> bool:
        """Does what a message asks for, unless that has to wait: for Redis, or for its turn."""
        if self._reading or not self.outbox.roomy:
            return False
        action = self._decide(message)
        if self._performed(action):
            return True
        self._decided = action
        return False

    async def _read(self) -> None:
        receive = self._websocket.receive
        event = await self._first(receive)
        while event["type"] == "websocket.receive":
            self._reading = True
            message = event["text"] if event.get("bytes") is None else event["bytes"]
            action, self._decided = self._decided or self._decide(message), None
            if not self._performed(action):
                await self._perform(action, message)
            await self.outbox.until_roomy()
            self._reading = False
            # What the next message waits for may be never: until then nothing of this one is kept.
            del event, message, action
            event = await receive()

    async def _first(self, receive: Callable[[], Any]) -> Any:
        try:
            async with asyncio.timeout(self._gateway.settings.hello_timeout_seconds):
                return await receive()
        except TimeoutError:
            seconds = self._gateway.settings.hello_timeout_seconds
            self.hang_up(Close.HELLO_TIMEOUT, f"no hello within {seconds:g} s")
            return await receive()

    def _decide(self, message: str | bytes) -> actions.Action:
        now = self._gateway.monotonic()
        if isinstance(message, str):
            return self._session.text(message, now)
        metrics.FRAME_BYTES.inc(len(message))
        return self._session.frame(message, now)

    def _performed(self, action: actions.Action) -> bool:
        """Does what needs no Redis; returns whether that was all."""
        match action:
            case actions.Want():
                self._want(action.have)
            case actions.Append():
                self._append(action)
            case actions.Answer(full=False):
                self._answer(action.ack, action.dropped)
            case actions.Collect():
                self._collect(action)
            case actions.HangUp():
                self.hang_up(action.code, action.message)
            case actions.Ignore():
                pass
            case _:
                return False
        return True

    async def _perform(self, action: actions.Action, message: str | bytes) -> None:
        try:
            if isinstance(action, actions.Greet):
                async with self._gateway.door.enter():
                    await self._greet(action.hello)
            elif isinstance(action, actions.Ask) and isinstance(message, bytes):
                await self._ask(action.shard, message)
            elif isinstance(action, actions.Answer):
                await self._refuse(action)
            elif self._run is not None:
                await self._account_rest(self._run)
                await self._leases.perform(action, self._run, self.outbox)
                self._note()
        except CrowdedError:
            self.hang_up(Close.TRY_AGAIN_LATER, "too many replicas are coming in; try again", CROWDED_SECONDS)
        except StoreUnavailableError as error:
            self._gateway.outage.noticed(error)
            self._postpone(action)

    def _postpone(self, action: actions.Action) -> None:
        if isinstance(action, actions.Greet):
            self.hang_up(Close.TRY_AGAIN_LATER, "Redis is away; try again", AWAY_SECONDS)
        elif isinstance(action, actions.Ask):
            retry_seconds = self._gateway.settings.busy_retry_seconds
            self._answer(self._session.postpone(action.shard, action.sequence, retry_seconds))
        else:
            self._leases.postpone(action, self.outbox)

    async def _greet(self, hello: Hello) -> None:
        gateway = self._gateway
        try:
            self._run = run = await gateway.runs.join(self._job, self)
        except UnknownJobError:
            self.hang_up(Close.UNKNOWN_JOB, f"no job is named {self._job!r}")
            return
        signed, applied = await gateway.runs.past(run, hello, await gateway.store.now())
        replica = bare(signed)
        known = await self._leases.arrive(run.spec, replica, is_back=signed == hello.replica, known=hello.leases)
        self._leases.network = self.network
        applied = [max(sequences) for sequences in zip(applied, known, strict=True)]
        if run.spec.stream is not None:
            store, settings, clock = gateway.store, gateway.settings, gateway.monotonic
            self._desk = ItemDesk(store, gateway.items, settings, clock, self.outbox, run.spec, replica)
            # Before it looks what was answered: what is said from now on is heard.
            run.collects(self._desk, self)
            await self._desk.open(run.spec.stream)
        self._session.open(run, replica, applied, self._leases.allotment, hello.features)
        self.outbox.say(welcome(run, signed, applied, gateway.settings))
        log.info("joined job=%s run=%s replica=%s backend=%r", run.spec.name, run.spec.run, replica, hello.backend)
        if run.reason is not None:
            self.finish(run.reason)

    async def _ask(self, shard: int, data: bytes) -> None:
        assert self._run is not None
        now = self._gateway.monotonic
        if await self._gateway.runs.ask(self._run, shard, self._session.replica):
            self._session.vouch(shard, now())
        if self._leases.allotment is not None and shard in self._leases.allotment.unknown:
            await self._account(self._run, shard)
        if self._run.warming and self._session.may_warm_up(data, now()):
            spec, progress = self._run.spec, self._run.warmup_progress
            if await self._gateway.store.data.warm_up(spec.run, self._session.replica, progress):
                self._session.warm(now())
        action = self._session.frame(data, now(), asked=True)
        if not self._performed(action):
            await self._perform(action, data)

    async def _account_rest(self, run: Run) -> None:
        """Looks again at shards that had not committed all when the replica came: it may have nothing left to send."""
        if self._leases.allotment is not None:
            for shard in sorted(self._leases.allotment.unknown):
                await self._account(run, shard)

    async def _account(self, run: Run, shard: int) -> None:
        self._session.account(shard, await self._leases.account(run.spec, shard))

    def _append(self, action: actions.Append) -> None:
        assert self._run is not None
        self._run.launched(action.shard)
        entry = Entry(self._run.spec.run, action.shard, self._session.replica, action.data, action.rows)
        self._gateway.intake.offer(entry, action.sequence, self)

    def _collect(self, action: actions.Collect) -> None:
        if self._desk is None:
            self.outbox.say(ItemAnswer(number=action.number, status="rejected", why=NO_ITEMS))
        else:
            room = not self._gateway.intake.store_is_full
            self._desk.take(action.number, action.kind, action.data, room=room)

    def _note(self) -> None:
        """Appends which rows are in no gradient, because they gave no finite numbers."""
        allotment = self._leases.allotment
        if allotment is None or self._run is None or not allotment.waits_to_note:
            return
        for shard in range(allotment.shards):
            if parts := allotment.note(shard):
                self._run.launched(shard)
                entry = Entry(self._run.spec.run, shard, self._session.replica, b"", written(parts))
                self._gateway.intake.offer(entry, 0, Note(self._run, allotment, parts))

    async def _refuse(self, action: actions.Answer) -> None:
        self._answer(action.ack, action.dropped)
        if self._run is not None:
            with self._gateway.outage.survived():
                await self._gateway.runs.measure(self._run)

    def _answer(self, ack: Ack, dropped: int = 0) -> None:
        metrics.FRAMES.labels(ack.status, ack.reason or "").inc()
        if dropped:
            # Good replicas drop these themselves, and say so.
            self._leases.drop(dropped)
        self.outbox.say(ack)
        if ack.reason == "not-finite":
            self._note()

    def _want(self, have: list[int]) -> None:
        assert self._run is not None
        for channel, version in zip(self._run.channels, have, strict=True):
            channel.want(self.outbox, version)

    async def _write(self) -> None:
        outbox, wire = self.outbox, self._wire
        try:
            while True:
                await outbox.until_filled()
                while outbox:
                    await self._until_writable()
                    outbox.flush()
                # Asked last: what was said before the end goes out before it.
                if outbox.farewell is not None:
                    await self._until_writable()
                    await self._close(*outbox.farewell)
                    return
        except TimeoutError:
            log.info("cut a socket that does not read job=%s replica=%s", self._job, self._session.replica)
            metrics.SOCKETS_CLOSED.labels("cut").inc()
            wire.abort()
        finally:
            outbox.make_room()

    async def _until_writable(self) -> None:
        if not self._wire.can_write():
            async with asyncio.timeout(self._gateway.settings.send_timeout_seconds):
                await self._wire.until_writable()

    async def _close(self, code: int, message: str) -> None:
        metrics.SOCKETS_CLOSED.labels(str(int(code))).inc()
        if code not in (Close.NORMAL, Close.TRY_AGAIN_LATER):
            log.info("closed job=%s replica=%s code=%d: %s", self._job, self._session.replica, code, message)
        try:
            await self._websocket.close(code, message.encode()[:120].decode(errors="ignore"))
        except (WebSocketDisconnect, RuntimeError):
            # The replica closed at the same moment.
            return

    async def _leave(self) -> None:
        if self._run is not None:
            if self._desk is not None:
                self._run.collects_no_more(self._desk)
            await self._gateway.runs.leave(self._run, self)
            with self._gateway.outage.survived():
                await self._leases.abandon(self._run)
