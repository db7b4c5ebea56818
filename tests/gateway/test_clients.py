"""Whose address counts, and how much of a kind one may have open."""

from __future__ import annotations

import logging

import pytest
from starlette.requests import HTTPConnection

from crowdlearn.errors import SetupError
from crowdlearn.settings import PRIVATE_NETWORKS
from services.gateway.clients import Proxies, Quota

PROXIES = Proxies(PRIVATE_NETWORKS)


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("203.0.113.7", [], "203.0.113.7"),
        ("203.0.113.7", ["198.51.100.1"], "203.0.113.7"),
        ("10.0.0.2", [], "10.0.0.2"),
        ("10.0.0.2", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.2", ["192.0.2.66, 198.51.100.1"], "198.51.100.1"),
        ("10.0.0.2", ["192.0.2.66", "198.51.100.1, 10.0.0.9"], "198.51.100.1"),
        ("::ffff:10.0.0.2", ["198.51.100.1:4711"], "198.51.100.1"),
        ("fe80::1", ["[2001:db8::7]:4711"], "2001:db8::7"),
        ("127.0.0.1", ["10.1.1.1"], "10.1.1.1"),
        ("10.0.0.2", ["192.0.2.66, unknown"], "10.0.0.2"),
    ],
)
def test_a_trusted_proxy_says_who_asks_and_nobody_else_does(peer: str, forwarded: list[str], client: str) -> None:
    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    assert PROXIES.client(HTTPConnection({"type": "http", "client": (peer, 1234), "headers": headers})) == client


def test_who_has_no_address_is_nobody() -> None:
    assert PROXIES.client(HTTPConnection({"type": "http", "client": None, "headers": []})) == ""


def quota(limit: int, now: float = 0.0) -> Quota:
    return Quota("sockets", "SOCKETS_PER_ADDRESS", limit, PROXIES, lambda: now)


@pytest.mark.parametrize(
    ("first", "second"),
    [("203.0.113.7", "::ffff:203.0.113.7"), ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2")],
)
def test_one_address_has_several_spellings_and_a_host_a_whole_network_of_ipv6(first: str, second: str) -> None:
    both = quota(2)
    assert [both.enter(first), both.enter(second), both.enter(first)] == [True, True, False]
    both.leave(second)
    assert both.enter(first)


def test_addresses_are_counted_apart() -> None:
    each = quota(1)
    assert each.enter("203.0.113.7")
    assert each.enter("203.0.113.8")
    assert each.enter("2001:db8:0:1::1")
    assert each.enter("2001:db8:0:2::1")


def test_what_is_left_is_forgotten() -> None:
    some = quota(2)
    for number in range(1000):
        address = f"203.0.{number // 250}.{number % 250}"
        assert some.enter(address)
        some.leave(address)
    assert not some._counts


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "10.0.0.2", "::ffff:192.168.1.1", "fd00::1", "", "unix:"])
def test_a_proxy_and_who_has_no_address_are_not_counted(address: str) -> None:
    one = quota(1)
    assert all(one.enter(address) for _ in range(100))


def test_no_limit_is_none() -> None:
    assert all(quota(0).enter("203.0.113.7") for _ in range(100))


def test_an_address_at_its_limit_is_warned_of_once_with_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    one = quota(1)
    for _ in range(50):
        one.enter("203.0.113.7")
    assert [record.getMessage() for record in caplog.records] == [
        "203.0.113.7 has 1 sockets open, and gets no more (CROWDLEARN_SOCKETS_PER_ADDRESS): if it is a balancer, "
        "name it in CROWDLEARN_TRUSTED_PROXIES"
    ]


@pytest.mark.parametrize("text", ["balancer", "10.0.0.1/8", "*"])
def test_a_proxy_that_is_no_address_is_a_setup_error(text: str) -> None:
    with pytest.raises(SetupError, match=r"CROWDLEARN_TRUSTED_PROXIES expects addresses and networks, such as"):
        Proxies([text])
