"""MobileNetV4 (Qin et al., 2024), as far down as the trunk reads it, here because importing timm takes five seconds.

Parameters are named as timm names them: ``mobilenetv4_conv_small`` takes timm's weights, and gives timm's maps.
"""

from __future__ import annotations

import math
from collections import OrderedDict

from torch import Tensor, nn

STRIDES = (4, 8, 16)

# Channels of the stem; of the convolutions of stages one and two; and of stage three, for each block, the first and
# second depthwise kernel (0 for none), stride, expansion and channels.
SIZES = {
    "mobilenetv4_conv_small": (
        32,
        ((32, 32), (96, 64)),
        ((5, 5, 2, 3, 96), *((0, 3, 1, 2, 96),) * 4, (3, 0, 1, 4, 96)),
    ),
    "tiny": (8, ((8, 8), (16, 16)), ((0, 3, 2, 2, 16),)),  # to try things out
}


class MobileNet(nn.Module):
    """A network of ``SIZES`` with fresh weights: image (B, 3, height, width) to maps at strides 4, 8 and 16."""

    def __init__(self, name: str) -> None:
        super().__init__()
        channels, early, late = SIZES[name]
        self.conv_stem = nn.Conv2d(3, channels, 3, 2, 1, bias=False)
        self.bn1, self.act = nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
        self.blocks = nn.ModuleList()
        self.channels: list[int] = []
        for wide, out in early:
            self.blocks.append(
                nn.Sequential(_conv(channels, wide, 3, stride=2, norm="bn1"), _conv(wide, out, 1, norm="bn1"))
            )
            channels = out
            self.channels.append(out)
        last = []
        for start, middle, stride, expansion, out in late:
            last.append(_bottleneck(channels, out, start, middle, stride, expansion))
            channels = out
        self.blocks.append(nn.Sequential(*last))
        self.channels.append(channels)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                fan_out = math.prod(layer.kernel_size) * layer.out_channels // layer.groups
                nn.init.normal_(layer.weight, 0.0, math.sqrt(2.0 / fan_out))

    def forward(self, image: Tensor) -> list[Tensor]:
        """See the class."""
        maps = [self.act(self.bn1(self.conv_stem(image)))]
        for block in self.blocks:
            maps.append(block(maps[-1]))
        return maps[1:]


class _Residual(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + x


def _conv(
    taken: int, given: int, kernel: int, stride: int = 1, groups: int = 1, act: bool = True, norm: str = "bn"
) -> nn.Sequential:
    convolution = nn.Conv2d(taken, given, kernel, stride, kernel // 2, groups=groups, bias=False)
    layers: OrderedDict[str, nn.Module] = OrderedDict({"conv": convolution, norm: nn.BatchNorm2d(given)})
    if act:
        layers["act"] = nn.ReLU(inplace=True)
    return nn.Sequential(layers)


def _bottleneck(taken: int, given: int, start: int, middle: int, stride: int, expansion: int) -> nn.Sequential:
    """The universal inverted bottleneck: a depthwise convolution before the expansion, one after it, either or both."""
    wide, layers = taken * expansion, OrderedDict[str, nn.Module]()
    if start:
        layers["dw_start"] = _conv(taken, taken, start, 1 if middle else stride, groups=taken, act=False)
    layers["pw_exp"] = _conv(taken, wide, 1)
    if middle:
        layers["dw_mid"] = _conv(wide, wide, middle, stride, groups=wide)
    layers["pw_proj"] = _conv(wide, given, 1, act=False)
    return (_Residual if taken == given and stride == 1 else nn.Sequential)(layers)
