"""From a camera image to a feature map that keeps where things are."""

from __future__ import annotations

import difflib
import re
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla.contracts import VlaError
from vla.nn.mobilenet import SIZES, STRIDES, MobileNet


class VisionEncoder(nn.Module):
    """A convolution network, its scales merged top-down into one map (a feature pyramid, Lin et al., 2017).

    Args:
        name: one of ``vla.nn.mobilenet.SIZES``, or any timm model that offers ``forward_intermediates``
            (``timm.list_models()``).
        pixels: the image is resized to this many pixels a side before the network sees it.
        dim: channels of the map.
        pretrained: load timm's weights (asks the hub, unless they are in its cache).
    """

    def __init__(self, name: str, pixels: int, dim: int, pretrained: bool = False) -> None:
        super().__init__()
        self.taken: list[int] | None = None  # which of a timm network's maps are read
        if name in SIZES and not pretrained:
            self.backbone: Any = MobileNet(name)
            channels = self.backbone.channels
        else:
            self.backbone, self.taken = _timm_network(name, pretrained)
            channels = [self.backbone.feature_info[i]["num_chs"] for i in self.taken]
        self.lateral = nn.ModuleList(nn.Conv2d(c, dim, 1) for c in channels)
        self.merge = nn.Sequential(nn.Conv2d(dim, dim, 3, padding=1, groups=dim), nn.Conv2d(dim, dim, 1))
        self.pixels, self.stride = pixels, STRIDES[0]
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # convolutions run 1.6 times faster so, on CPUs too

    @property
    def grid(self) -> int:
        """Cells a side of the map."""
        return -(-self.pixels // self.stride)

    def _look(self, image: Tensor) -> list[Tensor]:
        if self.taken is None:
            return self.backbone(image)
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


def _timm_network(name: str, pretrained: bool) -> tuple[Any, list[int]]:
    """A timm network, cut off behind the last map that is read, and the numbers of those maps."""
    # A name may also stand for a download (hf-hub:owner/name), which a file could ask for.
    if not re.fullmatch(r"\w+(\.\w+)?", name):
        raise VlaError(f"timm has no network '{name}' of its own, see timm.list_models()")
    import timm  # takes seconds

    if not timm.is_model(name):
        near = difflib.get_close_matches(name, [*SIZES, *timm.list_models()], n=1)
        guess = f"; did you mean '{near[0]}'?" if near else ""
        raise VlaError(f"timm has no network '{name}' of its own, see timm.list_models(){guess}")
    network: Any = timm.create_model(name, pretrained=pretrained, num_classes=0)
    reductions = [stage["reduction"] for stage in network.feature_info]
    indices = [i for i, stride in enumerate(reductions) if stride in STRIDES]
    if len(indices) != len(STRIDES):
        raise VlaError(f"{name} has maps at strides {reductions}; {STRIDES} are needed, each once")
    return network, network.prune_intermediate_layers(indices, prune_norm=True, prune_head=True)


class Glimpse(nn.Module):
    """A few pixels of an image at its full resolution, around a given place, read into one token.

    The map tells where a thing is; how big and how far away a thing of a few pixels is can only be seen in the pixels
    themselves. An attention window as in "Recurrent Models of Visual Attention" (Mnih et al., 2014), its place given.

    Args:
        pixels: side of the window, in pixels of the image; a multiple of 4.
        dim: width of the token.
    """

    def __init__(self, pixels: int, dim: int) -> None:
        super().__init__()
        if pixels % 4:
            raise VlaError(f"a glimpse is a multiple of 4 pixels wide, not {pixels}")
        self.pixels = pixels
        self.see = nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1), nn.GELU(),
            nn.Conv2d(32, 32, 3, stride=2, padding=1), nn.GELU(),
            nn.Conv2d(32, 64, 3, padding=1), nn.GELU(),
            nn.Conv2d(64, 64, 3, stride=2, padding=1), nn.GELU(),
        )  # fmt: skip
        self.out = nn.Linear(64 * (pixels // 4) ** 2, dim)

    def forward(self, image: Tensor, places: Tensor) -> Tensor:
        """Tokens (B, K, dim).

        Args:
            image: (C, 3, height, width) in [-1, 1]; B is a multiple of C, and consecutive rows share an image.
            places: (B, K, 2), u right and v down in [-1, 1], where the windows' centres are. What lies outside of the
                image is grey.
        """
        count, (height, width) = len(image), image.shape[-2:]
        steps = torch.arange(self.pixels).to(places) + 0.5 - self.pixels / 2
        v, u = torch.meshgrid(steps * (2 / height), steps * (2 / width), indexing="ij")
        grid = places.detach().reshape(count, -1, 1, 1, 2) + torch.stack((u, v), dim=-1)
        # The windows of one image are sampled side by side, so that no image has to be repeated.
        seen = F.grid_sample(image, grid.flatten(1, 2).to(image), mode="bilinear", align_corners=False)
        windows = seen.unflatten(2, (-1, self.pixels)).transpose(1, 2).flatten(0, 1)
        return self.out(self.see(windows).flatten(1)).reshape(*places.shape[:2], -1)


def as_input(images: Tensor) -> Tensor:
    """uint8 (…, H, W, 3) as networks see it: float (…, 3, H, W), -1 to 1."""
    return images.movedim(-1, -3).float() / 127.5 - 1.0


def as_pictures(images: Tensor) -> np.ndarray:
    """What ``as_input`` came from: float (B, 3, H, W) in [-1, 1] to uint8 (B, H, W, 3)."""
    return ((images + 1.0) * 127.5).round().to(torch.uint8).movedim(1, -1).cpu().numpy()


def cell_centres(rows: int, columns: int = 0) -> Tensor:
    """Where the cells of a map, square without ``columns``, lie in the image, row by row.

    (rows * columns, 2), u right and v down, both in [-1, 1].
    """
    down, right = ((torch.arange(count) + 0.5) * (2.0 / count) - 1.0 for count in (rows, columns or rows))
    v, u = torch.meshgrid(down, right, indexing="ij")
    return torch.stack((u, v), dim=-1).reshape(-1, 2)
