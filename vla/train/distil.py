"""Distillation: an agent's head learns to lead from noise to a chunk in fewer calls, its trunk staying as it is.

The teacher is the agent that the recipe starts from, and its own sampler says where each noise leads. The student
begins as a copy of it and is trained by plain regression: from the same context and the same noise to the same chunk
(Luhman and Luhman, "Knowledge Distillation in Iterative Generative Models", 2021; Liu et al., "Flow Straight and
Fast", 2023, distil flows on straight paths so). No action of the data is learnt, so that every frame counts, the
agent's own turns too. Several noises are drawn for each frame, since the trunk costs as much as many heads.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vla.agent import Agent, load
from vla.contracts import VlaError
from vla.nn.context import Context, look
from vla.nn.policy import FollowsNoise
from vla.recipe import Recipe
from vla.train.checkpoint import Found, Tensors
from vla.train.checks import make_policy, require_data, require_fits
from vla.train.cloning import BehaviourCloning
from vla.train.objectives import Batch, Losses, Objective
from vla.train.sampling import batch_rng, seed_torch, to_device

_FREE = ("sample_steps", "draws")  # what the student may have otherwise than its teacher
_HELD_FRAMES, _HELD_PART = 256, 2**31  # what is validated on; a part of no training step


class Distillation(BehaviourCloning):
    """The head of a copy of ``recipe.init`` learns that agent's chunks; it alone is trained."""

    model: nn.Module  # type: ignore[assignment]
    student: FollowsNoise
    teacher: FollowsNoise
    whoever = True

    @staticmethod
    def require(recipe: Recipe, data_dir: Path) -> None:
        """See ``Objective``."""
        require_data(recipe, data_dir)
        if not recipe.init:
            raise VlaError("distillation needs a teacher; name the agent with --init")
        for name, value in (("init_share", recipe.init_share), ("data.stills", recipe.data.stills)):
            if value:
                raise VlaError(f"--{name} {value} must be 0 for distillation: the head learns from its teacher alone")

    def make(self, found: Found | None) -> None:
        """See ``Objective``. Raises VlaError for a teacher that is not the one with which the run began."""
        agent = load(self.recipe.init, str(self.device))
        require_fits(agent, self.recipe, self.spec, but=_FREE)
        if not isinstance(agent.policy, FollowsNoise):
            raise VlaError(f"agent {self.recipe.init}: its policy {agent.policy_name} has no head that follows noise")
        if found and found[1]["init"]["hash"] != agent.hash:
            raise VlaError(f"agent {self.recipe.init} is another than when this run began; train anew with --out")
        self._ancestor, self.normaliser = agent.provenance | {"hash": agent.hash}, agent.normaliser
        self.teacher = agent.policy.requires_grad_(False)
        student = make_policy(self.recipe, self.spec).to(self.device).eval()
        student.load_state_dict(self.teacher.state_dict())
        assert isinstance(student, FollowsNoise)
        self.student, self.model = student, student.head
        self.feed.prepare = self.teacher.prepare

    @torch.no_grad()
    def ready(self, batch: Batch) -> Batch:
        """The batch as ``BehaviourCloning`` has it, and what the trunk makes of it."""
        encoded = super().ready(batch)
        return {**encoded, "context": self._look(encoded)}

    def _look(self, encoded: Batch) -> Context:
        self.teacher.eval()  # empties the cache of sentences: rounding depends on what they were read with
        return look(self.teacher.trunk, encoded)

    def loss(self, batch: Batch) -> Losses:
        """The squared difference between the student's chunks and its teacher's, ``draws`` of them for each frame."""
        given, wanted = self._follow(batch["context"], len(batch["state"]), getattr(self.student.config, "draws", 1))
        losses = (given - wanted).square().flatten(1).mean(dim=1).view(len(batch["state"]), -1).mean(dim=1)
        return losses, {"distance": losses.detach().mean().sqrt()}

    def _follow(self, context: Context, frames: int, draws: int) -> tuple[Tensor, Tensor]:
        """Where the student and the teacher are led by the same noises, ``draws`` of them for each frame."""
        shape = (frames * draws, self.recipe.policy_config.chunk, self.student.action_dim)
        noise = torch.randn(shape, device=self.device)
        with torch.no_grad():
            wanted = self.teacher.follow(context, noise)
        return self.student.follow(context, noise), wanted

    parameter_groups = Objective.parameter_groups

    def validate(self, loss: Callable[[Batch], Losses]) -> dict[str, float]:
        """How far the student is from its teacher in held-out frames, and both from what the expert did there.

        The errors are the root mean square, in standard deviations, of the actions that are played before the next
        look; the loss, as in training, is of all.
        """
        held = self.feed.held
        if held is None:
            return {}
        chosen = np.linspace(0, len(held) - 1, min(len(held), _HELD_FRAMES)).astype(np.int64)
        raw = self.feed.prepare(held.batch(chosen, batch_rng(self.recipe.seed, 0, _HELD_PART)))
        encoded = self.normaliser.encode(to_device(raw, self.device))
        seed_torch(self.recipe.seed, 0, _HELD_PART)
        given, wanted = self._follow(self._look(encoded), len(chosen), 1)
        played = getattr(self.student.config, "execute", None)
        valid = encoded["valid"][:, :played, None]

        def error(actions: Tensor, others: Tensor) -> float:
            squares = (actions - others)[:, :played].square() * valid
            return float((squares.mean(dim=2).sum() / valid.sum()).sqrt())

        return {
            "validation_loss": float((given - wanted).square().mean()),
            "error_to_teacher": error(given, wanted),
            "error": error(given, encoded["actions"]),
            "error_of_teacher": error(wanted, encoded["actions"]),
        }

    def tensors(self) -> Tensors:
        """The statistics, which are the teacher's."""
        return {"statistics": self.normaliser.tensors()}

    def state(self) -> dict[str, Any]:
        """Of the teacher."""
        return {"init": self._ancestor}

    def artefact(self, model: nn.Module, provenance: dict[str, Any]) -> Agent:
        """The agent with the teacher's trunk and the head ``model``."""
        policy = copy.deepcopy(self.student)
        policy.head = model
        return super().artefact(policy, provenance)
