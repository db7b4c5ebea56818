"""Decides which web pages may use the service: any page may ask what is on its visitor's machine or in his network."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from crowdlearn.errors import SetupError

EVERY = "*"
"""Among the allowed origins: those of all pages."""

PROBES = ("/healthz", "/readyz")
"""Balancers ask these under whatever name they have."""

DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}

Place = tuple[str, int | None]
"""A host in lower case, and its port; None where it is left out, or is that of the scheme."""


def require_origins(allowed: Sequence[str]) -> None:
    """Raises SetupError unless each is an origin as browsers send it, or `*`: others would let nobody in."""
    for origin in allowed:
        is_bare = _place(origin) is not None and origin == f"{urlsplit(origin).scheme}://{urlsplit(origin).netloc}"
        if origin != EVERY and not is_bare:
            raise SetupError(
                "CROWDLEARN_ALLOWED_ORIGINS expects a scheme and a host, such as https://example.org, or *, "
                f"got {origin!r}"
            )


def origin_allowed(headers: Headers, allowed: Sequence[str]) -> bool:
    """Whether a page of the request's origin may use the service.

    Programs send no Origin and may. The gateway's own page may: it comes from the host that it asks. A proxy in front
    may speak another scheme and listen on another port, which it may leave out; one that asks under a name of its own
    says in X-Forwarded-Host, which no page can set on a socket, for which one it was asked.
    """
    origin = headers.get("origin")
    if origin is None or EVERY in allowed or origin in allowed:
        return True
    page = _place(origin)
    if page is None:
        return False
    names = [headers.get("host", ""), *headers.get("x-forwarded-host", "").split(",")]
    asked = {_place(f"{urlsplit(origin).scheme}://{name.strip()}") for name in names}
    return page in asked or (page[0], None) in asked


def host_allowed(scope: Scope, allowed: Sequence[str]) -> bool:
    """Whether a request on a loopback address was meant for one.

    A page whose own name leads to 127.0.0.1 is of the same origin as what it asks there (DNS rebinding). Names of this
    machine, and those of allowed origins for a proxy on it, may be asked for.
    """
    host = Headers(scope=scope).get("host")
    if host is None or EVERY in allowed or not _is_loopback((scope.get("server") or ("",))[0]):
        return True
    place = _place(f"http://{host}")
    return place is not None and (_is_own(place[0]) or place[0] in {(_place(each) or ("",))[0] for each in allowed})


def _place(origin: str) -> Place | None:
    """None for what no browser sends, such as `http://[`."""
    try:
        parts = urlsplit(origin)
        name, port = parts.hostname, parts.port
    except ValueError:
        return None
    return None if not name else (name.rstrip("."), None if port == DEFAULT_PORTS.get(parts.scheme) else port)


def _is_own(name: str) -> bool:
    local = name == "localhost" or name.endswith(".localhost") or _is_loopback(name)
    return local or name == socket.gethostname().lower()


def _is_loopback(address: str) -> bool:
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    return (getattr(ip, "ipv4_mapped", None) or ip).is_loopback


class OwnHost:
    """ASGI middleware: refuses what was not meant for this machine."""

    def __init__(self, app: ASGIApp, allowed_origins: Sequence[str]) -> None:
        self._app, self._allowed = app, allowed_origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["path"] in PROBES or host_allowed(scope, self._allowed):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})  # before accept, this is HTTP 403
        else:
            host = Headers(scope=scope).get("host")
            refusal = (
                "this gateway was asked on a loopback address and expects a name of this machine, such as localhost, "
                f"got {host}: if that is the name of a proxy or tunnel here, add https://{host} to "
                "CROWDLEARN_ALLOWED_ORIGINS"
            )
            await JSONResponse({"error": refusal}, 403)(scope, receive, send)
