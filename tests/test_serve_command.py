"""``vla serve`` and ``vla eval --agent ws://…``: what they refuse, what they write down, how they end."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.acting import ENV
from tests.serving import HashedAgent, look, same
from tests.test_record import saved_agent
from tests.test_serve import TOKEN
from vla import agent as agents
from vla import registry
from vla.cli import main
from vla.eval.folder import read_results
from vla.eval.repeat import compare_episodes
from vla.host.address import is_loopback
from vla.serve.client import RemoteAgent
from vla.serve.server import ServeConfig, running


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "", "no.such.host.invalid"])
def test_other_machines_are_let_in_with_a_token_only(host: str, monkeypatch, capsys) -> None:
    monkeypatch.delenv("VLA_TOKEN", raising=False)
    assert not is_loopback(host)
    for words in ([], ["--token", "short"]):
        assert main(["serve", "--agent", "tidy_desk", "--host", host, *words]) == 2
        line = capsys.readouterr().err
        assert "set VLA_TOKEN" in line and "token_urlsafe" in line and line.count("\n") == 1


def test_a_port_in_use_is_told(capsys) -> None:
    with running(HashedAgent()) as server:
        port = server.url.rpartition(":")[2]
        assert main(["serve", "--agent", "tidy_desk", "--port", port]) == 2
    assert f"port {port} of 127.0.0.1 is in use" in (line := capsys.readouterr().err) and "--port 0" in line
    assert main(["serve", "--agent", "tidy_desk", "--host", "192.0.2.1", "--token", TOKEN]) == 2
    assert "Is --host an address of this machine?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "which agent"),
        (["--agent", "nobody"], "no agent at 'nobody'"),
        (["--agent", "lerobot:somewhere"], "--env"),
        (["--agent", "tidy_desk", "--port", "70000"], "--port must lie between 0 and 65535"),
        (["--agent", "tidy_desk", "--batch", "0"], "--batch must lie between 1"),
        (["--agent", "tidy_desk", "--token", "ключ" * 8], "not ASCII"),
        (["--agent", "tidy_desk", "--device", "nowhere"], "no device 'nowhere'"),
    ],
)
def test_what_the_command_refuses(words: list[str], said: str, capsys) -> None:
    assert main(["serve", *words]) == 2
    assert said in capsys.readouterr().err


DRIVER = """
import sys
from tests.serving import Slow
from vla.rollout import load
from vla.cli import main
load.load_actor = lambda *more: Slow()
sys.exit(main(["serve", "--agent", "slow", "--port", "0"]))
"""


@contextlib.contextmanager
def command(code: str = DRIVER) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """``vla serve`` in a process of its own, and its address."""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()  # type: ignore[union-attr]
        assert line.startswith("serving dot_agent ("), line + process.stderr.read()  # type: ignore[union-attr]
        yield process, line.split()[-1]
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_command_in_good_order(number: int) -> None:
    with command() as (process, url), RemoteAgent(url, again_s=0) as remote, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(remote.act, look(), 1)
        time.sleep(0.5)
        os.kill(process.pid, number)
        assert same(asked.result().actions, HashedAgent().act_batch([look()], [1])[0].actions)
        out, err = process.communicate(timeout=20)
        assert (process.returncode, out, err) == (128 + number, "stopped after 1 decisions\n", "")
        with socket.socket() as again:
            again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            again.bind(("127.0.0.1", int(url.rpartition(":")[2])))


def test_who_else_asks_changes_no_more_than_rounding() -> None:
    """Of the agent that ships: 16 clients at once against each of them alone, in metres and the like."""
    agent = agents.load("tidy_desk", "cpu")
    env = registry.make_env("tidy_desk")
    seen = []
    for seed in range(4):
        env.reset(seed=seed)
        seen.append(env.observe())
    env.close()
    alone = [agent.act(one, seed).actions for seed, one in enumerate(seen)]
    with running(agent, ServeConfig(port=0, wait_ms=200)) as server:
        remotes = [RemoteAgent(server.url) for _ in seen]
        with ThreadPoolExecutor(len(seen)) as pool:
            for _ in range(2):  # all have asked a moment ago, so that the second time each waits for all
                together = list(pool.map(lambda i: remotes[i].act(seen[i], i).actions, range(len(seen))))
        sizes = server.metrics.text().decode()
        for remote in remotes:
            remote.close()
    assert f'vla_batch_size_bucket{{le="2.0"}} {server_batches(sizes, 2)}' in sizes and server_batches(sizes, 64) > 0
    assert server_batches(sizes, 4) - server_batches(sizes, 2) >= 1, "four were joined at least once"
    assert max(np.abs(a - b).max() for a, b in zip(alone, together, strict=True)) < 1e-5


def server_batches(text: str, most: int) -> int:
    """How many batches had at most so many observations."""
    (line,) = [one for one in text.splitlines() if one.startswith(f'vla_batch_size_bucket{{le="{most}.0"}}')]
    return int(float(line.split()[-1]))


@pytest.mark.slow
def test_an_evaluation_through_the_server_is_the_same_one(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("VLA_ALLOW", "tests.test_train:TinyPolicy")
    monkeypatch.chdir(tmp_path)
    agent = agents.load(saved_agent(tmp_path / "agent"), "cpu")
    words = ["eval", "--env", ENV, "--episodes", "6", "--slots", "4", "--workers", "1", "--videos", "0"]
    assert main([*words, "--agent", "agent", "--device", "cpu", "--out", "direct"]) == 0
    with running(agent) as server:
        through = [*words, "--agent", server.url]
        assert main([*through, "--out", "served"]) == 0
        direct, served = read_results(tmp_path / "direct"), read_results(tmp_path / "served")
        assert compare_episodes(direct, served)["differing"] == []
        same_ones = ("agent", "agent_hash", "agent_config_hash", "policy", "data_hash", "env_spec", "world_code_hash")
        assert [direct[name] for name in same_ones] == [served[name] for name in same_ones] and direct["agent_hash"]
        assert served["served"]["at"] == server.url and served["served"]["versions"] == direct["versions"]
        assert server.metrics.answered >= sum(one["decisions"] for one in served["episodes_detail"])
        capsys.readouterr()
        assert main([*through, "--out", "served"]) == 0  # the code behind the server is known to be the same
        assert "holds this evaluation, finished" in capsys.readouterr().out
        assert main(["eval", "--repeat", "served", "--env", ENV, "--out", "again"]) == 0
        assert main(["eval", "--repeat", "direct", "--env", ENV, "--agent", server.url, "--out", "third"]) == 0
        assert capsys.readouterr().out.count("6 of 6 episodes came out the same") == 2
        assert main([*through, "--env-option", "cameras=1", "--out", "other"]) == 2
        told = capsys.readouterr().err
        assert "agent agent: scene 32x32, wrist 32x32" in told and f"env {ENV}: scene 32x32\n" in told
        assert main([*through, "--device", "cuda", "--out", "other"]) == 2
        assert "give it to vla serve" in capsys.readouterr().err
    assert main([*through, "--out", "gone"]) == 2
    assert f"nobody serves an agent at {server.url}" in capsys.readouterr().err
    assert main(["eval", "--repeat", "served", "--env", ENV, "--agent", "agent", "--out", "fourth"]) == 0
    assert "6 of 6 episodes came out the same" in capsys.readouterr().out
    file = tmp_path / "served" / "results.json"
    text = file.read_text(encoding="utf-8").replace(server.url, "ws://203.0.113.1:8000")
    file.write_text(text.replace('"content_hash"', '"was"'), encoding="utf-8")
    assert main(["eval", "--repeat", "served", "--env", ENV, "--out", "fifth"]) == 2
    assert "a file does not decide whom to connect to. Say with --agent" in capsys.readouterr().err
