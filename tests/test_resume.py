"""An evaluation survives what ends it: signals, kill -9, full disks, its env, its checks, a second one beside it."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.acting import ENV, DotAgent
from tests.fake_env import DotEnv
from vla import cli
from vla.commands import eval as eval_command
from vla.contracts import VlaError
from vla.eval import evaluate as evaluation
from vla.eval.config import EvalConfig
from vla.eval.evaluate import AfterEpisodes, evaluate
from vla.eval.folder import as_json, read_results
from vla.eval.identity import identity
from vla.eval.robustness import run_suite
from vla.host import files, provenance
from vla.rollout.loop import RolloutInterrupted

SMALL = ("--episodes", "6", "--slots", "2", "--videos", "0", "--workers", "1", "--execute", "4", "--kind", "named")
TIMINGS = ("policy_hz", "policy_latency_ms", "env_steps_per_s", "realtime_factor", "video_s", "wall_s", "simulated_s")


class Hashed(DotAgent):
    """An agent that can be told from others, and hits and misses."""

    name, hash = "hashed", "0123456789abcdef" * 4

    def __init__(self, stop_at=10**9, error=KeyboardInterrupt):
        super().__init__(noise=0.03)
        self.stop_at, self.error = stop_at, error

    def act_batch(self, observations, noise_seeds):
        if len(self.batches) >= self.stop_at and noise_seeds[0] > 9:  # not while a decision is timed
            raise self.error
        return super().act_batch(observations, noise_seeds)


def config(**more):
    return EvalConfig(**{"env": ENV, "episodes": 9, "slots": 3, "videos": 0, "execute": 6, "seed": 3, **more})


def figures(summary):
    return {name: value for name, value in summary.items() if name not in (*TIMINGS, "date", "resumed")}


def vla_eval(*words):
    return cli.main(["eval", *map(str, words)])


@pytest.fixture
def agent(monkeypatch):
    monkeypatch.setattr(eval_command, "_load_agent", lambda *args: Hashed())


def test_an_evaluation_goes_on_and_comes_out_as_if_it_had_never_stopped(tmp_path, monkeypatch):
    whole = evaluate(config(videos=2), Hashed(), tmp_path / "whole")
    assert {e["success"] for e in whole["episodes_detail"]} == {True, False}
    monkeypatch.setattr(evaluation, "SAVE_EVERY_S", 0.0)
    for stop_at in (6, 8, 13):  # one after the other, in one folder
        with pytest.raises(RolloutInterrupted, match=r"results\.json: the same command goes on from there"):
            evaluate(config(videos=2), Hashed(stop_at), tmp_path / "cut", keep=True)
        kept = read_results(tmp_path / "cut")
        assert "of 9 episodes were finished" in kept["interrupted"] and kept["episodes"] < 9
    played = []
    done = kept["episodes"]
    found = evaluate(config(videos=2, workers=2), Hashed(), tmp_path / "cut", "", played.append, keep=True)
    assert len(played) == 9 - done and found["resumed"] == done
    for one in (found, whole):
        one["workers"] = one["settings"]["workers"] = 1
    assert figures(json.loads(as_json(found))) == figures(json.loads(as_json(whole)))
    html = (tmp_path / "cut" / "report.html").read_text(encoding="utf-8")
    assert html.count("data:video/mp4") == 2 and len(list((tmp_path / "cut" / "videos").iterdir())) == 2
    assert "unfinished_run" not in read_results(tmp_path / "cut")


def test_a_complete_one_is_not_played_again_and_another_is_not_replaced(agent, tmp_path, capsys):
    def run(*more):
        code = vla_eval("--env", ENV, *SMALL, "--out", tmp_path / "run", *more)
        return code, capsys.readouterr()

    assert run()[0] == 0
    before = (tmp_path / "run" / "results.json").read_bytes()
    code, said = run("--workers", 2)
    assert code == 0 and "--overwrite plays it anew" in said.out and "all episodes" in said.out
    code, said = run("--seed", 5)
    assert code == 2 and said.err.count("\n") == 1
    assert "run holds another evaluation: seed is 0 there, and 5 here." in said.err and "--overwrite" in said.err
    assert (tmp_path / "run" / "results.json").read_bytes() == before
    assert run("--overwrite")[0] == 0
    assert (tmp_path / "run" / "results.json").read_bytes() != before, "at least the date and the command"
    assert run("--seed", 5, "--overwrite")[0] == 0
    assert read_results(tmp_path / "run")["seed"] == 5
    assert vla_eval("--repeat", tmp_path / "run", "--env", ENV, "--out", tmp_path / "again") == 0
    assert vla_eval("--repeat", tmp_path / "run", "--env", ENV, "--out", tmp_path / "again") == 0, (
        "a repetition plays again"
    )
    assert vla_eval("--env", ENV, *SMALL, "--out", tmp_path / "third") == 0
    assert vla_eval("--repeat", tmp_path / "run", "--env", ENV, "--out", tmp_path / "third") == 2
    assert "third holds another evaluation: seed is 0 there" in capsys.readouterr().err


def test_what_a_complete_one_lacks_is_added_without_playing_it(agent, tmp_path, capsys):
    words = ("--env", ENV, *SMALL, "--out", tmp_path / "run")
    assert vla_eval(*words) == 0
    assert vla_eval("--env", ENV, *SMALL, "--out", tmp_path / "other") == 0
    (tmp_path / "run" / "report.html").unlink()
    assert vla_eval(*words, "--against", tmp_path / "other") == 0
    assert "6 shared episodes" in capsys.readouterr().out
    assert (tmp_path / "run" / "report.html").is_file() and read_results(tmp_path / "run")["against"]["n"] == 6


def test_other_code_is_another_evaluation(tmp_path, monkeypatch):
    evaluate(config(), Hashed(), tmp_path)
    old = read_results(tmp_path)
    assert evaluate(config(), Hashed(), tmp_path, keep=True)["date"] == old["date"]
    monkeypatch.setattr("vla.eval.resume.identity", lambda *args: identity(*args) | {"code_hash": "c0de"})
    with pytest.raises(VlaError, match=rf"the hash of the code is {old['code_hash']} there, and c0de here"):
        evaluate(config(), Hashed(), tmp_path, keep=True)
    monkeypatch.undo()
    evaluate(config(), DotAgent(), tmp_path / "unknown")
    with pytest.raises(VlaError, match="nobody can tell"):
        evaluate(config(), DotAgent(), tmp_path / "unknown", keep=True)
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(VlaError, match=r"results\.json.*--overwrite"):
        evaluate(config(), Hashed(), tmp_path, keep=True)


def test_the_hash_of_the_code_covers_what_an_agent_meets(tmp_path, monkeypatch):
    """Two states of a checkout that git calls alike are told apart by the control, the renderer and the arm's model."""
    found = provenance._sources(["envs.tidy_desk.task", "vla.rollout.loop"], {"vla", "envs"})
    assert {
        "envs.tidy_desk.task",
        "envs.tabletop.table",
        "vla.control.controller",
        "vla.host.gl",
        "vla.rollout.player",
    } <= set(found)
    hashes, arms = [], tmp_path / "arms"
    arms.mkdir()
    monkeypatch.setattr(provenance, "assets_dir", lambda: tmp_path)
    for model in ("<mujoco/>", "<mujoco />"):
        (arms / "arm.xml").write_text(model)
        provenance.code_sha256.cache_clear()
        hashes.append(provenance.code_sha256("tests.fake_env"))
    provenance.code_sha256.cache_clear()
    assert hashes[0] != hashes[1]


@pytest.mark.parametrize("more", [{"more_seeds": [1]}, {"env": "tests.test_resume:TaskEnv"}])
def test_a_suite_of_several_seeds_or_tasks_goes_on(tmp_path, more):
    wanted, played = config(episodes=2, suite={"noise": ["mild"]}, **more), []
    for expected in (8, 0):
        run_suite(wanted, Hashed(), tmp_path, "", played.append)
        assert len(played) == expected
        played.clear()


class TaskEnv(DotEnv):
    """A DotEnv of two tasks."""

    tasks = ("near", "far")

    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed, options={k: v for k, v in (options or {}).items() if k != "task"})


class RaisingEnv(DotEnv):
    """Its physics diverges in every fourth episode, and its numbers are numpy's, and no numbers, in others."""

    def reset(self, *, seed=None, options=None):
        self._seed = seed
        return super().reset(seed=seed, options=options)

    def play(self, action):
        result = super().play(action)
        if self._seed % 4 == 1:
            raise RuntimeError("Physics state is [/red] invalid:\nmjWARN_BADQACC")
        if self._seed % 4 == 2:
            result.info["reward_terms"]["placed"] = np.float32("nan")
        return result


def test_an_env_that_raises_in_some_episodes_is_told_with_their_seeds(agent, tmp_path, capsys):
    words = ("--env", "tests.test_resume:RaisingEnv", *SMALL, "--out", tmp_path)
    assert vla_eval(*words) == 0
    found = read_results(tmp_path)
    failed = [episode for episode in found["episodes_detail"] if episode["error"]]
    assert [e["seed"] % 4 for e in failed] == [1, 1] and found["cut_short"] == 2 and found["episodes"] == 6
    assert "mjWARN_BADQACC (test_resume.py:" in failed[0]["error"] and not failed[0]["success"]
    said = " ".join(capsys.readouterr().out.split())
    assert "2 episodes were cut short, e.g.:" in said and f"episode 1, seed {failed[0]['seed']}: the env raised" in said
    assert "[/red]" in said


def test_numbers_that_json_has_not_cost_nothing():
    odd = {"a": float("nan"), "b": np.float32(1.5), "c": [np.int64(3), (np.bool_(True), np.zeros(2))], 4: Path("x")}
    assert json.loads(as_json(odd)) == {"a": None, "b": 1.5, "c": [3, [True, [0.0, 0.0]]], "4": "x"}


def test_what_fails_after_the_episodes_keeps_them(agent, tmp_path, monkeypatch, capsys):
    def broken(*args, **more):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "report.html"))

    monkeypatch.setattr("vla.eval.pages.report.write_report", broken)
    assert vla_eval("--env", ENV, *SMALL, "--out", tmp_path) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and "all episodes" in said.out
    assert "results.json, but something after them failed: " in said.err and "No space left" in said.err
    assert read_results(tmp_path)["episodes"] == 6 and "interrupted" not in read_results(tmp_path)
    monkeypatch.undo()
    # A check that this agent or env can't do says so, and costs no other.
    checks = evaluate(config(check=1), Hashed(), tmp_path / "checked")["checks"]
    assert "two different goals" in checks["shuffled_instruction"]["skipped"] and "success" in checks["blank_image"]
    with pytest.raises(VlaError, match="--kind all"):
        config(kind="all", check=20)
    with pytest.raises(RolloutInterrupted, match=r"checks were cut short.*all of them, are in"):
        evaluate(config(check=3), Hashed(40), tmp_path / "cut")
    found = evaluate(config(check=3), Hashed(), tmp_path / "cut", keep=True)
    assert found["episodes"] == 9 and found["checks"]["blank_image"]["success"]["n"] == 3


def test_a_full_disk_is_told_before_the_episodes_and_later_costs_none(tmp_path, monkeypatch):
    def full(*args, **more):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "posix_fallocate", full)
    with pytest.raises(VlaError, match=rf"^{tmp_path}/out can't be written: No space left on device \(\d MB"):
        evaluate(config(), Hashed(0), tmp_path / "out")
    monkeypatch.undo()
    write = files.write_atomically

    def fills(path, content):
        return full() if path.parent == tmp_path / "filled" else write(path, content)

    monkeypatch.setattr("vla.eval.folder.write_atomically", fills)
    monkeypatch.setattr(evaluation, "SAVE_EVERY_S", 0.0)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(evaluation.tempfile, "tempdir", None)
    with pytest.raises(
        AfterEpisodes, match=r"filled can't be written \(No space left on device\): the results"
    ) as told:
        evaluate(config(), Hashed(), tmp_path / "filled")
    elsewhere = Path(str(told.value).partition(" are in ")[2].removesuffix(" instead"))
    assert read_results(elsewhere)["episodes"] == 9 and "interrupted" not in read_results(elsewhere)


def test_an_error_of_the_agent_in_the_middle_keeps_what_is_finished(tmp_path):
    with pytest.raises(VlaError, match=r"^out of tricks; \d of 9 episodes were finished; they are in .*results\.json"):
        evaluate(config(), Hashed(12, VlaError("out of tricks")), tmp_path)
    assert read_results(tmp_path)["interrupted"].startswith("out of tricks; ")
    with pytest.raises(ZeroDivisionError):
        evaluate(config(), Hashed(12, ZeroDivisionError()), tmp_path / "bug")
    assert read_results(tmp_path / "bug")["episodes"] > 0


def test_only_one_evaluation_at_a_time_in_a_folder(agent, tmp_path, capsys):
    with files.claimed(tmp_path, "vla eval"):
        assert vla_eval("--env", ENV, *SMALL, "--out", tmp_path) == 2
    error = capsys.readouterr().err
    assert "another vla eval is at work in" in error and error.count("\n") == 1
    assert not (tmp_path / "results.json").exists()


def test_a_device_that_is_not_there_is_one_line(tmp_path, capsys):
    for name in ("abacus", "cuda:99", "meta", "privateuseone"):
        assert vla_eval("--env", "tests.fake_env:DotEnv", "--device", name, "--out", tmp_path / "out") == 2
        error = capsys.readouterr().err
        assert f"there is no device '{name}'" in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


RUN = """
import sys, time
from tests.test_resume import ENV, Hashed
from vla import cli
from vla.eval import evaluate
from vla.commands import eval as command

class Slow(Hashed):
    def act_batch(self, observations, noise_seeds):
        time.sleep(0.02)
        return super().act_batch(observations, noise_seeds)

command._load_agent = lambda *args: Slow()
evaluate.SAVE_EVERY_S = 0.0
if __name__ == "__main__":
    sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="POSIX signals")
def test_a_signal_ends_a_real_process_in_good_order(tmp_path):
    (tmp_path / "run.py").write_text(RUN)
    root = Path(__file__).resolve().parent.parent
    words = ("eval", "--env", ENV, "--episodes", "400", "--videos", "0", "--execute", "2")

    def started(name):
        out = tmp_path / name.lower()
        workers = "2" if name == "SIGTERM" else "1"
        command = [sys.executable, str(tmp_path / "run.py"), *words, "--workers", workers, "--out", str(out)]
        env = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
        return out, subprocess.Popen(
            command,
            cwd=root,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    running = {name: started(name) for name in ("SIGTERM", "SIGHUP", "SIGINT", "SIGKILL")}
    for name, (out, process) in running.items():
        deadline = time.monotonic() + 60
        while not (out / "results.json").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        os.killpg(process.pid, getattr(signal, name))  # the workers too, as a terminal does
        _, error = process.communicate(timeout=30)
        kept = read_results(out)
        assert 0 < kept["episodes"] < 400 and kept["interrupted"]
        if name != "SIGKILL":
            assert process.returncode == 128 + getattr(signal, name), error
            assert "goes on from there" in error and "Traceback" not in error, error
            assert kept["interrupted"].startswith("interrupted; ")
        while alive(process.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not alive(process.pid)


def alive(group):
    """The group's processes that have not ended."""
    listed = subprocess.run(["ps", "-eo", "pgid=,stat=,args="], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if line.split()[0] == str(group) and line.split()[1][0] != "Z"]
