"""The robustness suite's part of ``report.html``: a bar for each axis and strength, and success against delay."""

from __future__ import annotations

from typing import Any

from vla.eval.pages.style import bar_row, escape, interval, percent
from vla.perturb.axes import AXES


def robustness(summary: dict[str, Any]) -> str:
    """The section; empty where the evaluation was no suite."""
    suite = summary.get("suite")
    if not suite:
        return ""
    groups = [
        f"<h3>{escape(axis)}</h3><p class='hint'>{escape(AXES.get(axis, ''))}</p>"
        + "".join(
            bar_row(rate, strength) + _failures(summary.get("suite_failures", {}).get(axis, {}).get(strength))
            for strength, rate in strengths.items()
        )
        for axis, strengths in suite.items()
    ]
    unfinished = summary.get("suite_unfinished")
    note = f'<p class="note">Not finished: {escape(unfinished)}.</p>' if unfinished else ""
    base = bar_row(summary["success"], "unperturbed") + _failures(summary.get("failures"))
    return (
        f"<section><h2>Robustness</h2><p>{_retained(summary)} All parts play the same seeds.</p>{note}"
        f"{base}{''.join(groups)}{_delay_curve(summary.get('delay_ms'))}</section>"
    )


def _failures(counts: dict[str, int] | None) -> str:
    """A line below a bar: how often it failed for each reason."""
    if not counts:
        return ""
    told = ", ".join(f"{count} × {reason}" for reason, count in counts.items())
    return f'<p class="below">failures: {escape(told)}</p>'


def _retained(summary: dict[str, Any]) -> str:
    if summary.get("retained") is None:
        return "Nothing succeeded unperturbed, so no share of it can be retained."
    low, high = summary["retained_interval"]
    return (
        f"At medium strength <b>{percent(summary['retained'])}</b> of the unperturbed success is retained "
        f"(95 % bootstrap interval {percent(low)} to {percent(high)}), mean over the axes."
    )


def _delay_curve(delays: dict[str, Any] | None) -> str:
    """Success against the mean injected delay: dots, a line through them, and the intervals as a band."""
    if not delays:
        return ""
    last = max(float(ms) for ms in delays)
    places = {ms: 46 + 430 * float(ms) / last for ms in delays}

    def height(share: float) -> float:
        return 150 - 130 * share

    band = [f"{places[ms]:.1f},{height(rate['high']):.1f}" for ms, rate in delays.items()]
    band += [f"{places[ms]:.1f},{height(rate['low']):.1f}" for ms, rate in reversed(delays.items())]
    line = "L".join(f"{places[ms]:.1f} {height(rate['rate']):.1f}" for ms, rate in delays.items())
    dots = "".join(
        f'<circle class="bar" cx="{places[ms]:.1f}" cy="{height(rate["rate"]):.1f}" r="4"><title>{ms} ms: '
        f"{percent(rate['rate'])}, {interval(rate)}, n = {rate['n']}</title></circle>"
        f'<text x="{places[ms]:.1f}" y="164">{ms} ms</text>'
        for ms, rate in delays.items()
    )
    scale = "".join(
        f'<path class="axis" opacity=".2" d="M46 {height(share)}H476"/>'
        f'<text x="24" y="{height(share) + 3}">{percent(share)}</text>'
        for share in (0.0, 0.5, 1.0)
    )
    return (
        "<h3>success against delay</h3><p class='hint'>Mean injected delay between a picture and its answer.</p>"
        '<svg class="histogram" viewBox="0 0 500 170" role="img" aria-label="success against injected delay">'
        f'<polygon class="track" points="{" ".join(band)}"/>{scale}<path class="whisker" d="M{line}"/>{dots}</svg>'
    )
