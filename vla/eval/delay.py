"""What lateness costs: evaluations of the same episodes at several delays, set side by side."""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Mapping
from typing import Any

from vla.eval.compare import compare_shared

FORMAT_VERSION = 1


def assemble(found: Mapping[str, Mapping[int, dict[str, Any]]], command: str = "") -> dict[str, Any]:
    """What ``delay.json`` holds.

    Args:
        found: for each row, by delay in ms, what its evaluation's ``results.json`` holds: all of the same episodes.
        command: the exact command, to be written down.

    Each cell has ``success`` with its interval, ``safe_success`` (None where the env measures no safety), ``seconds``
    to a success (the mean), ``jerk`` (the mean of the episodes' largest, as a share of its limit; None likewise), and
    ``difference`` to the same row at its first delay, paired (see ``compare_shared``).
    """
    rows = []
    for label, by_delay in found.items():
        first = next(iter(by_delay.values()))
        cells = []
        for delay, result in by_delay.items():
            episodes = result["episodes_detail"]
            took = [one["time_to_success_s"] for one in episodes if one["success"]]
            jerks = [one["safety"]["joint_jerk"] for one in episodes if "joint_jerk" in one["safety"]]
            cells.append(
                {
                    "delay_ms": delay,
                    "success": result["success"],
                    "safe_success": (result.get("safety") or {}).get("safe_success"),
                    "seconds": statistics.fmean(took) if took else None,
                    "jerk": statistics.fmean(jerks) if jerks else None,
                    "difference": None if result is first else compare_shared(result, first),
                    "command": result["command"],
                    "agent_hash": result.get("agent_hash"),
                }
            )
        rows.append({"label": label, "cells": cells})
    any_result = next(iter(next(iter(found.values())).values()))
    return {
        "format_version": FORMAT_VERSION,
        **{name: any_result[name] for name in ("env", "split", "seed", "machine", "versions", "commit")},
        "episodes": len(any_result["episodes_detail"]),
        "rows": rows,
        "command": command,
        "date": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
    }


def draw(told: Mapping[str, Any]) -> bytes:
    """Success against delay, a line each with its 95 % intervals: a PNG's content."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7.0, 4.0), dpi=120, layout="constrained")
    for place, row in enumerate(told["rows"]):
        shift = 4 * (place - (len(told["rows"]) - 1) / 2)  # ms, so that the intervals do not hide each other
        rates = [cell["success"] for cell in row["cells"]]
        low = [100 * (rate["rate"] - rate["low"]) for rate in rates]
        high = [100 * (rate["high"] - rate["rate"]) for rate in rates]
        at = [cell["delay_ms"] + shift for cell in row["cells"]]
        means = [100 * rate["rate"] for rate in rates]
        axes.errorbar(at, means, (low, high), marker="o", capsize=3, linewidth=1.5, label=row["label"])
    axes.set(xlabel="the answer comes so late [ms]", ylabel="success [%]", ylim=(0, 102))
    axes.set_title(f"{told['episodes']} episodes of {told['env']}", fontsize=10)
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    content = io.BytesIO()
    figure.savefig(content, format="png")
    plt.close(figure)
    return content.getvalue()
