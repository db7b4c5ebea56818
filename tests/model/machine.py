"""Draws histories: who does what and what goes wrong, one thing after the other, and looks at Redis after each."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from crowdlearn.store import Store
from tests.model.books import NAME, REPLICAS, SHARDS, Books, Run
from tests.model.invariants import is_crowded, require_best, require_booked, require_shard, require_whole, require_work
from tests.model.operations import Operations
from tests.model.world import Fault, Process, World

OWNERS = ("owner a", "owner b")
GATEWAYS = ("gateway a", "gateway b")
OTHERS = ("evaluator a", "evaluator b", "checkpointer", "operator")

EVERYBODY = (*OWNERS, *GATEWAYS, *OTHERS)

DAY = 90_000
TIMES = (3, 70, 4000, DAY)
"""Seconds: longer than an old value lives, than a lease or a submission that persists, a replaced run, an upload."""

owners, gateways = st.sampled_from(OWNERS), st.sampled_from(GATEWAYS)
shards, replicas = st.integers(0, SHARDS - 1), st.integers(0, REPLICAS - 1)
some_shards = st.sampled_from(((0, 1), (0,), (1,)))
late = st.sampled_from((False, False, True))

LOST = ("dies", "fails", "answer lost", "hangs")
ANY = (*LOST, "script ends")


def faults(most: int, *ways: str) -> st.SearchStrategy[Fault | None]:
    """Mostly nothing; or a fault within the first `most` commands."""
    drawn = st.builds(Fault, st.sampled_from(ways or LOST), st.integers(0, most))
    return st.one_of(st.none(), st.none(), drawn)


async def _require_shards(look: Store, books: Books, run: Run) -> None:
    for index in range(SHARDS):
        await require_shard(look, run, index)


LOOKS: dict[str, Callable[[Store, Books, Run], Coroutine[Any, Any, None]]] = {
    "shards": _require_shards,
    "work": lambda look, _, run: require_work(look, run),
    "best": lambda look, _, run: require_best(look, run),
    "keys": lambda look, books, _: require_whole(look, books),
}


class History(RuleBasedStateMachine):
    """One history. Subclasses name the Redis."""

    url = "fake://model"
    happened: ClassVar[Counter[str]] = Counter()
    """What has happened in all histories, and how often."""

    def __init__(self) -> None:
        super().__init__()
        self.runner, self.failed = asyncio.Runner(), False
        self.world = World(self.url, EVERYBODY)
        self.books = Books()
        self.saved: Books | None = None
        self.were_newest: list[str] = []
        self.operations = Operations(self.world, self.books)
        self.run_(self.world.look._connection.call("FLUSHALL"))
        self.run_(self.operations.submit(self.world.processes["operator"]))
        self.run_(self._save())

    def run_(self, work: Coroutine[Any, Any, Any]) -> Any:
        try:
            return self.runner.run(work)
        except BaseException:
            self.failed = True
            raise

    # --- what the rules share ---

    def newest(self, late: bool = False) -> Run:
        """The newest run; or, for who has not heard of it, one before."""
        newest = self.run_(self.world.look.jobs.run_of(NAME))
        if newest in self.were_newest:
            self.were_newest.remove(newest)
        self.were_newest.append(newest)
        return self.books.runs[self.were_newest[-2 if late and len(self.were_newest) > 1 else -1]]

    def does(
        self, name: str, fault: Fault | None, work: Callable[[Process], Coroutine[Any, Any, None]], *looks: str
    ) -> None:
        """Lets a process do something, and looks at what is left."""
        self.run_(self.world.perform(name, work(self.world.processes[name]), fault))
        self.look(*looks)

    def look(self, *looks: str) -> None:
        """Requires what must hold of the newest run; `looks` name what may have changed, all of it by default."""
        run = self.newest()
        for look in looks or LOOKS:
            self.run_(LOOKS[look](self.world.look, self.books, run))

    async def _save(self) -> None:
        await self.world.save()
        self.saved = self.books.copy()

    # --- owners ---

    @rule(owner=owners, count=st.sampled_from((1, 2, 1000)), fault=faults(14) | faults(20, "script ends"))
    def work(self, owner: str, count: int, fault: Fault | None) -> None:
        run = self.newest()
        self.does(owner, fault, lambda process: self.operations.work(process, run, count), "shards", "work", "keys")

    @rule(owner=owners, count=st.sampled_from((1, 1000)))
    def work_well(self, owner: str, count: int) -> None:
        self.work(owner, count, None)

    @rule(owner=owners, which=some_shards, late=late, fault=faults(5, *ANY))
    def claim(self, owner: str, which: tuple[int, ...], late: bool, fault: Fault | None) -> None:
        run = self.newest(late)
        self.does(owner, fault, lambda process: self.operations.claim(process, run, which), "shards", "work")

    @rule(owner=owners, shard=shards, gives_back=st.booleans(), fault=faults(2, *ANY))
    def hold(self, owner: str, shard: int, gives_back: bool, fault: Fault | None) -> None:
        do = self.operations
        self.does(
            owner, fault, lambda process: do.release(process, shard) if gives_back else do.renew(process), "shards"
        )

    @rule(owner=owners, shard=shards, count=st.integers(1, 4))
    def absorb(self, owner: str, shard: int, count: int) -> None:
        self.does(owner, None, lambda process: self.operations.absorb(process, shard, count), "shards")

    @rule(owner=owners, shard=shards, fault=faults(4) | faults(20, "script ends"))
    def commit(self, owner: str, shard: int, fault: Fault | None) -> None:
        self.does(owner, fault, lambda process: self.operations.commit(process, shard), "shards", "work", "keys")

    # --- gateways ---

    @rule(gateway=gateways, replica=replicas)
    def push(self, gateway: str, replica: int) -> None:
        self._push(gateway, replica, True, (0, 1), False, None)

    @rule(gateway=gateways, replica=replicas, new=st.booleans(), which=some_shards, late=late, fault=faults(6))
    def push_badly(
        self, gateway: str, replica: int, new: bool, which: tuple[int, ...], late: bool, fault: Fault | None
    ) -> None:
        self._push(gateway, replica, new, which, late, fault)

    def _push(
        self, gateway: str, replica: int, new: bool, which: tuple[int, ...], late: bool, fault: Fault | None
    ) -> None:
        run = self.newest(late)
        if new:
            self.books.push(run, run.replicas[replica])
        self.does(gateway, fault, lambda process: self.operations.push(process, run, replica, which), "shards")

    @rule(gateway=gateways, shard=shards, place=st.integers(0, 7))
    def repeat(self, gateway: str, shard: int, place: int) -> None:
        run = self.newest()
        self.does(gateway, None, lambda process: self.operations.repeat(process, run, shard, place), "shards")

    @rule(gateway=gateways, replica=replicas, count=st.integers(1, 3), late=late, fault=faults(1))
    def lease(self, gateway: str, replica: int, count: int, late: bool, fault: Fault | None) -> None:
        run = self.newest(late)
        self.does(gateway, fault, lambda process: self.operations.lease(process, run, replica, count), "work", "keys")

    @rule(gateway=gateways, replica=replicas, count=st.integers(1, 3))
    def farm(self, gateway: str, replica: int, count: int) -> None:
        run = self.newest()
        self.does(gateway, None, lambda process: self.operations.farm(process, run, replica, count), "shards", "work")

    @rule(
        gateway=gateways, replica=replicas, what=st.sampled_from(("extend", "give back", "leave", "back")),
        fault=faults(1),
    )  # fmt: skip
    def use(self, gateway: str, replica: int, what: str, fault: Fault | None) -> None:
        run = self.newest()
        self.does(gateway, fault, lambda process: self.operations.use(process, run, replica, what), "work", "keys")

    @rule(gateway=gateways, late=late, fault=faults(6))
    def report(self, gateway: str, late: bool, fault: Fault | None) -> None:
        run = self.newest(late)
        self.does(gateway, fault, lambda process: self.operations.report(process, run), "keys")

    # --- evaluators, the checkpointer, operators ---

    @rule(evaluator=st.sampled_from(OTHERS[:2]), accuracy=st.sampled_from((0.1, 0.2, 0.3)), late=late, fault=faults(8))
    def score(self, evaluator: str, accuracy: float, late: bool, fault: Fault | None) -> None:
        run = self.newest(late)
        self.does(evaluator, fault, lambda process: self.operations.score(process, run, accuracy), "best", "keys")

    @rule(breaks_at=st.integers(0, 8), fault=faults(5))
    def check(self, breaks_at: int, fault: Fault | None) -> None:
        run = self.newest()
        self.does("checkpointer", fault, lambda process: self.operations.check(process, run, breaks_at), "shards")

    @rule(goes_on=st.booleans(), fault=faults(80) | faults(3, "script ends"))
    def submit(self, goes_on: bool, fault: Fault | None) -> None:
        if self.world.processes["operator"].hanging is not None:
            return
        run = self.newest()
        self.run_(self.world.look.jobs.finish(run.spec.run, "stopped"))
        past = self.operations.snapshots[-1] if goes_on and self.operations.snapshots else None
        self.does("operator", fault, lambda process: self.operations.submit(process, past))

    @rule(goes_on=st.booleans(), late=late, fault=faults(8, *ANY))
    def end(self, goes_on: bool, late: bool, fault: Fault | None) -> None:
        run, do = self.newest(late), self.operations
        self.does("operator", fault, lambda process: do.resume(process) if goes_on else do.stop(process, run))

    @rule(owner=owners, fault=faults(20) | faults(3, "script ends"))
    def sweep(self, owner: str, fault: Fault | None) -> None:
        self.does(owner, fault, lambda process: self.operations.sweep(process), "keys")

    # --- the rest of the world ---

    @rule(name=st.sampled_from(EVERYBODY), dies=st.booleans())
    def go_on(self, name: str, dies: bool) -> None:
        if self.world.processes[name].hanging is not None:
            self.run_(self.world.go_on(name, dies=dies))
            self.look()

    @rule(seconds=st.sampled_from(TIMES))
    def pass_time(self, seconds: int) -> None:
        self.run_(self.world.pass_time(seconds))
        self.look()

    @rule(shard=shards, ahead=st.sampled_from((0, 7_200_000, 200_000_000)))
    def disturb(self, shard: int, ahead: int) -> None:
        self.run_(self.operations.disturb(self.newest(), shard, ahead))

    @rule(saves=st.booleans())
    def lose(self, saves: bool) -> None:
        assert self.saved is not None
        if saves:
            self.run_(self._save())
            return
        self.run_(self.world.lose())
        self.books.go_back_to(self.saved)
        self.saved = self.books.copy()
        self.look()

    # --- the end ---

    def teardown(self) -> None:
        try:
            if not self.failed:
                self._settle()
        finally:
            self.happened.update({"histories": 1, **self.world.happened})
            self.run_(self.world.close())
            self.operations.close()
            self.runner.close()

    def _settle(self) -> None:
        for name in EVERYBODY:
            self.run_(self.world.go_on(name))
        self.look()
        self.run_(self.world.pass_time(DAY))
        self.run_(self.world.look.jobs.sweep())
        run, owner = self.newest(), self.world.processes["owner a"]
        owner.die()
        self.run_(self.operations.claim(owner, run, range(SHARDS)))
        for index in range(SHARDS):
            self.run_(self.operations.absorb(owner, index, 10_000))
            self.run_(self.operations.commit(owner, index))
            lost = self.run_(self._lost(run, index))
            assert not lost, f"{lost} were acknowledged, and are not applied when everything is"
        self.run_(require_booked(self.world.look, run))
        self.look()
        self.run_(self._require_others_ended(run))

    async def _lost(self, run: Run, index: int) -> list[Any]:
        state = await self.world.look.shards.load(run.spec.run, index)
        marks = run.shards[index].first_parameters - state.parameters
        promised = [each for each in run.shards[index].promised if not marks[each.place]]
        return [each for each in promised if not is_crowded(run, index, each)]

    async def _require_others_ended(self, newest: Run) -> None:
        others = [run for run in self.books.runs if run != newest.spec.run]
        states = await self.world.look.polls.states(others)
        running = [
            run for run, state in states.items() if state is not None and getattr(state, "state", "") == "running"
        ]
        assert running == [], "these runs were replaced, and go on"
