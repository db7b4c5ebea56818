"""Takes one socket's raw items to their stream, and tells the replica what became of them. Decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from crowdlearn import metrics
from crowdlearn.errors import StoreUnavailableError, UnknownJobError
from crowdlearn.protocol import ItemAnswer, ItemOutcome
from crowdlearn.settings import GatewaySettings
from crowdlearn.spec import JobSpec, StreamSpec
from crowdlearn.store import Full, ItemAppended, NewItem, Store
from services.gateway.intake import Intake
from services.gateway.items import ItemKind, Items, limits
from services.gateway.outbox import Outbox

ANSWER_SECONDS = 3.0
"""An announced answer may be lost: who has waited for so long asks Redis, and again after as long."""


async def append(store: Store, items: Sequence[NewItem]) -> Sequence[ItemAppended | Full | StoreUnavailableError]:
    """Appends items of different replicas; what an `Intake` of items is given."""
    try:
        outcomes = await store.items.append_each(items)
    except StoreUnavailableError as error:
        return [error] * len(items)
    # Sockets of a run that is gone are closed as soon as it is looked at.
    return [Full() if isinstance(outcome, UnknownJobError) else outcome for outcome in outcomes]


class ItemDesk:
    """The items of a replica on one socket of a run that takes some."""

    def __init__(
        self,
        store: Store,
        intake: Intake[NewItem, ItemAppended],
        settings: GatewaySettings,
        monotonic: Callable[[], float],
        outbox: Outbox,
        spec: JobSpec,
        replica: str,
    ) -> None:
        self._store, self._intake, self._settings, self._monotonic = store, intake, settings, monotonic
        self._outbox, self._spec, self.replica = outbox, spec, replica
        self._items: Items | None = None
        """None until it is known what was answered before."""

    async def open(self, stream: StreamSpec) -> None:
        """Looks what was answered before."""
        known = await self._store.items.answered(self._spec, self.replica)
        largest = limits(stream, self._settings.max_frame_bytes).max_item_bytes
        self._items = Items(stream, largest, known.number, known.outcomes, self._monotonic())

    def take(self, number: int, kind: ItemKind, data: bytes, *, room: bool) -> None:
        """An item came; `room` says whether Redis has memory for more than commits."""
        assert self._items is not None
        room = room and self._intake.has_room(len(data))
        retry = self._settings.busy_retry_seconds
        verdict = self._items.offer(number, len(data), retry, self._monotonic(), room=room)
        if isinstance(verdict, ItemAnswer):
            self._say(verdict)
        elif verdict is not None:
            self._intake.offer(NewItem(self._spec, self.replica, number, kind, data), number, self)

    def landed(self, lane: int, number: int, appended: ItemAppended) -> None:
        """An item is in its stream: the preprocessor answers."""

    def crashed(self, lane: int, number: int) -> None:  # noqa: ARG002 - there is one
        """An item is not in its stream, or nobody knows."""
        assert self._items is not None
        self._say(self._items.crashed(number, self._settings.busy_retry_seconds))

    def answered(self, number: int, outcome: ItemOutcome) -> None:
        """Somebody said what became of an item."""
        if self._items is not None:
            self._say(self._items.settle(number, outcome, self._monotonic()))

    @property
    def overdue(self) -> bool:
        """Whether nothing was heard for long of items that wait."""
        since = self._items.waits_since() if self._items is not None else None
        return since is not None and self._monotonic() - since >= ANSWER_SECONDS

    async def catch_up(self) -> None:
        """Asks Redis what was answered."""
        assert self._items is not None
        # Looked at first: what has left the stream by then is answered.
        waits = await self._store.items.waits(self._spec, self.replica)
        known = await self._store.items.answered(self._spec, self.replica)
        for answer in self._items.catch_up(known.number, known.outcomes, self._monotonic()):
            self._say(answer)
        if not waits:
            # A Redis that failed over may have lost them.
            for answer in self._items.lose(self._settings.busy_retry_seconds):
                self._say(answer)

    def _say(self, answer: ItemAnswer) -> None:
        metrics.ITEM_ANSWERS.labels(answer.status).inc()
        self._outbox.say(answer)
