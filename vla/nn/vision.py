"""From a camera image to a feature map that keeps where things are."""

from __future__ import annotations

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class VisionEncoder(nn.Module):
    """A timm convolution network, its scales merged top-down into one map (a feature pyramid, Lin et al., 2017).

    Args:
        name: any timm model that offers ``forward_intermediates`` (``timm.list_models()``).
        pixels: the image is resized to this many pixels a side before the network sees it.
        dim: channels of the map.
        strides: which of the network's scales are merged. The map has the first one's resolution.
        pretrained: load timm's weights (asks the hub, unless they are in its cache).
    """

    def __init__(
        self, name: str, pixels: int, dim: int, strides: tuple[int, ...] = (4, 8, 16), pretrained: bool = False
    ) -> None:
        super().__init__()
        self.backbone = timm.create_model(name, pretrained=pretrained, num_classes=0)
        reductions = [stage["reduction"] for stage in self.backbone.feature_info]
        indices = [i for i, stride in enumerate(reductions) if stride in strides]
        if len(indices) != len(strides):
            raise ValueError(f"{name} has maps at strides {reductions}; {strides} are needed, each once")
        channels = [self.backbone.feature_info[i]["num_chs"] for i in indices]
        # What lies behind the last map that is read would cost time and never learn.
        self.taken = self.backbone.prune_intermediate_layers(indices, prune_norm=True, prune_head=True)
        self.lateral = nn.ModuleList(nn.Conv2d(c, dim, 1) for c in channels)
        self.merge = nn.Sequential(nn.Conv2d(dim, dim, 3, padding=1, groups=dim), nn.Conv2d(dim, dim, 1))
        self.pixels, self.stride = pixels, strides[0]
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # convolutions run 1.6 times faster so, on CPUs too

    @property
    def grid(self) -> int:
        """Cells a side of the map."""
        return -(-self.pixels // self.stride)

    def _look(self, image: Tensor) -> list[Tensor]:
        return self.backbone.forward_intermediates(
            image, indices=self.taken, stop_early=True, intermediates_only=True, output_fmt="NCHW"
        )

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, height, width) in [-1, 1] to (B, grid * grid, dim), row by row."""
        image = image.contiguous(memory_format=torch.channels_last)
        if image.shape[-2:] != (self.pixels, self.pixels):
            image = F.interpolate(image, (self.pixels, self.pixels), mode="area")
        maps = [lateral(f) for lateral, f in zip(self.lateral, self._look(image), strict=True)]
        merged = maps[-1]
        for finer in reversed(maps[:-1]):
            merged = finer + F.interpolate(merged, finer.shape[-2:], mode="nearest")
        merged = merged + self.merge(F.gelu(merged))
        return merged.flatten(2).transpose(1, 2)


def cell_centres(grid: int) -> Tensor:
    """Where the cells of a square map lie in the image: (grid * grid, 2), u right and v down, both in [-1, 1]."""
    centres = (torch.arange(grid) + 0.5) * (2.0 / grid) - 1.0
    v, u = torch.meshgrid(centres, centres, indexing="ij")
    return torch.stack((u, v), dim=-1).reshape(-1, 2)
