"""What an env may be able to do beyond ``vla.contracts.Env``: small protocols, each asked for by ``isinstance``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class ChecksOptions(Protocol):
    """An env class that can refuse reset options before an env, an agent or a worker is made."""

    @classmethod
    def check_options(cls, options: dict[str, Any]) -> None:
        """Raise VlaError, on one line, for options that no episode can have: an instruction without a meaning, say."""
        ...


@runtime_checkable
class Films(Protocol):
    """An env with a picture for people, which shows more than what the policy sees."""

    def film(self, width: int, height: int) -> np.ndarray:
        """The scene as it is now, uint8 (height, width, 3), drawn quickly: it is asked for at twice a video's size."""
        ...


@dataclass(frozen=True)
class Shortfall:
    """Why an episode is no success.

    Attributes:
        reason: a few words that are the same for failures of a kind, e.g. ``wrong item``; they are counted.
        detail: what happened in this one, e.g. ``picked up the blue pen, which was not asked for``.
    """

    reason: str
    detail: str


@runtime_checkable
class Explains(Protocol):
    """An env that can say, from its own state, what happens and what went wrong."""

    def doing(self) -> str:
        """What is being done now, in a few words in the language of the instruction, for a caption."""
        ...

    def shortfall(self) -> Shortfall:
        """Why the episode, were it to end now, would be no success."""
        ...


@dataclass(frozen=True)
class Published:
    """One row of the published table. Figures are per cent.

    Attributes:
        model: its name.
        size: parameters, e.g. ``0.45B``; empty if not told.
        tiers: success in each tier, in the benchmark's order.
        mean: the mean over the tiers.
        source: where the row comes from.
    """

    model: str
    size: str
    tiers: tuple[float, ...]
    mean: float
    source: str


@dataclass(frozen=True)
class Benchmark:
    """A benchmark. Its env's ``reset`` says the tier as ``kind`` and the task as ``category``.

    Attributes:
        tiers: from easy to hard.
        tasks: how many tasks they hold.
        published: what others reached.
    """

    tiers: tuple[str, ...]
    tasks: int
    published: tuple[Published, ...] = ()


def explain(env: Any, progress: float, truncated: bool, seconds: float) -> Shortfall:
    """Why an episode that ended without success is none: what the env says, else what anybody could see."""
    if isinstance(env, Explains):
        return env.shortfall()
    done = f"with {progress * 100:.0f} % done" if 0 < progress < 1 else "without success"
    if truncated:
        return Shortfall("ran out of time", f"{seconds:.1f} s were over, {done}")
    return Shortfall("ended without success", f"the env ended it after {seconds:.1f} s, {done}")
