"""Shows what `crowdlearn check` found in a terminal. Judges nothing."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from services.cli.verdict import BackendReport, Report


def show(report: Report, console: Console) -> None:
    """Prints the report."""
    console.print(_contents(report))
    if report.backends:
        console.print()
        console.print(_speeds(report))
    console.print()
    # Shapes and what browsers say may look like markup.
    console.print(report.verdict, style=f"bold {'green' if report.fit else 'red'}", markup=False, highlight=False)
    for note in report.notes:
        console.print(f"- {note}", markup=False, highlight=False)


def _contents(report: Report) -> Table:
    table = Table(title=f"Job {report.job}", title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    arrays = f"{report.parameters:,} in {_many(report.parameter_arrays, 'array')}, {_many(report.shards, 'shard')}"
    table.add_row("parameters", arrays)
    table.add_row("minibatch", escape(", ".join(f"{name} {kind}" for name, kind in report.batch.items())))
    table.add_row("a push", f"{_size(report.bytes_per_push)} up; a fetch {_size(report.bytes_per_fetch)} down")
    if report.equations is None or report.flops is None or report.largest_value_bytes is None:
        table.add_row("module", f"{_size(report.program_bytes)} of JavaScript")
        return table
    table.add_row("program", f"{_many(report.equations, 'equation')}, {_size(report.program_bytes)} of JSON")
    table.add_row("arithmetic", f"about {report.flops / 1e6:,.1f} million operations a step")
    table.add_row("largest value", f"{escape(report.largest_value or '')}, {_size(report.largest_value_bytes)}")
    table.add_row("primitives", ", ".join(f"{name} {count}" for name, count in report.primitives.items()))
    return table


def _speeds(report: Report) -> Table:
    table = Table("", "error", "ms a step", "fastest", "first", "of JAX", "on", box=None, padding=(0, 2, 0, 0))
    for column in table.columns[1:6]:
        column.justify = "right"
    if report.native_step_ms is not None:
        table.add_row("JAX here", "", _milliseconds(report.native_step_ms), "", "", "1.0", "processor")
    for name, backend in report.backends.items():
        table.add_row(name, *_cells(backend))
    return table


def _cells(backend: BackendReport) -> tuple[str, ...]:
    if not backend.available or backend.first_step_ms is None:
        return "", "", "", "", "", escape(f"{'failed' if backend.available else 'not here'}: {backend.reason}")
    error = "none" if backend.max_relative_error is None else f"{backend.max_relative_error:.1e}"
    return (
        error if backend.agrees else f"[red]{error}[/]",
        _milliseconds(backend.step_ms),
        _milliseconds(backend.fastest_step_ms),
        _milliseconds(backend.first_step_ms),
        "" if backend.ratio_to_native is None else f"{backend.ratio_to_native:,.1f}",
        "software in place of a GPU" if backend.is_software else escape(str(backend.processor)),
    )


def _milliseconds(value: float | None) -> str:
    return "" if value is None else f"{value:,.1f}" if value >= 1 else f"{value:.2f}"


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 1e6 else f"{count / 1e3:,.1f} KB" if count >= 1e3 else f"{count} bytes"
