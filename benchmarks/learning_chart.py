"""Draws speed-up over replicas as SVG, both axes logarithmic. The same numbers give the same bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence

SIDE, MARGIN = 320, 40
FONT = 'font-family="sans-serif" font-size="11" fill="#555"'


def chart(points: Sequence[tuple[int, float | None]]) -> str:
    """(replicas, speed-up) as a line beside the line of perfect scaling."""
    most = max(replicas for replicas, _ in points)
    doublings = max(1.0, math.log2(most))

    def at(replicas: float, speedup: float) -> str:
        x = MARGIN + SIDE * math.log2(replicas) / doublings
        y = MARGIN + SIDE * (1 - max(0.0, math.log2(speedup)) / doublings)
        return f"{x:.1f},{y:.1f}"

    size = SIDE + 2 * MARGIN
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size} {size}" width="{size}" height="{size}">']
    lines.append(f'<rect width="{size}" height="{size}" fill="white"/>')
    for power in range(int(doublings) + 1):
        count = 1 << power
        x, bottom = at(count, 1).split(",")
        _, y = at(1, count).split(",")
        lines.append(f'<path d="M{MARGIN},{y}H{size - MARGIN}M{x},{MARGIN}V{bottom}" stroke="#e5e5e5"/>')
        lines.append(f'<text x="{x}" y="{size - MARGIN + 16}" text-anchor="middle" {FONT}>{count}</text>')
        lines.append(f'<text x="{MARGIN - 6}" y="{float(y) + 4:.1f}" text-anchor="end" {FONT}>{count}</text>')
    lines.append(f'<path d="M{at(1, 1)}L{at(most, most)}" stroke="#bbb" stroke-dasharray="4 4" fill="none"/>')
    measured = " ".join(at(replicas, speedup) for replicas, speedup in points if speedup is not None)
    lines.append(f'<polyline points="{measured}" stroke="#1565c0" stroke-width="2" fill="none"/>')
    lines.append(f'<text x="{size / 2}" y="{size - 6}" text-anchor="middle" {FONT}>replicas</text>')
    lines.append(f'<text x="{MARGIN}" y="{MARGIN - 14}" {FONT}>speed-up in time to accuracy</text>')
    return "\n".join([*lines, "</svg>", ""])
