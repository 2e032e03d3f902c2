"""A plain loop does as well as ``vla eval``'s: the same episodes, whatever the loop knows."""

from dataclasses import replace

import numpy as np
import pytest

from tests.acting import ENV, DotAgent, Rememberer
from tests.fake_env import DotEnv
from vla import agent as agents
from vla import registry
from vla.contracts import Chunk, SpecMismatchError, VlaError
from vla.rollout.loop import EpisodeRequest, run_episodes
from vla.runner import Runner, noise_seed


class StaleEnv(DotEnv):
    """Its first picture may show an earlier scene."""

    def reset(self, **more):
        raw, info = super().reset(**more)
        return raw, info | {"stale": True}

    def observe(self):
        return replace(super().observe(), stale=self._steps == 0)


@pytest.mark.parametrize(
    ("agent", "env", "perturb"),
    [
        (DotAgent(noise=0.02), ENV, {}),
        (DotAgent(noise=0.02), ENV, {"latency": "150ms", "noise": "mild"}),
        (DotAgent(noise=0.02), "tests.test_runner:StaleEnv", {}),
        (Rememberer(noise=0.02), ENV, {}),
    ],
)
def test_a_plain_loop_plays_the_episodes_of_an_evaluation(agent, env: str, perturb: dict[str, str]) -> None:
    requests = [EpisodeRequest(i, 100 + i, perturb=perturb) for i in range(4)]
    evaluated = run_episodes(env, agent, requests, execute=5)
    seen, agent.seeds = sorted(agent.seeds), []
    env = registry.make_env(env)
    for request, result in zip(requests, evaluated, strict=True):
        env.reset(seed=request.seed)
        runner = Runner(agent, request.seed, execute=5, perturb=perturb)
        *_, last = runner.play(env)
        assert (runner.decisions, last.info["success"], last.info["progress"]) == (
            result.decisions,
            result.success,
            result.progress,
        )
        assert last.reward == sum(result.reward_terms.values())
    assert sorted(agent.seeds) == seen


def test_a_runner_says_what_to_play_until_the_next_look() -> None:
    env, agent = DotEnv(), DotAgent(noise=0.02)
    env.reset(seed=3)
    runner = Runner(agent, 9, execute=6)
    for decision in range(3):
        assert runner.noise_seed == noise_seed(9, decision)
        actions = runner.act(env.observe())
        assert actions.shape == (6, 3) and runner.step == 6 * (decision + 1)
    assert agent.seeds == [noise_seed(9, decision) for decision in range(3)]
    with pytest.raises(VlaError, match="execute must lie between 1 and the chunk's 64"):
        Runner(agent, execute=65).act(env.observe())
    with pytest.raises(VlaError, match=r"chunk of shape \(4, 2\).*3 entries"):
        runner.push(Chunk(np.zeros((4, 2), np.float32), 0.1))
    with pytest.raises(SpecMismatchError, match="cameras"):
        next(runner.play(DotEnv(cameras=1)))


def test_the_readmes_example_ends_in_success_and_is_what_is_evaluated(readme_example: str) -> None:
    scope: dict = {}
    exec(compile(readme_example, "README.md", "exec"), scope)
    result = scope["result"]
    assert result.terminated and result.info["success"] and result.info["progress"] == 1.0
    options = {"instruction": "put the red pen in the tray"}
    (evaluated,) = run_episodes("tidy_desk", agents.load("tidy_desk"), [EpisodeRequest(0, 10, options)])
    assert evaluated.success and evaluated.time_to_success_s == pytest.approx(scope["env"].observe().time)


@pytest.fixture
def readme_example() -> str:
    from tests.test_readme import blocks

    (example,) = [block for block in blocks("README.md", "python") if "vla.agent.load" in block]
    return example
