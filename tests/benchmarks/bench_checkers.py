"""How often an env calls it a success when nobody tries: an arm that rests, and one that moves at random.

    python -m tests.benchmarks.bench_checkers --env tidy_desk --episodes 1000
    python -m tests.benchmarks.bench_checkers --env metaworld --episodes 20

Episodes are counted for each task of an env that has several, and no picture is rendered. Any success of a policy that
does not try is one that the checker gives away: what others report on that task holds it too.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from vla import registry
from vla.contracts import episode_seed
from vla.contracts.abilities import tasks_of
from vla.eval.statistics import rate_of

POLICIES = ("rest", "random")


def still(env: Any) -> np.ndarray:
    """The action that moves nothing: the present state where an action is absolute, else zeros."""
    spec = env.env_spec
    action, state = np.zeros(len(spec.action)), env.observe().state
    for to, at in spec.relative:
        action[to] = state[at]
    return np.clip(action, env.action_space.low, env.action_space.high)


def succeeds(env: Any, policy: str, seed: int, task: str = "", steps: int = 0) -> bool:
    """Whether an episode of ``rest`` or ``random`` is a success at any step; ``steps`` cuts it short."""
    env.reset(seed=seed, options={"task": task} if task else {})
    rng, rest = np.random.default_rng(seed), still(env)
    low, high = env.action_space.low, env.action_space.high
    for _ in range(steps or env.env_spec.episode_steps):
        result = env.play(rest if policy == "rest" else rng.uniform(low, high))
        if result.info["success"]:
            return True
        if result.terminated or result.truncated:
            break
    return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="tidy_desk")
    parser.add_argument("--episodes", type=int, default=100, help="of each task (%(default)s)")
    args = parser.parse_args()
    env = registry.make_env(args.env)
    for task in tasks_of(env) or ("",):
        for policy in POLICIES:
            seeds = [episode_seed("evaluate", 0, index) for index in range(args.episodes)]
            rate = rate_of([succeeds(env, policy, seed, task) for seed in seeds])
            print(f"{task or args.env:28} {policy:7} {rate.rate:7.1%}  ({rate.low:.1%} to {rate.high:.1%})", flush=True)


if __name__ == "__main__":
    main()
