"""The results' names and numbers as a reader would say them, on the terminal and on the pages."""

from __future__ import annotations

from typing import Any

__all__ = ["counted", "interval", "number", "outcome", "p_text", "pairs", "percent", "points", "span", "words"]

_SAID = {
    "en": "English",
    "zh": "Chinese",
    "table_force": "force on the table",
    "bystander_force": "force on what was not asked for",
    "drops": "items that slipped from the grip",
}


def words(name: str) -> str:
    """A key of the results as a reader would say it; ``_n`` at its end is newtons."""
    if name.endswith("_n"):
        return f"{words(name.removesuffix('_n'))} (N)"
    return _SAID.get(name, name.replace("_", " "))


def percent(share: float | None) -> str:
    """A share as a percentage; a dash where there is none."""
    return "–" if share is None else f"{share * 100:.1f} %".replace(".0 %", " %")


def points(difference: float | None) -> str:
    """A difference of two shares in percentage points, with its sign; a dash where there is none."""
    return "–" if difference is None else f"{difference * 100:+.1f} points"


def interval(rate: dict[str, Any]) -> str:
    """A rate's interval in per cent."""
    return f"{rate['low'] * 100:.0f}–{rate['high'] * 100:.0f} %"


def number(value: float | None, unit: str = "") -> str:
    """A number with as many places as matter; a dash where there is none."""
    if value is None:
        return "–"
    return f"{value:.0f}{unit}" if abs(value) >= 100 else f"{value:.1f}{unit}"


def outcome(success: bool) -> str:
    """An outcome in one word."""
    return "success" if success else "failure"


def counted(counts: dict[str, int]) -> str:
    """How often each thing happened, e.g. ``3 × dropped, 1 × too slow``."""
    return ", ".join(f"{count} × {name}" for name, count in counts.items())


def pairs(values: dict[str, Any] | None) -> str:
    """Names and their values in a line, e.g. ``numpy 2.2.6, torch 2.9.0``, without those that are None."""
    return ", ".join(f"{name} {value}" for name, value in (values or {}).items() if value is not None)


def span(found: dict[str, Any]) -> str:
    """A difference's interval in percentage points."""
    if found["low"] is None:
        return "no interval: no episode varies"
    return f"{found['low'] * 100:+.1f} to {found['high'] * 100:+.1f}"


def p_text(p_value: float) -> str:
    """A p value with four places."""
    return "< 0.0001" if p_value < 0.0001 else f"{p_value:.4f}"


def across_seeds(summary: dict[str, Any]) -> list[str]:
    """A line for each score that a run of several seeds has the mean of; none for a run of one."""
    return [
        f"{words(name)} over {one['n']} seeds: {percent(one['mean'])}, standard deviation {one['std'] * 100:.1f} points"
        for name, one in summary.get("across_seeds", {}).items()
    ]
