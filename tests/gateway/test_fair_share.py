"""How many leases a socket may hold, and how many all sockets of a network together."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, cast

from crowdlearn.settings import GatewaySettings
from crowdlearn.spec import StreamSpec
from crowdlearn.store import Manifest
from services.gateway.clients import Proxies, neighbours
from services.gateway.run import Member, Run
from tests.gateway.gateway_harness import SETTINGS, make_spec

HERE, THERE = "203.0.113.0/24", "198.51.100.0/24"


@dataclass(eq=False)
class Socket:
    """A member of a run, from a network, with leases."""

    network: str | None
    held: set[int] = field(default_factory=set)


def a_run(
    *networks: str | None, chunks: int = 16, settings: GatewaySettings = SETTINGS, stream: StreamSpec | None = None
) -> tuple[Run, list[Socket]]:
    """A run of so many chunks in an epoch, and a socket on it from each network."""
    manifests = [Manifest(0, "0-0", 0, "0-0", 0)] * 2
    run = Run(make_spec(train_rows=2 * chunks, stream=stream), manifests, settings, cast(Any, None))
    sockets = [Socket(network) for network in networks]
    for socket in sockets:
        run.join(cast(Member, cast(Any, socket)))
    return run, sockets


def test_a_socket_may_hold_twice_its_part_of_an_epoch() -> None:
    # 16 chunks: twice a ninth, rounded up; for a crowd of hundreds one, and for a few no more than 32.
    assert a_run(*[None] * 9)[0].fair_share == 4
    assert a_run(*[None] * 300)[0].fair_share == 1
    assert a_run(None, chunks=500)[0].fair_share == 32


def test_sockets_on_other_gateways_are_of_the_crowd() -> None:
    run, _ = a_run(None)
    run.crowd = 16
    assert run.fair_share == 2


def test_the_sockets_of_a_network_hold_at_most_half_of_an_epoch_where_there_are_others() -> None:
    run, sockets = a_run(HERE, HERE, HERE, THERE)
    for place, socket in enumerate(sockets[:3]):
        socket.held.update(range(3 * place, 3 * place + 2))
    assert run.neighbours_may_lease(HERE) == 2
    assert run.neighbours_may_lease(THERE) == 8
    run.leave(cast(Member, cast(Any, sockets[3])))
    assert run.neighbours_may_lease(HERE) == 32


def test_of_a_pool_a_socket_may_hold_a_few_leases_whatever_the_crowd() -> None:
    run, _ = a_run(*[HERE] * 300, THERE, stream=StreamSpec(lease_rows=8))
    assert run.fair_share == 4
    assert run.neighbours_may_lease(HERE) == 32


def test_rows_for_their_sender_alone_wait_for_nobodys_turn() -> None:
    run, _ = a_run(None, stream=StreamSpec(lease_rows=8))
    own, _ = a_run(None, stream=StreamSpec(lease_rows=8, train_on="sender"))
    run.training = own.training = 9
    assert run.turns(None, 0.0, is_new=False).costs == 1 / 0.17
    assert own.turns(None, 0.0, is_new=False).costs == 0


def test_who_has_no_network_is_nobodys_neighbour() -> None:
    run, sockets = a_run(None, None, THERE)
    sockets[0].held.update(range(16))
    assert run.neighbours_may_lease(None) == 32


def test_in_a_crowd_nobody_gets_more_than_a_sixth_of_the_leases() -> None:
    run, _ = a_run(None)
    costs = {}
    for run.training in (0, 5, 6, 9, 32):
        costs[run.training] = run.turns(None, 0.0, is_new=True).costs
    # One of six has a quarter, and so all have more than they need.
    assert costs == {0: 0, 5: 0, 6: 4, 9: 1 / 0.17, 32: 1 / 0.17}


def test_who_warms_a_run_up_waits_for_nobodys_turn() -> None:
    run, _ = a_run(None)
    run.training, run.warming = 9, True
    assert run.turns(None, 0.0, is_new=False).costs == 0


def test_an_operator_may_leave_speed_unbounded() -> None:
    run, _ = a_run(None, settings=replace(SETTINGS, most_share=1.0))
    run.training = 32
    assert run.turns(None, 0.0, is_new=True).costs == 0


def test_of_the_new_replicas_of_a_network_one_in_ten_seconds_has_a_lease_at_once() -> None:
    run, _ = a_run(None)
    run.training = 9
    assert run.turns(HERE, 0.0, is_new=True).first == 1
    run.came(HERE, 0.0)
    assert [run.turns(network, 9.9, is_new=True).first for network in (HERE, THERE, None)] == [0, 1, 1]
    assert run.turns(HERE, 9.9, is_new=False).first == 1, "who has trained before is not new"
    assert run.turns(HERE, 10.0, is_new=True).first == 1


def test_neighbours_are_of_one_network_and_proxies_are_none() -> None:
    proxies = Proxies(["10.0.0.0/8"])
    assert neighbours("203.0.113.7", proxies) == neighbours("203.0.113.250", proxies) == HERE
    assert neighbours("2001:db8::1", proxies) == neighbours("2001:db8::ffff", proxies) == "2001:db8::/64"
    assert neighbours("::ffff:203.0.113.7", proxies) == HERE
    assert (neighbours("10.1.2.3", proxies), neighbours("", proxies)) == (None, None)
