"""What a Python replica reports of itself, against a gateway that says what a test tells it to."""

from __future__ import annotations

import asyncio
from typing import cast

import msgspec
import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from crowdlearn import Replica, protocol
from crowdlearn.errors import EndedError, UnknownJobError
from crowdlearn.protocol import Close, Finished, Hello, Item, ItemAnswer, ItemOutcome, StreamLimits, Welcome
from crowdlearn.replica.backoff import Backoff
from crowdlearn.replica.gateway import Gateway
from crowdlearn.replica.runner import Runner
from crowdlearn.replica.workshop import Workshop
from tests.replica.test_session import WELCOME


class SlowWorkshop:
    """Compiles for ever."""

    async def executor(self, welcome: Welcome) -> None:
        """Never returns."""
        await asyncio.Event().wait()


async def test_a_job_that_ends_while_its_program_is_compiled_is_reported_as_finished() -> None:
    async def end_at_once(socket: ServerConnection) -> None:
        await socket.recv()
        # Both are read before anything else has its turn.
        await socket.send(protocol.encode(WELCOME))
        await socket.send(protocol.encode(Finished(reason="until")))
        await socket.wait_closed()

    async with serve(end_at_once, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        gateway = Gateway(f"http://127.0.0.1:{port}")
        runner = Runner(gateway, "digits", cast("Workshop", SlowWorkshop()), "jax cpu")
        ended = await runner.run()
    assert (ended.name, ended.message) == ("finished", "The model has reached its goal.")
    assert runner.state == ended


async def test_a_malformed_frame_makes_a_replica_come_back_as_a_new_one() -> None:
    hellos: list[Hello] = []

    async def refuse_twice(socket: ServerConnection) -> None:
        hello = protocol.decode_from_replica(cast("str", await socket.recv()))
        assert isinstance(hello, Hello)
        hellos.append(hello)
        await socket.send(protocol.encode(WELCOME))
        if len(hellos) < 3:
            await socket.close(Close.MALFORMED_FRAME)
            return
        await socket.send(protocol.encode(Finished(reason="epochs")))
        await socket.wait_closed()

    async with serve(refuse_twice, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        gateway = Gateway(f"http://127.0.0.1:{port}")
        runner = Runner(gateway, "digits", cast("Workshop", SlowWorkshop()), "jax cpu")
        runner._backoff = Backoff(lambda: 0.0)
        ended = await runner.run()
    assert [hello.replica for hello in hellos] == [None, None, None]
    assert ended.name == "finished"


async def test_a_raw_item_that_has_no_answer_at_the_end_is_given_up() -> None:
    heard: list[bytes] = []

    async def answer_the_first(socket: ServerConnection) -> None:
        await socket.recv()
        await socket.send(protocol.encode(msgspec.structs.replace(WELCOME, stream=StreamLimits(16, 100))))
        while len(heard) < 2:
            message = protocol.decode_from_replica(await socket.recv())
            if isinstance(message, Item):
                heard.append(bytes(message.json))
        await socket.send(protocol.encode(ItemAnswer(number=1, status="rows", rows=3)))
        await socket.send(protocol.encode(Finished(reason="stopped")))
        await socket.wait_closed()

    async with serve(answer_the_first, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        gateway = Gateway(f"http://127.0.0.1:{port}")
        runner = Runner(gateway, "digits", cast("Workshop", SlowWorkshop()), "jax cpu")
        running = asyncio.create_task(runner.run())
        first, second = (asyncio.create_task(runner.send_raw(item)) for item in ({"a": 1.5}, None))
        assert await first == ItemOutcome("rows", 3)
        with pytest.raises(EndedError, match="ended before its item was answered: The operator has stopped this job"):
            await second
        await running
        with pytest.raises(EndedError, match="the replica has ended: The operator has stopped this job"):
            await runner.send_raw(1)
    assert heard == [b'{"a": 1.5}', b"null"]


@pytest.mark.parametrize(("item", "error"), [(float("nan"), ValueError), ({1, 2}, TypeError)])
async def test_what_is_neither_bytes_nor_json_is_no_raw_item(item: object, error: type[Exception]) -> None:
    runner = Runner(Gateway("http://nowhere"), "digits", cast("Workshop", SlowWorkshop()), "jax cpu")
    with pytest.raises(error):
        await runner.send_raw(item)


async def test_a_replica_sends_nothing_before_it_has_begun() -> None:
    with pytest.raises(EndedError, match="use it within `async with`"):
        await Replica("http://nowhere").send_raw(1)


async def test_a_replica_of_a_job_that_is_not_there_says_so() -> None:
    async def nothing(_: ServerConnection, request: Request) -> Response:
        return Response(404, "Not Found", Headers(), request.path.encode())

    async with serve(lambda socket: socket.wait_closed(), "127.0.0.1", 0, process_request=nothing) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with Replica(f"http://127.0.0.1:{port}/?job=nope") as replica:
            with pytest.raises(UnknownJobError, match="there is no job named 'nope'"):
                await replica.send_raw(1)
