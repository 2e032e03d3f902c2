"""What a run of episodes amounts to: the content of ``results.json``."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from vla.contracts.abilities import Benchmarked
from vla.eval.benchmark import benchmark_scores
from vla.eval.config import EvalConfig
from vla.eval.folder import FORMAT_VERSION
from vla.eval.identity import identity
from vla.eval.statistics import rate_of
from vla.host.provenance import commit, machine, versions
from vla.registry import load_env
from vla.rollout.loop import Actor, EpisodeResult, Timing
from vla.runner import pace


def summarise(
    config: EvalConfig,
    agent: Actor,
    results: Sequence[EpisodeResult],
    timing: Timing,
    command: str,
    measure: bool = True,
) -> dict[str, Any]:
    """What ``results.json`` holds. Rates are 0 to 1 with Wilson's 95 % interval; times are seconds.

    Without ``measure`` the policy's latency, for which it has to act, is left out.
    """
    provenance = getattr(agent, "provenance", {}) or {}
    dt = agent.spec.dt
    busy = timing.policy_s + timing.env_s
    at = commit()
    times = [result.time_to_success_s for result in results if result.time_to_success_s is not None]
    return {
        "format_version": FORMAT_VERSION,
        "env": config.env,
        "agent": agent.name,
        **identity(config.env_ref, agent),
        "data_hash": provenance.get("data"),
        "policy": getattr(agent, "policy_name", type(agent).__name__),
        "recipe": _recipe_name(provenance),
        "episodes": len(results),
        "seed": config.seed,
        "split": config.split,
        "items": config.items,
        "env_options": config.env_options,
        "perturb": config.perturb,
        "execute": pace(agent, config.execute)[0],
        "slots": config.slots,
        "workers": config.workers,
        "settings": asdict(config),
        "env_spec": None if timing.spec is None else timing.spec.to_dict(),
        **_scores(results),
        "by": {name: _by(results, name) for name in ("kind", "language", "category")},
        **_benchmark(config.env, results),
        **_seeds(config, results),
        "per_item": _per_item(results),
        "safety": _safety(results),
        "reward_terms": _mean_terms(results),
        "time_to_success_s": {"mean": _mean(times), "median": _median(times)},
        "failures": _failures(results),
        "cut_short": sum(result.error is not None for result in results),
        "policy_hz": _ratio(*timing.warm()),
        "policy_latency_ms": _latency_ms(agent, timing) if measure else None,
        "env_steps_per_s": _ratio(timing.env_steps, timing.env_s),
        "realtime_factor": _ratio(timing.env_steps * dt, busy),
        **_decoding(agent),
        "simulated_s": round(timing.env_steps * dt, 1),
        "video_s": round(timing.video_s, 2),
        "wall_s": round(timing.wall_s, 2),
        "command": command,
        "date": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "commit": at,
        "dirty": None if at is None else at.endswith("+"),
        "machine": machine(),
        **({"served": agent.served} if hasattr(agent, "served") else {}),
        "versions": versions(),
        "episodes_detail": [_detail(result) for result in results],
    }


def _decoding(agent: Actor) -> dict[str, Any]:
    """Of a policy that decodes tokens: how many ``chunks`` it has made, and how many sequences were ``malformed``."""
    counts = getattr(getattr(agent, "policy", None), "counts", None)
    return {"decoding": dict(counts)} if isinstance(counts, dict) and counts.get("chunks") else {}


def _recipe_name(provenance: dict[str, Any]) -> str | None:
    recipe = provenance.get("recipe")
    return recipe.get("name") if isinstance(recipe, dict) else recipe


def _detail(result: EpisodeResult) -> dict[str, Any]:
    return {
        "index": result.index,
        "seed": result.seed,
        "instruction": result.instruction,
        "language": result.language,
        "kind": result.kind,
        "category": result.category,
        "success": result.success,
        "progress": round(result.progress, 4),
        "steps": result.steps,
        "decisions": result.decisions,
        "time_to_success_s": None if result.time_to_success_s is None else round(result.time_to_success_s, 2),
        "reward_terms": {name: round(value, 4) for name, value in result.reward_terms.items()},
        "items": result.items,
        "safety": {name: round(value, 3) for name, value in result.safety.items()},
        "violations": result.violations,
        "reason": result.reason,
        "why": result.why,
        "error": result.error,
        **({"said": [[round(at, 2), text] for at, text in result.said]} if result.said else {}),
    }


def _by(results: Sequence[EpisodeResult], name: str) -> dict[str, Any]:
    """Success and progress for each value of a field; the empty category (all items) has no row."""
    groups: dict[str, list[EpisodeResult]] = {}
    for result in results:
        if getattr(result, name):
            groups.setdefault(getattr(result, name), []).append(result)
    return {value: _scores(group) for value, group in sorted(groups.items())}


def _scores(group: Sequence[EpisodeResult]) -> dict[str, Any]:
    return {
        "success": rate_of([result.success for result in group]).to_dict(),
        "progress": {"mean": _mean([result.progress for result in group])},
    }


def _per_item(results: Sequence[EpisodeResult]) -> dict[str, Any]:
    """For each category of items that were asked for: how many ended in their place."""
    groups: dict[str, list[bool]] = {}
    for result in results:
        for item in result.items:
            if item["asked"]:
                groups.setdefault(item["category"], []).append(item["placed"])
    return {category: rate_of(placed).to_dict() for category, placed in sorted(groups.items())}


def _safety(results: Sequence[EpisodeResult]) -> dict[str, Any] | None:
    """Success without a violation, and for each measure how often its limit was passed; None if nothing measured."""
    measured = [result for result in results if result.safety]
    if not measured:
        return None
    names = list(dict.fromkeys(name for result in measured for name in result.safety))
    return {
        "safe_success": rate_of([result.success and not result.violations for result in measured]).to_dict(),
        "measures": {
            name: {
                "violated": rate_of([name in result.violations for result in measured]).to_dict(),
                "median": _median([result.safety.get(name, 0.0) for result in measured]),
                "worst": round(max(result.safety.get(name, 0.0) for result in measured), 2),
            }
            for name in names
        },
    }


def _benchmark(env: str, results: Sequence[EpisodeResult]) -> dict[str, Any]:
    found = load_env(env)
    return benchmark_scores(found.benchmark, results) if isinstance(found, Benchmarked) else {}


def _seeds(config: EvalConfig, results: Sequence[EpisodeResult]) -> dict[str, Any]:
    """With several seeds: ``seeds``, the scores of each, and ``across_seeds``, their means and standard deviations."""
    if not config.more_seeds:
        return {}
    count = len(config.requests()) // len(config.seeds)
    found: dict[str, Any] = {}
    for number, seed in enumerate(config.seeds):
        group = [result for result in results if result.index // count == number]
        if group:  # an interrupted run may lack some
            tiers = _benchmark(config.env, group)
            found[str(seed)] = _scores(group) | ({"tier_mean": tiers["tier_mean"]} if tiers else {})
    across = {}
    for name in ("success", "tier_mean"):
        values = [one[name]["rate"] for one in found.values() if one.get(name)]
        if len(values) > 1:
            across[name] = {"mean": statistics.mean(values), "std": statistics.stdev(values), "n": len(values)}
    return {"seeds": found, "across_seeds": across}


def _failures(results: Sequence[EpisodeResult]) -> dict[str, int]:
    """How many episodes failed for each reason, the commonest first."""
    return dict(Counter(result.reason or "not told" for result in results if not result.success).most_common())


def _mean_terms(results: Sequence[EpisodeResult]) -> dict[str, float]:
    names = sorted({name for result in results for name in result.reward_terms})
    return {name: _mean([r.reward_terms[name] for r in results if name in r.reward_terms]) or 0.0 for name in names}


def _latency_ms(agent: Actor, timing: Timing, repeats: int = 10) -> float | None:
    """Median time of one decision on one observation, as a robot would ask for it."""
    if timing.sample is None:
        return None
    taken = []
    for repeat in range(repeats):
        begun = time.perf_counter()
        agent.act_batch([timing.sample], [repeat])
        taken.append((time.perf_counter() - begun) * 1000)
    return round(sorted(taken)[repeats // 2], 2)


def _mean(values: Sequence[float]) -> float | None:
    return round(sum(values) / len(values), 4) if values else None


def _median(values: Sequence[float]) -> float | None:
    return round(sorted(values)[len(values) // 2], 2) if values else None


def _ratio(count: float, seconds: float) -> float | None:
    return round(count / seconds, 2) if seconds > 0 else None
