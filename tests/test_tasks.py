"""Envs of several tasks: quotas in recording, the order of evaluation, tiers and the published table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.acting import DotAgent
from tests.fake_env import DotEnv
from vla.contracts import StepResult, VlaError, episode_seed
from vla.contracts.abilities import Benchmark, Published
from vla.data.open import open_dataset
from vla.data.recording.quota import MOST_ATTEMPTS, Quota
from vla.data.recording.record import SHARDS, RecordSettings, RecordSummary, record
from vla.data.stills import Stills
from vla.eval.benchmark import benchmark_rows, benchmark_scores, mean_of_rates
from vla.eval.config import EvalConfig
from vla.eval.evaluate import evaluate
from vla.eval.repeat import compare_episodes, read_recording
from vla.eval.statistics import Rate, rate_of
from vla.eval.table import print_table
from vla.registry import EnvRef
from vla.rollout.player import EpisodeResult

ENV = "tests.test_tasks:TaskDots"
TASKS = ("red", "green", "blue")


class TaskDots(DotEnv):
    """One task for each of three colours; blue never succeeds, and green in every second episode only."""

    tasks = TASKS
    benchmark = Benchmark(("easy", "hard"), 3, (Published("A", "1B", (80.0, 40.0), 60.0, "a paper"),))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[str, Any], dict]:
        options = dict(options or {})
        task = options.pop("task")
        found, info = super().reset(seed=seed, options={**options, "instruction": f"visit the {task} dot"})
        self._fails = task == "blue" or (task == "green" and seed is not None and seed % 2 == 0)
        return found, info | {"category": task, "kind": "easy" if task == "red" else "hard"}

    def play(self, action: np.ndarray) -> StepResult:
        result = super().play(action)
        result.info["success"] = result.info["success"] and not self._fails
        return StepResult(result.reward, result.info["success"], result.truncated or result.terminated, result.info)


def test_a_plan_without_tasks_is_the_first_episodes() -> None:
    assert Quota(4).plan({0: False, 2: True, 9: True}) == ([0, 2], [1, 3])
    assert Quota(4).options(3) == {} and Quota(4).unfilled({0: False}) == {}


def test_stills_show_each_task_in_its_turn(tmp_path: Path) -> None:
    stills = Stills.build(EnvRef(ENV), TaskDots().env_spec, 6, 0, tmp_path, progress=False)
    for scene in range(6):
        said = stills.sentences[stills.bounds[scene] : stills.bounds[scene + 1]]
        assert f"visit the {TASKS[scene // 2]} dot" in said and len(set(said)) == len(said)


def test_a_plan_with_tasks_fills_each_of_them() -> None:
    quota = Quota(2, ("a", "b", "c"))
    assert quota.plan({}) == ([], [0, 3, 1, 4, 2, 5])
    first = {0: True, 3: True, 1: False, 4: True, 2: False, 5: False}
    assert quota.plan(first) == ([0, 1, 2, 3, 4, 5], [7, 8, 11])
    every = first | dict.fromkeys((7, 10), True) | dict.fromkeys((8, 11, 14, 17, 20), False)
    counted, todo = quota.plan(every)
    assert todo == [] and counted == [0, 1, 2, 3, 4, 5, 7, 8, 11, 14, 17]  # 10 is one too many, 20 a fourth try
    assert MOST_ATTEMPTS == 3 and quota.unfilled(every) == {"c": 0}
    assert [quota.options(index)["task"] for index in (0, 4, 8)] == ["a", "b", "c"]


def _record(out: Path, episodes: int, **more: Any) -> RecordSummary:
    return record(RecordSettings(ENV, out, episodes, **{"workers": 1} | more), show=False)


def test_recording_keeps_as_many_of_each_task(tmp_path: Path) -> None:
    summary = _record(tmp_path / "a", 3)
    recorded = open_dataset(tmp_path / "a")
    tasks = [facts["category"] for facts in recorded.episodes]
    assert (tasks.count("red"), tasks.count("green"), tasks.count("blue")) == (3, 3, 0)
    assert summary.unfilled == {"blue": 0} and summary.kept == 6 and summary.played > 6 + 8
    assert all(facts["options"]["task"] == facts["category"] for facts in recorded.episodes)
    # The same, whatever was lost on the way.
    for lost in (0, 4, 7):
        (tmp_path / "a" / SHARDS / f"{lost:06d}.npz").unlink(missing_ok=True)
    again = _record(tmp_path / "a", 3)
    assert [f["seed"] for f in open_dataset(tmp_path / "a").episodes] == [f["seed"] for f in recorded.episodes]
    assert again.new >= 2 and again.kept == 6
    assert _record(tmp_path / "a", 3).new == 0
    more = _record(tmp_path / "a", 4)
    assert more.kept == 8 and more.unfilled == {"blue": 0}


def test_each_slot_stays_with_a_task() -> None:
    assert EnvRef(ENV).tasks() == TASKS and EnvRef("tests.fake_env:DotEnv").tasks() == ()
    requests = EvalConfig(env=ENV, episodes=4, slots=2).requests()
    assert sorted(request.index for request in requests) == list(range(12))
    for request in requests:
        assert request.options["task"] == TASKS[request.index % 3]
        assert request.seed == episode_seed("evaluate", 0, request.index)
    assert [request.options["task"] for request in requests[:8:2]] == ["red"] * 4
    assert [request.options["task"] for request in requests[1:8:2]] == ["green"] * 4
    alone = EvalConfig(env=ENV, episodes=4, slots=8).requests()
    assert {(r.index, r.seed) for r in alone} == {(r.index, r.seed) for r in requests}


def test_tiers_and_tasks_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = EvalConfig(env=ENV, episodes=6, slots=2, videos=0)
    summary = evaluate(config, DotAgent(), tmp_path / "one")
    tasks = summary["tasks"]
    assert tasks["red"]["rate"] == 1.0 and tasks["blue"]["rate"] == 0.0 and 0 < tasks["green"]["rate"] < 1
    assert summary["tiers"]["easy"]["rate"] == 1.0 and summary["tiers"]["hard"]["n"] == 12
    half = (1.0 + summary["tiers"]["hard"]["rate"]) / 2
    assert summary["tier_mean"]["rate"] == pytest.approx(half, abs=1e-4)
    assert summary["episode_mean"] == summary["success"] != summary["tier_mean"]
    html = (tmp_path / "one" / "report.html").read_text(encoding="utf-8")
    assert "Beside what was published" in html and "a paper" in html and "this run" in html
    from rich.console import Console

    print_table(Console(width=200), summary)
    printed = capsys.readouterr().out
    assert "beside what was published" in printed and "80.0" in printed
    other = evaluate(EvalConfig(env=ENV, episodes=6, slots=5, workers=2, videos=0), DotAgent(), tmp_path / "two")
    assert compare_episodes(summary, other)["differing"] == []


def test_several_seeds_are_several_runs_in_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = EvalConfig(env=ENV, episodes=4, videos=0, more_seeds=[5, 2])
    summary = evaluate(config, DotAgent(), tmp_path / "all")
    means, rates = [], []
    for seed in (0, 5, 2):
        alone = evaluate(EvalConfig(env=ENV, episodes=4, videos=0, seed=seed), DotAgent(), tmp_path / str(seed))
        assert summary["seeds"][str(seed)]["success"] == alone["success"]
        assert summary["seeds"][str(seed)]["tier_mean"] == alone["tier_mean"]
        means.append(alone["tier_mean"]["rate"])
        rates.append(alone["success"]["rate"])
        assert "seeds" not in alone
    assert summary["success"]["n"] == 36 and summary["success"]["rate"] == pytest.approx(np.mean(rates))
    across = summary["across_seeds"]
    assert across["tier_mean"] == {
        "mean": pytest.approx(np.mean(means)),
        "std": pytest.approx(np.std(means, ddof=1)),
        "n": 3,
    }
    from rich.console import Console

    print_table(Console(width=200), summary)
    assert "tier mean over 3 seeds" in capsys.readouterr().out
    assert "By seed" in (tmp_path / "all/report.html").read_text(encoding="utf-8")
    recording = read_recording(tmp_path / "all", env=ENV)
    assert recording.config == config
    with pytest.raises(VlaError, match="twice: 0,3,3"):
        EvalConfig(env=ENV, more_seeds=[3, 3])


def test_a_tier_that_was_not_played_leaves_no_tier_mean() -> None:
    result = EpisodeResult(0, 0, "", "en", "easy", "red", "heldout", success=True)
    scores = benchmark_scores(TaskDots.benchmark, [result])
    assert scores["tier_mean"] is None and list(scores["tiers"]) == ["easy"]
    rows = benchmark_rows(TaskDots.benchmark, "ours", scores)
    assert rows[0] == ("A", "1B", "80.0", "40.0", "60.0", "a paper")
    assert rows[1] == ("ours", "", "100.0 (20.6–100.0)", "–", "–", "this run, 1 of 3 tasks")


def test_the_mean_of_rates_has_the_interval_of_independent_parts() -> None:
    one = rate_of([True] * 30 + [False] * 10)
    assert mean_of_rates([one]) == Rate(pytest.approx(one.rate), pytest.approx(one.low), pytest.approx(one.high), 40)
    four = mean_of_rates([one] * 4)  # as four times the episodes: half the interval
    assert four.rate == pytest.approx(one.rate) and four.n == 160
    assert four.high - four.low == pytest.approx((one.high - one.low) / 2)
    # Against a simulation: the share of intervals that cover the truth.
    rng, truths = np.random.default_rng(0), (0.9, 0.6, 0.8, 0.3)
    covered = 0
    for _ in range(2000):
        found = mean_of_rates([rate_of(list(rng.random(20) < truth)) for truth in truths])
        covered += found.low <= np.mean(truths) <= found.high
    assert 0.93 < covered / 2000 < 0.975
