"""What is different on Redis Cluster and Valkey Cluster: each command goes to the node that has its key."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from redis import exceptions
from redis.asyncio.cluster import ClusterNode, ClusterPubSub, RedisCluster

from crowdlearn.errors import SetupError, StoreUnavailableError
from crowdlearn.store.connection import COMMAND_TIMEOUT_SECONDS, Command, Connection
from crowdlearn.store.refusals import is_refusal

MAX_COMMANDS = 64
"""Further commands wait: 10,000 sockets that say hello at once must not open as many connections."""

MAX_NODE_CONNECTIONS = 1 << 16
"""redis-py refuses beyond this where a pool of one node would wait; MAX_COMMANDS is what bounds them. Of blocking reads
there is one a shard."""

KEYLESS = frozenset({"PING", "PUBLISH", "TIME"})
"""Any master may answer these: the bus of the cluster carries a PUBLISH to all nodes, and keeps their clocks together
as little as anything else does."""

REDIRECTED = (exceptions.AskError, exceptions.TryAgainError, exceptions.ExecAbortError, exceptions.WatchError)
"""The slot is with another node, or on its way there."""

NOT_A_CLUSTER = "Cluster mode is not enabled"


class ClusterConnection(Connection):
    """The clients of one cluster. Redirections are followed, for a redirected command was not executed."""

    clustered: ClassVar[bool] = True

    def __init__(
        self, commands: RedisCluster, blocking: RedisCluster, address: str, max_commands: int = MAX_COMMANDS
    ) -> None:
        self._cluster = commands
        self._blocking_cluster = blocking
        self._room = asyncio.Semaphore(max_commands)
        self._outdated = False
        self.logs_refusals = True
        self._told = {}
        self.address = address

    async def close(self) -> None:
        """Closes every connection."""
        for cluster in (self._cluster, self._blocking_cluster):
            await cluster.aclose()
            # After a failure redis-py believes that there is nothing to close.
            for nodes in ("nodes_cache", "startup_nodes"):
                await cluster.nodes_manager.aclose(nodes)

    async def call(self, *command: Any) -> Any:
        """Sends one command."""
        with self.answering():
            async with asyncio.timeout(COMMAND_TIMEOUT_SECONDS), self._room:
                node = await self._node(self._cluster, command)
                return await self._cluster.execute_command(*command, target_nodes=node)

    async def wait(self, seconds: float, *command: Any) -> Any:
        """Sends one command that blocks for up to `seconds`; any number of them may wait."""
        with self.answering():
            async with asyncio.timeout(seconds + COMMAND_TIMEOUT_SECONDS):
                node = await self._node(self._blocking_cluster, command)
                return await self._blocking_cluster.execute_command(*command, target_nodes=node)

    async def _pipeline(self, commands: Sequence[Command], *, ahead: bool = False) -> list[Any]:
        client = self._blocking_cluster if ahead else self._cluster
        with self.answering():
            async with asyncio.timeout(COMMAND_TIMEOUT_SECONDS), contextlib.nullcontext() if ahead else self._room:
                pipeline = client.pipeline(transaction=False)
                for command in commands:
                    pipeline.execute_command(*command, target_nodes=await self._node(client, command))
                return await pipeline.execute(raise_on_error=False)

    async def _memory(self) -> Sequence[Mapping[str, Any]]:
        async def of(node: ClusterNode) -> Mapping[str, Any]:
            answer: Mapping[str, Any] = await self._cluster.execute_command("INFO", "memory", target_nodes=node)
            return answer

        async with asyncio.timeout(COMMAND_TIMEOUT_SECONDS), self._room:
            await self._cluster.initialize()
            return await asyncio.gather(*map(of, self._cluster.get_primaries()))

    def cluster_subscriber(self) -> ClusterPubSub:
        """A pub/sub client of its own, for sharded channels or others; use it within `answering`, and close it."""
        return self._blocking_cluster.pubsub()

    async def masters(self) -> list[ClusterNode]:
        """The masters, as they are known now."""
        with self.answering():
            async with asyncio.timeout(COMMAND_TIMEOUT_SECONDS):
                await self._blocking_cluster.initialize()
                return self._blocking_cluster.get_primaries()

    async def look_again(self) -> None:
        """Asks the cluster which node has which slot."""
        with self.answering():
            async with asyncio.timeout(COMMAND_TIMEOUT_SECONDS):
                await self._look_again()

    async def _look_again(self) -> None:
        self._outdated = False
        try:
            for cluster in (self._cluster, self._blocking_cluster):
                await cluster.nodes_manager.initialize()
        except BaseException:
            self._outdated = True
            raise

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """Turns a failure to answer into StoreUnavailableError; after one, asks anew who has which slot."""
        try:
            with self._translated():
                yield
        except StoreUnavailableError:
            # Of pipelines redis-py itself does so only if it may retry them.
            self._outdated = True
            raise

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        with super().answering():
            try:
                yield
            except REDIRECTED as error:
                raise self.unavailable(error) from error
            except exceptions.SlotNotCoveredError:
                raise
            except exceptions.RedisClusterException as error:
                # redis-py takes any refusal of CLUSTER SLOTS for that.
                if NOT_A_CLUSTER in str(error.__cause__ or error) and not is_refusal(error):
                    raise SetupError(f"{self.address} is no cluster: name it redis://, or rediss://") from error
                raise self.unavailable(error) from error

    async def _node(self, client: RedisCluster, command: Command) -> ClusterNode:
        await client.initialize()
        if self._outdated:
            await self._look_again()
        # redis-py would ask the server for the keys of an XREAD, each time.
        key = key_of(command)
        return client.get_random_primary_node() if key is None else _owner(client, key)


def _owner(client: RedisCluster, key: str) -> ClusterNode:
    node = client.get_node_from_key(key)
    if node is None:
        raise exceptions.SlotNotCoveredError(f"no node has the slot of {key}")
    return node


def key_of(command: Command) -> str | None:
    """The first key of a command of ours; None for one without."""
    name = command[0]
    if name in KEYLESS:
        return None
    if name.startswith("EVAL"):
        return str(command[3])
    return str(command[command.index("STREAMS") + 1 if name == "XREAD" else 1])
