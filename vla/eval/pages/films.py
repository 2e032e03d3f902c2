"""What a report shows of single episodes: their films, and what went wrong in each that failed."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from vla.eval.pages.style import escape, percent
from vla.rollout.loop import EpisodeResult

MOST_VIDEO_BYTES = 12_000_000  # videos beyond this stay in the folder and are only named in the report
_OPEN = 20  # failures that are listed at once; more stand behind a click


def failures(summary: dict[str, Any]) -> str:
    """The section on what went wrong: how often for each reason, and in each episode; empty if nothing did."""
    failed = [episode for episode in summary["episodes_detail"] if not episode["success"]]
    if not failed:
        return ""
    counts = "".join(
        f"<tr><th>{escape(reason)}</th><td>{count} of {len(failed)}</td></tr>"
        for reason, count in summary.get("failures", {}).items()
    )
    rows = "".join(
        f"<tr><td>{e['index']}</td><td lang='{escape(e['language'])}'>{escape(e['instruction'])}</td>"
        f"<td><b>{escape(e.get('reason') or 'not told')}</b></td><td>{escape(e.get('why') or '')}</td>"
        f"<td>{percent(e['progress'])}</td></tr>"
        for e in failed
    )
    table = (
        "<div class='scroll'><table><thead><tr><th>#</th><th>instruction</th><th>reason</th><th>what happened</th>"
        f"<th>progress</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )
    if len(failed) > _OPEN:
        table = f"<details><summary>All {len(failed)} failures</summary>{table}</details>"
    return f'<section><h2>What went wrong</h2><table class="facts">{counts}</table>{table}</section>'


def films(shown: Sequence[EpisodeResult], folder: str = "videos") -> str:
    """The section with the films, failures first; those that would make the page too large are named instead."""
    blocks, spent, left_out = [], 0, 0
    for outcome, heading in ((False, "Failures"), (True, "Successes")):
        figures = []
        for result in (one for one in shown if one.success == outcome and one.video):
            assert result.video is not None
            if spent + len(result.video) > MOST_VIDEO_BYTES:
                left_out += 1
                continue
            spent += len(result.video)
            figures.append(_figure(result))
        if figures:
            blocks.append(f'<h3>{heading}</h3><div class="films">{"".join(figures)}</div>')
    if not blocks and not left_out:
        return ""
    note = f" {left_out} more are in the folder {escape(folder)}." if left_out else ""
    hint = f"Twice the simulated speed; the last moment stays for two seconds.{note}"
    return f'<section><h2>Episodes on film</h2><p class="hint">{hint}</p>{"".join(blocks)}</section>'


def _figure(result: EpisodeResult) -> str:
    assert result.video is not None
    data = base64.b64encode(result.video).decode()
    wrong = ""
    if not result.success:
        wrong = f"<b>{escape(result.reason or 'failure')}</b>" + (f": {escape(result.why)}" if result.why else "")
        wrong = f'<span class="wrong">{wrong}</span>'
    return (
        f'<figure><video controls muted loop playsinline preload="metadata" src="data:video/mp4;base64,{data}">'
        f'</video><figcaption><span lang="{escape(result.language)}">{escape(result.instruction)}</span>{wrong}'
        f"<small>episode {result.index}, {result.steps} steps, progress {percent(result.progress)}</small>"
        "</figcaption></figure>"
    )
