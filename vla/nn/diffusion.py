"""Denoising networks over action chunks, and the noise schedules, which are diffusers'.

Shapes: B noisy chunks of C contexts (B a multiple of C, consecutive rows share one), T actions of W numbers,
D width.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla.contracts import VlaError
from vla.nn.context import Context
from vla.nn.transformer import Attention, ModulatedBlock, time_embedding

_SAMPLERS = {
    "ddpm": "DDPMScheduler",
    "ddim": "DDIMScheduler",
    "dpm_solver++": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
}


def make_scheduler(sampler: str, train_steps: int, prediction: str, clip: float = 0.0) -> Any:
    """A scheduler of diffusers with the squared-cosine schedule (Nichol and Dhariwal, 2021).

    Args:
        sampler: ``ddpm`` (Ho et al., 2020; training uses its ``add_noise`` and ``get_velocity``), ``ddim`` (Song et
            al., 2021), ``dpm_solver++`` (Lu et al., 2022) or ``unipc`` (Zhao et al., 2023).
        train_steps: noise levels.
        prediction: what the network gives: ``epsilon``, ``sample`` or ``v_prediction`` (Salimans and Ho, 2022).
        clip: the largest absolute value of a clean sample, for ddpm and ddim; 0 for none.

    Raises VlaError where diffusers is not installed.
    """
    try:
        import diffusers
    except ImportError as error:
        raise VlaError("a diffusion policy needs diffusers: uv sync --extra generation") from error
    more: dict[str, Any] = {}
    if sampler in ("ddpm", "ddim"):
        more = {"clip_sample": clip > 0.0, "clip_sample_range": clip or 1.0}
    if sampler == "dpm_solver++":
        more = {"algorithm_type": "dpmsolver++", "lambda_min_clipped": -5.1}  # the cosine's last step has no signal
    if sampler != "ddpm":
        # With epsilon nothing can be told of a chunk at the last noise level, where the others begin.
        more["timestep_spacing"] = "leading" if prediction == "epsilon" else "trailing"
    kind = getattr(diffusers, _SAMPLERS[sampler])
    schedule = {"num_train_timesteps": train_steps, "beta_schedule": "squaredcos_cap_v2"}
    return kind(**schedule, prediction_type=prediction, **more)


class Denoiser(nn.Module):
    """What a diffusion policy asks of its network: ``prepare`` once, then ``denoise`` at each noise level."""

    def prepare(self, context: Context, times: Tensor) -> Any:
        """All that does not depend on the noisy chunks. ``times`` (S, B), noise levels from 0 to 1, S steps."""
        raise NotImplementedError

    def denoise(self, x: Tensor, prepared: Any, step: int) -> Tensor:
        """The network's prediction (B, T, W) for noisy chunks at the times of one step."""
        raise NotImplementedError

    def forward(self, x: Tensor, t: Tensor, context: Context) -> Tensor:
        """The same for one step: noisy chunks (B, T, W in), times (B,), C contexts; gives (B, T, W)."""
        return self.denoise(x, self.prepare(context, t[None]), 0)


class ChunkTransformer(Denoiser):
    """A transformer over the chunk: AdaLN-Zero for the noise level, cross-attention to the context.

    As in RDT-1B (section 4.2), blocks read the pictures and the sentence in turn, since the many tokens of pictures
    would drown the few of the sentence.

    Args:
        chunk: T.
        inputs, outputs: numbers for each action, in and out.
        dim, depth, heads: of the transformer.
        actions_per_token: consecutive actions that share a token.
        alternate: whether blocks take turns; all read everything where the trunk does not tell which token is which.
    """

    def __init__(
        self,
        chunk: int,
        inputs: int,
        outputs: int,
        dim: int,
        depth: int,
        heads: int,
        actions_per_token: int,
        alternate: bool,
    ) -> None:
        super().__init__()
        self.dim, self.chunk, self.outputs, self.alternate = dim, chunk, outputs, alternate
        tokens = chunk // actions_per_token
        self.embed = nn.Linear(actions_per_token * inputs, dim)
        self.position = nn.Parameter(0.02 * torch.randn(tokens, dim))
        self.time = nn.Sequential(nn.Linear(dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.blocks = nn.ModuleList(ModulatedBlock(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.out = _silent(nn.Linear(dim, actions_per_token * outputs))

    def prepare(self, context: Context, times: Tensor) -> Any:
        """See ``Denoiser``."""
        mean = context.mean().repeat_interleave(times.shape[-1] // len(context.tokens), 0)
        condition = self.time(time_embedding(times, self.dim)) + mean
        steering = [block.steer(condition) for block in self.blocks]  # type: ignore[operator,union-attr]
        memory = [block.attend_cross.remember(context.tokens) for block in self.blocks]  # type: ignore[operator,union-attr]
        return steering, memory, self.masks(context)

    def masks(self, context: Context) -> list[Tensor | None]:
        """For each block which tokens of the context it may look at: (C, M), or None for all."""
        # A trunk that puts the sentence into one token drowns nothing, and one token leaves attention no choice.
        if not self.alternate or context.text is None or context.text.sum() < 2:
            return [context.mask] * len(self.blocks)
        found: list[Tensor | None] = []
        for place in range(len(self.blocks)):
            kind = context.text if place % 2 else ~context.text
            kind = kind.expand(len(context.tokens), -1)
            found.append(kind if context.mask is None else kind & context.mask)
        return found

    def denoise(self, x: Tensor, prepared: Any, step: int) -> Tensor:
        """See ``Denoiser``."""
        steering, memory, masks = prepared
        tokens = self.embed(x.reshape(len(x), len(self.position), -1)) + self.position
        for block, steered, remembered, mask in zip(self.blocks, steering, memory, masks, strict=True):
            tokens = block(tokens, steered[step], remembered, mask)
        return self.out(self.norm(tokens)).reshape(len(x), self.chunk, self.outputs)


class ChunkUNet(Denoiser):
    """Diffusion Policy's conditional 1-D U-Net over time (Chi et al., 2023, section 3.1 and appendix).

    Two residual blocks at each resolution, each steered by the noise level and the context through FiLM (Perez et al.,
    2018). The context is read by a few learned queries.

    Args:
        chunk: T, a multiple of 2 for each width after the first.
        inputs, outputs: numbers for each action, in and out.
        dim: the context's width.
        widths: channels at each resolution, the finest first; each is half as long as the former.
        kernel: of the convolutions, odd.
        groups: of the group norms.
        queries: how many read the context.
    """

    def __init__(
        self,
        chunk: int,
        inputs: int,
        outputs: int,
        dim: int,
        widths: Sequence[int],
        kernel: int = 5,
        groups: int = 8,
        queries: int = 4,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.time = nn.Sequential(nn.Linear(dim, 4 * dim), nn.Mish(), nn.Linear(4 * dim, dim))
        self.query_slots = nn.Parameter(0.02 * torch.randn(queries, dim))
        self.read = Attention(dim, 4)
        condition = (1 + queries) * dim

        def pair(before: int, after: int) -> nn.ModuleList:
            return nn.ModuleList(FilmBlock(a, after, condition, kernel, groups) for a in (before, after))

        ends = list(itertools.pairwise((inputs, *widths)))
        self.down = nn.ModuleList(pair(*end) for end in ends)
        self.shrink = nn.ModuleList(nn.Conv1d(width, width, 3, stride=2, padding=1) for width in widths[:-1])
        self.middle = pair(widths[-1], widths[-1])
        upwards = list(itertools.pairwise(reversed(widths)))
        self.grow = nn.ModuleList(nn.ConvTranspose1d(a, a, 4, stride=2, padding=1) for a, _ in upwards)
        self.up = nn.ModuleList(pair(a + b, b) for a, b in upwards)
        self.last = nn.Sequential(
            ConvBlock(widths[0], widths[0], kernel, groups), _silent(nn.Conv1d(widths[0], outputs, 1))
        )

    def prepare(self, context: Context, times: Tensor) -> Any:
        """See ``Denoiser``. Gives the conditions (S, B, …)."""
        queries = self.query_slots.expand(len(context.tokens), -1, -1)
        seen = self.read(queries, context.tokens, context.mask).flatten(1)
        seen = seen.repeat_interleave(times.shape[-1] // len(seen), 0).expand(len(times), -1, -1)
        return torch.cat((self.time(time_embedding(times, self.dim)), seen), dim=-1)

    def denoise(self, x: Tensor, prepared: Any, step: int) -> Tensor:
        """See ``Denoiser``."""
        condition, x = prepared[step], x.movedim(-1, -2)
        kept: list[Tensor] = []
        for place, blocks in enumerate(self.down):
            for block in blocks:  # type: ignore[union-attr,attr-defined]
                x = block(x, condition)
            if place < len(self.shrink):
                kept.append(x)
                x = self.shrink[place](x)
        for block in self.middle:
            x = block(x, condition)
        for grow, blocks in zip(self.grow, self.up, strict=True):
            x = torch.cat((grow(x), kept.pop()), dim=1)
            for block in blocks:  # type: ignore[union-attr,attr-defined]
                x = block(x, condition)
        return self.last(x).movedim(-1, -2)


class ConvBlock(nn.Sequential):
    """Convolution over time, group norm, Mish."""

    def __init__(self, before: int, after: int, kernel: int, groups: int) -> None:
        super().__init__(nn.Conv1d(before, after, kernel, padding=kernel // 2), nn.GroupNorm(groups, after), nn.Mish())


class FilmBlock(nn.Module):
    """Two convolutions with a short cut; after the first, the condition scales and shifts each channel."""

    def __init__(self, before: int, after: int, condition: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.first = ConvBlock(before, after, kernel, groups)
        self.film = nn.Linear(condition, 2 * after)
        self.second = ConvBlock(after, after, kernel, groups)
        self.short = nn.Conv1d(before, after, 1) if before != after else nn.Identity()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """``x`` (B, before, T) and the condition (B, …) to (B, after, T)."""
        scale, shift = self.film(F.mish(condition))[..., None].chunk(2, dim=1)
        return self.second(self.first(x) * (1 + scale) + shift) + self.short(x)


def _silent(layer: Any) -> Any:
    """The layer with zeros for weights: what begins with it begins with no prediction."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
