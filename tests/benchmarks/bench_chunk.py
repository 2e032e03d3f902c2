"""Time of one chunk: the flow policy's sampler against the ways that it had before.

    python -m tests.benchmarks.bench_chunk [--agent tidy_desk] [--observations 1] [--rounds 30] [--threads N]
    python -m tests.benchmarks.bench_chunk --threads 1 --beside runs/export_tidy_desk runs/tidy_desk_distilled
    python -m tests.benchmarks.bench_chunk --agent runs/peers/flow/policy --peer runs/peers/act/policy --threads 1

The sampler works out keys, values and modulation once for all its calls, and takes two midpoint steps; before, it did
so in each call, and took four. Rounds alternate between the ways, and medians are compared, so that other load on the
machine hits all. The trunk alone is timed too: what no sampler can save. Agents as a whole, from raw images to a chunk,
are timed as they are, with twice the steps, and beside them those of ``--beside``: exported, distilled or both. With
``--peer`` a policy of LeRobot's takes its turn too.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

# As the command line does: idle OpenMP threads that spin slow small operations down most.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from torch import Tensor

from policies.flow import FlowPolicy
from vla import agent
from vla.contracts import EnvSpec, Observation
from vla.host.provenance import machine
from vla.nn.flow import integrate, midpoint_times
from vla.nn.policy import standard_normal
from vla.rollout.lerobot_policy import LeRobotPolicy


def step_by_step(policy: FlowPolicy, batch: dict[str, Any], noise: Tensor) -> Tensor:
    """What ``policy.sample`` gives, with the head called anew at each time."""
    context = policy.trunk.encode(batch)
    steps = policy.config.sample_steps
    times = midpoint_times(steps, noise.device)

    def velocity(x: Tensor, i: int) -> Tensor:
        return policy.head(x, times[i].expand(len(x)), context)

    return integrate(velocity, policy.config.noise_scale * noise, steps)


def whole(agents: dict[str, Any], spec: EnvSpec, count: int) -> dict[str, Callable[[], Any]]:
    """Agents, each with all that it does between an observation and its chunk."""
    rng = np.random.default_rng(0)
    images = {c.name: rng.integers(0, 256, (c.height, c.width, 3), dtype=np.uint8) for c in spec.cameras}
    state = rng.uniform(0.0, 0.5, len(spec.state)).astype(np.float32)
    seen, seeds = [Observation(images, state, "put the red pen in the tray")] * count, [0] * count
    return {f"{name}, images to chunk": partial(one.act_batch, seen, seeds) for name, one in agents.items()}


def main() -> None:
    """Time all ways and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agent", default="tidy_desk", help="a flow agent, by name or folder (tidy_desk)")
    parser.add_argument("--peer", help="a folder with a LeRobot policy of the same env, e.g. one that bench_peers left")
    parser.add_argument("--beside", nargs="*", default=[], metavar="NAME", help="more agents to time as a whole")
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
    shape = (policy.config.chunk, len(spec.action))

    def generators() -> list[torch.Generator]:
        return [torch.Generator().manual_seed(row) for row in range(count)]

    noise = standard_normal(generators(), shape, torch.device("cpu"))
    twice = copy.copy(policy)  # the same weights
    twice.config = replace(policy.config, sample_steps=2 * policy.config.sample_steps)
    ways: dict[str, Callable[[], Any]] = {
        "sampler": lambda: policy.sample(batch, generators()),
        "the head anew at each time": lambda: step_by_step(policy, batch, noise),
        "the sampler, twice the steps": lambda: twice.sample(batch, generators()),
        "the head anew, twice the steps": lambda: step_by_step(twice, batch, noise),
        "the trunk alone": lambda: policy.trunk.encode(batch),
    }
    slower = copy.copy(loaded)
    slower.policy = twice
    agents: dict[str, Any] = {f"{args.agent}, twice the steps": slower, args.agent: loaded}
    agents |= {name: agent.load(name, "cpu") for name in args.beside}
    if args.peer:
        peer = LeRobotPolicy(args.peer, spec, "cpu")
        agents[peer.policy_name] = peer
    ways |= whole(agents, spec, count)
    times: dict[str, list[float]] = {name: [] for name in ways}
    with torch.inference_mode():
        expected = step_by_step(policy, batch, noise)
        torch.testing.assert_close(policy.sample(batch, generators()).actions, expected, atol=1e-4, rtol=1e-3)
        for _ in range(args.rounds):
            for name, way in ways.items():
                begun = time.perf_counter()
                way()
                times[name].append(1000 * (time.perf_counter() - begun))
    print(machine())
    print(f"| {count} observations, {args.threads} threads | ms | over the sampler's (80 % of rounds) |")
    print("|---|---|---|")
    for name, spent in times.items():
        low, *_, high = statistics.quantiles([t / s for t, s in zip(spent, times["sampler"], strict=True)], n=10)
        median = statistics.median(spent)
        ratio = f"{median / statistics.median(times['sampler']):.2f} ({low:.2f} to {high:.2f})"
        print(f"| {name} | {median:.1f} | {ratio} |")


if __name__ == "__main__":
    main()
