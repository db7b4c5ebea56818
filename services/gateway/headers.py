"""Adds to every HTTP response who may use it, and what a page of it may do."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.gateway.origins import EVERY, origin_allowed


def content_security_policy(scripts: Sequence[str] = ()) -> str:
    """What a page may do; `scripts` are the hashes of those that it has inline."""
    inline = "".join(f" '{script}'" for script in scripts)
    return "; ".join(
        (
            "default-src 'self'",
            # A model may be an ES module that arrives as text; kernels are WebAssembly that is made in the browser.
            f"script-src 'self' blob: 'wasm-unsafe-eval'{inline}",
            "worker-src 'self' blob:",
            # A job's chunks may be on any server.
            "connect-src 'self' https: http: ws: wss: blob: data:",
            "img-src 'self' data: blob:",
            "style-src 'self' 'unsafe-inline'",
            "object-src 'none'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'self'",
        )
    )


ALWAYS = {
    "Content-Security-Policy": content_security_policy(),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "cross-origin",
}

ISOLATION = {
    # Shared memory, and with it multi-threaded WebAssembly, needs both on the page and on its workers' scripts.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
}


class ResponseHeaders:
    """ASGI middleware; touches no websocket."""

    def __init__(self, app: ASGIApp, allowed_origins: Sequence[str], isolated: bool) -> None:
        self._app, self._allowed = app, allowed_origins
        self._fixed = ALWAYS | (ISOLATION if isolated else {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Headers(scope=scope)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._add(MutableHeaders(scope=message), request)
            await send(message)

        await self._app(scope, receive, send_with_headers)

    def _add(self, response: MutableHeaders, request: Headers) -> None:
        for name, value in self._fixed.items():
            # A job's own page runs scripts of its own.
            response.setdefault(name, value)
        if EVERY in self._allowed:
            response["Access-Control-Allow-Origin"] = "*"
            return
        response.add_vary_header("Origin")
        origin = request.get("origin")
        if origin is not None and origin_allowed(request, self._allowed):
            response["Access-Control-Allow-Origin"] = origin
