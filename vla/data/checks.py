"""What a dataset's rows must keep for pictures, rows and sentences to belong together. What does not is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vla.contracts import VlaError


def require_order(data: Path, episode: np.ndarray, frame: np.ndarray, lengths: Sequence[int]) -> None:
    """Raise VlaError unless the rows are the episodes of ``meta/episodes`` in order, their frames without a gap.

    Args:
        data: the folder of the rows, for messages.
        episode, frame: ``episode_index`` and ``frame_index``, int (N,).
        lengths: the episodes' steps.
    """
    if not np.array_equal(episode, np.repeat(np.arange(len(lengths)), lengths)):
        raise VlaError(f"{data} does not hold the episodes of meta/episodes, one after the other")
    wrong = np.flatnonzero((np.diff(frame) != 1) & (np.diff(episode) == 0))
    if len(wrong):
        row = int(wrong[0])
        raise VlaError(
            f"{data}: the frames of episode {episode[row]} have a gap or another order: frame_index goes from "
            f"{frame[row]} to {frame[row + 1]}"
        )


def whole_numbers(data: Path, name: str, values: np.ndarray) -> np.ndarray:
    """The column ``name`` as int64 (N,). Raises VlaError where a value is missing or is no whole number."""
    flat = values.reshape(-1)
    wrong = np.flatnonzero(~(np.isfinite(flat) & (flat == np.round(flat)))) if flat.dtype.kind == "f" else flat[:0]
    if len(wrong) or len(flat) != len(values):
        row = int(wrong[0]) if len(wrong) else 0
        raise VlaError(f"{data}: the column '{name}' should hold whole numbers, and holds {values[row]} in row {row}")
    return flat.astype(np.int64)


def require_finite(
    data: Path, name: str, values: np.ndarray, dimensions: Sequence[str], episode: np.ndarray, frame: np.ndarray
) -> None:
    """Raise VlaError, naming column, dimension, episode and frame, where ``values`` (N,) or (N, D) are not finite."""
    if np.isfinite(values).all():
        return
    row, dimension = (int(i) for i in np.argwhere(~np.isfinite(values.reshape(len(values), -1)))[0])
    found = values.reshape(len(values), -1)[row, dimension]
    part = f" dimension {dimension} ({dimensions[dimension]})" if dimension < len(dimensions) else ""
    raise VlaError(
        f"{data}: the column '{name}'{part} is {found} in episode {episode[row]}, frame {frame[row]}; nothing can be "
        f"learnt from a value that is not finite: mend it, or leave the episode out"
    )


def require_sentences(data: Path, index: np.ndarray, sentences: Sequence[str], episode: np.ndarray) -> None:
    """Raise VlaError where ``task_index`` (N,) names a sentence that ``meta/tasks.parquet`` does not have."""
    wrong = np.flatnonzero((index < 0) | (index >= len(sentences)))
    if len(wrong):
        row = int(wrong[0])
        raise VlaError(
            f"{data}: episode {episode[row]} has the task_index {index[row]}, and meta/tasks.parquet has "
            f"{len(sentences)} sentences"
        )


def require_times(data: Path, times: np.ndarray, episode: np.ndarray, dt: float) -> None:
    """Raise VlaError unless the rows' times [s] grow within each episode, and by ``dt`` as a rule."""
    steps, rows = np.diff(times), np.flatnonzero(np.diff(episode) == 0)
    if not len(rows):
        return
    wrong = rows[~(steps[rows] > 0)]
    if len(wrong):
        row = int(wrong[0])
        raise VlaError(
            f"{data}: the timestamps of episode {episode[row]} do not grow: {times[row]:g} s, then {times[row + 1]:g} s"
        )
    usual = float(np.median(steps[rows]))
    if abs(usual / dt - 1) > 0.1:
        raise VlaError(
            f"{data}: the timestamps are {1 / usual:.4g} rows a second, and meta/info.json says {1 / dt:.4g} frames a "
            f"second"
        )
