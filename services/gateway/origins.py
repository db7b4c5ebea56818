"""Decides which web pages may use the service: any page may ask what is on its visitor's machine or in his network."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

EVERY = "*"
"""Among the allowed origins: those of all pages."""

PROBES = ("/healthz", "/readyz")
"""Balancers ask these under whatever name they have."""


def origin_allowed(headers: Headers, allowed: Sequence[str]) -> bool:
    """Whether a page of the request's origin may use the service.

    Programs send no Origin and may. The gateway's own page may: it comes from the host that it asks. A proxy in front
    may speak another scheme, so only host and port are compared; one that asks under a name of its own says in
    X-Forwarded-Host, which no page can set on a socket, for which one it was asked.
    """
    origin = headers.get("origin")
    if origin is None or EVERY in allowed or origin in allowed:
        return True
    asked = {headers.get("host"), headers.get("x-forwarded-host")}
    return _place(origin) in asked


def host_allowed(scope: Scope, allowed: Sequence[str]) -> bool:
    """Whether a request on a loopback address was meant for one.

    A page whose own name leads to 127.0.0.1 is of the same origin as what it asks there (DNS rebinding). Names of this
    machine, and those of allowed origins for a proxy on it, may be asked for.
    """
    host = Headers(scope=scope).get("host")
    if host is None or EVERY in allowed or not _is_loopback((scope.get("server") or ("",))[0]):
        return True
    name = urlsplit(f"//{host}").hostname if _place(f"http://{host}") is not None else None
    return name is not None and (_is_loopback(name) or host in {_place(origin) for origin in allowed})


def _place(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:  # such as "http://[", which no browser sends
        return None


def _is_loopback(name: str) -> bool:
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


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
                f"this gateway listens on a loopback address and expects its name, such as localhost, got {host}: "
                f"if that is the name of a proxy here, add https://{host} to CROWDLEARN_ALLOWED_ORIGINS"
            )
            await JSONResponse({"error": refusal}, 403)(scope, receive, send)
