"""Guards the floors of DESIGN.md: imports go downwards, services never import each other, Redis stays in the store."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

FLOORS = {
    0: ("crowdlearn.protocol", "crowdlearn.errors", "crowdlearn.settings", "crowdlearn.metrics", "crowdlearn.logs"),
    1: (
        "crowdlearn.job", "crowdlearn.job_file", "crowdlearn.dataset", "crowdlearn.chunks", "crowdlearn.weights",
        "crowdlearn.program", "crowdlearn.optim", "crowdlearn.sharding", "crowdlearn.codecs", "crowdlearn.precision",
        "crowdlearn.frames", "crowdlearn.spec", "crowdlearn.contents",
        "crowdlearn.schedule", "crowdlearn.identity", "crowdlearn.files", "crowdlearn.snapshot",
        "crowdlearn.checkpoint", "crowdlearn.divergence", "crowdlearn.module", "crowdlearn.torch", "crowdlearn.arrays",
        "crowdlearn.data", "crowdlearn.stream", "crowdlearn.fields", "crowdlearn.ledger", "crowdlearn.sources",
        "crowdlearn.spool",
    ),
    2: ("crowdlearn.store",),
    3: ("crowdlearn.client", "crowdlearn.replica"),
    4: ("services.gateway", "services.aggregator", "services.preprocessor", "services.evaluator",
        "services.checkpointer"),
    5: ("services.cli", "services.embedded"),
}  # fmt: skip

ONLY_IN = {
    "redis": ("crowdlearn.store",),
    "fakeredis": ("crowdlearn.store",),
    "starlette": ("services.gateway",),
    "uvicorn": ("services.gateway",),
    "playwright": ("services.cli",),
    "fsspec": ("crowdlearn.files",),
    "onnx": ("crowdlearn.program",),
    "jax": ("crowdlearn.program", "crowdlearn.job", "crowdlearn.dataset", "crowdlearn.torch", "services.evaluator"),
    "torch": ("crowdlearn.torch",),
}


def modules() -> dict[str, Path]:
    """Every module of the library and the services by its name."""
    files = [path for top in ("crowdlearn", "services") for path in (ROOT / top).rglob("*.py")]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in files}


def imports(path: Path, module: str) -> Iterator[str]:
    """The names that a file imports, but for what only type checkers see."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*package.split(".")[: len(package.split(".")) - node.level + 1], base]).rstrip(".")
            names = [f"{base}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else base for name in names)


MODULES = modules()


def within(module: str, place: str) -> bool:
    return module == place or module.startswith(f"{place}.")


def floor(module: str) -> int | None:
    return next((n for n, places in FLOORS.items() for place in places if within(module, place)), None)


def edges() -> Iterator[tuple[str, str]]:
    for module, path in MODULES.items():
        for target in imports(path, module):
            yield module, target


def test_every_module_has_a_floor() -> None:
    packages = {"crowdlearn", "services"}
    assert [module for module in MODULES if floor(module) is None and module not in packages] == []


def test_imports_go_downwards() -> None:
    ours = [(a, b) for a, b in edges() if floor(a) is not None and floor(b) is not None]
    assert [f"{a} imports {b}" for a, b in ours if (floor(b) or 0) > (floor(a) or 0)] == []


def test_services_never_import_each_other() -> None:
    def service(module: str) -> str:
        return ".".join(module.split(".")[:2])

    across = [(a, b) for a, b in edges() if floor(a) == floor(b) == 4 and service(a) != service(b)]
    assert across == []


def test_modules_have_no_cycles() -> None:
    graph: dict[str, set[str]] = {module: set() for module in MODULES}
    for a, b in edges():
        # A package's own modules may be gathered in its __init__.
        if b in MODULES and a != b and not a.startswith(f"{b}."):
            graph[a].add(b)
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the cycle


def test_no_function_has_more_than_forty_lines() -> None:
    functions = [
        (f"{module}.{node.name}", (node.end_lineno or 0) - node.lineno + 1)
        for module, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert [f"{name} has {lines}" for name, lines in functions if lines > 40] == []


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_stays_where_it_belongs(library: str) -> None:
    users = {a for a, b in edges() if within(b, library)}
    assert [user for user in users if not any(within(user, place) for place in ONLY_IN[library])] == []


@pytest.mark.parametrize("service", ["gateway", "aggregator"])
def test_a_service_starts_without_jax(service: str) -> None:
    code = (
        "import sys\n"
        "for name in ('jax', 'sklearn', 'playwright'): sys.modules[name] = None\n"
        f"sys.argv = ['crowdlearn', '{service}', '--help']\n"
        "from services.cli import main\n"
        f"import services.{service}\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout
