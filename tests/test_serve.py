"""A served agent gives the answers of a direct one, whoever else asks; who may ask; how it ends."""

from __future__ import annotations

import asyncio
import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from websockets.exceptions import InvalidStatus

from tests.acting import DotAgent, Rememberer
from tests.fake_env import DotEnv
from tests.serving import HashedAgent, Slow, ask, connected, look, request, same
from vla.contracts import EnvSpec, Pending, SpecMismatchError, VlaError
from vla.host.address import is_loopback
from vla.rollout.loop import EpisodeRequest, run_episodes
from vla.runner import Runner, noise_seed
from vla.serve.batching import Batcher
from vla.serve.client import RemoteAgent
from vla.serve.metrics import Metrics
from vla.serve.server import ServeConfig, Server, running

TOKEN = "a-token-of-more-than-16-letters"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running(HashedAgent()) as found:
        yield found


def status_of(url: str, headers: dict[str, str] | None = None) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers or {}), timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def http(server: Server) -> str:
    return server.url.replace("ws://", "http://")


# --- the same answers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("agent", [HashedAgent(), Rememberer(noise=0.02)])
@pytest.mark.parametrize("perturb", [{}, {"latency": "150ms", "noise": "mild"}])
def test_episodes_through_the_server_are_those_of_the_agent_itself(agent, perturb) -> None:
    requests = [EpisodeRequest(i, 100 + i, perturb=perturb) for i in range(6)]
    direct = run_episodes("tests.fake_env:DotEnv", agent, requests, slots=3, execute=5)
    with running(agent) as server, RemoteAgent(server.url) as remote:
        served = run_episodes("tests.fake_env:DotEnv", remote, requests, slots=3, execute=5)
        assert server.metrics.answered == sum(one.decisions for one in served)
    assert served == direct


def test_the_agent_is_told_and_its_spec_is_checked(server: Server) -> None:
    with RemoteAgent(server.url) as remote:
        assert remote.spec == DotEnv().env_spec and remote.name == "dot_agent" and remote.execute == 5
        assert remote.hash == HashedAgent().hash and remote.provenance["recipe"] == "by hand"
        env = DotEnv(cameras=1)
        with pytest.raises(
            SpecMismatchError, match=r"agent dot_agent: scene 32x32, wrist 32x32\n.*env dot: scene 32x32"
        ):
            next(remote.runner().play(env))


def test_an_episode_of_the_servers_own_has_a_runners_noise(server: Server) -> None:
    direct, seen = Runner(HashedAgent(), 9), look()
    with RemoteAgent(server.url) as remote, connected(server) as bare:
        remote.reset(seed=9)
        assert ask(bare, {"reset": True, "seed": 9}) == {"reset": True, "seed": 9, "episode": 0}
        for _ in range(3):
            wanted = direct.actor.act_batch([seen], [direct.noise_seed])[0]
            direct.push(wanted)
            assert same(remote.act(seen).actions, wanted.actions)
            answer = ask(bare, request(seen))
            assert same(answer["actions"], wanted.actions)
            assert answer["dt"] == 0.1 and answer["execute"] is None
            assert answer["policy_timing"]["infer_ms"] <= answer["server_timing"]["infer_ms"]
        assert answer["server_timing"]["prev_total_ms"] > 0


def test_episodes_of_one_connection_do_not_meet(server: Server) -> None:
    seen, agent = look(), HashedAgent()
    with connected(server) as bare:
        for number in (1, 2):
            ask(bare, {"reset": True, "episode": number, "seed": number})
        for decision in range(2):
            for number in (1, 2):
                answer = ask(bare, request(seen, episode=number))
                assert same(answer["actions"], agent.act_batch([seen], [noise_seed(number, decision)])[0].actions)
        bare.send(b"\x81\xa7episode\x03")
        assert "malformed" in bare.recv(timeout=5) or True
        with pytest.raises(AssertionError, match="no episode 3 has begun"):
            ask(bare, request(seen, episode=3))


class Fussy(DotAgent):
    """Cannot bear the word `bang`, and forgets what it was shown with it."""

    def act_batch(self, observations, noise_seeds):
        if any("bang" in one.instruction for one in observations):
            raise ZeroDivisionError("bang")
        if any("nan" in one.instruction for one in observations):
            return [type(c)(c.actions * np.nan, c.dt) for c in super().act_batch(observations, noise_seeds)]
        return super().act_batch(observations, noise_seeds)


def test_a_request_that_the_agent_cannot_bear_fails_nobody_else() -> None:
    agent, good = Fussy(), look()
    bad = [look(), look()]
    bad[0].instruction, bad[1].instruction = "bang red", "nan red"
    with running(agent, ServeConfig(port=0, wait_ms=300)) as server:
        remotes = [RemoteAgent(server.url) for _ in range(4)]

        def act(i: int) -> object:
            try:
                return remotes[i].act([good, bad[0], good, bad[1]][i], i).actions
            except VlaError as error:
                return str(error)

        with ThreadPoolExecutor(4) as pool:
            for _ in range(2):
                found = list(pool.map(act, range(4)))
        assert same(found[0], agent.act_batch([good], [0])[0].actions) and same(
            found[2], agent.act_batch([good], [2])[0].actions
        )
        assert "refused: agent: ZeroDivisionError: bang" in found[1] and "gave NaN or infinity" in found[3]
        for remote in remotes:
            remote.close()


def test_what_must_be_exact_is_joined_with_nobody() -> None:
    agent, seen = HashedAgent(), look()
    with running(agent, ServeConfig(port=0, wait_ms=300)) as server:
        remotes = [RemoteAgent(server.url, exact=number == 0) for number in range(3)]
        with ThreadPoolExecutor(3) as pool:
            for _ in range(2):
                agent.batches.clear()
                list(pool.map(lambda remote: remote.act_batch([seen], [1]), remotes))
        assert sorted(agent.batches) == [1, 2]
        for remote in remotes:
            remote.close()


def test_one_that_is_alone_may_come_between_those_that_are_joined() -> None:
    """Jobs are told apart without comparing what they hold: arrays can't be."""
    agent = HashedAgent()

    async def run() -> list[int]:
        async with Batcher(agent, Metrics(), most=8, wait_s=0.2) as batcher:
            turns = [batcher.ask(who, agent, [look()], [1], alone=who == 1) for who in range(3)]
            async with asyncio.timeout(20):
                return [answer.batch for answer in await asyncio.gather(*turns)]

    assert asyncio.run(run()) == [2, 1, 2]


# --- who may ask ---------------------------------------------------------------------------------------------------


def test_health_and_metrics(server: Server) -> None:
    with connected(server) as bare:
        ask(bare, request(look()))
        bare.send(b"\x00")
        bare.recv()
        code, text = status_of(http(server) + "/metrics")
    assert status_of(http(server) + "/healthz") == (200, "ok\n") and code == 200
    assert 'vla_requests_total{kind="infer"}' in text and 'vla_errors_total{kind="malformed"}' in text
    assert "vla_request_seconds_bucket" in text and "vla_batch_size_sum" in text and "vla_clients" in text
    assert status_of(http(server) + "/etc")[0] == 404 and status_of(http(server) + "/")[0] == 426


def test_a_token_is_asked_for_and_compared() -> None:
    config = ServeConfig(port=0, token=TOKEN)
    with running(HashedAgent(), config) as server:
        for given in ("", TOKEN[:-1], TOKEN + "x", "é" * 16):
            with pytest.raises(VlaError, match=r"refused with status 401: a token is missing or wrong.*VLA_TOKEN"):
                RemoteAgent(server.url, token=given)
        RemoteAgent(server.url, token=TOKEN).close()
        assert status_of(http(server) + "/metrics")[0] == 401
        assert status_of(http(server) + "/metrics", {"Authorization": f"Bearer {TOKEN}"})[0] == 200
        assert status_of(http(server) + "/metrics", {"Authorization": f"Basic {TOKEN}"})[0] == 401
        assert status_of(http(server) + "/healthz")[0] == 200
        assert 'vla_errors_total{kind="unauthorised"}' in server.metrics.text().decode()


def test_loopback_is_told() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.3.2.1", "localhost", "::1")))


def test_a_web_page_may_not_use_it(server: Server) -> None:
    with pytest.raises(InvalidStatus, match="403"), connected(server, origin="http://evil.example"):
        pass


def test_more_clients_than_allowed_are_told_so() -> None:
    with running(HashedAgent(), ServeConfig(port=0, clients=2)) as server:
        with RemoteAgent(server.url), RemoteAgent(server.url), pytest.raises(VlaError, match=r"503: it has 2 clients"):
            RemoteAgent(server.url)
        deadline = time.monotonic() + 5
        while server.metrics.clients and time.monotonic() < deadline:
            time.sleep(0.01)
        RemoteAgent(server.url).close()


def test_a_fast_client_is_slowed_down() -> None:
    with running(HashedAgent(), ServeConfig(port=0, rate=50)) as server, connected(server) as bare:
        begun = time.monotonic()
        for _ in range(75):  # a second's worth at once, and half a second of waiting for the rest
            ask(bare, {"reset": True})
        assert 0.4 < time.monotonic() - begun < 5


# --- what goes wrong -----------------------------------------------------------------------------------------------


def test_nobody_there_and_others_there_are_one_line() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(VlaError, match=rf"nobody serves an agent at ws://127.0.0.1:{port} .*vla serve --agent NAME"):
        RemoteAgent(f"ws://127.0.0.1:{port}")
    with pytest.raises(VlaError, match="is no address of a served agent"):
        RemoteAgent("ws://")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(VlaError, match="nobody serves an agent at"):
            RemoteAgent(f"ws://127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.3)


def test_a_late_answer_is_an_error_and_is_not_taken_for_the_next_one() -> None:
    with running(Slow()) as server, RemoteAgent(server.url, timeout_s=0.3) as remote:
        with pytest.raises(VlaError, match=r"did not answer within 0.3 s"):
            remote.act(look(), 0)
        with pytest.raises(VlaError, match="was closed"):
            remote.act(look(), 0)


def test_a_lost_connection_is_made_again_where_nothing_is_lost_with_it() -> None:
    with running(HashedAgent()) as server:
        remote, port = RemoteAgent(server.url, again_s=3.0), int(server.url.rpartition(":")[2])
        first = remote.act(look(), 5).actions
    with running(HashedAgent(), ServeConfig(port=port)):
        assert same(remote.act(look(), 5).actions, first)
    remote._again_s = 0.3
    with pytest.raises(VlaError, match=r"the connection to .* was lost .*; nobody serves an agent at"):
        remote.act(look(), 5)
    with running(Rememberer(), ServeConfig(port=port)):
        remote = RemoteAgent(server.url)
        episode = remote.begin()
        episode.act_batch([look()], [0])
    with pytest.raises(VlaError, match="and with it what the agent remembers"):
        episode.act_batch([look()], [0])
    with running(HashedAgent(), ServeConfig(port=port)):
        remote = RemoteAgent(server.url, again_s=0.3)
    with running(HashedAgent(mark="another"), ServeConfig(port=port)), pytest.raises(VlaError, match="another agent"):
        remote.act(look(), 5)


def test_what_is_pending_is_never_silently_left_out(server: Server) -> None:
    going_on = Pending(np.zeros((3, 3), np.float32), 2, 3)
    with RemoteAgent(server.url) as remote, pytest.raises(VlaError, match="can't go on from pending actions"):
        remote.act(replace(look(), pending=going_on))


def test_more_rows_than_a_message_may_have(server: Server) -> None:
    with RemoteAgent(server.url) as remote, pytest.raises(VlaError, match=r"takes 64 observations at once, and not 65"):
        remote.act_batch([look()] * 65, range(65))


# --- the end -------------------------------------------------------------------------------------------------------


def test_what_was_asked_is_answered_before_the_end() -> None:
    with ThreadPoolExecutor(1) as pool:
        with running(Slow()) as server:
            remote, port = RemoteAgent(server.url, again_s=0), int(server.url.rpartition(":")[2])
            asked = pool.submit(remote.act, look(), 1)
            time.sleep(0.3)
        assert same(asked.result().actions, HashedAgent().act_batch([look()], [1])[0].actions)
    with pytest.raises(VlaError, match="was lost"):
        remote.act(look(), 2)
    with running(HashedAgent(), ServeConfig(port=port)):  # the port is free
        pass


def test_the_status_line_tells_the_last_seconds(server: Server) -> None:
    with RemoteAgent(server.url) as remote:
        for seed in range(3):
            remote.act(look(), seed)
        line = server.metrics.line()
    assert "client" in line and "decisions/s" in line and "p50" in line and "p99" in line


def test_a_spec_is_json(server: Server) -> None:
    with RemoteAgent(server.url) as remote:
        assert EnvSpec.from_dict(json.loads(json.dumps(remote.spec.to_dict()))) == remote.spec
