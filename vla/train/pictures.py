"""What objectives share that learn from pictures of an env's first camera and need no demonstrations.

Their data are captioned scenes (``vla.data.captioned``), ``data.stills`` of them, rendered by the training itself into
the recipe's ``data.path``.
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from vla.contracts import VlaError
from vla.data.captioned import Captioned, require_captions
from vla.recipe import Recipe
from vla.registry import EnvRef
from vla.train.objectives import Batch, Objective
from vla.train.sampling import SampleOrder, batch_rng, pinned

_HELD_OUT = 256  # pictures of other scenes, for validation


class PictureObjective(Objective):
    """See the module.

    Attributes:
        camera: the env's first.
        scenes: to learn from.
        held: other scenes.
        share: pictures of a micro-batch that this process sees.
    """

    LEAST: ClassVar[int] = 1  # pictures that a process must see at once

    def __init__(self, recipe: Recipe, data_dir: Path, device: torch.device, rank: int, world: int) -> None:
        super().__init__(recipe, data_dir, device, rank, world)
        self.share, left = divmod(recipe.optim.batch_size, world)
        if left or self.share < self.LEAST:
            raise VlaError(f"--optim.batch_size {recipe.optim.batch_size} cannot be shared by {world} processes")
        ref = EnvRef(recipe.env)
        with ref.opened() as env:
            require_captions(env, recipe.env)
            self.camera = env.env_spec.cameras[0]
        self.check_camera()
        self.scenes = Captioned.build(ref, recipe.data.stills, recipe.seed, data_dir)
        self.held = Captioned.build(ref, _HELD_OUT, recipe.seed, data_dir, "heldout")
        self.sources = {"pictures": len(self.scenes)}
        self.order = SampleOrder(len(self.scenes), recipe.seed)

    def check_camera(self) -> None:
        """Raise VlaError for a camera whose pictures cannot be learnt from: before any is rendered."""

    @abstractmethod
    def batch(self, scenes: Captioned, rows: np.ndarray, rng: np.random.Generator) -> Batch:
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
