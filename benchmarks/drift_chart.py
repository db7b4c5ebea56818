"""Draws accuracy over rows as SVG, a line for each pool. The same numbers give the same bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

WIDTH, HEIGHT, MARGIN = 560, 240, 48
FONT = 'font-family="sans-serif" font-size="11" fill="#555"'
COLOURS = ("#1565c0", "#2e7d32", "#c62828")


def chart(lines: Mapping[str, Sequence[float]], rows: int, turn: int) -> str:
    """Shares between 0 and 1, one each `rows` rows; at the point `turn` the truth turns."""
    points = max(map(len, lines.values()))

    def at(index: float, value: float) -> str:
        return f"{MARGIN + WIDTH * index / (points - 1):.1f},{MARGIN + HEIGHT * (1 - value):.1f}"

    width, height = WIDTH + 2 * MARGIN, HEIGHT + 2 * MARGIN
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
    ]
    drawn.append(f'<rect width="{width}" height="{height}" fill="white"/>')
    for percent in range(0, 101, 25):
        _, y = at(0, percent / 100).split(",")
        drawn.append(f'<path d="M{MARGIN},{y}H{width - MARGIN}" stroke="#e5e5e5"/>')
        drawn.append(f'<text x="{MARGIN - 6}" y="{float(y) + 4:.1f}" text-anchor="end" {FONT}>{percent} %</text>')
    for index in range(0, points, 20):
        x, _ = at(index, 0).split(",")
        drawn.append(f'<text x="{x}" y="{height - MARGIN + 16}" text-anchor="middle" {FONT}>{index * rows:,}</text>')
    x, _ = at(turn, 0).split(",")
    drawn.append(f'<path d="M{x},{MARGIN}V{height - MARGIN}" stroke="#bbb" stroke-dasharray="4 4"/>')
    drawn.append(f'<text x="{x}" y="{MARGIN - 6}" text-anchor="middle" {FONT}>the truth turns</text>')
    for number, (name, values) in enumerate(lines.items()):
        colour, line = COLOURS[number], " ".join(at(index, value) for index, value in enumerate(values))
        drawn.append(f'<polyline points="{line}" stroke="{colour}" stroke-width="2" fill="none"/>')
        left, low = width - MARGIN - 90, height - MARGIN - 16 * (len(lines) - number)
        drawn.append(f'<path d="M{left},{low - 4}h20" stroke="{colour}" stroke-width="2"/>')
        drawn.append(f'<text x="{left + 26}" y="{low}" {FONT}>{name}</text>')
    drawn.append(f'<text x="{width / 2}" y="{height - 6}" text-anchor="middle" {FONT}>rows</text>')
    drawn.append(f'<text x="{MARGIN}" y="{MARGIN - 22}" {FONT}>progressive accuracy</text>')
    return "\n".join([*drawn, "</svg>", ""])
