"""The state of one conversation, without a socket: what each message calls for, at literal times."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from crowdlearn.frames import Frame, Kind, pack
from crowdlearn.protocol import Ack, Close
from crowdlearn.sharding import Shard
from crowdlearn.spec import JobSpec
from crowdlearn.store import Appended
from services.gateway.session import (
    Answer,
    Append,
    Ask,
    CountDropped,
    Finish,
    GiveBack,
    Greet,
    HangUp,
    Ignore,
    Session,
    Take,
    Want,
)
from tests.gateway.gateway_harness import DATA, SETTINGS, make_spec

HELLO = '{"type":"hello","protocol":1,"replica":null,"run":null,"backend":"wasm"}'
REPLICA = "67414f80a1b2c3d4"
BIRTH = 0x67414F80
SPEC = make_spec(**DATA, shards=(Shard(0, 4), Shard(4, 4)), push_codec="f32")


@dataclass
class Run:
    """A run as a session sees it."""

    spec: JobSpec = SPEC
    running: bool = True
    version: int = 10
    room: bool = True
    forgotten_until: int = 0
    warming: bool = False
    refusals: list[tuple[str, int]] = field(default_factory=list)

    def newest(self, shard: int) -> int:
        return self.version

    def has_room(self, shard: int, frame_bytes: int) -> bool:
        return self.room

    def forgotten(self, shard: int) -> int:
        return self.forgotten_until

    def refused(self, reason: str, gradients: int) -> None:
        self.refusals.append((reason, gradients))


def opened(run: Run | None = None, **settings: float) -> Session:
    session = Session(replace(SETTINGS, **settings), now=0.0)  # type: ignore[arg-type]
    assert isinstance(session.text(HELLO, 0.0), Greet)
    session.open(run or Run(), REPLICA, [0, 0])
    return session


def gradient(sequence: int, shard: int = 0, version: int = 10) -> bytes:
    return pack(Frame(Kind.GRADIENT, 0, shard, 4, sequence, version, 0.5, 2, 1, np.ones(4, "<f4").tobytes()))


def code(action: object) -> int:
    assert isinstance(action, HangUp), action
    return action.code


def test_a_hello_is_greeted() -> None:
    action = Session(SETTINGS, 0.0).text(HELLO, 0.0)
    assert isinstance(action, Greet)
    assert action.hello.backend == "wasm"


def test_a_second_hello_is_out_of_order() -> None:
    assert code(opened().text(HELLO, 0.0)) == Close.OUT_OF_ORDER


def test_anything_before_hello_is_out_of_order() -> None:
    assert code(Session(SETTINGS, 0.0).text('{"type":"lease","count":1}', 0.0)) == Close.OUT_OF_ORDER
    assert code(Session(SETTINGS, 0.0).frame(gradient(1), 0.0)) == Close.OUT_OF_ORDER


def test_another_protocol_is_not_spoken() -> None:
    hello = HELLO.replace('"protocol":1', '"protocol":2')
    action = Session(SETTINGS, 0.0).text(hello, 0.0)
    assert action == HangUp(Close.UNSUPPORTED_PROTOCOL, "the protocol is 1, got 2")


def test_requests_become_what_they_ask_for() -> None:
    session = opened()
    assert session.text('{"type":"fetch","have":[-1,3]}', 0.0) == Want([-1, 3])
    assert session.text('{"type":"lease","count":2}', 0.0) == Take(2)
    assert session.text('{"type":"trained","lease":11}', 0.0) == Finish(11)
    assert session.text('{"type":"release","leases":[4,5]}', 0.0) == GiveBack([4, 5])


def refused(session: Session, shard: int, sequence: int, minibatches: int = 1, version: int = 10) -> int:
    """The minibatches that are dropped with a frame of NaN."""
    not_a_number = np.full(4, np.nan, "<f4").tobytes()
    frame = Frame(Kind.GRADIENT, 0, shard, 4, sequence, version, 0.5, 2, minibatches, not_a_number)
    action = session.frame(pack(frame), 0.0, asked=True)
    assert isinstance(action, Answer)
    assert action.ack.status == "rejected"
    return action.dropped


def test_a_push_that_is_refused_counts_once_and_all_its_minibatches_whichever_shard_is_refused() -> None:
    run = Run()
    session = opened(run)
    assert [refused(session, shard, 1, minibatches=5) for shard in (0, 1)] == [5, 0]
    assert [refused(session, shard, 2, minibatches=3) for shard in (1, 0)] == [3, 0]
    assert refused(session, 1, 3, minibatches=2) == 2  # shard 0 of it is finite
    assert run.refusals == [("not-finite", 1)] * 3


def test_a_push_of_a_version_that_does_not_exist_is_refused_and_not_dropped() -> None:
    run = Run()
    session = opened(run)
    assert [refused(session, shard, 1, minibatches=5, version=11) for shard in (1, 0)] == [0, 0]
    assert run.refusals == [("future-version", 1)]


def test_a_replica_that_gives_up_counts_for_what_it_has_not_sent() -> None:
    run = Run()
    assert opened(run).text('{"type":"useless","minibatches":20}', 0.0) == Ignore()
    assert run.refusals == [("not-finite", 20)]


def test_who_claims_to_give_up_again_and_again_counts_for_one_replica() -> None:
    run = Run()
    session = opened(run)
    for _ in range(3):
        assert session.text('{"type":"useless","minibatches":1000}', 0.0) == Ignore()
    assert run.refusals == [("not-finite", 20)]


def test_dropped_minibatches_are_counted() -> None:
    assert opened().text('{"type":"dropped","minibatches":3}', 0.0) == CountDropped(3)


def test_what_an_ended_job_refuses_is_not_counted() -> None:
    run = Run(running=False)
    session = opened(run)
    assert isinstance(session.frame(gradient(1), 0.0), Answer)
    assert session.text('{"type":"useless","minibatches":20}', 0.0) == Ignore()
    assert run.refusals == []


def test_a_fetch_names_every_shard() -> None:
    action = opened().text('{"type":"fetch","have":[0]}', 0.0)
    assert action == HangUp(Close.MALFORMED_MESSAGE, "have names 2 shards, got 1")


def test_a_lease_that_cannot_exist_is_malformed() -> None:
    # Three epochs of four chunks have leases 0 to 11.
    assert code(opened().text('{"type":"trained","lease":12}', 0.0)) == Close.MALFORMED_MESSAGE


def test_a_gradient_is_appended_and_answered_when_it_has_landed() -> None:
    session = opened()
    data = gradient(1)
    assert session.frame(data, 0.0) == Append(0, 1, data)
    assert session.landed(0, 1, Appended("1-0", 4)) == Ack(shard=0, sequence=1, status="accepted", version=14)
    assert session.frame(data, 0.0) == Answer(Ack(shard=0, sequence=1, status="duplicate"))


def test_what_was_committed_before_a_reconnect_is_a_duplicate() -> None:
    session = Session(SETTINGS, 0.0)
    session.text(HELLO, 0.0)
    session.open(Run(), REPLICA, [5, 4])
    assert session.frame(gradient(5, shard=0), 0.0) == Answer(Ack(shard=0, sequence=5, status="duplicate"))
    assert isinstance(session.frame(gradient(5, shard=1), 0.0), Append)


def test_more_frames_than_credit_are_flooding() -> None:
    session = opened(credit=2)
    assert isinstance(session.frame(gradient(1), 0.0), Append)
    assert isinstance(session.frame(gradient(2), 0.0), Append)
    assert isinstance(session.frame(gradient(1, shard=1), 0.0), Append)
    action = session.frame(gradient(3), 0.0)
    assert action == HangUp(Close.FLOODING, "shard 0 has a credit of 2 unanswered frames")


def test_more_messages_than_the_rate_are_flooding() -> None:
    # Ten a second with a burst of two seconds: twenty pass, and after another tenth of a second one more.
    session = opened(messages_per_second=10.0)
    for _ in range(19):
        assert session.text('{"type":"lease","count":1}', 0.0) == Take(1)
    assert session.text('{"type":"lease","count":1}', 0.1) == Take(1)
    assert code(session.text('{"type":"lease","count":1}', 0.1)) == Close.FLOODING


def test_frames_above_the_rate_are_busy_until_there_is_a_token() -> None:
    session = opened(frames_per_second=10.0)
    for sequence in range(1, 21):
        assert isinstance(session.frame(gradient(sequence), 0.0), Append)
        session.landed(0, sequence, Appended("1-0", 1))
    busy = Ack(shard=0, sequence=21, status="busy", retry_seconds=0.1)
    assert session.frame(gradient(21), 0.0) == Answer(busy)
    assert isinstance(session.frame(gradient(21), 0.1), Append)


def test_who_goes_on_sending_while_busy_is_flooding() -> None:
    # Eight times the rate, with a burst of two seconds, is 160 frames.
    session = opened(frames_per_second=10.0)
    actions = [session.frame(gradient(1), 0.0) for _ in range(161)]
    assert all(isinstance(action, Append | Answer) for action in actions[:160])
    assert code(actions[160]) == Close.FLOODING


def test_busy_frames_that_never_come_again_are_flooding() -> None:
    session = opened(Run(room=False))
    for sequence in range(1, 65):
        assert isinstance(session.frame(gradient(sequence), 0.0), Answer)
    action = session.frame(gradient(65), 0.0)
    assert action == HangUp(Close.FLOODING, "65 busy frames were not sent again")


def test_without_room_the_streams_are_looked_at() -> None:
    run = Run(room=False)
    session = opened(run)
    assert session.frame(gradient(1), 0.0) == Answer(
        Ack(shard=0, sequence=1, status="busy", retry_seconds=0.02), full=True
    )
    run.room = True
    assert session.frame(gradient(2), 0.0) == Answer(Ack(shard=0, sequence=2, status="busy", retry_seconds=0.02))
    assert isinstance(session.frame(gradient(1), 0.0), Append)


def test_a_version_from_the_future_is_asked_for_once() -> None:
    run = Run()
    session = opened(run)
    data = gradient(1, version=11)
    assert session.frame(data, 0.0) == Ask(0, 1)
    assert session.frame(data, 0.0, asked=True) == Answer(
        Ack(shard=0, sequence=1, status="rejected", reason="future-version")
    )
    run.version = 11
    assert isinstance(session.frame(data, 0.0), Append)


def test_a_replica_older_than_the_memory_is_vouched_for_ten_seconds() -> None:
    session = opened(Run(forgotten_until=BIRTH))
    assert session.frame(gradient(1), 100.0) == Ask(0, 1)
    session.vouch(0, 100.0)
    assert isinstance(session.frame(gradient(1), 100.0, asked=True), Append)
    session.landed(0, 1, Appended("1-0", 1))
    assert isinstance(session.frame(gradient(2), 109.9), Append)
    session.landed(0, 2, Appended("1-0", 1))
    assert session.frame(gradient(3), 110.0) == Ask(0, 3)
    rejected = Ack(shard=0, sequence=3, status="rejected", reason="expired")
    assert session.frame(gradient(3), 110.0, asked=True) == Answer(rejected)


def test_a_malformed_frame_says_what_is_wrong_and_ends_the_conversation() -> None:
    session = opened()
    assert session.frame(b"\1\2\3", 0.0) == HangUp(
        Close.MALFORMED_FRAME, "a frame has at least 40 bytes of header, got 3 bytes"
    )
    assert session.frame(gradient(1), 0.0) == Ignore()
    assert session.text(HELLO, 0.0) == Ignore()
