"""Intervals and comparisons for success rates: no figure is reported without one.

Distributions are ``scipy.special``'s; ``scipy.stats`` would take two seconds to import.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Rate:
    """A share with its interval, all from 0 to 1 where it is of successes. With n = 0 the interval is (0, 1)."""

    rate: float
    low: float
    high: float
    n: int

    def to_dict(self) -> dict[str, float | int]:
        """The rate as JSON: ``rate``, ``low``, ``high`` rounded to four places, and ``n``."""
        return {"rate": round(self.rate, 4), "low": round(self.low, 4), "high": round(self.high, 4), "n": self.n}


def wilson(successes: int, n: int, z: float = 1.96) -> Rate:
    """Wilson's score interval for a proportion (Wilson 1927): honest near 0 and 1 and for small n.

    Args:
        successes: how many of the ``n`` trials succeeded.
        n: number of trials; 0 gives a rate of 0 and the interval (0, 1).
        z: standard normal quantile; 1.96 gives 95 %.

    Raises:
        ValueError: unless 0 <= successes <= n.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"successes must lie between 0 and n = {n}, and is {successes}")
    if n == 0:
        return Rate(0.0, 0.0, 1.0, 0)
    share = successes / n
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    middle = share + z * z / (2 * n)
    # At the ends rounding would leave 1e-17 or 0.9999..., where the formula gives 0 and 1 exactly.
    low = 0.0 if successes == 0 else (middle - spread) / scale
    high = 1.0 if successes == n else (middle + spread) / scale
    return Rate(share, low, high, n)


def rate_of(outcomes: Sequence[bool]) -> Rate:
    """Wilson's interval for a list of outcomes."""
    return wilson(sum(map(bool, outcomes)), len(outcomes))


@dataclass(frozen=True)
class Comparison:
    """Two runs on the same seeds.

    Attributes:
        difference: success rate of the first run minus that of the second.
        low: lower end of the difference's 95 % interval.
        high: upper end.
        p_value: exact McNemar test (two-sided): how often chance alone gives a split at least as uneven.
        only_first: episodes that only the first run solved.
        only_second: episodes that only the second run solved.
        n: pairs.
    """

    difference: float
    low: float
    high: float
    p_value: float
    only_first: int
    only_second: int
    n: int


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """McNemar's test in its exact, two-sided form: how often a fair coin splits the pairs at least as unevenly.

    Pairs with the same outcome say nothing about the difference and do not count (McNemar 1947). No pair that
    differs gives 1.

    Args:
        only_first: pairs in which only the first run succeeded.
        only_second: pairs in which only the second did.
    """
    from scipy.special import bdtr

    split = only_first + only_second
    return min(1.0, 2 * float(bdtr(min(only_first, only_second), split, 0.5)))


def compare_pairs(first: Sequence[bool], second: Sequence[bool], z: float = 1.96) -> Comparison:
    """Compare two runs episode by episode; shared luck (an easy layout) cancels out.

    The interval is Wald's for paired proportions with Agresti and Min's half count added to each cell
    (Statistics in Medicine 24:729, 2005), clipped to [-1, 1].

    Raises:
        ValueError: if the lengths differ or are zero.
    """
    if len(first) != len(second) or not first:
        raise ValueError(f"two runs of the same, non-zero length are needed, not {len(first)} and {len(second)}")
    n = len(first)
    only_first = sum(bool(a) and not b for a, b in zip(first, second, strict=True))
    only_second = sum(bool(b) and not a for a, b in zip(first, second, strict=True))
    b, c, total = only_first + 0.5, only_second + 0.5, n + 2
    middle = (b - c) / total
    spread = z * math.sqrt(b + c - (b - c) ** 2 / total) / total
    return Comparison(
        (only_first - only_second) / n,
        max(-1.0, middle - spread),
        min(1.0, middle + spread),
        mcnemar_exact(only_first, only_second),
        only_first,
        only_second,
        n,
    )


@dataclass(frozen=True)
class MeanDifference:
    """The mean difference of paired values, with its interval.

    Attributes:
        difference: mean of first minus second.
        low: lower end of the 95 % interval; None where the differences do not vary, and so give no interval.
        high: upper end, or None.
        n: pairs.
    """

    difference: float
    low: float | None
    high: float | None
    n: int


def mean_difference(first: Sequence[float], second: Sequence[float]) -> MeanDifference:
    """Compare two runs' values (say, shares of items placed) episode by episode: Student's paired t interval.

    Raises:
        ValueError: if the lengths differ or are zero.
    """
    from scipy.special import stdtrit

    if len(first) != len(second) or not first:
        raise ValueError(f"two runs of the same, non-zero length are needed, not {len(first)} and {len(second)}")
    differences = [a - b for a, b in zip(first, second, strict=True)]
    n = len(differences)
    mean = math.fsum(differences) / n
    squares = math.fsum((d - mean) ** 2 for d in differences)
    if n < 2 or squares < 1e-18:
        return MeanDifference(mean, None, None, n)
    half = float(stdtrit(n - 1, 0.975)) * math.sqrt(squares / (n - 1) / n)
    return MeanDifference(mean, mean - half, mean + half, n)


def retained_share(base: Sequence[bool], others: Sequence[Sequence[bool]], resamples: int = 2000) -> Rate:
    """The mean success of several runs over that of a base run, all on the same episodes.

    The interval is the percentile bootstrap's (Efron 1979) over episodes, from a fixed seed; draws of episodes none of
    which the base run solved say nothing and are left out. More than all cannot be retained: what chance lifts above 1,
    the others having solved more than the base run, counts as 1.

    Args:
        base: outcomes of the base run.
        others: outcomes of each other run, episode by episode as in ``base``.
        resamples: draws of episodes.

    Raises:
        ValueError: unless the lengths agree, there is a run to compare, and the base run solved something.
    """
    import numpy as np

    if not others or any(len(other) != len(base) for other in others) or not any(base):
        raise ValueError("retained_share needs runs of the same length, and a success in the base run")
    first, rest = np.array(base, float), np.mean(np.array(others, float), axis=0)
    picks = np.random.default_rng(0).integers(len(first), size=(resamples, len(first)))
    bottoms, tops = first[picks].mean(axis=1), rest[picks].mean(axis=1)
    shares = tops[bottoms > 0] / bottoms[bottoms > 0]
    low, high = np.quantile(shares, (0.025, 0.975))
    rate, low, high = (min(1.0, float(share)) for share in (rest.mean() / first.mean(), low, high))
    return Rate(rate, low, high, len(first))


def mean_of(values: Sequence[float] | np.ndarray, seed: int, resamples: int = 500) -> dict[str, float]:
    """The mean as JSON, with the percentile bootstrap's interval: ``mean``, ``low``, ``high``, ``n``. NaN is left out.

    All but ``n`` are NaN where nothing is left.
    """
    import numpy as np

    kept = np.asarray(values)
    kept = kept[~np.isnan(kept)]
    if not len(kept):
        return {"mean": math.nan, "low": math.nan, "high": math.nan, "n": 0}
    rng = np.random.default_rng(seed)
    low, high = np.quantile([rng.choice(kept, len(kept)).mean() for _ in range(resamples)], (0.025, 0.975))
    return {"mean": float(kept.mean()), "low": float(low), "high": float(high), "n": len(kept)}


def holm(p_values: Sequence[float]) -> list[float]:
    """P values that allow for there being several of them (Holm 1979), in the order given; each from 0 to 1."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        largest = max(largest, min(1.0, p_values[place] * (len(p_values) - rank)))
        adjusted[place] = largest
    return adjusted
