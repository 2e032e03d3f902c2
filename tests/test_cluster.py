"""Workers on a Ray cluster of two machines, which are two sets of Ray's processes on this one: the same results."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.acting import ENV
from tests.adder import Adder
from tests.test_record import DOT, run, saved_agent
from tests.test_resume import Hashed, config, figures
from vla import agent
from vla.cli import main
from vla.contracts import VlaError
from vla.data.recording import workers
from vla.data.recording.record import SHARDS, RecordSettings
from vla.eval.evaluate import evaluate
from vla.eval.folder import as_json
from vla.host import cluster
from vla.host.parallel import ELSEWHERE, Elsewhere, SlotPool, WorkerDied, WorkerError, open_pool

ROOT = Path(__file__).resolve().parents[1]
RECORD = ("record", "--env", DOT, "--episodes", "30", "--workers", "2", "--noise", "0.01")


@dataclass
class Machines:
    """The cluster: its two addresses, and what kills its second machine."""

    address: str
    client: str
    kill: Any


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    ray = pytest.importorskip("ray")
    from ray._raylet import Config
    from ray.cluster_utils import Cluster

    small = {"num_cpus": 1, "object_store_memory": 100 * 2**20, "include_dashboard": False}
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.2", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(32)  # some of Ray's ports listen to the network
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of files that Ray leaves open
        own = {"USAGE_STATS_ENABLED": "0", "AUTH_MODE": "token", "AUTH_TOKEN": token}
        own |= {
            "health_check_period_ms": "500",
            "health_check_failure_threshold": "4",
        }  # it would wait 15 s for the dead
        for name, value in own.items():
            patch.setenv(f"RAY_{name}", value)
        Config.initialize("")  # it has read the environment before
        head = {
            "node_ip_address": "127.0.0.2",
            "ray_client_server_port": port,
            "include_log_monitor": False,
            "no_monitor": True,
        }
        made = Cluster(initialize_head=True, head_node_args=small | head)
        try:
            second = made.add_node(**small, node_ip_address="127.0.0.3")
            ray.init(made.address, log_to_driver=False, logging_level="error")
            yield Machines(made.address, f"ray://127.0.0.2:{port}", partial(made.remove_node, second, False))
        finally:
            ray.shutdown()
            made.shutdown()


@pytest.mark.slow
def test_an_evaluation_that_loses_a_machine_comes_out_the_same(
    machines: Machines, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = evaluate(config(episodes=12, videos=2), Hashed(), tmp_path / "plain")
    ended = []

    def note(result: object) -> None:
        ended.append(result)
        if len(ended) == 3:
            machines.kill()

    with cluster.joined("ray"):
        far = evaluate(config(episodes=12, videos=2, workers=2), Hashed(), tmp_path / "far", on_episode=note)
    assert len(ended) == 12 and {one["success"] for one in far["episodes_detail"]} == {True, False}
    assert "(on 127.0.0.3) died; another does its work again" in capsys.readouterr().err
    far["workers"] = far["settings"]["workers"] = 1
    assert figures(json.loads(as_json(far))) == figures(json.loads(as_json(plain)))
    videos = sorted((tmp_path / "plain" / "videos").iterdir())
    assert len(videos) == 2
    for one in videos:
        assert (tmp_path / "far" / "videos" / one.name).read_bytes() == one.read_bytes()


@pytest.mark.slow
def test_a_worker_that_dies_or_sleeps_is_replaced_and_told_again(
    machines: Machines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cluster, "LATE_S", 1.5)
    adder = partial(Adder, tmp_path / "slept")
    with cluster.joined("ray"), open_pool(adder, 3, 2) as pool:
        assert [one.value for one in pool.call({slot: ("add", slot + 1) for slot in range(3)}).values()] == [1, 2, 3]
        before = pool.call(dict.fromkeys(range(3), ("add", 10)))
        os.kill(before[0].process, signal.SIGKILL)  # slots 0 and 2 live there
        after = pool.call(dict.fromkeys((2, 1), ("add", 100)))
        assert [after[slot].value for slot in (2, 1)] == [113, 112] and after[2].process != before[2].process
        assert pool.call({0: ("add", 100)})[0].value == 111
        assert "of 2 (on 127.0.0." in capsys.readouterr().err
        assert sorted(pool.each("late", range(5))) == [0, 1, 4, 9, 16]
        assert "gave no answer in 2 s; another does its work again" in capsys.readouterr().err
        with pytest.raises(WorkerError, match="a bug"):
            pool.call({0: ("fail",)})
        monkeypatch.setattr(cluster, "REPLACED", 1)
        with pytest.raises(WorkerDied, match="died, as 1 did before it at the same work"):
            pool.call({1: ("die",)})
        monkeypatch.setattr(cluster._Actor, "installed", staticmethod(lambda: {"mujoco": "0.1"}))
        os.kill(pool.call({0: ("add", 1)})[0].process, signal.SIGKILL)
        with pytest.raises(VlaError, match=r"127\.0\.0\.\d has mujoco 3.*, and this one 0\.1"):
            pool.call({0: ("add", 1)})


@pytest.mark.slow
def test_a_recording_whose_command_is_killed_goes_on_and_is_the_same(machines: Machines, tmp_path: Path) -> None:
    run(tmp_path / "plain", 30, noise=0.01)
    out, command = tmp_path / "far", [sys.executable, "-m", "vla", *RECORD, "--out", str(tmp_path / "far")]
    first = subprocess.Popen([*command, "--cluster", machines.address], cwd=ROOT, stdout=subprocess.DEVNULL)
    while first.poll() is None and len(list((out / SHARDS).glob("*.npz"))) < 2:
        time.sleep(0.01)
    first.kill()
    assert first.wait() == -signal.SIGKILL
    kept = {one.name: one.stat().st_mtime_ns for one in (out / SHARDS).glob("*.npz")}
    assert 2 <= len(kept) < 30
    second = subprocess.run([*command, "--cluster", machines.client], cwd=ROOT, capture_output=True, text=True)
    assert second.returncode == 0, second.stdout + second.stderr
    assert f"{30 - len(kept)} episodes are new" in second.stdout and "30 episodes with" in second.stdout
    assert {name: (out / SHARDS / name).stat().st_mtime_ns for name in kept} == kept
    files = [file.relative_to(tmp_path / "plain") for file in (tmp_path / "plain").rglob("*") if file.is_file()]
    assert len(files) > 35
    for file in files:
        if file.name not in ("vla.json", ".lock"):  # the one holds the command
            assert (out / file).read_bytes() == (tmp_path / "plain" / file).read_bytes(), file


def test_an_agent_and_its_episodes_go_by_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLA_ALLOW", "tests.test_train:TinyPolicy")
    folder = saved_agent(tmp_path / "agent")
    run(tmp_path / "plain", 2, agent=str(folder))
    settings = RecordSettings(env=DOT, out=tmp_path / "far", episodes=2, workers=1, agent=str(folder))
    monkeypatch.setattr(workers, "_agents", {})
    known, loaded = agent.load, list[str]()
    monkeypatch.setattr(agent, "load", lambda path, device: (loaded.append(path), known(path, device))[1])
    place = ELSEWHERE.set(Elsewhere(SlotPool, lambda: 1))  # a cluster without Ray: one worker, in this process
    try:
        with closing(workers.play_all(settings, [0, 1], True)) as played:
            (tmp_path / "far" / SHARDS).mkdir(parents=True)
            assert sorted(played) == [0, 1]
    finally:
        ELSEWHERE.reset(place)
    assert len(loaded) == 1 and loaded != [str(folder)], "from files of its own"
    for shard in (tmp_path / "plain" / SHARDS).glob("*.npz"):
        assert (tmp_path / "far" / SHARDS / shard.name).read_bytes() == shard.read_bytes()


def test_what_is_no_cluster_is_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(cluster, "_PROBE_S", 0.5)
    words = ["record", "--env", ENV, "--out", str(tmp_path / "dots"), "--cluster"]

    def told(address: str) -> str:
        assert main([*words, address]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        return said

    with closing(socket.socket()) as other:
        other.bind(("127.0.0.2", 0))
        address = f"127.0.0.2:{other.getsockname()[1]}"
        assert f"no Ray cluster answers at {address}" in told(address)  # nobody listens
        other.listen()
        assert f"no Ray cluster answers at {address}" in told(f"ray://{address}")  # nobody speaks
    assert "takes ray, HOST:PORT or ray://HOST:PORT, and not 'somewhere'" in told("somewhere")
    monkeypatch.setitem(sys.modules, "ray", None)
    assert "--cluster needs the extra ray: pip install 'vla[ray]'" in told("ray")
    assert not (tmp_path / "dots").exists()
