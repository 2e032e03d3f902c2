"""Chunks and actions a second of each way to decode action tokens, in one run.

    python -m tests.benchmarks.bench_tokens [--agent tidy_desk] [--observations 1] [--rounds 10] [--threads 2]

Decoders with fresh weights on the trunk of an agent, all of one size. How long a chunk takes does not depend on what
the weights are, but for FAST, whose chunks differ in length: its codebook is learnt from walks, and its length told.
Rounds alternate between the ways, so that other load on the machine hits all. The head's own time is told beside the
whole, which has the trunk's in it: on a language model the decoder is the larger part, here the trunk is.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from policies.tokens import TokensPolicy
from policies.tokens_config import BeastConfig, BinsConfig, FastConfig, TokensConfig
from vla import agent
from vla.host.provenance import machine

WAYS = {
    "bins, one by one": (BinsConfig(), "autoregressive"),
    "FAST, one by one": (FastConfig(), "autoregressive"),
    "BEAST, one by one": (BeastConfig(), "autoregressive"),
    "bins, parallel": (BinsConfig(), "parallel"),
    "BEAST, parallel": (BeastConfig(), "parallel"),
    "L1, in one pass": (BinsConfig(), "l1"),
}


def main() -> None:
    """Time all ways and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agent", default="tidy_desk", help="whose trunk and spec (tidy_desk)")
    parser.add_argument("--observations", type=int, default=1, help="in a batch (1)")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    loaded, count = agent.load(args.agent, "cpu"), args.observations
    spec, config = loaded.spec, loaded.config
    torch.manual_seed(0)
    batch: dict[str, Any] = {f"images.{c.name}": torch.rand(count, 3, c.height, c.width) for c in spec.cameras}
    batch |= {"state": torch.randn(count, len(spec.state)), "instruction": ["put the red pen in the tray"] * count}
    walks = torch.randn(2000, config.chunk, len(spec.action)).cumsum(dim=1) / config.chunk**0.5
    policies = {}
    for name, (tokeniser, decoding) in WAYS.items():
        one = TokensConfig(
            config.chunk, config.execute, config.trunk, config.dim, tokeniser=tokeniser, decoding=decoding
        )
        policy = policies[name] = TokensPolicy(one, spec).eval()
        policy.trunk.load_state_dict(loaded.policy.trunk.state_dict())
        policy.fit(torch.zeros(1, len(spec.state)), walks)
    with torch.inference_mode():
        seen = loaded.policy.trunk.encode(batch)
        ways: dict[str, Callable[[], Any]] = {"the trunk alone": lambda: loaded.policy.trunk.encode(batch)}
        for name, policy in policies.items():
            ways[name] = lambda policy=policy: policy.sample(batch, [])
            ways[f"{name}: head"] = lambda policy=policy: policy.sample({**batch, "context": seen}, [])
        spent: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(args.rounds + 1):
            for name, way in ways.items():
                begun = time.perf_counter()
                way()
                if turn:  # the first warms up
                    spent[name].append(time.perf_counter() - begun)
        lengths = {name: policy.tokeniser.total if policy.tokeniser else 0 for name, policy in policies.items()}
        fast = policies["FAST, one by one"]
        drawn, _ = fast._one_by_one(seen, [])
        lengths["FAST, one by one"] = drawn.shape[1]
    median = {name: statistics.median(times) for name, times in spent.items()}
    print(f"{machine()}, {count} observations, {args.threads} threads, chunks of {config.chunk} actions")
    print(f"the trunk alone: {1000 * median['the trunk alone']:.1f} ms")
    print("| | tokens | head, ms | chunks/s | actions/s | times bins one by one (80 %) | with the trunk: actions/s |")
    print("|---|---|---|---|---|---|---|")
    first = spent["bins, one by one: head"]
    for name in policies:
        head, whole = median[f"{name}: head"], median[name]
        ratios = [slow / quick for slow, quick in zip(first, spent[f"{name}: head"], strict=True)]
        low, *_, high = statistics.quantiles(ratios, n=10)
        speed = f"{1000 * head:.1f} | {count / head:.1f} | {count * config.chunk / head:.0f}"
        ratio = f"{statistics.median(ratios):.1f} ({low:.1f} to {high:.1f})"
        print(f"| {name} | {lengths[name]} | {speed} | {ratio} | {count * config.chunk / whole:.0f} |")


if __name__ == "__main__":
    main()
