"""Imports JAX when it is first needed: gateways and aggregators run without it."""

from __future__ import annotations

import importlib
from typing import Any

from crowdlearn.errors import SetupError


def import_jax() -> Any:
    """The module `jax`.

    Raises:
        SetupError: it is not installed.
    """
    return _import("jax")


def import_export() -> Any:
    """The module `jax.export`, with what it needs to write functions as bytes.

    Raises:
        SetupError: JAX or flatbuffers is not installed.
    """
    _import("flatbuffers")
    return _import("jax.export")


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise SetupError(
            f"models need {name.split('.')[0]}, which is not installed: pip install crowdlearn[jax]"
        ) from error
