"""The scene as it will be: latents of a goal picture, out of noise, led by the present picture and a sentence.

A latent diffusion model (Rombach et al., 2022) whose denoiser is a transformer (DiT; Peebles and Xie, 2023) over the
cells of an autoencoder's latents (``vla.nn.latent``). It reads the present latents beside the noisy ones, and the
sentence's words by cross-attention. It learns by flow matching (``vla.nn.flow``) to guess the goal itself, as
what is to change about the present: before any training it imagines that nothing does. Guidance holds the guess with
the sentence against the guess without it (Ho and Salimans, "Classifier-Free Diffusion Guidance", 2022).

Shapes: B pictures; latents (B, C, h, w); W words of width V; N tokens of width D.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla.contracts import VlaError
from vla.nn.config import ImaginationConfig
from vla.nn.flow import ddim, dpm_solver, interpolate, sample_times
from vla.nn.language import LanguageEncoder
from vla.nn.latent import FACTOR, Autoencoder
from vla.nn.transformer import ModulatedBlock, fourier, time_embedding
from vla.nn.vision import cell_centres

SAMPLERS: dict[str, Callable[[Callable[[Tensor, int], Tensor], Tensor, int], Tensor]] = {
    "ddim": ddim,
    "dpm_solver++": dpm_solver,
}
_LENGTH = 56  # words of a sentence
_FREQUENCIES = 4
_TIMES = (1.0, 1.5)  # of the Beta distribution that training draws times from: more of them early
_CHANGED = 0.3  # deviations of a latent, from which on a cell shows something else
_MOST = 5.0  # weight of a guess, which grows as noise vanishes


class Imagination(nn.Module):
    """See the module.

    Args:
        config: its ``latent`` is the autoencoder's.
        pixels: height and width of the pictures.

    Raises VlaError where the latents cannot be divided into the config's patches.
    """

    def __init__(self, config: ImaginationConfig, pixels: tuple[int, int]) -> None:
        super().__init__()
        self.config, width, channels = config, config.width, config.latent.latent_channels
        self.grid = (pixels[0] // FACTOR // config.patch, pixels[1] // FACTOR // config.patch)
        if any(cells * FACTOR * config.patch != side for cells, side in zip(self.grid, pixels, strict=True)):
            raise VlaError(
                f"pictures of {pixels[1]}x{pixels[0]} pixels do not divide into patches of {config.patch} cells of "
                f"{FACTOR} pixels a side"
            )
        self.autoencoder = Autoencoder(config.latent).requires_grad_(False)
        self.language = LanguageEncoder(config.language_width, config.language_depth, length=_LENGTH)
        self.word_in = nn.Linear(config.language_width, width)
        self.silence = nn.Parameter(0.02 * torch.randn(width))
        self.embed = nn.Linear(2 * channels * config.patch**2, width)
        self.where = nn.Linear(2 + 4 * _FREQUENCIES, width)
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(ModulatedBlock(width, config.heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, channels * config.patch**2)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def read(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Words (B, W, D), the first for the sentence as a whole, and a mask (B, W) of those that are there."""
        words, mask = self.language(list(texts))
        return self.word_in(words), mask

    def hush(self, words: Tensor, mask: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
        """The same without a sentence where ``which``, bool (B,)."""
        quiet = torch.zeros_like(mask)
        quiet[:, 0] = True
        words = torch.where(which[:, None, None], self.silence, words)
        return words, torch.where(which[:, None], quiet, mask)

    def guess(self, noisy: Tensor, t: Tensor, present: Tensor, words: Tensor, mask: Tensor) -> Tensor:
        """The goal's latents (B, C, h, w), from noisy ones at times ``t`` (B,), 0 noise to 1 data."""
        seen = F.pixel_unshuffle(torch.cat((noisy, present), dim=1), self.config.patch)
        places = fourier(cell_centres(*self.grid).to(noisy), _FREQUENCIES)
        tokens = self.embed(seen.flatten(2).transpose(1, 2)) + self.where(places)
        condition = self.time(time_embedding(t, self.config.width)) + words[:, 0]
        for block in self.blocks:
            steering = block.steer(condition)  # type: ignore[operator]
            tokens = block(tokens, steering, block.attend_cross.remember(words), mask)  # type: ignore[operator,union-attr]
        change = self.out(self.norm(tokens)).transpose(1, 2).unflatten(2, self.grid)
        return present + F.pixel_shuffle(change, self.config.patch)

    def loss(self, present: Tensor, goal: Tensor, texts: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted squared error of a guess, (B,), and scores. Draws come from torch's global generator."""
        words, mask = self.read(texts)
        t = sample_times(len(goal), *_TIMES, goal.device)
        noisy, _ = interpolate(torch.randn_like(goal), goal, t)
        hidden = torch.rand(len(goal), device=goal.device) < self.config.drop_words
        errors = (self.guess(noisy, t, present, *self.hush(words, mask, hidden)) - goal).float().square()
        change = (goal - present).abs().mean(dim=1, keepdim=True)
        weight = 1.0 + self.config.change_weight * change
        late = (1.0 / (1.0 - t)).clamp(max=_MOST)
        with torch.no_grad():
            changed = (errors * change).sum() / (errors.shape[1] * change.sum()).clamp(min=1e-6)
            scores = {"error": errors.mean(), "changed_error": changed}
        return late * (weight * errors).flatten(1).mean(dim=1), scores

    @torch.no_grad()
    def imagine(
        self, present: Tensor, texts: Sequence[str], noise: Tensor, steps: int, guidance: float, sampler: str
    ) -> Tensor:
        """Latents of goals, (B, C, h, w).

        Args:
            present: latents (B, C, h, w) of the scenes as they are.
            texts: what is wanted of each.
            noise: standard normal, (B, C, h, w).
            steps: of the sampler; each asks the network once, or twice with guidance.
            guidance: 1 for the guess with the sentence; beyond, so much farther from the one without.
            sampler: one of ``SAMPLERS``.
        """
        words, mask = self.read(texts)
        both = self.hush(words, mask, torch.ones(len(words), dtype=torch.bool, device=words.device))

        def estimate(x: Tensor, step: int) -> Tensor:
            t = torch.full((len(x),), step / steps, device=x.device)
            if guidance == 1.0:
                return self.guess(x, t, present, words, mask)
            doubled = (torch.cat((one, one)) for one in (x, t, present))
            asked = (torch.cat(pair) for pair in zip((words, mask), both, strict=True))
            told, untold = self.guess(*doubled, *asked).chunk(2)
            return untold + guidance * (told - untold)

        return SAMPLERS[sampler](estimate, noise, steps)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the latents of a picture."""
        patch = self.config.patch
        return (self.config.latent.latent_channels, self.grid[0] * patch, self.grid[1] * patch)

    @torch.no_grad()
    def show(
        self, images: Tensor, texts: Sequence[str], noise: Tensor, steps: int, guidance: float, sampler: str
    ) -> Tensor:
        """Pictures of goals (B, 3, H, W) in [-1, 1], of scenes as they are; the rest as for ``imagine``.

        What the autoencoder cannot show of the present picture is given back wherever nothing is imagined to change.
        """
        present = self.autoencoder.encode(images)
        goal = self.imagine(present, texts, noise, steps, guidance, sampler)
        change = (goal - present).abs().mean(dim=1, keepdim=True)
        change = F.max_pool2d(change, 3, stride=1, padding=1)  # what a cell shows reaches into its neighbours
        kept = 1.0 - (change / _CHANGED).clamp(max=1.0)
        kept = F.interpolate(kept, scale_factor=float(FACTOR), mode="bilinear")
        lost = images - self.autoencoder.decode(present)
        return (self.autoencoder.decode(goal) + kept * lost).clamp(-1.0, 1.0)

    def train(self, mode: bool = True) -> Any:
        """The autoencoder stays as it was trained."""
        super().train(mode)
        self.autoencoder.eval()
        return self
