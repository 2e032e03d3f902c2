"""Several policies side by side: how each does on the same episodes, and what it costs."""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from vla.eval.comparable import load_runs
from vla.eval.compare import compare_runs
from vla.eval.folder import RESULTS, read_results

FORMAT_VERSION = 1
_DECISIONS, _WARM_UP, _TOGETHER = 100, 5, 8


def costs_of(agent: str) -> dict[str, Any]:
    """What an agent costs, measured on one core in a process of its own.

    Args:
        agent: as ``vla.agent.load`` takes it.

    Returns:
        ``latency_ms`` (``median`` and ``p99`` of a hundred decisions about one observation), ``decisions_per_s`` (of
        eight observations together), ``parameters`` and of those ``trainable`` (what its training changed),
        ``memory_mb`` (the most that the process held), ``train_s``, ``train_steps`` and ``samples``, None where the
        agent does not tell.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_measure, agent).result()


def _measure(name: str) -> dict[str, Any]:
    from vla.agent import load

    agent = load(name, "cpu")
    seen = agent.golden_observation()

    def take(count: int, seed: int) -> float:
        begun = time.perf_counter()
        agent.act_batch([seen] * count, [seed + place for place in range(count)])
        return time.perf_counter() - begun

    for seed in range(_WARM_UP):
        take(1, seed)
    taken = [1000 * take(1, seed) for seed in range(_DECISIONS)]
    together = [take(_TOGETHER, seed) for seed in range(_WARM_UP)]
    policy, about = agent.policy, agent.provenance
    count = sum(p.numel() for p in policy.parameters())
    frozen = policy.trunk if "trunk" in about else None
    recipe: Any = about.get("recipe")
    return {
        "latency_ms": {"median": statistics.median(taken), "p99": statistics.quantiles(taken, n=100)[98]},
        "decisions_per_s": _TOGETHER / statistics.median(together),
        "parameters": count,
        "trainable": count - (sum(p.numel() for p in frozen.parameters()) if frozen is not None else 0),
        "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "train_s": about.get("wall_s"),
        "train_steps": about.get("steps"),
        "samples": about.get("samples"),
        "policy": agent.policy_name,
        "recipe": recipe.get("name") if isinstance(recipe, dict) else recipe,
    }


def assemble(rows: Mapping[str, Mapping[str, Any]], command: str = "") -> dict[str, Any]:
    """What ``families.json`` holds.

    Args:
        rows: for each agent, the first being what the others are compared with, the ``folder`` of its evaluation and
            its ``costs``.
        command: the exact command, to be written down.

    Raises VlaError where the evaluations are not of the same episodes.
    """
    folders = [Path(row["folder"]) for row in rows.values()]
    compared = compare_runs(load_runs(folders)) if len(folders) > 1 else None
    results = [read_results(folder / RESULTS) for folder in folders]
    found = []
    for place, (label, row) in enumerate(rows.items()):
        result = results[place]
        pair = compared["against_first"][place - 1] if compared and place else None
        found.append(
            {
                "label": label,
                "success": result["success"],
                "safe_success": (result.get("safety") or {}).get("safe_success"),
                "by": {name: result["by"].get(name, {}) for name in ("kind", "language")},
                "difference": pair and pair["success"],
                "costs": dict(row["costs"]),
                "command": result["command"],
                "agent_hash": result.get("agent_hash"),
            }
        )
    first = results[0]
    return {
        "format_version": FORMAT_VERSION,
        **{name: first[name] for name in ("env", "split", "seed", "perturb", "machine", "versions", "commit")},
        "episodes": len(first["episodes_detail"]),
        "rows": found,
        "warnings": compared["warnings"] if compared else [],
        "command": command,
        "date": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
    }
