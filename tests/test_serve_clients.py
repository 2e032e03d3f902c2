"""Others' own clients, from the package index, in environments of their own: they play the episodes of a direct run."""

from __future__ import annotations

import json

import pytest

from tests.fake_env import DotEnv
from tests.serving import HashedAgent, python_with, run_in
from vla.runner import Runner
from vla.serve.server import ServeConfig, running

SEEDS = (100, 101, 102)
TOKEN = "a-token-of-more-than-16-letters"

OPENPI = """
import json, sys
import numpy as np
from openpi_client.websocket_client_policy import WebsocketClientPolicy
from tests.fake_env import DotEnv

url, token = sys.argv[1], sys.argv[2]
policy, env, played = WebsocketClientPolicy(url, api_key=token), DotEnv(), []
execute = policy.get_server_metadata()["agent"]["execute"]
for seed in map(int, sys.argv[3:]):
    env.reset(seed=seed)
    policy.infer({"reset": True, "seed": seed})
    decisions, over = 0, False
    while not over:
        seen = env.observe()
        answer = policy.infer({
            "observation/image": seen.images["scene"],
            "observation/wrist_image": seen.images["wrist"],
            "observation/state": seen.state.astype(np.float64),
            "prompt": seen.instruction,
        })
        decisions += 1
        assert answer["actions"].shape == (64, 3) and answer["policy_timing"]["infer_ms"] >= 0
        assert set(answer["server_timing"]) >= {"infer_ms", "prev_total_ms"}
        for action in answer["actions"][:execute]:
            result = env.play(action)
            over = result.terminated or result.truncated
            if over:
                break
    played.append([decisions, env._steps, result.info["success"]])
try:
    policy.infer({"observation/image": seen.images["scene"], "prompt": "no state"})
except RuntimeError as error:
    assert "observation: " in str(error), error
else:
    raise AssertionError("a bad observation was taken")
again = policy.infer({"reset": True})  # the connection outlives it
print(json.dumps(played))
"""

VLA_EVAL = """
import asyncio, json, sys
from vla_eval.connection import Connection
from tests.fake_env import DotEnv

async def main():
    env, played = DotEnv(), []
    async with Connection(sys.argv[1], timeout=20) as connection:
        assert connection.server_info["observation_params"] == {"send_state": True, "send_wrist_image": True}
        for seed in map(int, sys.argv[2:]):
            env.reset(seed=seed)
            await connection.start_episode({"task": {"name": "dots"}, "seed": seed})
            over = False
            while not over:
                seen = env.observe()
                images = dict(zip(("agentview", "wrist"), seen.images.values()))
                said = {"images": images, "states": seen.state, "task_description": seen.instruction}
                action = (await connection.act(said))["actions"]
                assert action.shape == (3,)
                result = env.play(action)
                over = result.terminated or result.truncated
            await connection.end_episode({"success": result.info["success"]})
            played.append([env._steps, result.info["success"]])
        try:
            await connection.act({"images": {}, "states": seen.state, "task_description": ""})
        except RuntimeError as error:
            assert "there are 0 images" in str(error), error
        else:
            raise AssertionError("a bad observation was taken")
        await connection.act(said)
        await connection.reconnect()
        await connection.act(said)
    print(json.dumps(played))

asyncio.run(main())
"""


def direct() -> list[tuple[int, int, bool]]:
    """Decisions, steps and success of each seed, played by the agent itself."""
    found, env = [], DotEnv()
    for seed in SEEDS:
        env.reset(seed=seed)
        runner = Runner(HashedAgent(), seed)
        *_, last = runner.play(env)
        found.append((runner.decisions, env._steps, last.info["success"]))
    return found


@pytest.mark.slow
def test_openpis_client() -> None:
    python = python_with("openpi-client==0.1.2", "typing_extensions")  # which it imports and does not ask for
    with running(HashedAgent(), ServeConfig(port=0, token=TOKEN)) as server:
        found = json.loads(run_in(python, OPENPI, server.url, TOKEN, *map(str, SEEDS)))
    assert [tuple(one) for one in found] == direct()


@pytest.mark.slow
def test_vla_evals_client() -> None:
    python = python_with("vla-eval==0.8.0")
    with running(HashedAgent()) as server:
        found = json.loads(run_in(python, VLA_EVAL, server.url, *map(str, SEEDS)))
        assert 'vla_requests_total{kind="hello"} 2.0' in server.metrics.text().decode()
    assert [tuple(one) for one in found] == [one[1:] for one in direct()]
