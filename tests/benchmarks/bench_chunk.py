"""Time of one chunk: the flow policy's sampler against the same integration with the head called anew at each time.

    python -m tests.benchmarks.bench_chunk [--agent tidy_desk] [--observations 1] [--rounds 30] [--threads N]

The sampler works out keys, values and modulation once for all its calls; the other way does so in each call, as it was
done before. Rounds alternate between the two, and the medians are compared, so that other load on the machine hits
both. The trunk alone is timed too: what no sampler can save.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

# As the command line does: idle OpenMP threads that spin slow small operations down most.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from torch import Tensor

from policies.flow import FlowPolicy
from vla import agent
from vla.nn.flow import integrate, midpoint_times
from vla.provenance import machine


def step_by_step(policy: FlowPolicy, batch: dict[str, Any], noise: Tensor) -> Tensor:
    """What ``policy.sample`` gives, with the head called anew at each time."""
    context, _ = policy.trunk(batch)
    steps = policy.config.sample_steps
    times = midpoint_times(steps, noise.device)

    def velocity(x: Tensor, i: int) -> Tensor:
        return policy.head(x, times[i].expand(len(x)), context)

    return integrate(velocity, policy.config.noise_scale * noise, steps)


def main() -> None:
    """Time both and print the result as a row of a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agent", default="tidy_desk", help="a flow agent, by name or folder (tidy_desk)")
    parser.add_argument("--observations", type=int, default=1, help="in a batch (1)")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    loaded = agent.load(args.agent, "cpu")
    policy, spec, count = loaded.policy, loaded.spec, args.observations
    if not isinstance(policy, FlowPolicy):
        raise SystemExit(f"bench_chunk: the agent {args.agent} has no flow policy")
    torch.manual_seed(0)
    batch: dict[str, Any] = {f"images.{c.name}": torch.rand(count, 3, c.height, c.width) for c in spec.cameras}
    batch |= {"state": torch.randn(count, len(spec.state)), "instruction": ["put the red pen in the tray"] * count}
    noise = torch.randn(count, policy.config.chunk, len(spec.action))
    ways: dict[str, Callable[[], Any]] = {
        "sampler": lambda: policy.sample(batch, noise),
        "step by step": lambda: step_by_step(policy, batch, noise),
        "trunk": lambda: policy.trunk(batch),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    with torch.inference_mode():
        torch.testing.assert_close(ways["sampler"](), ways["step by step"](), atol=1e-4, rtol=1e-3)
        for _ in range(args.rounds):
            for name, way in ways.items():
                begun = time.perf_counter()
                way()
                times[name].append(1000 * (time.perf_counter() - begun))
    now, before, trunk = (statistics.median(times[name]) for name in ways)
    ratios = [b / n for b, n in zip(times["step by step"], times["sampler"], strict=True)]
    low, *_, high = statistics.quantiles(ratios, n=10)
    print(machine())
    ratio = f"{before / now:.2f} ({low:.2f} to {high:.2f})"
    print("| observations | threads | sampler, ms | step by step, ms | ratio (80 % of rounds) | trunk alone, ms |")
    print("|---|---|---|---|---|---|")
    print(f"| {count} | {args.threads} | {now:.1f} | {before:.1f} | {ratio} | {trunk:.1f} |")


if __name__ == "__main__":
    main()
