"""A page that a job brings: what is served of it, and which scripts of its own it may run."""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass
from hashlib import sha256
from html.parser import HTMLParser

from starlette.requests import Request
from starlette.responses import Response

from services.gateway.bundle import MEDIA_TYPES, Asset, asset
from services.gateway.headers import content_security_policy
from services.gateway.responses import REVALIDATED, served

MOST_SCRIPTS = 32
"""Hashes in a header, which proxies want to be short; a page with more scripts has the others blocked."""


@dataclass(frozen=True)
class OwnPage:
    """A page as it is served. Its inline scripts run, by their hashes; what anything else puts into it does not."""

    asset: Asset
    policy: str

    @classmethod
    def of(cls, html: bytes) -> OwnPage:
        """That of a page in UTF-8."""
        # Browsers hash scripts with the line ends that HTML has.
        text = re.sub(r"\r\n?", "\n", html.decode())
        found = _Scripts()
        found.feed(text)
        found.close()
        return cls(asset(text.encode(), MEDIA_TYPES[".html"]), content_security_policy(found.hashes[:MOST_SCRIPTS]))

    def served(self, request: Request) -> Response:
        """The page, or 304 if the browser has it."""
        response = served(request, self.asset, REVALIDATED)
        response.headers["Content-Security-Policy"] = self.policy
        return response


class _Scripts(HTMLParser):
    """Finds the scripts in a page's text."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.hashes: list[str] = []
        self._text: list[str] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "script" and not any(name == "src" for name, _ in attrs):
            self._text = []

    def handle_data(self, data: str) -> None:
        if self._text is not None:
            self._text.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag == "script" and self._text is not None:
            digest = sha256("".join(self._text).encode()).digest()
            self.hashes.append(f"sha256-{b64encode(digest).decode()}")
            self._text = None
