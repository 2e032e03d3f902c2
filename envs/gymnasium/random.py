"""Global random generators for one env alone: many envs draw from ``random`` or ``numpy.random``, whatever the seed."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np


class OwnRandomness:
    """Python's, numpy's and (where it is loaded) torch's global generators, as one env finds them.

    Envs that share a process would else draw from one stream in turns, so that an episode depended on its neighbours
    and with them on the number of workers. What runs outside, training too, finds its own generators untouched.
    """

    def __init__(self) -> None:
        self._kept = self._seeded(0)

    def seed(self, seed: int) -> None:
        """Begin all of them anew, from an integer."""
        self._kept = self._seeded(seed)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """The global generators are this env's as long as this lasts."""
        outside = _states()
        _set(self._kept)
        try:
            yield
        finally:
            self._kept = _states()
            _set(outside)

    @staticmethod
    def _seeded(seed: int) -> dict[str, Any]:
        states: dict[str, Any] = {
            "random": random.Random(seed).getstate(),
            "numpy": np.random.RandomState(seed % 2**32).get_state(),
        }
        if "torch" in sys.modules:
            states["torch"] = sys.modules["torch"].Generator().manual_seed(seed % 2**63).get_state()
        return states


def _states() -> dict[str, Any]:
    states: dict[str, Any] = {"random": random.getstate(), "numpy": np.random.get_state()}
    if "torch" in sys.modules:
        states["torch"] = sys.modules["torch"].get_rng_state()
    return states


def _set(states: dict[str, Any]) -> None:
    random.setstate(states["random"])
    np.random.set_state(states["numpy"])
    if "torch" in states:
        sys.modules["torch"].set_rng_state(states["torch"])
