"""What a training is for. The trainer steps, averages, saves and resumes; an objective says what, on which data.

Behaviour cloning is one (``vla.train.cloning``); a recipe names it, see ``vla.train.known``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from vla.nn.policy import parameter_groups
from vla.recipe import Recipe
from vla.train.checkpoint import Found, Tensors
from vla.train.sampling import to_device

Batch = dict[str, Any]
Losses = tuple[Tensor, dict[str, Tensor]]


class TriedOut(NamedTuple):
    """How an artefact did: what a result keeps, what the log plots, and a line to read."""

    scores: dict[str, Any]
    logged: dict[str, float]
    line: str


class Objective(ABC):
    """What is trained, on what, and what comes of it. Of several processes each has one.

    Made before the model, so that it opens its data, makes their caches and refuses what is impossible; the first
    process goes first. Then come ``make``, ``prepare`` and the steps.

    Args:
        recipe: says what is trained, and on what.
        data_dir: the recipe's dataset.
        device: where the model lives.
        rank, world: which of how many processes this is.

    Attributes:
        model: what is trained, after ``make``. Its weights, their average and the optimiser are the trainer's to keep.
        sources: what the batches are drawn from by name, and how many samples each has; after ``prepare``.
        notes: lines on what is unusual about the data.
        folder: of the artefact, in the run's folder.
        makes_data: whether it makes what it learns from, in a folder that need not be there.
    """

    makes_data: ClassVar[bool] = False
    model: nn.Module
    sources: dict[str, int]
    notes: list[str]
    folder: str = "artefact"

    def __init__(self, recipe: Recipe, data_dir: Path, device: torch.device, rank: int, world: int) -> None:
        self.recipe, self.data_dir, self.device, self.rank, self.world = recipe, data_dir, device, rank, world
        self.notes = []

    @staticmethod  # noqa: B027 - most have nothing to ask
    def require(recipe: Recipe, data_dir: Path) -> None:
        """Raise VlaError where this cannot be trained at all: before the run's folder is touched."""

    @abstractmethod
    def fingerprint(self, version: int) -> str:
        """Of the data, as checkpoints of format ``version`` hold it: a run does not go on with other data."""

    @abstractmethod
    def make(self, found: Found | None) -> None:
        """Make ``model`` on the device, with fresh weights; torch is seeded.

        The trainer puts a checkpoint's weights into it. Whatever else ``tensors`` and ``state`` had saved is taken
        from ``found`` here. Raises VlaError where it does not fit.
        """

    def prepare(self) -> None:  # noqa: B027 - few have
        """Long work that is only done once nothing can be refused any more; the first process goes first."""

    @abstractmethod
    def step(self, step: int) -> list[Batch]:
        """The micro-batches of one step, ``optim.accumulate`` of them, on the CPU; called ahead, in a thread.

        They depend on (seed, step, rank) alone: that is what makes a resumed run the same run.
        """

    def ready(self, batch: Batch) -> Batch:
        """A micro-batch as the model sees it, on the device. Random draws come from torch's global generator."""
        return to_device(batch, self.device)

    @abstractmethod
    def loss(self, batch: Batch) -> Losses:
        """The loss of each sample (B,), whose mean is trained, and scalar tensors for the log by name."""

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Every trainable parameter once, for the optimiser."""
        return parameter_groups(self.model, weight_decay)

    def validate(self, loss: Callable[[Batch], Losses]) -> dict[str, float]:
        """Scores on what is held out, by name; empty where nothing is. The model has its averaged weights."""
        return {}

    def try_out(self, artefact: Any, stopped: Callable[[], bool]) -> TriedOut | None:
        """How the artefact does in use, for ``validate.every``; None soon after ``stopped()`` has become true."""
        return TriedOut({}, {}, "")

    def tensors(self) -> Tensors:
        """What a checkpoint holds beside model, ema and optimizer: sets of tensors by name."""
        return {}

    def state(self) -> dict[str, Any]:
        """What a checkpoint's ``state.json`` holds beside the trainer's counters: JSON types."""
        return {}

    @abstractmethod
    def artefact(self, model: nn.Module, provenance: dict[str, Any]) -> Any:
        """What the training gives: made of ``model``, a copy of its own with the averaged weights."""

    @abstractmethod
    def save(self, artefact: Any, folder: Path) -> None:
        """Write it into ``folder``, over an older one."""

    def advice(self, folder: Path) -> str:
        """A line for the user on what to do with the artefact in ``folder``; empty for none."""
        return ""
