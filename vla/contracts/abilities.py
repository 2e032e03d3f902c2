"""What an env may be able to do beyond ``vla.contracts.Env``: small protocols, each asked for by ``isinstance``.

Some can be told from the class alone: they are asked of the class itself, before an env is made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from vla.contracts.env import Env, ReferringExpression, StepResult
from vla.contracts.questions import Question
from vla.contracts.spec import EnvSpec


@runtime_checkable
class ChecksOptions(Protocol):
    """An env class that can refuse reset options before an env, an agent or a worker is made."""

    @classmethod
    def check_options(cls, options: dict[str, Any]) -> None:
        """Raise VlaError, on one line, for options that no episode can have: an instruction without a meaning, say."""
        ...


@runtime_checkable
class TakesArgument(Protocol):
    """An env class that takes what follows the colon in ``--env metaworld:reach-v3``."""

    ARGUMENT: str  # which parameter of its constructor that is


@runtime_checkable
class Perturbs(Protocol):
    """An env class that can be made harder: its ``reset`` takes the option ``perturb``, axis to strength."""

    PERTURBATIONS: Sequence[str]  # the axes of ``vla.perturb`` that it can do


@runtime_checkable
class Benchmarked(Protocol):
    """An env class whose tasks are a benchmark with tiers, which others have published figures for."""

    benchmark: Benchmark


@runtime_checkable
class HasTasks(Protocol):
    """An env of several tasks: its ``reset`` takes the option ``task``, and episodes are counted for each of them."""

    tasks: Sequence[str]


@runtime_checkable
class Adapts(Protocol):
    """An adapter for envs of others."""

    reading: str  # what of their observations it uses, and what not, in a line

    @staticmethod
    def adapted_modules(**options: Any) -> tuple[str, ...]:
        """Where the code of the env is that these arguments of the constructor name; its version may be anything."""


@runtime_checkable
class Points(Protocol):
    """An env with privileged labels for training."""

    def points(self) -> dict[str, np.ndarray]:
        """Camera name to float32 (6,): u, v, visible of the item to move now, then those of the place where it goes.

        u and v run from -1 to 1, right and down; visible is 0 or 1. All are 0 where nothing can be said.
        """
        ...


@runtime_checkable
class Refers(Protocol):
    """An env that can say what could be asked for now; ``vla.data.stills`` teaches pointing with it.

    Its ``reset`` takes the option ``stage="midway"``: a scene as in the middle of an episode.
    """

    def referring_expressions(self) -> list[ReferringExpression]:
        """One for each thing or group of things."""
        ...


@runtime_checkable
class AnswersQuestions(Protocol):
    """An env that can ask about what it shows, and knows the answers; the objective ``answers`` learns from them.

    Its ``reset`` takes the options ``stage="midway"`` and ``split``.
    """

    def questions(self, rng: np.random.Generator, split: str = "train") -> list[Question]:
        """One or a few of each kind about the scene as it is now, in its languages.

        Args:
            rng: chooses what is asked about, and the words.
            split: of the words, ``train`` or ``heldout``; no question of the one is worded as one of the other is.
        """
        ...


@runtime_checkable
class AsksFor(Protocol):
    """An env that can ask for another of its items: the checks swap the instruction, and see what the agent does."""

    def sentence_for(self, item: str) -> str:
        """A sentence that asks for one of the items of ``reset``'s info, by its name."""
        ...


@runtime_checkable
class MeasuresSafety(Protocol):
    """An env whose ``play`` has ``safety`` in its info: what was largest during the action (``drops`` is a count)."""

    safety_limits: Mapping[str, float]  # by the names of the measures; beyond is a violation


@runtime_checkable
class Films(Protocol):
    """An env with a picture for people, which shows more than what the policy sees."""

    def film(self, width: int, height: int) -> np.ndarray:
        """The scene as it is now, uint8 (height, width, 3), drawn quickly: it is asked for at twice a video's size."""
        ...


@runtime_checkable
class DrivesJoints(Protocol):
    """An env whose arm can also be driven as a robot's own servos are: by joint targets, 200 a second.

    ``vla.robots.simulated`` makes a robot of it, with a controller, joint states and cameras.
    """

    env_spec: EnvSpec

    def drive(self, q: np.ndarray, opening: float) -> StepResult | None:
        """Let the servos follow joint targets (N,), rad, and the gripper an opening (0 to 1) for 1/200 s.

        Returns what ``play`` would, once in every ``dt`` seconds.
        """
        ...

    def measured(self) -> tuple[np.ndarray, np.ndarray, float]:
        """Joint positions, rad, and velocities, rad/s, (N,) each, and the gripper's opening, 0 to 1."""
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


def points_of(env: Env) -> dict[str, np.ndarray]:
    """What ``Points.points`` says; zeros, which mean that nothing is known, of an env without that ability."""
    if isinstance(env, Points):
        return env.points()
    return {camera.name: np.zeros(6, np.float32) for camera in env.env_spec.cameras}


def tasks_of(env: Env) -> tuple[str, ...]:
    """The names of the env's tasks; none of an env of one."""
    return tuple(env.tasks) if isinstance(env, HasTasks) else ()
