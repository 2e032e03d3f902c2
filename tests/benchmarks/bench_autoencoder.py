"""Time of a training step's network: latents of blocks of pixels against latents of the pixels themselves.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.bench_autoencoder [--rounds 12]

The second is diffusers' AutoencoderKL, the first ours, with as many weights (within 2 %), forward and backward over 8
pictures of 128x128 pixels. Rounds go through both in turns; medians are told, and the ratio of each round's two.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import torch
from diffusers import AutoencoderKL

from vla.host.provenance import machine
from vla.nn.config import AutoencoderConfig
from vla.nn.latent import Autoencoder

_PLAIN = (16, 32, 64, 64)  # channels


def main() -> None:
    """Print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12)
    args = parser.parse_args()
    torch.manual_seed(0)
    plain: Any = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(_PLAIN),
        up_block_types=("UpDecoderBlock2D",) * len(_PLAIN),
        block_out_channels=_PLAIN,
        latent_channels=AutoencoderConfig().latent_channels,
        norm_num_groups=8,
        mid_block_add_attention=False,
    ).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    blocks = Autoencoder(AutoencoderConfig())
    images = (2 * torch.rand(8, 3, 128, 128) - 1).contiguous(memory_format=torch.channels_last)
    parts = {
        "pixels": lambda: plain.decode(plain.encode(images).latent_dist.sample()).sample,
        "blocks of 2x2": lambda: blocks.reconstruct(images)[0],
    }
    took: dict[str, list[float]] = {name: [] for name in parts}
    for number in range(args.rounds + 1):
        for name, part in parts.items():
            begun = time.perf_counter()
            part().square().mean().backward()
            if number:  # the first is a warm-up
                took[name].append(time.perf_counter() - begun)
    print(f"{machine()['cpu']}, {torch.get_num_threads()} threads, {args.rounds} rounds")
    for (name, values), model in zip(took.items(), (plain, blocks), strict=True):
        count = sum(p.numel() for p in model.parameters())
        print(f"  {name:<14} {statistics.median(values):6.2f} s  ({count / 1e6:.2f} M parameters)")
    ratios = [a / b for a, b in zip(*took.values(), strict=True)]
    low, *_, high = statistics.quantiles(ratios, n=10)
    print(f"  ratio {statistics.median(ratios):.2f}  (80 %: {low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
