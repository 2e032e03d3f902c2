"""What objectives share that learn from pictures of an env's first camera and need no demonstrations.

Their data are rendered by the training itself into the recipe's ``data.path``, ``data.stills`` of them: captioned
scenes (``vla.data.captioned``), or goal pictures (``vla.data.goal_pictures``).
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from vla.contracts import VlaError
from vla.data.captioned import Captioned, require_captions
from vla.data.rendered import Rendered
from vla.recipe import Recipe
from vla.registry import EnvRef
from vla.train.objectives import Batch, Objective
from vla.train.sampling import SampleOrder, batch_rng, pinned

_HELD_OUT = 256  # pictures of other scenes, for validation


class PictureObjective[Data: Rendered](Objective):
    """See the module.

    Attributes:
        camera: the env's first.
        scenes: to learn from.
        held: other scenes.
        share: pictures of a micro-batch that this process sees.
    """

    makes_data = True
    LEAST: ClassVar[int] = 1  # pictures that a process must see at once

    def __init__(self, recipe: Recipe, data_dir: Path, device: torch.device, rank: int, world: int) -> None:
        super().__init__(recipe, data_dir, device, rank, world)
        self.share, left = divmod(recipe.optim.batch_size, world)
        if left or self.share < self.LEAST:
            raise VlaError(f"--optim.batch_size {recipe.optim.batch_size} cannot be shared by {world} processes")
        ref = EnvRef(recipe.env)
        with ref.opened() as env:
            self.check_env(env)
            self.camera = env.env_spec.cameras[0]
        self.check_camera()
        self.scenes = self.render(ref, recipe.data.stills, recipe.seed, data_dir, "train")
        self.held = self.render(ref, _HELD_OUT, recipe.seed, data_dir, "heldout")
        self.sources = {"pictures": len(self.scenes)}
        self.order = SampleOrder(len(self.scenes), recipe.seed)

    @abstractmethod
    def check_env(self, env: Any) -> None:
        """Raise VlaError for an env that cannot show or say what is learnt."""

    def check_camera(self) -> None:
        """Raise VlaError for a camera whose pictures cannot be learnt from: before any is rendered."""

    @abstractmethod
    def render(self, env: EnvRef, count: int, seed: int, home: Path, split: str) -> Data:
        """Open the data of a split, or make them."""

    @abstractmethod
    def batch(self, scenes: Data, rows: np.ndarray, rng: np.random.Generator) -> Batch:
        """What is learnt from some of the pictures, on the CPU."""

    def fingerprint(self, version: int) -> str:
        """Of both splits."""
        return f"{self.scenes.fingerprint}+{self.held.fingerprint}"

    def step(self, step: int) -> list[Batch]:
        """See ``Objective``."""
        parts, count = [], self.recipe.optim.accumulate
        for part in range(count):
            number = part * self.world + self.rank
            rows = self.order.take(((step * count + part) * self.world + self.rank) * self.share, self.share)
            parts.append(pinned(self.batch(self.scenes, rows, batch_rng(self.recipe.seed, step, number)), self.device))
        return parts


class CaptionedObjective(PictureObjective[Captioned]):
    """One whose data are captioned scenes."""

    def check_env(self, env: Any) -> None:
        """See ``PictureObjective``."""
        require_captions(env, self.recipe.env)

    def render(self, env: EnvRef, count: int, seed: int, home: Path, split: str) -> Captioned:
        """See ``PictureObjective``."""
        return Captioned.build(env, count, seed, home, split)
