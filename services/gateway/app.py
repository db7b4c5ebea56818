"""The routes of the public port. There are no admin endpoints: operators act on Redis."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from crowdlearn.errors import StoreUnavailableError, UnknownJobError
from services.gateway.bundle import Bundle
from services.gateway.headers import ResponseHeaders
from services.gateway.health import Health
from services.gateway.origins import OwnHost, origin_allowed, require_origins
from services.gateway.pages import Pages
from services.gateway.responses import error
from services.gateway.socket import Gateway, ReplicaSocket

GOING_AWAY = 1012


def build(gateway: Gateway, health: Health, bundle: Bundle) -> Starlette:
    """The ASGI application of one gateway."""
    pages = Pages(gateway.store, bundle)
    settings = gateway.settings
    require_origins(settings.allowed_origins)

    async def replica(websocket: WebSocket) -> None:
        if not origin_allowed(websocket.headers, settings.allowed_origins):
            await websocket.close()  # before accept, this is HTTP 403
            return
        await websocket.accept()
        # Starlette's copy, as the wire forgets uvicorn's.
        websocket.scope["headers"].clear()
        if health.closed:
            await websocket.close(GOING_AWAY)
            return
        await ReplicaSocket(gateway, websocket, websocket.path_params["job"]).serve()

    routes = [
        Route("/", pages.page),
        Route("/worker.js", pages.worker),
        Route("/worker.js.map", pages.worker),
        Route("/assets/{file}", pages.asset),
        Route("/jobs", pages.jobs),
        Route("/jobs/{job}", pages.job),
        Route("/jobs/{job}/{run}/program", pages.program),
        Route("/jobs/{job}/{run}/chunks/{index}", pages.chunk),
        WebSocketRoute("/jobs/{job}/socket", replica),
        Route("/healthz", health.alive),
        Route("/readyz", health.ready),
    ]
    headers = Middleware(
        ResponseHeaders, allowed_origins=settings.allowed_origins, isolated=settings.cross_origin_isolation
    )
    failures = {UnknownJobError: _not_found, StoreUnavailableError: _away, HTTPException: _refused}
    own_host = Middleware(OwnHost, allowed_origins=settings.allowed_origins)
    return Starlette(routes=routes, middleware=[headers, own_host], exception_handlers=failures)


async def _not_found(request: Request, failure: Exception) -> Response:
    return error(request, 404, str(failure))


async def _away(request: Request, failure: Exception) -> Response:  # noqa: ARG001 - its text names the operator's Redis
    response = error(request, 503, "Redis is away; try again")
    response.headers["Retry-After"] = "1"
    return response


async def _refused(request: Request, failure: Exception) -> Response:
    assert isinstance(failure, HTTPException)
    return error(request, failure.status_code, f"{failure.detail}: {request.url.path}")
