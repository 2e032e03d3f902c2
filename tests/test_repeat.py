"""Evaluations are deterministic, carry what is needed to repeat them, and are repeated by ``vla eval --repeat``."""

import json
import subprocess
from dataclasses import dataclass, replace

import pytest

import vla
from tests.acting import ENV, DotAgent
from tests.fake_env import DotEnv
from vla import cli
from vla.commands import eval as eval_command
from vla.eval.config import EvalConfig
from vla.eval.folder import read_results
from vla.eval.identity import agent_hashes
from vla.eval.repeat import compare_episodes
from vla.host import provenance


class Shaky(DotAgent):
    """Hits and misses: its noise comes from each decision's seed, as a policy's does."""

    name, hash = "shaky", "0123456789abcdef" * 4

    def __init__(self):
        super().__init__(noise=0.03)
        self.provenance = {"recipe": {"name": "dots"}, "data": "da7a" * 16}


@pytest.fixture
def shaky(monkeypatch):
    monkeypatch.setattr(eval_command, "_load_agent", lambda *args: Shaky())


def vla_eval(*words):
    return cli.main(["eval", *map(str, words)])


def results(folder):
    return read_results(folder)


def record(folder, *words):
    small = ("--episodes", 10, "--slots", 4, "--videos", 0, "--workers", 1, "--execute", 6, "--seed", 3)
    assert vla_eval("--env", ENV, *small, "--out", folder, *words) == 0
    return results(folder)


def test_the_same_command_gives_the_same_episodes_whatever_the_workers(shaky, tmp_path):
    runs = [record(tmp_path / str(i), "--workers", n) for i, n in enumerate((1, 1, 3))]
    first = runs[0]["episodes_detail"]
    assert {e["success"] for e in first} == {True, False}, "a test in which all fail or succeed shows little"
    assert len({e["steps"] for e in first}) > 2 and len({e["progress"] for e in first}) > 1
    for run in runs[1:]:
        assert run["episodes_detail"] == first
    # Filming looks at the env between the steps, and must not change them.
    assert record(tmp_path / "filmed", "--videos", 2)["episodes_detail"] == first
    assert record(tmp_path / "other", "--seed", 4)["episodes_detail"] != first


def test_results_carry_what_is_needed_to_repeat_them(shaky, tmp_path):
    found = record(tmp_path / "run", "--kind", "named", "--language", "zh", "--items", 3, "--split", "train")
    config = EvalConfig(**found["settings"])
    assert (config.env, config.episodes, config.seed, config.slots, config.workers) == (ENV, 10, 3, 4, 1)
    assert (config.kind, config.language, config.items, config.split) == ("named", "zh", 3, "train")
    assert (config.execute, config.instruction, config.agent) == (6, None, None)
    assert found["agent_hash"] == "0123456789abcdef"
    assert found["data_hash"] == "da7a" * 16
    assert found["env_spec"]["episode_steps"] == 60 and found["env_spec"]["cameras"][0]["name"] == "scene"
    assert found["env_code_hash"] == provenance.source_sha256("tests.fake_env")[:16]
    assert found["commit"] == provenance.commit()
    assert found["dirty"] is (None if found["commit"] is None else found["commit"].endswith("+"))
    assert {"python", "vla", "torch", "numpy"} <= set(found["versions"])
    assert found["command"].startswith(f"vla eval --env {ENV}")
    assert all({"seed", "success", "progress", "steps"} <= set(e) for e in found["episodes_detail"])


def test_the_commit_tells_of_changed_and_of_new_code(tmp_path, monkeypatch):
    monkeypatch.setattr(vla, "__file__", str(tmp_path / "vla" / "__init__.py"))
    assert provenance.commit() is None
    (tmp_path / "kept.txt").write_text("as it was", encoding="utf-8")
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(tmp_path))
    for words in (("init", "-q"), ("add", "."), ("commit", "-qm", "first")):
        subprocess.run([*git, *words], check=True)
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    clean = provenance.commit()
    assert len(clean) == 12
    new = tmp_path / "envs" / "mine.py"
    new.parent.mkdir()
    new.write_text("ENV = None", encoding="utf-8")
    assert provenance.commit() == f"{clean}+"
    new.unlink()
    (tmp_path / "kept.txt").write_text("changed", encoding="utf-8")
    assert provenance.commit() == f"{clean}+"


def test_the_hash_of_an_agent_covers_its_settings():
    @dataclass(frozen=True)
    class Settings:
        sample_steps: int = 4

    agent = Shaky()
    assert agent_hashes(agent)["agent_config_hash"] is None
    found = []
    for steps in (4, 4, 8):
        agent.config = Settings(steps)
        found.append(agent_hashes(agent)["agent_config_hash"])
    assert found[0] == found[1] != found[2]


def test_the_hash_of_an_env_covers_what_it_imports(tmp_path, monkeypatch):
    package = tmp_path / "pretend_envs"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "task.py").write_text("import os\nfrom pretend_envs import table\nfrom .items import PEN\n")
    (package / "table.py").write_text("raise SystemExit('nothing is imported')\n")
    (package / "items.py").write_text("PEN = 1\n")
    (package / "unrelated.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    before = provenance.source_sha256("pretend_envs.task")
    (package / "unrelated.py").write_text("x = 1\n")
    assert provenance.source_sha256("pretend_envs.task") == before
    for name in ("table", "items", "task"):
        (package / f"{name}.py").write_text((package / f"{name}.py").read_text() + "x = 1\n")
        after = provenance.source_sha256("pretend_envs.task")
        assert after != before
        before = after
    assert provenance.source_sha256("no_such_package.task") is None


def test_a_repetition_on_the_command_line_comes_out_the_same(shaky, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    first = record(tmp_path / "runs" / "first", "--kind", "named", "--language", "en")
    capsys.readouterr()
    assert vla_eval("--repeat", "runs/first/results.json", "--env", ENV, "--workers", 2) == 0
    printed = capsys.readouterr().out
    assert "10 of 10 episodes came out the same" in printed
    assert "note:" not in printed
    again = results(tmp_path / "runs" / "repeat_first")
    assert again["episodes_detail"] == first["episodes_detail"]
    assert again["settings"] == {**first["settings"], "workers": 2}
    assert again["repeat"] == {"of": "runs/first/results.json", "episodes": 10, "same": 10, "differing": []}
    # A repetition can be repeated, and its folder named.
    assert vla_eval("--repeat", "runs/repeat_first", "--env", ENV, "--out", "runs/third") == 0
    assert "10 of 10 episodes came out the same" in capsys.readouterr().out


def test_episodes_that_come_out_differently_are_listed(shaky, tmp_path, capsys):
    data = record(tmp_path / "run")
    data["episodes_detail"][2]["steps"] += 1
    data["episodes_detail"][5]["success"] ^= True
    data["versions"]["numpy"], data["env_code_hash"], data["commit"] = "1.0", "0123", "abc"
    data["machine"]["cpu"] = "an abacus"
    (tmp_path / "run" / "results.json").write_text(json.dumps(data))
    capsys.readouterr()
    assert vla_eval("--repeat", tmp_path / "run", "--env", ENV, "--out", tmp_path / "again") == 0
    printed = capsys.readouterr().out
    assert "8 of 10 episodes came out the same" in printed
    steps = data["episodes_detail"][2]["steps"]
    seed = data["episodes_detail"][2]["seed"]
    assert f"episode 2, seed {seed} (recorded / now): steps {steps} / {steps - 1}" in printed
    then = data["episodes_detail"][5]["success"]
    assert f"success {then} / {not then}" in printed
    for note in ("versions differ (recorded / now): numpy 1.0 /", "the env's code differs", "0123 /", "an abacus /"):
        assert note in printed
    assert "the commit differs (recorded / now): abc /" in printed


def test_an_interrupted_recording_is_compared_as_far_as_it_goes():
    episodes = [{"index": i, "seed": i, "instruction": "", "success": True, "items": []} for i in range(4)]
    found = compare_episodes({"episodes_detail": episodes[1:3]}, {"episodes_detail": episodes})
    assert (found["episodes"], found["same"]) == (2, 2)


@pytest.mark.parametrize(
    ("change", "words", "said"),
    [
        ({"agent_hash": "feed"}, [], ("differ in agent_hash", "recorded: feed (shaky)", "0123456789abcdef (shaky)")),
        ({"agent_config_hash": "f00d"}, [], ("agent_config_hash", "recorded: f00d", "now:      None")),
        ({}, ["--env", "tests.acting:SwapDotEnv"], ("differ in env", f"recorded: {ENV}", "tests.acting:SwapDotEnv")),
        ({"dt": 0.2}, [], ("differ in env's dt", "recorded: 0.2", "now:      0.1")),
        ({"episode_steps": 9}, [], ("differ in env's episode_steps", "recorded: 9", "now:      60")),
    ],
)
def test_another_agent_or_env_is_refused_with_both_sides(shaky, tmp_path, capsys, change, words, said):
    data = record(tmp_path / "run", "--episodes", 1)
    for name, value in change.items():
        (data if name in data else data["env_spec"])[name] = value
    (tmp_path / "run" / "results.json").write_text(json.dumps(data))
    capsys.readouterr()
    assert vla_eval("--repeat", tmp_path / "run", "--out", tmp_path / "again", *(words or ["--env", ENV])) == 2
    error = capsys.readouterr().err
    for text in ("can't be repeated: they", *said):
        assert text in error
    assert not (tmp_path / "again").exists(), "refused before anything was played"


def test_a_users_mistakes_are_one_line(shaky, tmp_path, capsys):
    data = record(tmp_path / "run", "--episodes", 1)
    capsys.readouterr()

    def refused(*words):
        assert vla_eval(*words) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        return error

    assert "which env?" in refused("--episodes", 3)
    assert "leave out --seed (it goes with --env," in refused("--repeat", tmp_path / "run", "--seed", 9)
    assert "choose another folder" in refused("--repeat", tmp_path / "run", "--out", tmp_path / "run", "--env", ENV)
    assert "there is no" in refused("--repeat", tmp_path / "nowhere")
    old = tmp_path / "old.json"
    old.write_text(json.dumps({name: value for name, value in data.items() if name != "settings"}))
    assert "its command was: vla eval --env" in refused("--repeat", old)
    old.write_text(json.dumps({**data, "settings": {**data["settings"], "gravity": 3}}))
    assert "the setting 'gravity'" in refused("--repeat", old)
    old.write_text(json.dumps({**data, "settings": {}}))
    assert "can't be repeated by itself" in refused("--repeat", old)
    old.write_text(json.dumps({**data, "settings": {**data["settings"], "episodes": "ten"}}))
    assert "are damaged: 'episodes' is 'ten'" in refused("--repeat", old)


class Grouped(DotEnv):
    """Says what its dimensions are, which the results of earlier times do not."""

    def __init__(self, **options):
        super().__init__(**options)
        self.env_spec = replace(self.env_spec, state_groups=self.env_spec.groups("state"))


def test_results_of_before_specs_had_groups_are_repeated(shaky, tmp_path, capsys):
    path = tmp_path / "run/results.json"
    data = record(tmp_path / "run", "--env", "tests.test_repeat:Grouped", "--episodes", 2)
    assert data["env_spec"].pop("state_groups")
    path.write_text(json.dumps(data), encoding="utf-8")
    assert vla_eval("--repeat", path, "--out", tmp_path / "again", "--env", data["env"]) == 0
    assert "2 of 2" in capsys.readouterr().out


def test_an_agent_that_has_moved_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(eval_command, "_load_agent", lambda *args: Shaky())
    data = record(tmp_path / "run", "--episodes", 1, "--agent", tmp_path / "gone")
    assert data["settings"]["agent"] == str(tmp_path / "gone")
    monkeypatch.undo()
    capsys.readouterr()
    assert vla_eval("--repeat", tmp_path / "run", "--env", ENV, "--out", tmp_path / "again") == 2
    assert "Say with --agent where the recorded agent is now" in capsys.readouterr().err
