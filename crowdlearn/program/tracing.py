"""Holds JAX to one set of rules while functions of the user are traced or run, whatever flags a script has set.

Flags that change which random numbers are drawn are left alone: `keys` refuses what browsers would draw otherwise.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any

RULES: dict[str, Any] = {
    "enable_x64": False,  # wide types do not exist in browsers
    "numpy_dtype_promotion": "standard",  # what follows warns or raises, and changes no value
    "numpy_rank_promotion": "allow",
    "default_matmul_precision": None,
    "debug_nans": False,
    "debug_infs": False,
    "debug_key_reuse": False,
    "check_tracer_leaks": False,
    "disable_jit": False,
    "legacy_prng_key": "allow",
    "transfer_guard": "allow",
    "no_tracing": False,
}
"""The flags of JAX, by the names of their context managers, and what they are while we trace."""

NARROW = {"float64": "float32", "int64": "int32", "uint64": "uint32"}
"""What types become that a script has made with x64 switched on."""


@contextmanager
def as_browsers(jax: Any) -> Iterator[None]:
    """Within it JAX has the types that browsers have, and no flag of a script makes it raise."""
    with ExitStack() as stack, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Explicitly requested dtype")
        for name, value in RULES.items():
            # Some come and go with JAX's versions.
            rule = getattr(jax, name, None)
            if rule is not None:
                stack.enter_context(rule(value))
        yield


@contextmanager
def narrow_from_the_start() -> Iterator[None]:
    """Within it a script that switches x64 on makes float32 arrays all the same, from when it imports JAX.

    JAX itself is not imported: a script may say before which platform it takes.
    """
    with ExitStack() as stack:
        finder = _Finder(stack)
        if "jax" in sys.modules:
            finder.narrow()
        else:
            sys.meta_path.insert(0, finder)
            stack.callback(finder.leave)
        yield


class _Finder(MetaPathFinder):
    """Sees JAX being imported, and switches x64 off once it is."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:  # noqa: ARG002
        if name != "jax":
            return None
        self.leave()
        spec = PathFinder.find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self)
        return spec

    def leave(self) -> None:
        """Watches no longer."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def narrow(self) -> None:
        """Switches x64 off for this thread, whatever the flag says, until the script has run."""
        import jax

        self._stack.enter_context(as_browsers(jax))


class _Loader(Loader):
    def __init__(self, loader: Any, finder: _Finder) -> None:
        self._loader, self._finder = loader, finder

    def create_module(self, spec: ModuleSpec) -> Any:
        return self._loader.create_module(spec)

    def exec_module(self, module: Any) -> None:
        self._loader.exec_module(module)
        self._finder.narrow()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)
