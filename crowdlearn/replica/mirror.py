"""Fetches chunks from where a job's author has put them; where that fails, the gateway is asked. Keeps no chunk."""

from __future__ import annotations

import logging

from crowdlearn.errors import CrowdLearnError
from crowdlearn.protocol import Grant
from crowdlearn.replica.gateway import RefusedError, download, verified

log = logging.getLogger(__name__)

MOST_FAILURES = 3
"""In a row: after so many nothing more is asked there, for each would be waited for."""


class Mirror:
    """The chunks at `url`, an address that ends with a slash, by their names."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._failures, self._has_told = 0, False

    async def chunk(self, grant: Grant) -> bytes | None:
        """A leased chunk, verified; None if it cannot be had here."""
        if grant.sha256 is None or self._failures >= MOST_FAILURES:
            return None
        try:
            # An address of another kind may be a file of this machine.
            if not self.url.startswith(("http://", "https://")):
                raise RefusedError(f"expected an address such as https://cdn.example/digits/, got {self.url!r}")
            body = verified(await download(f"{self.url}{grant.sha256}"), grant, self.url)
        except CrowdLearnError as error:
            self._failures += 1
            if not self._has_told:
                log.warning("chunks cannot be had from %s, and come from the gateway: %s", self.url, error)
            self._has_told = True
            return None
        self._failures = 0
        return body
