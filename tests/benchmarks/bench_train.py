"""Training steps per second: the flow policy against LeRobot's diffusion policy, on the same machine in one run.

    python -m tests.benchmarks.bench_train [--batch 32] [--steps 8] [--threads N] [--device cpu|cuda] [--bf16]

Both see the same synthetic tensors: two 128 px cameras, the desk's state and actions, a horizon of 16, one observation
a sample. A step is forward, backward, clipping and AdamW. Widths are chosen so that the parameter counts are within
10 % of each other: LeRobot's smallest network (one ResNet-18 for both cameras, no pretrained weights) sets the floor.
The flow policy also reads a sentence, which the other cannot, and draws several flow times for each observation.
Rounds alternate between the two, and the medians are compared, so that other load on the machine hits both; small
operations suffer more from it, so leave the machine alone while this runs.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

# As the command line does: idle OpenMP threads that spin slow both policies down, and small operations most.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from torch import Tensor, nn

from policies.flow import FlowPolicy
from policies.flow_config import FlowConfig
from vla.contracts import CameraSpec, EnvSpec
from vla.host.provenance import machine

HORIZON, PIXELS = 16, 128
CAMERAS = ("scene", "wrist")
SPEC = EnvSpec(
    name="bench",
    cameras=tuple(CameraSpec(name, PIXELS, PIXELS) for name in CAMERAS),
    state=tuple(f"s{i}" for i in range(17)),
    action=tuple(f"a{i}" for i in range(10)),
    dt=0.1,
    episode_steps=100,
)
TOLERANCE = 0.1


def flow_policy(dim: int) -> FlowPolicy:
    """This project's default head, ``dim`` wide."""
    return FlowPolicy(replace(FlowConfig(), chunk=HORIZON, dim=dim), SPEC)


def lerobot_policy(down_dims: tuple[int, ...], device: str) -> nn.Module:
    """LeRobot's diffusion policy with a U-Net of these widths."""
    from lerobot.configs.types import FeatureType, PolicyFeature
    from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
    from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy

    images = {f"observation.images.{c}": PolicyFeature(FeatureType.VISUAL, (3, PIXELS, PIXELS)) for c in CAMERAS}
    config = DiffusionConfig(
        n_obs_steps=1,
        horizon=HORIZON,
        n_action_steps=8,
        input_features={**images, "observation.state": PolicyFeature(FeatureType.STATE, (len(SPEC.state),))},
        output_features={"action": PolicyFeature(FeatureType.ACTION, (len(SPEC.action),))},
        pretrained_backbone_weights=None,
        use_separate_rgb_encoder_per_camera=False,
        down_dims=down_dims,
        device=device,
    )
    return DiffusionPolicy(config)


def parameters(module: nn.Module) -> int:
    """How many numbers are trained."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def matched(device: str) -> tuple[FlowPolicy, nn.Module]:
    """The two policies with parameter counts within 10 %: the default flow policy, widened only if it is too small."""
    for dim in range(FlowConfig().dim, 1024, 32):
        ours = flow_policy(dim)
        for width in range(32, 513, 16):
            theirs = lerobot_policy((width, 2 * width), device)
            if parameters(theirs) > (1 + TOLERANCE) * parameters(ours):
                break
            if parameters(theirs) > (1 - TOLERANCE) * parameters(ours):
                return ours, theirs
    raise SystemExit("no widths give equal parameter counts")


def batches(size: int, device: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The same samples as each policy names them, already normalised and on the device."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return (torch.rand(size, *shape, generator=generator) * 2 - 1).to(device)

    images = {c: draw(3, PIXELS, PIXELS) for c in CAMERAS}
    state, actions = draw(len(SPEC.state)), draw(HORIZON, len(SPEC.action))
    valid = torch.ones(size, HORIZON, dtype=torch.bool, device=device)
    ours = {
        **{f"images.{c}": image for c, image in images.items()},
        **{f"points.{c}": draw(6).abs().round() for c in CAMERAS},
        "state": state,
        "actions": actions,
        "valid": valid,
        "instruction": [f"put pen number {i} into the tray" for i in range(size)],
    }
    theirs = {
        **{f"observation.images.{c}": image for c, image in images.items()},
        "observation.state": state[:, None],
        "action": actions,
        "action_is_pad": ~valid,
    }
    return ours, theirs


def stepper(module: nn.Module, loss: Callable[[], Tensor], bf16: bool, device: str) -> Callable[[], None]:
    """One training step: forward, backward, clipping, AdamW."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-4, fused=True)
    module.train()

    def step() -> None:
        with torch.autocast(device, torch.bfloat16) if bf16 else nullcontext():
            value = loss()
        value.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if device == "cuda":
            torch.cuda.synchronize()

    return step


def main() -> None:
    """Time both and print the result as a row of a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=8, help="timed steps of each policy")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--bf16", action="store_true", help="autocast both to bf16")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    ours, theirs = (policy.to(args.device) for policy in matched(args.device))
    our_batch, their_batch = batches(args.batch, args.device)
    steps = {
        "flow": stepper(ours, lambda: ours.loss(our_batch)[0].mean(), args.bf16, args.device),
        "lerobot": stepper(theirs, lambda: theirs(their_batch)[0], args.bf16, args.device),
    }
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(args.steps + 2):
        for name, step in steps.items():
            begun = time.perf_counter()
            step()
            if number >= 2:  # the first two warm up
                times[name].append(time.perf_counter() - begun)
    rates = {name: 1 / statistics.median(values) for name, values in times.items()}
    ratio = rates["flow"] / rates["lerobot"]
    counts = f"{parameters(ours) / 1e6:.1f} M", f"{parameters(theirs) / 1e6:.1f} M"
    facts = machine()
    where = facts["gpu"] if args.device == "cuda" else f"{facts['cpu']}, {args.threads} threads"
    print(f"flow     {counts[0]:>8} {rates['flow']:8.3f} steps/s  (median of {args.steps})", file=sys.stderr)
    print(f"lerobot  {counts[1]:>8} {rates['lerobot']:8.3f} steps/s", file=sys.stderr)
    print(f"ratio {ratio:.2f} on {where}, batch {args.batch}, {'bf16' if args.bf16 else 'fp32'}", file=sys.stderr)
    print(
        f"| training steps/s, batch {args.batch} | flow {counts[0]}: {rates['flow']:.2f} "
        f"| LeRobot diffusion {counts[1]}: {rates['lerobot']:.2f} | {ratio:.1f}x |"
    )


if __name__ == "__main__":
    main()
