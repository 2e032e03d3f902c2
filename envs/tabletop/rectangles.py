"""Turned rectangles on the table: the footprints of things, and whether two of them keep clear of each other."""

from __future__ import annotations

import math

Rectangle = tuple[float, float, float, float, float]  # x, y, yaw, half length, half width


def clear(a: Rectangle, b: Rectangle, gap: float) -> bool:
    """Whether some side's direction separates two turned rectangles by more than ``gap`` metres."""
    dx, dy = b[0] - a[0], b[1] - a[1]
    if math.hypot(dx, dy) > math.hypot(a[3], a[4]) + math.hypot(b[3], b[4]) + gap:
        return True
    turn = b[2] - a[2]
    c, s = abs(math.cos(turn)), abs(math.sin(turn))
    for (_, _, yaw, length, width), (other_length, other_width) in ((a, b[3:]), (b, a[3:])):
        cy, sy = math.cos(yaw), math.sin(yaw)
        if abs(dx * cy + dy * sy) > length + other_length * c + other_width * s + gap:
            return True
        if abs(dy * cy - dx * sy) > width + other_length * s + other_width * c + gap:
            return True
    return False
