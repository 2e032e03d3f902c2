"""Flow matching over action chunks, the default head.

Lineage: pi0 (Black et al., 2024), SmolVLA (2025), ProgVLA. The observation is encoded once into a few context
tokens; the head is a small transformer that turns noise into a chunk in a few steps. In training several times and
noises are drawn for each encoded observation, since the head is cheap next to the eyes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from policies.flow_config import FlowConfig
from vla.contracts import EnvSpec, VlaError
from vla.nn.context import Context, look
from vla.nn.flow import integrate, integrate_guided, interpolate, midpoint_times, sample_times
from vla.nn.head import taught
from vla.nn.policy import FollowsNoise, Sampled, parameter_groups, standard_normal
from vla.nn.transformer import ModulatedBlock, time_embedding
from vla.nn.trunk import make_trunk

GUIDED_STEPS = 4  # at least, where the flow is guided: each takes a part of the error away


class FlowHead(nn.Module):
    """The velocity field: noisy chunk (B, chunk, A), time (B,), C contexts → velocity (B, chunk, A).

    B is a multiple of C; consecutive rows share a context. The ``config`` has ``chunk``, ``actions_per_token``,
    ``dim``, ``depth`` and ``heads``, as a ``FlowConfig`` has.
    """

    def __init__(self, config: Any, action_dim: int) -> None:
        super().__init__()
        if config.chunk % config.actions_per_token:
            raise VlaError(f"actions_per_token {config.actions_per_token} does not divide chunk {config.chunk}")
        tokens, width = config.chunk // config.actions_per_token, config.actions_per_token * action_dim
        self.embed = nn.Linear(width, config.dim)
        self.position = nn.Parameter(0.02 * torch.randn(tokens, config.dim))
        self.time = nn.Sequential(nn.Linear(config.dim, config.dim), nn.SiLU(), nn.Linear(config.dim, config.dim))
        blocks = nn.ModuleList(ModulatedBlock(config.dim, config.heads) for _ in range(config.depth))
        self.blocks: Sequence[ModulatedBlock] = blocks  # type: ignore[assignment]
        self.norm = nn.LayerNorm(config.dim)
        self.out = nn.Linear(config.dim, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        self.dim = config.dim

    def forward(self, x: Tensor, t: Tensor, context: Context, given: Tensor | None = None) -> Tensor:
        """See the class; actions that are ``given`` (B, chunk), whole tokens of them, are at the flow's end already."""
        return self.velocity(x, self.steer(t, context, given), self.remember(context), context.mask)

    def steer(self, t: Tensor, context: Context, given: Tensor | None = None) -> list[Tensor]:
        """What times (…, B) and C contexts ask of each block: (…, B, 9 D), with ``given`` actions (…, B, N, 9 D)."""
        mean = context.mean().repeat_interleave(t.shape[-1] // len(context.tokens), 0)
        condition = self.time(time_embedding(t, self.dim)) + mean
        if given is not None:
            at_end = self.time(time_embedding(torch.ones_like(t), self.dim)) + mean
            whole = given.view(*given.shape[:-1], len(self.position), -1)[..., :1]
            condition = torch.where(whole, at_end[..., None, :], condition[..., None, :])
        return [block.steer(condition) for block in self.blocks]

    def remember(self, context: Context) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of the contexts, for each block: of the trunk's last layer, or of one each, evenly spread.

        Where a trunk offers ``layers``, the first block reads the first and the last block the last, as pi0's and
        SmolVLA's experts follow their language model (Black et al., 2024; Shukor et al., 2025).
        """
        layers, last = context.extras.get("layers", [context.tokens]), max(len(self.blocks) - 1, 1)
        reads = [layers[round(i * (len(layers) - 1) / last)] for i in range(len(self.blocks))]
        return [block.attend_cross.remember(read) for block, read in zip(self.blocks, reads, strict=True)]

    def velocity(
        self, x: Tensor, steering: list[Tensor], memory: list[tuple[Tensor, Tensor]], mask: Tensor | None
    ) -> Tensor:
        """The velocity of a noisy chunk (B, chunk, A), given what ``steer`` (for B times) and ``remember`` gave.

        ``mask`` is the contexts'.
        """
        tokens = self.embed(x.reshape(len(x), len(self.position), -1)) + self.position
        for block, steered, remembered in zip(self.blocks, steering, memory, strict=True):
            tokens = block(tokens, steered, remembered, mask)
        return self.out(self.norm(tokens)).reshape(x.shape)


class FlowPolicy(FollowsNoise):
    """A trunk and the flow head.

    Args:
        config: sizes.
        spec: the env that it acts in.
    """

    heeds_pending = True
    head: FlowHead

    def __init__(self, config: FlowConfig, spec: EnvSpec) -> None:
        super().__init__()
        self.config, self.action_dim = config, len(spec.action)
        self.trunk = make_trunk(config.trunk, config.dim, spec)
        self.head = FlowHead(config, self.action_dim)

    def loss(self, batch: dict) -> tuple[Tensor, dict[str, Tensor]]:
        """The training loss of each sample of a normalised batch (B,), and the batch's parts by name.

        A sample's own is its flow loss, over all draws and all of the batch's valid actions; pointing and what the
        stills teach belong to the batch, and each sample carries them whole. The mean is the sum of the parts.

        Args:
            batch: as ``Normaliser.encode`` gives it, with ``actions`` (B, chunk, A), ``valid`` (B, chunk) and, where
                known, ``points.{camera}`` and ``stills`` (see ``Trunk.grounding_losses``). Not changed. Random draws
                come from torch's global generator.
        """
        seen = look(self.trunk, batch)
        context = seen.each(torch.detach) if self.config.insulated else seen
        draws = self.config.draws
        actions = batch["actions"].repeat_interleave(draws, dim=0)
        valid = batch["valid"].repeat_interleave(draws, dim=0).to(actions)
        noise = torch.randn_like(actions)
        t = sample_times(len(actions), self.config.time_alpha, self.config.time_beta, actions.device)
        x, velocity = interpolate(noise, actions, t)
        given = (
            self._given(torch.randint(self.config.prefix + 1, t.shape, device=t.device)) if self.config.prefix else None
        )
        if given is not None:
            x, valid = torch.where(given[..., None], actions, x), valid * ~given
        error = (self.head(x, t, context, given) - velocity).square().mean(dim=-1)
        samples = len(batch["actions"])
        loss = (error * valid).view(samples, -1).sum(dim=1) * (samples / valid.sum().clamp(min=1.0))
        more, parts = taught(self.trunk, seen, batch, self.config)
        return loss + more, {"flow": loss.detach().mean(), **parts}

    @torch.no_grad()
    def sample(self, batch: dict, generators: Sequence[torch.Generator]) -> Sampled:
        """Normalised chunks for a normalised batch of observations.

        Args:
            batch: ``images.{camera}``, ``state`` and ``instruction``.
            generators: each draws (chunk, A) standard normal numbers; ``noise_scale`` of it is where the flow starts.

        Where the batch has ``pending``, chunks are drawn that go on from there: guided (see ``integrate_guided``), or
        given what is sure to be played, as it was trained to.
        """
        context = look(self.trunk, batch)
        noise = standard_normal(generators, (self.config.chunk, self.action_dim), context.tokens.device)
        if "pending" not in batch:
            return Sampled(self.follow(context, noise))
        noise, steps = self.config.noise_scale * noise, self.config.sample_steps
        if batch.get("pending_given"):
            return Sampled(self._go_on(context, noise, batch["pending"], batch["pending_weight"] >= 1.0))
        with torch.inference_mode(False):  # what was made in it can't be differentiated through
            context = context.each(torch.clone)
            wanted, weight = batch["pending"].clone(), batch["pending_weight"].clone()
            steps = max(steps, GUIDED_STEPS)
            field = self._field(context, len(noise), steps)
            return Sampled(integrate_guided(field, noise.clone(), steps, wanted, weight))

    def follow(self, context: Context, noise: Tensor) -> Tensor:
        """The chunks (B, chunk, A) that the flow leads to from standard normal noise, B a multiple of the contexts."""
        steps = self.config.sample_steps
        return integrate(self._field(context, len(noise), steps), self.config.noise_scale * noise, steps)

    def _go_on(self, context: Context, noise: Tensor, wanted: Tensor, sure: Tensor) -> Tensor:
        """Chunks that begin with the ``sure`` (B, chunk) ones of the ``wanted`` actions, as far as was trained."""
        if not self.config.prefix:
            raise VlaError(
                "this agent was not trained to go on from given actions (--policy.prefix): play it another way"
            )
        given = self._given(sure.sum(dim=1).clamp(max=self.config.prefix))
        noise, steps = torch.where(given[..., None], wanted, noise), self.config.sample_steps
        field = self._field(context, len(noise), steps, given)
        return integrate(lambda x, i: field(x, i) * ~given[..., None], noise, steps)

    def _given(self, counts: Tensor) -> Tensor:
        """Which actions (B, chunk) are given, of so many at the beginning, (B,): whole tokens."""
        counts = counts - counts % self.config.actions_per_token
        return torch.arange(self.config.chunk, device=counts.device) < counts[:, None]

    def _field(
        self, context: Context, rows: int, steps: int, given: Tensor | None = None
    ) -> Callable[[Tensor, int], Tensor]:
        """The velocity for ``integrate``. What does not depend on the chunk is worked out once, for all its steps."""
        times = midpoint_times(steps, context.tokens.device)
        steering = self.head.steer(times[:, None].expand(-1, rows), context, given)
        memory = self.head.remember(context)

        def velocity(x: Tensor, i: int) -> Tensor:
            return self.head.velocity(x, [steered[i] for steered in steering], memory, context.mask)

        return velocity

    def parameter_groups(self, weight_decay: float) -> list[dict]:
        """Matrices and kernels decay; biases, norms, embeddings and tokens do not."""
        return parameter_groups(self, weight_decay, ("grams", "position", "slots"))


POLICY = FlowPolicy
CONFIG = FlowConfig
