"""Turns what is found into HTTP responses: compression, revalidation and JSON errors. Finds nothing."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from services.gateway.bodies import Body, encoded
from services.gateway.bundle import Asset

IMMUTABLE = "public, max-age=31536000, immutable"
REVALIDATED = "no-cache"


def served(request: Request, asset: Asset, caching: str) -> Response:
    """An asset, or 304 if the browser has it."""
    headers = {"Cache-Control": caching, "ETag": asset.etag, "Vary": "Accept-Encoding"}
    if asset.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    if not _takes_gzip(request):
        return Response(asset.body, headers=headers, media_type=asset.media_type)
    return Response(asset.gzipped, headers={**headers, "Content-Encoding": "gzip"}, media_type=asset.media_type)


def blob(request: Request, data: bytes, etag: str | None) -> Response:
    """Bytes that never change, or 304 if the browser has those of the `etag`. They are not compressed."""
    headers = {"Cache-Control": IMMUTABLE} | ({"ETag": etag} if etag else {})
    if etag is not None and etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(data, headers=headers, media_type="application/octet-stream")


def body(request: Request, found: Body, *, status_code: int = 200, caching: str = "no-store") -> Response:
    """What is JSON already."""
    headers = {"Cache-Control": caching, "Vary": "Accept-Encoding"}
    gzipped = found.gzipped if _takes_gzip(request) else None
    if gzipped is not None:
        headers["Content-Encoding"] = "gzip"
    return Response(gzipped or found.plain, status_code, headers, "application/json")


def json(request: Request, value: Any, *, status_code: int = 200) -> Response:
    """A value as JSON, for one who asks."""
    return body(request, encoded(value), status_code=status_code)


def error(request: Request, status_code: int, message: str) -> Response:
    """A failure, as `{"error": message}`."""
    return json(request, {"error": message}, status_code=status_code)


def _takes_gzip(request: Request) -> bool:
    return "gzip" in request.headers.get("accept-encoding", "")
