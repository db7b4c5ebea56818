"""What a Python replica reports of itself, against a gateway that says what a test tells it to."""

from __future__ import annotations

import asyncio
from typing import cast

from websockets.asyncio.server import ServerConnection, serve

from crowdlearn import protocol
from crowdlearn.protocol import Close, Finished, Hello, Welcome
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
