"""``vla bench families``: agents of several policies on the same episodes, and the page about them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.fake_env import DotEnv
from tests.test_heads import flow, recipe, tokens, trained
from tests.test_train import fake_dataset
from vla import registry
from vla.cli import main
from vla.eval.pages.families import render
from vla.train.trainer import train


@pytest.fixture
def agents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    data = fake_dataset(tmp_path / "data", DotEnv().env_spec, monkeypatch)
    first = trained(data, tmp_path / "flow")
    train(recipe("tokens", tokens(), f"--trunk_from={first}"), data, tmp_path / "tokens")
    return [str(tmp_path / "flow"), str(tmp_path / "tokens")]


def test_families_side_by_side(agents: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    words = ["bench", "families", "--env", "tests.fake_env:DotEnv", *agents, "--episodes", "3", "--out", str(out)]
    assert main(words) == 0
    told = capsys.readouterr().out
    assert "families.html" in told and "3 episodes" in told
    found = json.loads((out / "families.json").read_text())
    first, second = found["rows"]
    assert first["difference"] is None and second["difference"]["n"] == 3
    assert first["costs"]["policy"] == "flow" and second["costs"]["policy"] == "tokens"
    for row in found["rows"]:
        costs = row["costs"]
        assert 0 < costs["latency_ms"]["median"] <= costs["latency_ms"]["p99"] and costs["decisions_per_s"] > 0
        assert costs["memory_mb"] > 50 and costs["train_steps"] == 6 and costs["samples"] == 24
        assert row["success"]["n"] == 3
    assert first["costs"]["trainable"] == first["costs"]["parameters"] > second["costs"]["trainable"]
    page = (out / "families.html").read_text()
    assert page == render(found) and page.count("<h1>") == 1 and "http" not in page
    assert all(text in page for text in (*agents, "p99", "Difference from", "decisions/s"))
    before = {file: file.stat().st_mtime_ns for file in out.glob("eval/*/results.json")}
    again = [one for one in words if one != agents[1]]
    assert len(before) == 2 and main(again) == 0
    assert before == {file: file.stat().st_mtime_ns for file in before}, "what is finished is not played again"


def test_a_recipe_is_trained_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vla.commands.bench import families

    data = fake_dataset(tmp_path / "data", DotEnv().env_spec, monkeypatch)
    names = registry.names
    monkeypatch.setattr("vla.registry.names", lambda kind: ["mine"] if kind == "recipe" else names(kind))
    monkeypatch.setattr("vla.registry.load_recipe", lambda name: recipe("flow", flow(), name=name))

    class Args:
        out, data, steps = tmp_path / "out", str(tmp_path / "data"), 2

    where = families._trained(Args, "mine", "vla bench")  # type: ignore[arg-type]
    about = json.loads((Path(where) / "agent/agent.json").read_text())
    assert about["provenance"]["steps"] == 2 and data.exists()
    assert families._trained(Args, "elsewhere", "vla bench") == "elsewhere"  # type: ignore[arg-type]


def test_an_agent_named_twice_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "families", "--env", "tests.fake_env:DotEnv", "a", "a", "--out", str(tmp_path / "out")]
    assert main(words) == 2 and "named twice" in capsys.readouterr().err
