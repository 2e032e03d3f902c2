"""A small convolutional autoencoder whose weights are those of diffusers' AutoencoderKL, by name and by value.

Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion", 2022, without attention. It is written out here
since importing diffusers takes several times as long as imagining a picture does; tests hold both against each other.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

_EPSILON = 1e-6  # of the group norms


class Residual(nn.Module):
    """Two convolutions over norms, and a short cut."""

    def __init__(self, before: int, after: int, groups: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(groups, before, _EPSILON), nn.Conv2d(before, after, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(groups, after, _EPSILON), nn.Conv2d(after, after, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(before, after, 1) if before != after else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, before, H, W) to (B, after, H, W)."""
        found = self.conv1(F.silu(self.norm1(x)))
        found = self.conv2(F.silu(self.norm2(found)))
        return found + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class _Resampler(nn.Module):
    """Half as wide and high, or twice."""

    def __init__(self, width: int, up: bool) -> None:
        super().__init__()
        self.up = up
        self.conv = nn.Conv2d(width, width, 3, padding=1) if up else nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        if self.up:
            return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class _Level(nn.Module):
    """Residual blocks at one resolution, and the way to the next."""

    def __init__(self, before: int, after: int, blocks: int, groups: int, up: bool, last: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(Residual(before if i == 0 else after, after, groups) for i in range(blocks))
        scaled = nn.ModuleList() if last else nn.ModuleList([_Resampler(after, up)])
        self.add_module("upsamplers" if up else "downsamplers", scaled)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.resnets:
            x = block(x)
        for block in self._modules.get("upsamplers") or self._modules.get("downsamplers") or ():  # type: ignore[union-attr]
            x = block(x)
        return x


class _Middle(nn.Module):
    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(Residual(width, width, groups) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.resnets:
            x = block(x)
        return x


class _Half(nn.Module):
    """What encoder and decoder end with."""

    def __init__(self, last: int, outputs: int, groups: int) -> None:
        super().__init__()
        self.conv_norm_out = nn.GroupNorm(groups, last, _EPSILON)
        self.conv_out = nn.Conv2d(last, outputs, 3, padding=1)

    def _ended(self, x: Tensor) -> Tensor:
        return self.conv_out(F.silu(self.conv_norm_out(x)))


class Encoder(_Half):
    """(B, ``inputs``, H, W) to (B, ``outputs``, H / s, W / s), s = 2^(levels - 1)."""

    def __init__(self, inputs: int, outputs: int, widths: Sequence[int], blocks: int, groups: int) -> None:
        super().__init__(widths[-1], outputs, groups)
        self.conv_in = nn.Conv2d(inputs, widths[0], 3, padding=1)
        before, final = [widths[0], *widths], len(widths) - 1
        self.down_blocks = nn.ModuleList(
            _Level(before[i], width, blocks, groups, False, i == final) for i, width in enumerate(widths)
        )
        self.mid_block = _Middle(widths[-1], groups)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        x = self.conv_in(x)
        for level in self.down_blocks:
            x = level(x)
        return self._ended(self.mid_block(x))


class Decoder(_Half):
    """(B, ``inputs``, h, w) to (B, ``outputs``, s h, s w)."""

    def __init__(self, inputs: int, outputs: int, widths: Sequence[int], blocks: int, groups: int) -> None:
        super().__init__(widths[0], outputs, groups)
        self.conv_in = nn.Conv2d(inputs, widths[-1], 3, padding=1)
        self.mid_block = _Middle(widths[-1], groups)
        upwards = list(reversed(widths))
        before, final = [upwards[0], *upwards], len(widths) - 1
        self.up_blocks = nn.ModuleList(
            _Level(before[i], width, blocks + 1, groups, True, i == final) for i, width in enumerate(upwards)
        )

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        x = self.mid_block(self.conv_in(x))
        for level in self.up_blocks:
            x = level(x)
        return self._ended(x)


class AutoencoderKL(nn.Module):
    """Pictures (B, C, H, W) to a normal distribution over latents (B, L, H / s, W / s), and back.

    Args:
        channels: C.
        latent_channels: L.
        widths: channels at each resolution, the finest first; each is half as wide and high.
        blocks: residual blocks at each, one more on the way back.
        groups: of the group norms.
    """

    def __init__(self, channels: int, latent_channels: int, widths: Sequence[int], blocks: int, groups: int) -> None:
        super().__init__()
        self.encoder = Encoder(channels, 2 * latent_channels, widths, blocks, groups)
        self.decoder = Decoder(latent_channels, channels, widths, blocks, groups)
        self.quant_conv = nn.Conv2d(2 * latent_channels, 2 * latent_channels, 1)
        self.post_quant_conv = nn.Conv2d(latent_channels, latent_channels, 1)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The mean and the logarithm of the variance."""
        mean, log_variance = self.quant_conv(self.encoder(images)).chunk(2, dim=1)
        return mean, log_variance.clamp(-30.0, 20.0)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents to pictures."""
        return self.decoder(self.post_quant_conv(latents))
