"""Puts the browser bundle into wheels. An editable install reads it from web_worker/dist, built or not yet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class BundleHook(BuildHookInterface):  # type: ignore[type-arg]
    """Adds web_worker/dist as services/gateway/bundle, and what runs in Node as crowdlearn/module/bundle."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before a wheel is built; `version` is `editable` or `standard`."""
        bundle = Path(self.root) / "web_worker" / "dist"
        if version == "editable":
            return
        if not bundle.is_dir():
            raise FileNotFoundError(f"{bundle} is missing: build it first with `npm ci && npm run build` in web_worker")
        # Not the tests of the bundle, which lie in dist as well. The image's layer of dependencies has none of it yet.
        for part in sorted(bundle.iterdir()):
            if part.name == "node":
                build_data["force_include"][str(part)] = "crowdlearn/module/bundle"
            elif part.name != "test":
                build_data["force_include"][str(part)] = f"services/gateway/bundle/{part.name}"
