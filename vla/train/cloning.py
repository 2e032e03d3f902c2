"""Behaviour cloning: a policy learns to do what demonstrations do, and the artefact is an agent."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vla.agent import Agent, load
from vla.contracts import VlaError
from vla.nn.context import Context
from vla.nn.policy import Policy
from vla.normalise import Normaliser
from vla.recipe import Recipe
from vla.registry import EnvRef
from vla.train.checkpoint import Found, Tensors
from vla.train.checks import make_policy, require_data, require_env, require_fits, require_trunk_fits
from vla.train.feed import Feed
from vla.train.objectives import Batch, Losses, Objective, TriedOut
from vla.train.sampling import colour_jitter, fit_normaliser, samples, to_device
from vla.train.validate import SCENES, answer_scores, closed_loop, held_out_loss


class BehaviourCloning(Objective):
    """Chunks of actions from observations: of demonstrations, of corrections, and with stills to point at beside."""

    model: Policy
    normaliser: Normaliser
    folder = "agent"
    whoever = False  # whether an agent's turns in the data are drawn too
    require = staticmethod(require_data)

    def __init__(self, recipe: Recipe, data_dir: Path, device: torch.device, rank: int, world: int) -> None:
        super().__init__(recipe, data_dir, device, rank, world)
        self.feed = Feed(recipe, data_dir, rank, world, device, self.whoever)
        self.spec = self.feed.cache.spec
        self.notes = [*self.feed.cache.mapping, *self.feed.notes]
        self._ancestor: dict[str, Any] = {}
        self._text: torch.Tensor | None = None
        self._initial: dict[str, torch.Tensor] = {}
        self._stills: str | None = None  # the fingerprint that a run began with
        if recipe.validate.every >= 0 and rank == 0:
            require_env(self.feed.env, self.spec)

    def fingerprint(self, version: int) -> str:
        """See ``Objective``."""
        return self.feed.fingerprint if version > 1 else self.feed.former_fingerprint()

    def make(self, found: Found | None) -> None:
        """See ``Objective``. The statistics, and what a policy fits, come from the data or from ``recipe.init``."""
        tensors, state = found or ({}, {})
        self.model = make_policy(self.recipe, self.spec).to(self.device)
        if "statistics" in tensors:
            self.normaliser = Normaliser.from_tensors(tensors["statistics"], self.spec).to(self.device)
        elif self.recipe.init:
            self._start_from(load(self.recipe.init, str(self.device)))
        else:
            self.normaliser = fit_normaliser(self.feed.windows).to(self.device)
            if self.recipe.trunk_from:
                self._take_trunk(load(self.recipe.trunk_from, str(self.device)))
            self._fit_policy()
        if self.recipe.trunk_from:
            self.model.trunk.requires_grad_(False)  # type: ignore[union-attr,operator]
        self.feed.prepare = self.model.prepare
        if "initial" in tensors:
            self._initial = {name: tensor.to(self.device) for name, tensor in tensors["initial"].items()}
        self._ancestor, self._stills = state.get("init", self._ancestor), state.get("stills")

    def _fit_policy(self) -> None:
        """What the policy takes from the data before it is trained. Its buffers are kept wherever weights are."""
        state, actions = (torch.from_numpy(array).to(self.device) for array in samples(self.feed.windows))
        encoded = self.normaliser.encode({"state": state, "actions": actions})
        with torch.no_grad():
            self.model.fit(encoded["state"], encoded["actions"])

    def _start_from(self, agent: Agent) -> None:
        """Take over an agent's weights, and its statistics, which belong to them."""
        if agent.policy_name != self.recipe.policy and not self.recipe.init_share:
            agent.spec.require(self.spec, f"agent {self.recipe.init}", "the dataset")
            try:
                self.model.take_over(agent.policy)
            except VlaError as error:
                raise VlaError(f"agent {self.recipe.init} can't be where this run starts from: {error}") from error
        else:
            require_fits(agent, self.recipe, self.spec)
            self.model.load_state_dict(agent.policy.state_dict())
        if self.recipe.init_share:
            self._initial = {name: tensor.clone() for name, tensor in agent.policy.state_dict().items()}
        self.normaliser, self._ancestor = agent.normaliser, agent.provenance | {"hash": agent.hash}

    def _take_trunk(self, agent: Agent) -> None:
        """Take over an agent's trunk, and the statistics of the state, which belong to it."""
        require_trunk_fits(agent, self.recipe, self.spec)
        self.model.trunk.load_state_dict(agent.policy.trunk.state_dict())  # type: ignore[union-attr,operator]
        theirs = agent.normaliser
        self.normaliser = replace(self.normaliser, state_mean=theirs.state_mean, state_std=theirs.state_std)
        self._ancestor = agent.provenance | {"hash": agent.hash}

    def prepare(self) -> None:
        """Open or render the stills, or work out the contexts of a trunk that stays as it is.

        Raises VlaError where the stills are not those that the run began with.
        """
        self.feed.prepare_stills()
        self.sources = self.feed.sources()
        if self.recipe.trunk_from:
            self._text = self.feed.prepare_contexts(self.model, self.normaliser)
        if self._stills not in (None, self.feed.stills_fingerprint):
            env = self.recipe.env
            raise VlaError(f"env {env} renders other stills than when this run began; train anew with --out")

    def step(self, step: int) -> list[Batch]:
        """See ``Objective``: windows in SI units, and ``stills`` in them where the recipe has some."""
        return self.feed.step(step)

    def ready(self, batch: Batch) -> Batch:
        """The batch, and its stills, normalised and with other colours; or with the contexts in place of both."""
        encoded = self.normaliser.encode(to_device(batch, self.device))
        if "tokens" in encoded:
            text = None if self._text is None else self._text.to(self.device)
            context = Context(encoded.pop("tokens").float(), encoded.pop("mask", None), text=text)
            return {**encoded, "context": context}
        encoded = colour_jitter(encoded, self.recipe.data.colour_jitter)
        return {**encoded, "stills": self.ready(batch["stills"])} if "stills" in batch else encoded

    def loss(self, batch: Batch) -> Losses:
        """The policy's."""
        return self.model.loss(batch)

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """The policy's, of what is trained."""
        groups = self.model.parameter_groups(weight_decay)
        return [{**group, "params": [p for p in group["params"] if p.requires_grad]} for group in groups]

    def validate(self, loss: Callable[[Batch], Losses]) -> dict[str, float]:
        """The loss on held-out episodes; of a trunk that learns answers, the share of right ones."""
        feed, scores = self.feed, dict[str, float]()
        if feed.held is not None:
            rest = (feed.share, self.recipe.seed, self.device, feed.prepare)
            scores["validation_loss"] = held_out_loss(loss, feed.held, self.normaliser, *rest)
        return scores | self._answer_scores() if self.recipe.data.stills_questions else scores

    def _answer_scores(self) -> dict[str, float]:
        trunk: Any = self.model.trunk
        scenes = min(SCENES, self.recipe.data.stills)
        return answer_scores(trunk, self.feed.held_questions(scenes), self.normaliser, self.feed.prepare, self.device)

    def try_out(self, artefact: Agent, stopped: Callable[[], bool]) -> TriedOut | None:
        """Let the agent act on validation seeds."""
        from vla.rollout.loop import RolloutInterrupted

        try:
            rate, progress = closed_loop(self.recipe, artefact, self.feed.env, stopped)
        except RolloutInterrupted:
            if stopped():
                return None
            raise
        return TriedOut(
            {"success": rate.to_dict(), "progress": round(progress, 4)},
            {"success": rate.rate, "progress": progress},
            f"success {rate.rate:.0%} [{rate.low:.0%}, {rate.high:.0%}] in {rate.n} episodes, progress {progress:.0%}",
        )

    def tensors(self) -> Tensors:
        """The statistics, and where ``recipe.init_share`` wants them the weights that the run started from."""
        return {"statistics": self.normaliser.tensors(), "initial": self._initial}

    def state(self) -> dict[str, Any]:
        """Of the stills, and of the agent that the run started from."""
        return {"stills": self.feed.stills_fingerprint, "init": self._ancestor}

    @torch.no_grad()
    def artefact(self, model: nn.Module, provenance: dict[str, Any]) -> Agent:
        """The agent that would ship now."""
        if self.recipe.init_share:
            for name, tensor in model.state_dict().items():
                if tensor.is_floating_point():
                    tensor.lerp_(self._initial[name], self.recipe.init_share)
        if self._ancestor:
            provenance = provenance | {"trunk" if self.recipe.trunk_from else "init": self._ancestor}
        return Agent(model, self.normaliser, self.spec, self.recipe.policy, provenance, self.recipe.name)

    def save(self, artefact: Agent, folder: Path) -> None:
        """The agent's bundle, with its golden trace."""
        artefact.save(folder, self.feed.golden())

    def advice(self, folder: Path) -> str:
        """How to evaluate the agent."""
        trusted = [f"VLA_ALLOW={self.recipe.policy}"] if ":" in self.recipe.policy else []  # files name no outside code
        env = self.feed.env if self.recipe.env else EnvRef("ENV")
        words = [*trusted, "vla", "eval", *env.words(), "--agent", str(folder)]
        return f"evaluate it on episodes that it has not seen: {shlex.join(words)}"
