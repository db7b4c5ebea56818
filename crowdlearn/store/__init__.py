"""Everything that CrowdLearn keeps in Redis: the only place that knows keys and scripts (docs/redis.md)."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

from crowdlearn.errors import StoreUnavailableError
from crowdlearn.spec import JobSpec
from crowdlearn.store.addresses import BULK_CONNECTIONS, open_connection
from crowdlearn.store.announcements import Announcement, Announcements, JobChanged, Resync, VersionAnnounced
from crowdlearn.store.backoff import Backoff
from crowdlearn.store.connection import Connection
from crowdlearn.store.curve import Curve
from crowdlearn.store.data import (
    WARMUP_SECONDS,
    Account,
    Data,
    Exhausted,
    Granted,
    Held,
    Holder,
    NoneFree,
    OthersTurn,
    Progress,
    Turns,
    WarmingUp,
)
from crowdlearn.store.first_look import first_look
from crowdlearn.store.fleet import Fleet
from crowdlearn.store.item_state import (
    Answered,
    FailedItem,
    ItemAnswered,
    ItemsAnswered,
    ItemsCommit,
    ItemState,
    Partition,
    partition_of,
)
from crowdlearn.store.items import Full, ItemAppended, ItemEntry, Items, NewItem
from crowdlearn.store.jobs import Jobs, State
from crowdlearn.store.polls import Polls
from crowdlearn.store.pool import Pool, Sampled
from crowdlearn.store.resumption import resume
from crowdlearn.store.roster import (
    AggregatorReport,
    EvaluatorReport,
    GatewayReport,
    Gateways,
    PreprocessorReport,
    Roster,
    read_roster,
)
from crowdlearn.store.scorings import Counted, Result, Scores, Scoring, Scorings
from crowdlearn.store.shard_state import Applied, Commit, Manifest, Parameters, ShardState
from crowdlearn.store.shards import Shards
from crowdlearn.store.stalls import Stalls
from crowdlearn.store.status import status
from crowdlearn.store.streams import START, Appended, Entry, StreamEntry, Streams, position

__all__ = [
    "START",
    "WARMUP_SECONDS",
    "Account",
    "AggregatorReport",
    "Announcement",
    "Answered",
    "Appended",
    "Applied",
    "Backoff",
    "Commit",
    "Counted",
    "Entry",
    "EvaluatorReport",
    "Exhausted",
    "FailedItem",
    "Full",
    "GatewayReport",
    "Granted",
    "Held",
    "Holder",
    "ItemAnswered",
    "ItemAppended",
    "ItemEntry",
    "ItemState",
    "ItemsAnswered",
    "ItemsCommit",
    "JobChanged",
    "Manifest",
    "NewItem",
    "NoneFree",
    "OthersTurn",
    "Parameters",
    "Partition",
    "PreprocessorReport",
    "Progress",
    "Result",
    "Resync",
    "Roster",
    "Sampled",
    "Scores",
    "Scoring",
    "ShardState",
    "State",
    "Store",
    "StreamEntry",
    "Turns",
    "VersionAnnounced",
    "WarmingUp",
    "connect",
    "open_store",
    "partition_of",
    "position",
    "resume",
    "status",
]


class Store:
    """One Redis, or one cluster. Every method of it and of its parts may raise StoreUnavailableError."""

    def __init__(self, connection: Connection, bulk: Connection | None = None) -> None:
        self._connection = connection
        self.bulk = self if bulk is None else Store(bulk)
        """The same Redis over a few connections of its own: for downloads, behind which nothing else must wait."""
        self.jobs = Jobs(connection)
        self.data = Data(connection)
        self.shards = Shards(connection)
        self.streams = Streams(connection)
        self.polls = Polls(connection)
        self.items = Items(connection)
        self.pool = Pool(connection)
        self.fleet = Fleet(connection)
        self.gateways = Gateways(connection)
        self.scorings = Scorings(connection)
        self.curve = Curve(connection)
        self.stalls = Stalls(connection)
        self._announcements = Announcements(connection)

    @property
    def address(self) -> str:
        """Where this Redis is, without a password."""
        return self._connection.address

    async def ping(self) -> None:
        """Raises StoreUnavailableError when Redis does not answer."""
        await self._connection.call("PING")

    async def now(self) -> float:
        """Redis's time in Unix seconds, the same for all hosts; Redis is asked once a minute."""
        return await self._connection.now()

    async def first_look(self) -> list[str]:
        """What an operator should know of this Redis before a service works with it: see crowdlearn.store.first_look.

        Raises:
            NoSuchStoreError: what answers there is no Redis, or has no such database.
        """
        return await first_look(self._connection)

    async def roster(self) -> Roster:
        """Which services are at work, and what each of them has."""
        return await read_roster(self._connection)

    async def memory_in_use(self) -> float:
        """The part of its maxmemory that Redis uses, of a cluster that of the fullest master; 0 without a limit."""
        return await self._connection.memory_in_use()

    def announcements(self, *, versions: bool = True, items: bool = False) -> AsyncIterator[Announcement]:
        """Yields what others announce, for ever; after each Resync look at the manifests. Ends with its task.

        Without `versions` only jobs that start and end: a few a day instead of a hundred a second. `items`: answers to
        raw items too.
        """
        return self._announcements.listen(versions, items)

    def follow(self, run: str, shards: int) -> None:
        """`announcements` are to tell versions of the run's first `shards` shards. Without it they may or may not."""
        self._announcements.follow(run, shards)

    def forget(self, run: str) -> None:
        """Versions of the run are not wanted any more."""
        self._announcements.forget(run)

    async def result(self, spec: JobSpec, *, newest: bool = False) -> Result:
        """What a run gives: the parameters that scored best; the `newest`, also where nothing was ever scored."""
        best = None if newest else await self.scorings.best(spec)
        if best is not None:
            return best
        parameters, versions = await self.shards.flat(spec)
        return Result(parameters, versions, None, (await self.scorings.read(spec)).scorings)

    def log_refusals(self, *, on: bool) -> None:
        """Whether what Redis refuses is logged, once, beside the error that is raised."""
        self._connection.logs_refusals = on
        if self.bulk is not self:
            self.bulk.log_refusals(on=on)

    async def close(self) -> None:
        """Closes the connections."""
        if self.bulk is not self:
            await self.bulk.close()
        await self.streams.close()
        await self._connection.close()


def open_store(url: str) -> Store:
    """Opens the Redis at `url` without asking whether it answers: a service waits for it in its own way.

    Raises:
        SetupError: `url` is not an address of a Redis.
    """
    return Store(open_connection(url), open_connection(url, BULK_CONNECTIONS))


async def connect(url: str, *, wait_seconds: float = 0.0, logs_refusals: bool = True) -> Store:
    """Opens the Redis at `url` and waits up to `wait_seconds` (may be infinite) until it answers.

    `url` is `redis://`, `rediss://` or `unix://` as redis-py reads them; `redis+cluster://HOST:PORT,HOST:PORT` or
    `rediss+cluster://` for a cluster, of which any hosts are named; or `fake://NAME`: a fakeredis in this process.

    Args:
        logs_refusals: a command that Redis refuses is logged, once, beside the error that it raises.
    Raises:
        SetupError: `url` is not such an address.
        StoreUnavailableError: Redis does not answer.
    """
    store = open_store(url)
    # What is refused now is raised by this very call.
    store.log_refusals(on=False)
    backoff = Backoff()
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            await store.ping()
            store.log_refusals(on=logs_refusals)
            return store
        except StoreUnavailableError:
            if time.monotonic() >= deadline:
                await store.close()
                raise
        await backoff.wait()
