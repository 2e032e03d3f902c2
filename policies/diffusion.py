"""Diffusion over action chunks.

Lineage: Diffusion Policy (Chi et al., 2023) for the U-Net and the history, RDT-1B (Liu et al., 2024) for the
transformer, the prediction of clean chunks and the action vector that arms share. The noise schedules and samplers are
diffusers'.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from policies.diffusion_config import DiffusionConfig, TransformerConfig
from vla.contracts import EnvSpec, VlaError
from vla.control.history import observation_steps
from vla.nn.context import Context, look
from vla.nn.diffusion import ChunkTransformer, ChunkUNet, Denoiser, make_scheduler
from vla.nn.head import taught
from vla.nn.policy import Policy, Sampled, parameter_groups, standard_normal
from vla.nn.trunk import make_trunk
from vla.nn.unified import WIDTH, Unified


class DiffusionPolicy(Policy):
    """A trunk and a network that takes noise off a chunk, step by step.

    Args:
        config: sizes.
        spec: the env that it acts in.

    Raises VlaError where diffusers is not installed.
    """

    def __init__(self, config: DiffusionConfig, spec: EnvSpec) -> None:
        super().__init__()
        config.check("policy.")
        self.config, self.action_dim = config, len(spec.action)
        self.cameras = [camera.name for camera in spec.cameras]
        self.state_places = Unified(spec.groups("state")) if config.unified else None
        self.action_places = Unified(spec.groups("action")) if config.unified else None
        if config.unified:
            seen = tuple(f"{what} {place}" for what in ("place", "mask") for place in range(WIDTH))
            spec = replace(spec, state=seen, relative=(), state_groups=())
        self.trunk = make_trunk(config.trunk, config.dim, spec)
        steps = len(observation_steps(config))
        self.age_position = nn.Parameter(0.02 * torch.randn(steps, config.dim)) if steps > 1 else None
        self.head = _make_head(config, *((2 * WIDTH, WIDTH) if config.unified else (self.action_dim,) * 2))
        self.noising = make_scheduler("ddpm", config.train_steps, config.prediction)

    def for_arm(self, spec: EnvSpec) -> DiffusionPolicy:
        """The same network, its weights shared, for another arm with cameras of the same names.

        Raises VlaError unless the action vector is the one that arms share.
        """
        if self.action_places is None:
            raise VlaError("a network serves other arms only with --policy.unified true")
        if [camera.name for camera in spec.cameras] != self.cameras:
            raise VlaError(f"the other arm's cameras must be {', '.join(self.cameras)}")
        other = copy.copy(self)
        other.action_dim = len(spec.action)
        other.state_places, other.action_places = Unified(spec.groups("state")), Unified(spec.groups("action"))
        return other

    def look(self, batch: dict[str, Any]) -> Context:
        """The context of all observations, which are told apart by their age."""
        if self.state_places is not None:
            state = batch["state"]
            mask = self.state_places.mask.to(state).expand(*state.shape[:-1], -1)
            batch = {**batch, "state": torch.cat((self.state_places.spread(state), mask), dim=-1)}
        context = look(self.trunk, batch)
        if self.age_position is None:
            return context
        ages = self.age_position.repeat_interleave(context.tokens.shape[1] // len(self.age_position), dim=0)
        return replace(context, tokens=context.tokens + ages)

    def loss(self, batch: dict) -> tuple[Tensor, dict[str, Tensor]]:
        """The training loss of each sample of a normalised batch (B,), and the batch's parts by name.

        Args:
            batch: as ``Normaliser.encode`` gives it, with ``actions`` (B, chunk, A), ``valid`` (B, chunk) and what the
                trunk learns from (see ``vla.nn.head.taught``). Not changed. Random draws come from torch's global
                generator.
        """
        context, draws, samples = self.look(batch), self.config.draws, len(batch["actions"])
        actions = self._spread(batch["actions"]).repeat_interleave(draws, dim=0)
        valid = batch["valid"].repeat_interleave(draws, dim=0).to(actions)
        noise = torch.randn_like(actions)
        t = torch.randint(self.config.train_steps, (len(actions),), device=actions.device)
        noisy = self.noising.add_noise(actions, noise, t)
        if self.config.prediction == "v_prediction":
            target = self.noising.get_velocity(actions, noise, t)
        else:
            target = noise if self.config.prediction == "epsilon" else actions
        given = self.head(self._with_mask(noisy), self._times(t), context)
        error = self._gather((given - target).square()).mean(dim=-1)
        loss = (error * valid).view(samples, -1).sum(dim=1) * (samples / valid.sum().clamp(min=1.0))
        more, parts = taught(self.trunk, context, batch, self.config)
        return loss + more, {"diffusion": loss.detach().mean(), **parts}

    @torch.no_grad()
    def sample(self, batch: dict, generators: Sequence[torch.Generator]) -> Sampled:
        """Normalised chunks for a normalised batch of observations.

        Args:
            batch: ``images.{camera}``, ``state`` and ``instruction``.
            generators: each draws (chunk, A) standard normal numbers; ``noise_scale`` of it is what a chunk begins as.
                The sampler ddpm draws as many again at each step.
        """
        config, context = self.config, self.look(batch)
        scheduler = make_scheduler(config.sampler, config.train_steps, config.prediction, config.clip)
        scheduler.set_timesteps(config.sample_steps)
        noise = standard_normal(generators, (config.chunk, self.action_dim), context.tokens.device)
        x = config.noise_scale * self._spread(noise)
        steps = scheduler.timesteps.to(x.device)
        prepared = self.head.prepare(context, self._times(steps)[:, None].expand(-1, len(x)))
        for i, t in enumerate(scheduler.timesteps):
            given = self.head.denoise(self._with_mask(x), prepared, i)
            more = {"generator": list(generators)} if config.sampler == "ddpm" else {}
            x = scheduler.step(given, t, x, return_dict=False, **more)[0]
        return Sampled(self._gather(x))

    def _times(self, t: Tensor) -> Tensor:
        return t.float() / self.config.train_steps

    def _spread(self, x: Tensor) -> Tensor:
        return x if self.action_places is None else self.action_places.spread(x)

    def _gather(self, x: Tensor) -> Tensor:
        return x if self.action_places is None else self.action_places.gather(x)

    def _with_mask(self, x: Tensor) -> Tensor:
        """With the mask beside it, and nothing where the arm has nothing."""
        if self.action_places is None:
            return x
        mask = self.action_places.mask.to(x)
        return torch.cat((x * mask, mask.expand_as(x)), dim=-1)

    def parameter_groups(self, weight_decay: float) -> list[dict]:
        """Matrices and kernels decay; biases, norms, embeddings and tokens do not."""
        return parameter_groups(self, weight_decay, ("grams", "position", "slots"))


def _make_head(config: DiffusionConfig, inputs: int, outputs: int) -> Denoiser:
    net = config.network
    if isinstance(net, TransformerConfig):
        sizes = (config.dim, net.depth, net.heads, net.actions_per_token, net.alternate)
        return ChunkTransformer(config.chunk, inputs, outputs, *sizes)
    return ChunkUNet(config.chunk, inputs, outputs, config.dim, net.widths, net.kernel, net.groups, net.queries)


POLICY = DiffusionPolicy
CONFIG = DiffusionConfig
