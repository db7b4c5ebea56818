"""Tells clients apart by their addresses, and counts what each has open. Opens and closes nothing."""

from __future__ import annotations

import ipaddress
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence

from starlette.requests import HTTPConnection

from crowdlearn.errors import SetupError

log = logging.getLogger(__name__)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

IPV6_PREFIX = 64
"""A host may take any address of its network of so many bits."""

IPV4_NEIGHBOURS = 24
"""Of one IPv4 network of so many bits all addresses are often one owner's."""

WARN_SECONDS = 60.0
"""An address at its limit is warned of so often: whoever has many addresses must not fill the log."""


class Proxies:
    """Whose word about others' addresses is believed.

    Raises:
        SetupError: one of them is no address or network.
    """

    def __init__(self, trusted: Sequence[str]) -> None:
        self._networks = [_network(text) for text in trusted]

    def __contains__(self, address: str) -> bool:
        ip = parsed(address)
        return ip is not None and any(ip in network for network in self._networks)

    def client(self, request: HTTPConnection) -> str:
        """Who asks: the peer, or whom trusted proxies name.

        Each adds its client to the right of what it was told: a client's word about itself stands left of theirs.
        """
        address = request.client.host if request.client else ""
        forwarded = [part for value in request.headers.getlist("x-forwarded-for") for part in value.split(",")]
        while address in self and forwarded:
            named = _without_port(forwarded.pop().strip())
            if parsed(named) is None:
                break
            address = named
        return address


class Quota:
    """How many things of a kind each address may have open: `limit`, where that is not 0.

    Proxies are not counted, nor is who has no address, as on a Unix socket.
    """

    def __init__(
        self, kind: str, setting: str, limit: int, proxies: Proxies, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._kind, self._setting, self._limit, self._proxies, self._clock = kind, setting, limit, proxies, clock
        self._counts: Counter[str] = Counter()
        self._warned = -WARN_SECONDS

    def enter(self, address: str) -> bool:
        """Counts one more, unless there are as many as may be; every True is followed by one `leave`."""
        owner = self._owner(address)
        if owner is None:
            return True
        if self._counts[owner] >= self._limit:
            self._warn(owner)
            return False
        self._counts[owner] += 1
        return True

    def leave(self, address: str) -> None:
        """One is closed."""
        owner = self._owner(address)
        if owner is None:
            return
        self._counts[owner] -= 1
        if self._counts[owner] <= 0:
            del self._counts[owner]

    def _owner(self, address: str) -> str | None:
        ip = parsed(address)
        if not self._limit or ip is None or address in self._proxies:
            return None
        return str(ipaddress.ip_network((ip, IPV6_PREFIX), strict=False) if ip.version == 6 else ip)

    def _warn(self, owner: str) -> None:
        if self._clock() - self._warned >= WARN_SECONDS:
            self._warned = self._clock()
            log.warning(
                "%s has %d %s open, and gets no more (CROWDLEARN_%s): if it is a balancer, name it in "
                "CROWDLEARN_TRUSTED_PROXIES", owner, self._limit, self._kind, self._setting,
            )  # fmt: skip


def neighbours(address: str, proxies: Proxies) -> str | None:
    """The network of an address, whose addresses may all be one owner's; None for proxies, and for no address."""
    ip = parsed(address)
    if ip is None or address in proxies:
        return None
    return str(ipaddress.ip_network((ip, IPV6_PREFIX if ip.version == 6 else IPV4_NEIGHBOURS), strict=False))


def parsed(address: str) -> Address | None:
    """None for what is no address. An IPv4 address stays one where it comes over IPv6."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return None
    return getattr(ip, "ipv4_mapped", None) or ip


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise SetupError(
            f"CROWDLEARN_TRUSTED_PROXIES expects addresses and networks, such as 10.0.0.0/8, got {text!r}: {error}"
        ) from None


def _without_port(text: str) -> str:
    """Some proxies name a port: `192.0.2.1:80`, `[2001:db8::1]:80`."""
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text
