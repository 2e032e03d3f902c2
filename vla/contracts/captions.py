"""What a picture of an env shows, in sentences that are true of it, in others that are not, and in wishes come true.

Contrastive training (``vla.train.align``), imagining (``vla.train.imagine``) and their measures
(``vla.eval.alignment``, ``vla.eval.imagination``) ask an env for these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

DIFFERENCES = ("colour", "item", "receptacle", "relation")


@dataclass(frozen=True)
class Caption:
    """A sentence that is true of the scene.

    Attributes:
        text: the sentence.
        language: ``en`` or ``zh``.
        wrong: the same sentence with one word, or name, exchanged, so that it is not true.
        differs: for each of these, one of ``DIFFERENCES``.
    """

    text: str
    language: str
    wrong: tuple[str, ...]
    differs: tuple[str, ...]


@dataclass(frozen=True)
class Wish:
    """An instruction that could have been given, and whether the scene is as it asks for."""

    text: str
    language: str
    done: bool


@runtime_checkable
class Captions(Protocol):
    """An env that can put the present scene into words."""

    def captions(self, rng: np.random.Generator, split: str = "train") -> list[Caption]:
        """One in each language of the env; none where nothing can be said beyond doubt."""
        ...

    def wishes(self, rng: np.random.Generator, split: str = "train") -> list[Wish]:
        """Some in either language; the first is the episode's own. ``split`` is of the words."""
        ...


@runtime_checkable
class Arranges(Protocol):
    """An env that can write an outcome of the episode into its simulator, whatever was done so far.

    Attributes:
        outcomes: their names. ``done`` is the one that was asked for, ``mixed`` is anything at all, the others are
            near misses.
    """

    outcomes: Sequence[str]

    def arrange(self, outcome: str, rng: np.random.Generator) -> None:
        """Put things so. Raises VlaError for a name that is not known."""
        ...


@runtime_checkable
class Foresees(Protocol):
    """An env that can put into words what is to be seen once the episode is a success."""

    def foreseen(self, rng: np.random.Generator, split: str = "train") -> list[str]:
        """Sentences in each of its languages, of which each asks for the episode's goal, or asks to see it reached.

        No sentence of one split is one of the other.
        """
        ...
