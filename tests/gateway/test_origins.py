"""Which pages may use a gateway, by what a browser and a proxy say."""

from __future__ import annotations

import socket

import pytest
from starlette.datastructures import Headers

from crowdlearn.errors import SetupError
from services.gateway.origins import host_allowed, origin_allowed, require_origins


@pytest.mark.parametrize(
    ("origin", "host", "forwarded", "allowed"),
    [
        (None, "x.org", None, True),
        ("https://x.org", "x.org", None, True),
        ("https://x.org", "X.org:443", None, True),
        ("http://x.org", "x.org:80", None, True),
        ("https://x.org:8443", "x.org:8443", None, True),
        ("https://x.org:8443", "x.org", None, True),
        ("https://x.org", "inside:8000", "x.org", True),
        ("https://x.org", "inside:8000", "x.org, proxy.example", True),
        ("https://[2001:db8::1]:8443", "[2001:db8::1]:8443", None, True),
        ("https://evil.example", "x.org", None, False),
        ("https://x.org.evil.example", "x.org", None, False),
        ("http://localhost:9000", "localhost:8000", None, False),
        ("https://x.org", "x.org:8443", None, False),
        ("null", "x.org", None, False),
        ("http://[", "x.org", None, False),
        ("http://[", "[", None, False),
        ("", "", None, False),
    ],
)
def test_a_page_may_ask_the_host_it_comes_from(origin: str, host: str, forwarded: str, allowed: bool) -> None:
    said = {"origin": origin, "host": host, "x-forwarded-host": forwarded}
    headers = Headers({name: value for name, value in said.items() if value is not None})
    assert origin_allowed(headers, ()) is allowed
    assert origin_allowed(headers, ("*",))


@pytest.mark.parametrize(
    ("server", "host", "allowed"),
    [
        ("127.0.0.1", "localhost:8000", True),
        ("127.0.0.1", "LOCALHOST.", True),
        ("127.0.1.1", socket.gethostname(), True),
        ("::1", "[::1]:8000", True),
        ("::ffff:127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "ours.example:9000", True),
        ("127.0.0.1", None, True),
        ("10.0.0.7", "evil.example", True),
        ("/run/gateway.sock", "evil.example", True),
        ("127.0.0.1", "evil.example", False),
        ("::1", "evil.example", False),
        ("::ffff:127.0.0.1", "evil.example", False),
        ("127.0.0.1", "localhost.evil.example", False),
        ("127.0.0.1", "[", False),
    ],
)
def test_on_loopback_only_names_of_this_machine_are_asked_for(server: str, host: str | None, allowed: bool) -> None:
    headers = [] if host is None else [(b"host", host.encode())]
    scope = {"type": "http", "server": (server, 8000), "headers": headers}
    assert host_allowed(scope, ("https://ours.example",)) is allowed
    assert host_allowed(scope, ("*",))


@pytest.mark.parametrize("origin", ["https://x.org/", "x.org", "https://x.org/page", "http://[", ""])
def test_an_origin_that_no_browser_sends_is_refused_at_the_start(origin: str) -> None:
    require_origins(("*", "https://x.org", "http://localhost:3000"))
    with pytest.raises(SetupError, match="expects a scheme and a host"):
        require_origins((origin,))
