"""Time of what each of two systems does, beside a flow policy's chunk, on one core.

    python -m tests.benchmarks.bench_systems [--agent tidy_desk] [--rounds 60]

The hierarchical policy is made of the flow agent (``take_over``), so that both have the same eyes. Timed are a plan of
System 2 (with its words, and without), System 1's look at new images, its tick (new joints on the features of the last
images, through the head), and the flow agent's chunk. Rounds go through all in turns, and medians are told.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from policies.hierarchical import HierarchicalPolicy
from policies.hierarchical_config import HierarchicalConfig
from vla import agent as agents
from vla.host.provenance import machine
from vla.nn.batch import batch_of


@torch.inference_mode()
def main() -> None:
    """Print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agent", default="tidy_desk")
    parser.add_argument("--rounds", type=int, default=60)
    args = parser.parse_args()
    torch.set_num_threads(1)
    flow = agents.load(args.agent, "cpu")
    policy = HierarchicalPolicy(HierarchicalConfig(), flow.spec).eval()
    policy.take_over(flow.policy)
    policy.speech.out.bias[-1] = -1e9  # untrained, it might end at once: time a sentence of 96 bytes, the longest
    batch = flow.normaliser.encode(batch_of([flow.golden_observation()], flow.spec))
    latent, _ = policy.plan(batch)
    planned = policy.trunk.encode(batch)
    context = policy.perceive(batch, latent, batch["instruction"])
    features = policy.features(context)
    seed = [torch.Generator().manual_seed(0)]
    parts = {
        "System 2: a plan": lambda: policy.plan(batch),
        "System 2: its words, 96 bytes": lambda: policy.speech.say(planned, batch["instruction"]),
        "System 1: a look at new images": lambda: policy.features(policy.perceive(batch, latent, batch["instruction"])),
        "System 1: a tick, new joints": lambda: policy.tick(context, features, batch["state"]),
        "flow: a chunk": lambda: flow.policy.sample(batch, seed),
    }
    took: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(args.rounds):
        for name, part in parts.items():
            begun = time.perf_counter()
            part()
            took[name].append(1000 * (time.perf_counter() - begun))
    count = sum(p.numel() for name, p in policy.named_parameters() if name.startswith(("fast.", "head.", "start")))
    print(f"{machine()['cpu']}, one thread, {args.rounds} rounds; System 1 has {count / 1e6:.2f} M parameters")
    for name, values in took.items():
        low, high = statistics.quantiles(values, n=10)[0], statistics.quantiles(values, n=10)[-1]
        print(f"  {name:<32} {statistics.median(values):7.2f} ms  (80 %: {low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
