"""``report.html``: one file that tells the whole evaluation, with its videos inside and no other resource."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vla.eval.benchmark import benchmark_rows
from vla.eval.pages.template import fill
from vla.eval.wording import across_seeds, words
from vla.host.files import write_atomically
from vla.perturb.axes import AXES, describe
from vla.registry import load_env
from vla.rollout.loop import EpisodeResult

MOST_VIDEO_BYTES = 12_000_000  # videos beyond this stay in the folder and are only named in the report
MOST_PICTURES = 60  # of a judge's disagreements; a few kilobytes each
_BINS = 12


def write_report(path: Path, summary: dict[str, Any], shown: Sequence[EpisodeResult]) -> None:
    """Write the report.

    Args:
        path: the HTML file.
        summary: the content of ``results.json``.
        shown: filmed episodes to show.
    """
    write_atomically(path, render(summary, shown, path.parent))


def render(summary: dict[str, Any], shown: Sequence[EpisodeResult], folder: Path = Path()) -> str:
    """The report as one HTML document; ``folder`` holds the pictures that a judge was shown."""
    times = [e["time_to_success_s"] for e in summary["episodes_detail"] if e["time_to_success_s"] is not None]
    films = _films(shown)
    more = {
        "run": summary,
        "title": f"{summary['agent']} on {summary['env']}",
        "harder": describe(summary["perturb"]) if summary.get("perturb") else "",
        "spread": across_seeds(summary),
        "axes": AXES,
        "delays": _delay_curve(summary.get("delay_ms")),
        "published": _published(summary),
        "films": films,
        "judged": _judged(summary, folder),
        "left_out": sum(one.video is not None for one in shown) - len(films),
        "bins": _histogram(times),
        "times": times,
    }
    return fill("report", {**summary, **more})


def _films(shown: Sequence[EpisodeResult]) -> list[tuple[EpisodeResult, str]]:
    """The films, failures first, each with its data in base64; without those that make the page too large."""
    found, spent = [], 0
    for one in sorted(shown, key=lambda result: result.success):
        if one.video and spent + len(one.video) <= MOST_VIDEO_BYTES:
            spent += len(one.video)
            found.append((one, base64.b64encode(one.video).decode()))
    return found


def _judged(summary: dict[str, Any], folder: Path) -> list[tuple[dict[str, Any], str]]:
    """Where the judge and the env disagree, each with the last picture in base64."""
    found = []
    for one in summary.get("judge", {}).get("disagreements", [])[:MOST_PICTURES]:
        file = folder / one["picture"]
        found.append((one, base64.b64encode(file.read_bytes()).decode() if file.is_file() else ""))
    return found


def _published(summary: dict[str, Any]) -> dict[str, Any] | None:
    """The table of a benchmark's published figures, and this run's below them; None where the env has no such."""
    if "tiers" not in summary:
        return None
    benchmark = load_env(summary["env"]).benchmark  # type: ignore[attr-defined]
    heads = [words(name) for name in ("model", "size", *benchmark.tiers, "mean", "source")]
    return {"heads": heads, "rows": benchmark_rows(benchmark, summary["agent"], summary)}


def _histogram(times: Sequence[float]) -> list[tuple[float, float, int, float]]:
    """For each bin its start and end (seconds), how many times are in it, and its height of at most 90 pixels."""
    if len(times) < 2:
        return []
    low, width = min(times), max((max(times) - min(times)) / _BINS, 0.1)
    counts = [0] * _BINS
    for seconds in times:
        counts[min(int((seconds - low) / width), _BINS - 1)] += 1
    return [(low + i * width, low + (i + 1) * width, n, 90 * n / max(counts)) for i, n in enumerate(counts)]


def _delay_curve(delays: dict[str, Any] | None) -> dict[str, Any] | None:
    """Success against mean injected delay, in pixels: ``dots``, a ``line`` through them, intervals as a ``band``."""
    if not delays:
        return None
    last = max(float(ms) for ms in delays)

    def at(ms: str, share: float) -> tuple[str, str]:
        return f"{46 + 430 * float(ms) / last:.1f}", f"{150 - 130 * share:.1f}"

    upper = [at(ms, rate["high"]) for ms, rate in delays.items()]
    lower = [at(ms, rate["low"]) for ms, rate in reversed(delays.items())]
    return {
        "band": " ".join(map(",".join, upper + lower)),
        "line": "L".join(" ".join(at(ms, rate["rate"])) for ms, rate in delays.items()),
        "dots": [(*at(ms, rate["rate"]), ms, rate) for ms, rate in delays.items()],
    }
