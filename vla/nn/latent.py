"""A latent autoencoder of pictures: Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion", 2022, 3.1.

The network is an AutoencoderKL as diffusers has it, small, over blocks of 2x2 pixels: at the full resolution
convolutions are bound by memory, and take twice as long on a CPU. Shapes: B pictures (B, 3, H, W) in [-1, 1], H and W
multiples of ``FACTOR``; latents (B, C, H / 8, W / 8).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla.nn.autoencoder_kl import AutoencoderKL
from vla.nn.config import AutoencoderConfig

FACTOR = 8  # pixels of a cell's side
_BLOCK = 2  # pixels a side, side by side in the network's channels
_AROUND = 9  # pixels a side, of what surrounds a pixel
_GROUPS = 8  # of the group norms
_SMALLEST = 1e-3  # standard deviation that latents are scaled by
_SPAN = 2.0  # of a colour in [-1, 1]
_MOVED = 0.1  # of that span


class Autoencoder(nn.Module):
    """Pictures to latents and back. ``fit_scale`` makes latents that a denoiser can take: mean 0, deviation 1."""

    shift: Tensor
    scale: Tensor

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        widths = [config.width * times for times in (1, 2, 2)]
        self.network = AutoencoderKL(3 * _BLOCK**2, config.latent_channels, widths, config.layers, _GROUPS)
        self.register_buffer("shift", torch.zeros(config.latent_channels, 1, 1))
        self.register_buffer("scale", torch.ones(config.latent_channels, 1, 1))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # convolutions are quicker so

    def reconstruct(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures by way of latents that are drawn, and the divergence of each from a unit normal, (B,).

        The latents are drawn with torch's global generator.
        """
        mean, log_variance = self._distribution(images)
        drawn = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).sum(dim=(1, 2, 3))
        return F.pixel_shuffle(self.network.decode(drawn), _BLOCK), divergence

    @torch.no_grad()
    def fit_scale(self, images: Tensor) -> None:
        """From here on ``encode`` gives latents whose channels have mean 0 and deviation 1 over these pictures."""
        latents = self._distribution(images)[0].float()
        self.shift.copy_(latents.mean(dim=(0, 2, 3))[:, None, None])
        self.scale.copy_(latents.std(dim=(0, 2, 3)).clamp(min=_SMALLEST)[:, None, None])

    def encode(self, images: Tensor) -> Tensor:
        """The likeliest latents."""
        return (self._distribution(images)[0] - self.shift) / self.scale

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures, clipped to [-1, 1]."""
        found = self.network.decode(latents * self.scale + self.shift)
        return F.pixel_shuffle(found, _BLOCK).clamp(-1.0, 1.0)

    def _distribution(self, images: Tensor) -> tuple[Tensor, Tensor]:
        blocks = F.pixel_unshuffle(images, _BLOCK).contiguous(memory_format=torch.channels_last)
        return self.network.encode(blocks)


def detail(images: Tensor) -> Tensor:
    """How much each pixel differs from the mean of what surrounds it, over its colours: (B, 1, H, W), 0 to 2."""
    around = F.avg_pool2d(images, _AROUND, stride=1, padding=_AROUND // 2, count_include_pad=False)
    return (images - around).abs().mean(dim=1, keepdim=True)


def changed(images: Tensor, others: Tensor) -> Tensor:
    """Which pixels differ by more than ``_MOVED``, over their colours: bool (B, 1, H, W)."""
    return (images - others).abs().mean(dim=1, keepdim=True) / _SPAN > _MOVED


def psnr_db(images: Tensor, others: Tensor, where: Tensor | None = None) -> Tensor:
    """Peak signal to noise ratio of pictures in [-1, 1], in decibels, (B,).

    ``where``, bool (B, 1, H, W), leaves out the other pixels; NaN for a picture of which nothing is left.
    """
    errors = (images - others).square().mean(dim=1, keepdim=True)
    taken = torch.ones_like(errors) if where is None else where.to(errors)
    mean = (errors * taken).flatten(1).sum(dim=1) / taken.flatten(1).sum(dim=1)
    return 10.0 * torch.log10(_SPAN**2 / mean)
