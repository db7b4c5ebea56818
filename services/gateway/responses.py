"""Turns what is found into HTTP responses: compression, revalidation and JSON errors. Finds nothing."""

from __future__ import annotations

import gzip
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from services.gateway.bundle import Asset

IMMUTABLE = "public, max-age=31536000, immutable"
REVALIDATED = "no-cache"

MIN_GZIP_BYTES = 1400
"""What fits into one packet gains nothing from compression."""


def served(request: Request, asset: Asset, caching: str) -> Response:
    """An asset, or 304 if the browser has it."""
    headers = {"Cache-Control": caching, "ETag": asset.etag, "Vary": "Accept-Encoding"}
    if asset.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    if not _takes_gzip(request):
        return Response(asset.body, headers=headers, media_type=asset.media_type)
    return Response(asset.gzipped, headers={**headers, "Content-Encoding": "gzip"}, media_type=asset.media_type)


def json(request: Request, value: Any, *, status_code: int = 200, caching: str = "no-store") -> Response:
    """A value as JSON."""
    body = msgspec.json.encode(value)
    headers = {"Cache-Control": caching, "Vary": "Accept-Encoding"}
    if len(body) >= MIN_GZIP_BYTES and _takes_gzip(request):
        # Level 1: it is done for every request, and takes most of what there is to gain.
        body, headers["Content-Encoding"] = gzip.compress(body, 1), "gzip"
    return Response(body, status_code, headers, "application/json")


def error(request: Request, status_code: int, message: str) -> Response:
    """A failure, as `{"error": message}`."""
    return json(request, {"error": message}, status_code=status_code)


def _takes_gzip(request: Request) -> bool:
    return "gzip" in request.headers.get("accept-encoding", "")
