"""What the envs measure of safety, and what an evaluation makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest

from envs.tabletop.arm import rotation_down
from envs.tabletop.safety import JOINT_ACCELERATION, JOINT_SPEED, LIMITS, SafetyMonitor
from envs.tabletop.table import Tabletop
from envs.tidy_desk.task import TidyDesk
from tests.acting import ENV, DotAgent
from tests.fake_env import DotEnv
from vla.contracts import StepResult
from vla.eval.config import EvalConfig
from vla.eval.evaluate import evaluate
from vla.eval.pages.report import render


@pytest.fixture(scope="module")
def desk() -> Iterator[TidyDesk]:
    made = TidyDesk(cameras_px=32)
    yield made
    made.close()


def test_a_careful_demonstration_violates_nothing(desk: TidyDesk) -> None:
    desk.reset(seed=3, options={"kind": "named"})
    expert, worst = desk.expert(), dict.fromkeys(LIMITS, 0.0)
    while True:
        result = desk.play(expert.act().action)
        assert set(result.info["safety"]) == set(desk.safety_limits) == set(LIMITS)
        worst = {name: max(value, result.info["safety"][name]) for name, value in worst.items()}
        if result.terminated:
            break
    assert all(value <= LIMITS[name] for name, value in worst.items())
    assert worst["joint_speed"] > 0.2 and worst["joint_acceleration"] > 0.2 and worst["joint_jerk"] > 0.0


def test_speed_and_acceleration_are_shares_of_the_limits() -> None:
    table = Tabletop(32)
    table.build(lambda spec: None)
    watch = SafetyMonitor(table.model, table.data)
    for share in (0.0, 0.25, 0.5, 0.25):
        table.data.qvel[:7] = 0.0
        table.data.qvel[4] = -share * JOINT_SPEED[4]
        watch.tick()
    reading = watch.reading()
    step = 0.25 * JOINT_SPEED[4] * 200 / JOINT_ACCELERATION[4]
    assert reading["joint_speed"] == pytest.approx(0.5) and reading["joint_acceleration"] == pytest.approx(step)
    watch.tick()  # as fast as before: what was measured earlier counts no more
    again = watch.reading()
    assert again["joint_speed"] == pytest.approx(0.25) and again["joint_acceleration"] == pytest.approx(0.0)
    assert again["joint_jerk"] > 0.0
    table.close()


def test_pressing_on_the_table_is_felt() -> None:
    table = Tabletop(32)
    table.build(lambda spec: None)
    for _ in range(20):
        table.play(np.concatenate(([0.5, 0.0, 0.05], rotation_down(0.0), [0.0])))
    assert table.safety.reading()["table_force_n"] == 0.0
    for _ in range(200):
        table.data.ctrl[1] += 0.001
        mujoco.mj_step(table.model, table.data, nstep=3)
        table.safety.tick()
    assert table.safety.reading()["table_force_n"] > LIMITS["table_force_n"]
    table.close()


def test_what_is_not_to_be_touched_is_watched(desk: TidyDesk) -> None:
    desk.reset(seed=5, options={"kind": "named"})
    wall = desk.scene.receptacles["waste"]
    above = np.array([*wall.world(wall.half[0] + 0.004, 0.0), 0.2])
    felt = []
    for height in np.linspace(0.2, 0.03, 25):
        above[2] = height
        result = desk.play(np.concatenate((above, rotation_down(wall.yaw), [0.0])))
        felt.append(result.info["safety"]["bystander_force_n"])
    assert felt[0] == 0.0 and max(felt) > LIMITS["bystander_force_n"]


def test_an_item_that_slips_from_the_closed_grip_is_a_drop(desk: TidyDesk) -> None:
    for seed in range(40):
        desk.reset(seed=seed, options={"stage": "midway"})
        if desk.scene.held is not None:
            break
    hold = np.concatenate((desk.tabletop.position, desk.tabletop.rotation[:, 0], desk.tabletop.rotation[:, 1], [0.0]))
    assert desk.play(hold).info["safety"]["drops"] == 0.0 and desk.scene.held is not None
    joint = desk.tabletop.model.joint(desk.scene.placed[desk.scene.held].item.name)
    desk.tabletop.data.qpos[joint.qposadr[0] + 2] += 0.3  # torn away
    assert desk.play(hold).info["safety"]["drops"] == 1.0
    assert desk.play(hold).info["safety"]["drops"] == 0.0


def test_an_evaluation_tells_successes_without_a_violation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play = DotEnv.play

    def measured(self: Any, action: np.ndarray) -> StepResult:
        result = play(self, action)
        rough = self._language == "zh"
        result.info["safety"] = {"joint_speed": 0.5 + rough, "drops": float(rough)}
        return result

    monkeypatch.setattr(DotEnv, "play", measured)
    monkeypatch.setattr(DotEnv, "safety_limits", {"joint_speed": 1.0, "drops": 0.0}, raising=False)
    summary = evaluate(EvalConfig(env=ENV, episodes=8, slots=4, videos=0), DotAgent(), tmp_path)
    english = summary["by"]["language"]["en"]["success"]["n"]
    assert 0 < english < 8 and summary["success"]["rate"] == 1.0
    assert summary["safety"]["safe_success"]["rate"] == english / 8
    for episode in summary["episodes_detail"]:
        rough = episode["language"] == "zh"
        assert episode["violations"] == (["joint_speed", "drops"] if rough else [])
        assert episode["safety"] == {"joint_speed": 0.5 + rough, "drops": float(rough * episode["steps"])}
    speed = summary["safety"]["measures"]["joint_speed"]
    assert speed["violated"]["rate"] == 1 - english / 8 and speed["worst"] == 1.5
    assert "success, no violation" in render(summary, [])
    monkeypatch.setattr(DotEnv, "play", play)
    summary = evaluate(EvalConfig(env=ENV, episodes=2, slots=2, videos=0), DotAgent(), tmp_path)
    assert summary["safety"] is None and "no violation" not in render(summary, [])
