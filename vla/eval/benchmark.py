"""Scores of a benchmark whose tasks come in tiers of difficulty, beside the figures that others published."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from vla.contracts.abilities import Benchmark
from vla.eval.statistics import Rate, rate_of
from vla.rollout.player import EpisodeResult


def benchmark_scores(benchmark: Benchmark, results: Sequence[EpisodeResult]) -> dict[str, Any]:
    """Success by task and tier, and the two means that papers give. Rates are 0 to 1, with 95 % intervals.

    Returns:
        ``tiers`` and ``tasks`` (name to rate, over the episodes), ``episode_mean`` (the rate of all episodes) and
        ``tier_mean``, which counts each tier alike and is None unless every tier was played.
    """
    tiers = {name: [r.success for r in results if r.kind == name] for name in benchmark.tiers}
    tasks = {name: [r.success for r in results if r.category == name] for name in _in_order(results)}
    rates = {name: rate_of(outcomes) for name, outcomes in tiers.items() if outcomes}
    whole = len(rates) == len(benchmark.tiers)
    return {
        "tiers": {name: rate.to_dict() for name, rate in rates.items()},
        "tier_mean": mean_of_rates(list(rates.values())).to_dict() if whole else None,
        "episode_mean": rate_of([result.success for result in results]).to_dict(),
        "tasks": {name: rate_of(outcomes).to_dict() for name, outcomes in tasks.items()},
    }


def benchmark_rows(benchmark: Benchmark, name: str, scores: dict[str, Any]) -> list[tuple[str, ...]]:
    """The published table with this run's row at the end: model, size, each tier, mean, source. Texts, per cent.

    The source of a run that did not play all tasks says how many it played.
    """
    rows: list[tuple[str, ...]] = [
        (one.model, one.size, *(f"{value:.1f}" for value in one.tiers), f"{one.mean:.1f}", one.source)
        for one in benchmark.published
    ]
    played = len(scores["tasks"])
    source = "this run" if played == benchmark.tasks else f"this run, {played} of {benchmark.tasks} tasks"
    own = [_percent(scores["tiers"].get(tier)) for tier in benchmark.tiers]
    return [*rows, (name, "", *own, _percent(scores["tier_mean"]), source)]


def _in_order(results: Sequence[EpisodeResult]) -> list[str]:
    return list(dict.fromkeys(result.category for result in sorted(results, key=lambda result: result.index)))


def _percent(rate: dict[str, Any] | None) -> str:
    if rate is None:
        return "–"
    return f"{rate['rate'] * 100:.1f} ({rate['low'] * 100:.1f}–{rate['high'] * 100:.1f})"


def mean_of_rates(rates: Sequence[Rate]) -> Rate:
    """The mean of independent rates, each counting alike, with an interval from theirs.

    The method of variance estimates recovery: Zou and Donner, "Construction of confidence limits about effect
    measures", Statistics in Medicine 27, 2008. ``n`` is the sum of theirs.
    """
    count = len(rates)
    mean = sum(rate.rate for rate in rates) / count
    below = math.sqrt(sum((rate.rate - rate.low) ** 2 for rate in rates)) / count
    above = math.sqrt(sum((rate.high - rate.rate) ** 2 for rate in rates)) / count
    return Rate(mean, max(0.0, mean - below), min(1.0, mean + above), sum(rate.n for rate in rates))
