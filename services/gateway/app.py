"""The routes of the public port. There are no admin endpoints: operators act on Redis."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from crowdlearn import metrics
from crowdlearn.errors import StoreUnavailableError, UnknownJobError
from services.gateway.bundle import Bundle
from services.gateway.clients import Proxies, Quota, neighbours
from services.gateway.door import CrowdedError
from services.gateway.headers import ResponseHeaders
from services.gateway.health import Health
from services.gateway.origins import OwnHost, origin_allowed, require_origins
from services.gateway.pages import Pages
from services.gateway.responses import error
from services.gateway.socket import Gateway, ReplicaSocket

GOING_AWAY = 1012

TOO_MANY = JSONResponse({"error": "too many sockets of your address"}, 429, {"Retry-After": "2"})


class Entrance:
    """Where replicas come in: `WS /jobs/JOB/socket`."""

    def __init__(self, gateway: Gateway, health: Health, proxies: Proxies) -> None:
        self._gateway, self._health, self._proxies = gateway, health, proxies
        limit = gateway.settings.sockets_per_address
        self._open = Quota("sockets", "SOCKETS_PER_ADDRESS", limit, proxies)

    async def replica(self, websocket: WebSocket) -> None:
        """Serves one socket."""
        if not origin_allowed(websocket.headers, self._gateway.settings.allowed_origins):
            await websocket.close()  # before accept, this is HTTP 403
            return
        address = self._proxies.client(websocket)
        if not self._open.enter(address):
            metrics.CUT.labels("sockets").inc()
            await websocket.send_denial_response(TOO_MANY)
            return
        try:
            await self._serve(websocket, neighbours(address, self._proxies))
        finally:
            self._open.leave(address)

    async def _serve(self, websocket: WebSocket, network: str | None) -> None:
        await websocket.accept()
        # Starlette's copy, as the wire forgets uvicorn's.
        websocket.scope["headers"].clear()
        if self._health.closed:
            await websocket.close(GOING_AWAY)
            return
        await ReplicaSocket(self._gateway, websocket, websocket.path_params["job"], network).serve()


def build(gateway: Gateway, health: Health, bundle: Bundle, proxies: Proxies) -> Starlette:
    """The ASGI application of one gateway."""
    pages = Pages(gateway.store, bundle)
    entrance = Entrance(gateway, health, proxies)
    settings = gateway.settings
    require_origins(settings.allowed_origins)
    routes = [
        Route("/", pages.page),
        Route("/worker.js", pages.worker),
        Route("/worker.js.map", pages.worker),
        Route("/assets/{file}", pages.asset),
        Route("/jobs", pages.jobs),
        Route("/jobs/{job}", pages.job),
        Route("/jobs/{job}/{run}/program", pages.program),
        Route("/jobs/{job}/{run}/predict", pages.predict),
        Route("/jobs/{job}/{run}/contents", pages.contents),
        Route("/jobs/{job}/{run}/chunks/{chunk}", pages.chunk),
        WebSocketRoute("/jobs/{job}/socket", entrance.replica),
        Route("/healthz", health.alive),
        Route("/readyz", health.ready),
    ]
    headers = Middleware(
        ResponseHeaders, allowed_origins=settings.allowed_origins, isolated=settings.cross_origin_isolation
    )
    failures = {
        UnknownJobError: _not_found,
        StoreUnavailableError: _away,
        CrowdedError: _crowded,
        HTTPException: _refused,
    }
    own_host = Middleware(OwnHost, allowed_origins=settings.allowed_origins)
    return Starlette(routes=routes, middleware=[headers, own_host], exception_handlers=failures)


async def _not_found(request: Request, failure: Exception) -> Response:
    return error(request, 404, str(failure))


async def _away(request: Request, failure: Exception) -> Response:  # noqa: ARG001 - its text names the operator's Redis
    response = error(request, 503, "Redis is away; try again")
    response.headers["Retry-After"] = "1"
    return response


async def _crowded(request: Request, failure: Exception) -> Response:  # noqa: ARG001 - it has no text
    response = error(request, 503, "too many downloads wait; try again")
    response.headers["Retry-After"] = "1"
    return response


async def _refused(request: Request, failure: Exception) -> Response:
    assert isinstance(failure, HTTPException)
    return error(request, failure.status_code, f"{failure.detail}: {request.url.path}")
