"""Grounding: the trunk alone learns from stills what words mean, before anything moves.

It learns so far faster than from demonstrations, which name few things and take a hundred frames over each. The
artefact is an agent whose head has learnt nothing yet: what behaviour cloning starts from (``Recipe.init``).
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import torch

from vla.contracts import VlaError
from vla.recipe import Recipe
from vla.train.cloning import BehaviourCloning
from vla.train.objectives import Batch, Losses


class Grounding(BehaviourCloning):
    """Where what a sentence asks for is, how it lies and how far off it is: ``data.stills_batch`` stills a step.

    The demonstrations give the statistics, and the observation of the golden trace.
    """

    @staticmethod
    def require(recipe: Recipe, data_dir: Path) -> None:
        """Raise VlaError where there are no stills to learn from, nothing that learns from them, or no dataset."""
        BehaviourCloning.require(recipe, data_dir)
        if not recipe.data.stills:
            raise VlaError("--data.stills must be above 0: grounding learns from them alone")
        if not getattr(recipe.policy_config, "learns_from_stills", True):
            raise VlaError(f"the policy {recipe.policy} learns nothing from stills with these settings")

    def step(self, step: int) -> list[Batch]:
        """The stills of each micro-batch."""
        return self.feed.stills_alone(step)

    def loss(self, batch: Batch) -> Losses:
        """The trunk's losses on stills, weighted as the policy weighs them, one for the whole batch (1,)."""
        config, trunk = self.recipe.policy_config, self.model.get_submodule("trunk")
        losses, scores = trunk.grounding_losses(batch)  # type: ignore[operator]
        weights = {"grounding": config.pointing_weight, "yaw": config.yaw_weight, "offset": config.offset_weight}
        total = torch.stack([weights.get(name, 1.0) * value for name, value in losses.items()]).sum()
        return total[None], {name: value.detach() for name, value in losses.items()} | scores

    def validate(self, loss: Callable[[Batch], Losses]) -> dict[str, float]:
        """Nothing: what fresh scenes look like is seen at every step of the first pass over the stills."""
        return {}

    def advice(self, folder: Path) -> str:
        """How to go on."""
        return f"it can point, and not move; go on with: {shlex.join(['vla', 'train', 'NAME', '--init', str(folder)])}"
