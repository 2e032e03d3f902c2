"""How a chunk of actions is carried out. Policies own no queues: they answer, and these wrappers play the answers."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from vla.contracts import Chunk, VlaError


class Chunking(Protocol):
    """Turns the policy's newest chunk into the actions to play before it is asked again. One for each episode."""

    def play(self, chunk: Chunk, step: int) -> np.ndarray:
        """The next actions, float32 (n, A).

        Args:
            chunk: the policy's answer to the present observation.
            step: the present step's number in the episode; the chunk's first action is for this step.
        """
        ...


def _require_length(chunk: Chunk, execute: int) -> None:
    if not 1 <= execute <= len(chunk.actions):
        raise VlaError(f"execute must lie between 1 and the chunk's {len(chunk.actions)} actions, and is {execute}")


class RecedingHorizon:
    """Plays the first ``execute`` actions of each chunk and drops the rest."""

    def __init__(self, execute: int) -> None:
        self.execute = execute

    def play(self, chunk: Chunk, step: int) -> np.ndarray:
        """See ``Chunking``. Raises VlaError if ``execute`` does not fit the chunk."""
        _require_length(chunk, self.execute)
        return chunk.actions[: self.execute]


class TemporalEnsemble:
    """Averages what all recent chunks say about each step (ACT, arXiv 2304.13705, algorithm 2).

    Weights are exp(-decay * i), where i = 0 is the oldest chunk that covers the step: a larger ``decay`` trusts
    old plans more, 0 trusts all alike. Rotation columns are averaged as they are; the controller
    makes them orthonormal again.

    Args:
        execute: steps between two decisions; 1 in the paper.
        decay: m in the paper's w_i = exp(-m * i).
    """

    def __init__(self, execute: int = 1, decay: float = 0.01) -> None:
        self.execute, self.decay = execute, decay
        self._chunks: list[tuple[int, np.ndarray]] = []

    def play(self, chunk: Chunk, step: int) -> np.ndarray:
        """See ``Chunking``. Raises VlaError if ``execute`` does not fit the chunk."""
        _require_length(chunk, self.execute)
        self._chunks = [(begin, actions) for begin, actions in self._chunks if begin + len(actions) > step]
        self._chunks.append((step, chunk.actions))
        return np.stack([self._average(now) for now in range(step, step + self.execute)])

    def _average(self, step: int) -> np.ndarray:
        opinions = [actions[step - begin] for begin, actions in self._chunks if step - begin < len(actions)]
        weights = np.exp(-self.decay * np.arange(len(opinions)))
        return np.average(opinions, axis=0, weights=weights).astype(np.float32)
