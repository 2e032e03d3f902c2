"""Compare evaluations on the same episodes: pairs, so that an easy or a hard layout is so for every run.

``vla/eval/comparable.py`` refuses runs whose episodes are not the same ones.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from vla.contracts import VlaError
from vla.eval.comparable import FREE_SETTINGS, Run, require_comparable, warnings
from vla.eval.statistics import compare_pairs, holm, mean_difference, rate_of

FORMAT_VERSION = 1
GROUPS = ("kind", "language", "category")


def placed_share(episode: dict[str, Any]) -> float:
    """The share of the items that were asked for and placed, 0 to 1; progress where an env tells of no items."""
    asked = [item["placed"] for item in episode["items"] if item["asked"]]
    return sum(asked) / len(asked) if asked else float(episode["progress"])


def compare_shared(summary: dict[str, Any], earlier: dict[str, Any]) -> dict[str, Any]:
    """Compare two runs on the episodes that they share, paired: what ``vla eval --against`` tells.

    Raises:
        VlaError: if the two runs share no episode of the same seed and instruction.
    """
    theirs = {(e["seed"], e["instruction"]): e["success"] for e in earlier["episodes_detail"]}
    ours = {(e["seed"], e["instruction"]): e["success"] for e in summary["episodes_detail"]}
    shared = [key for key in ours if key in theirs]
    if not shared:
        raise VlaError(
            f"the two runs share no episode: this one has --seed {summary['seed']} --split {summary['split']}, "
            f"the other --seed {earlier['seed']} --split {earlier['split']}"
        )
    found = _difference([ours[key] for key in shared], [theirs[key] for key in shared])
    return {"agent": earlier["agent"], "agent_hash": earlier.get("agent_hash"), **found}


def compare_runs(runs: Sequence[Run], command: str = "") -> dict[str, Any]:
    """Compare runs with the first of them. Shares are 0 to 1, and a difference is a run's share minus the first's.

    Args:
        runs: two or more.
        command: the exact command, to be written down.

    Returns:
        what ``compare.json`` holds: ``runs`` (success and items placed of each), ``against_first`` (for each further
        run the paired differences, overall and ``by`` group), ``differing`` (episodes whose outcome differs),
        ``outcomes`` (for each run the successes, in the order of ``seeds``) and ``warnings``.

    Raises:
        VlaError: the runs did not play the same episodes.
    """
    require_comparable(runs)
    first, episodes = runs[0], [run.episodes for run in runs]
    against = [{"label": run.label, **_against(run.episodes, episodes[0])} for run in runs[1:]]
    adjusted = holm([one["success"]["p_value"] for one in against])
    for one, p_value in zip(against, adjusted, strict=True):
        one["success"]["p_holm"] = float(f"{p_value:.4g}")
    settings = first.data.get("settings", {})
    return {
        "format_version": FORMAT_VERSION,
        "env": first.data["env"],
        "split": first.data["split"],
        "seed": first.data["seed"],
        "episodes": len(episodes[0]),
        "settings": {name: value for name, value in settings.items() if name not in FREE_SETTINGS},
        "runs": [_about(run) for run in runs],
        "against_first": against,
        "differing": _differing(episodes),
        "seeds": [episode["seed"] for episode in episodes[0]],
        "outcomes": [[episode["success"] for episode in one] for one in episodes],
        "warnings": warnings(runs),
        "command": command,
        "date": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
    }


def _about(run: Run) -> dict[str, Any]:
    shares = [placed_share(episode) for episode in run.episodes]
    names = ("agent", "agent_hash", "policy", "recipe", "data_hash", "execute", "commit", "date", "command", "versions")
    return {
        "label": run.label,
        **{name: run.data.get(name) for name in names},
        "success": rate_of([episode["success"] for episode in run.episodes]).to_dict(),
        "placed": round(sum(shares) / len(shares), 4),
        "by": {
            field: {
                value: rate_of([e["success"] for e in run.episodes if e[field] == value]).to_dict()
                for value in _values(run.episodes, field)
            }
            for field in GROUPS
        },
    }


def _against(episodes: Sequence[dict[str, Any]], base: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The paired differences of a run and the first one; both lists are in the same order."""
    pairs = list(zip(episodes, base, strict=True))
    placed = mean_difference([placed_share(e) for e in episodes], [placed_share(e) for e in base])
    by = {}
    for field in GROUPS:
        by[field] = {
            value: _difference(
                [e["success"] for e, _ in pairs if e[field] == value],
                [b["success"] for e, b in pairs if e[field] == value],
            )
            for value in _values(episodes, field)
        }
    return {
        "success": _difference([e["success"] for e in episodes], [e["success"] for e in base]),
        "placed": {
            "difference": round(placed.difference, 4),
            # Shares differ by 1 at most; Student's interval does not know that.
            "low": None if placed.low is None else round(max(-1.0, placed.low), 4),
            "high": None if placed.high is None else round(min(1.0, placed.high), 4),
            "n": placed.n,
        },
        "by": by,
    }


def _difference(ours: Sequence[bool], theirs: Sequence[bool]) -> dict[str, Any]:
    paired = compare_pairs(ours, theirs)
    return {
        "difference": round(paired.difference, 4),
        "low": round(paired.low, 4),
        "high": round(paired.high, 4),
        "p_value": float(f"{paired.p_value:.4g}"),
        "only_this": paired.only_first,
        "only_other": paired.only_second,
        "n": paired.n,
    }


def _values(episodes: Sequence[dict[str, Any]], field: str) -> list[str]:
    """The values of a field, sorted; the empty one (e.g. no category) is no group."""
    return sorted({episode[field] for episode in episodes} - {""})


def _differing(episodes: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The episodes that some runs solved and others did not."""
    found = []
    for same in zip(*episodes, strict=True):
        outcomes = [episode["success"] for episode in same]
        if len(set(outcomes)) > 1:
            about = {name: same[0][name] for name in ("index", "seed", "instruction", "language", "kind", "category")}
            why = [": ".join(filter(None, (e.get("reason"), e.get("why")))) for e in same]
            placed = [round(placed_share(e), 4) for e in same]
            found.append({**about, "success": outcomes, "placed": placed, "why": why})
    return found
