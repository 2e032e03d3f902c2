"""Statistics as LeRobot keeps them in ``meta/stats.json`` and for each episode, as JSON types."""

from __future__ import annotations

from typing import Any

import numpy as np

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}


def from_array(values: np.ndarray) -> dict[str, list[Any]]:
    """Of a column (T,) or (T, D): min, max, mean, std and quantiles, lists of D numbers; ``count`` is [T]."""
    rows = values.reshape(len(values), -1).astype(np.float64)
    stats = {"min": rows.min(0), "max": rows.max(0), "mean": rows.mean(0), "std": rows.std(0)}
    stats |= dict(zip(QUANTILES, np.quantile(rows, list(QUANTILES.values()), axis=0), strict=True))
    return {**{name: value.tolist() for name, value in stats.items()}, "count": [len(rows)]}


def from_histogram(counts: np.ndarray) -> dict[str, list[Any]]:
    """The same of an image column, from how often each value occurs in each channel.

    Args:
        counts: int (3, 256). Histograms of several episodes add up to that of all.

    Returns:
        lists of shape (3, 1, 1) in the range 0 to 1; ``count`` is the number of pixels of one channel.
    """
    levels = np.arange(256) / 255
    total = counts.sum(1, keepdims=True)
    share = np.cumsum(counts, axis=1) / total
    present = counts > 0
    mean = (counts * levels).sum(1) / total[:, 0]
    stats = {
        "min": levels[present.argmax(1)],
        "max": levels[255 - present[:, ::-1].argmax(1)],
        "mean": mean,
        "std": np.sqrt((counts * (levels - mean[:, None]) ** 2).sum(1) / total[:, 0]),
    }
    stats |= {name: levels[(share >= q - 1e-12).argmax(1)] for name, q in QUANTILES.items()}
    return {**{n: value.reshape(3, 1, 1).tolist() for n, value in stats.items()}, "count": [int(total[0, 0])]}
