"""How much outcomes depend on the processor: the same episodes, once as they are and once with rounding emulated.

Processors differ in the last bits of a sum, and renderers in the last bit of a pixel. An episode is a chain of some
forty decisions, each on what the former led to, so a few episodes that hang by a thread come out differently elsewhere.
Here a machine that rounds otherwise is emulated: one pixel value in ``--every`` is off by one.

    python -m tests.benchmarks.bench_rounding --episodes 40
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np

from vla.agent import load
from vla.contracts import Observation, episode_seed
from vla.eval.statistics import rate_of
from vla.rollout.loop import EpisodeRequest, run_episodes


def off_by_one(observation: Observation, rng: np.random.Generator, every: int) -> Observation:
    """The observation with about one in ``every`` pixel values one higher or lower; images stay uint8."""
    images = {}
    for name, image in observation.images.items():
        step = rng.integers(0, 2, image.shape) * 2 - 1
        off = step * (rng.integers(0, every, image.shape) == 0)
        images[name] = np.clip(image + off, 0, 255).astype(np.uint8)
    return replace(observation, images=images)


def main() -> None:
    """Play both, and print how many outcomes differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="tidy_desk")
    parser.add_argument("--agent", default="tidy_desk")
    parser.add_argument("--episodes", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0, help="of the evaluation, as in vla eval")
    parser.add_argument("--every", type=int, default=100, help="one pixel value in so many is off by one")
    args = parser.parse_args()
    agent, rng = load(args.agent), np.random.default_rng(args.seed)
    requests = [
        EpisodeRequest(i, episode_seed("evaluate", args.seed, i), {"split": "heldout"}) for i in range(args.episodes)
    ]
    here = run_episodes(args.env, agent, requests)
    there = run_episodes(args.env, agent, requests, observation_filter=lambda o, _: off_by_one(o, rng, args.every))
    for name, results in (("as they are", here), ("off by one", there)):
        rate = rate_of([result.success for result in results])
        print(f"{name}: {rate.rate:.1%} success ({rate.low:.1%} to {rate.high:.1%}, n = {rate.n})")
    differing = [a.index for a, b in zip(here, there, strict=True) if a.success != b.success]
    print(f"{len(differing)} of {len(requests)} episodes come out differently: {differing}")


if __name__ == "__main__":
    main()
