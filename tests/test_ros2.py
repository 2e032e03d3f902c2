"""Real ROS 2: the shipped agent tidies the simulated desk through it, and every fault ends in rest and a named reason.

What is real is the middleware (rclpy, Fast DDS) and its processes; the arm, its controller and the desk are simulated.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.ros_conductor import BROKEN, HOOK, ROOT, in_namespace
from tests.ros_environment import environment
from tests.test_deploy_sim import patient_robot


def ros_python(distro: str) -> str:
    """A Python with rclpy. `.ci/run` makes the environments, and fails if it can't; elsewhere tests do without."""
    try:
        return str(environment(distro))
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"ROS 2 can't be installed here: {error}")


def conduct(robot: str, folder: Path, *words: str) -> list[dict]:
    """What the conductor, on Jazzy, notes down of a robot on ``robot``. A failure shows all that its processes said."""
    out = folder / "notes.json"
    command, env = in_namespace([ros_python("jazzy"), "-m", "tests.ros_conductor", words[0], str(out), *words[1:]])
    env = {k: v for k, v in env.items() if k not in HOOK}  # or the hook would not start Python anew
    env |= {"VLA_TRIAL_ROBOT": str(patient_robot(folder)), "OMP_NUM_THREADS": "1"}
    if robot != "jazzy":
        env["VLA_ROBOT_PYTHON"] = ros_python(robot)
    run = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=550)
    logs = "\n".join(f"{file}:\n{file.read_text()}" for file in folder.glob("*.log"))
    assert run.returncode == 0, f"{run.stdout}\n{run.stderr}\n{logs}"
    return json.loads(out.read_text())


def unstarved(robot: str, folder: Path, *words: str) -> list[dict]:
    """The same, once more where the simulated arm was judged blocked: on a busy machine its process comes late."""
    for time in ("first", "second"):
        (folder / time).mkdir()
        found = conduct(robot, folder / time, *words)
        if not any("it is blocked" in one["reason"] for one in found):
            break
    return found


# One episode shows that all of it works together; what takes minutes is left to the campaign.
@pytest.mark.parametrize(
    ("robot", "count"),
    [("jazzy", "1"), *(pytest.param(one, "2", marks=pytest.mark.campaign) for one in ("jazzy", "kilted"))],
)
def test_shipped_agent_tidies_the_desk_through_ros2(robot: str, count: str, tmp_path: Path) -> None:
    episodes = unstarved(robot, tmp_path, "episodes", count, "0.5")
    told = [{k: one[k] for k in ("instruction", "reason", "success", "seconds")} for one in episodes]
    assert sum(one["success"] for one in episodes) >= 1, told
    for one in episodes:
        assert not one["fault"], told
        assert one["ticks"] / (one["seconds"] + 1e-9) > 150  # 200 a second, on a machine that is shared


# `python -m tests.ros_conductor faults OUT.json` tries all of them, which takes minutes: docs/robots.md has what came.
# Who is gone takes two controllers along, and either may be missed first.
REASONS = {
    "SIGTERM": "SIGTERM came",
    "kill -9 of the policy": "",
    "gone": "nobody listens on /panda_(arm_controller/joint_trajectory|hand_controller/commands) any more: its",
    "clock jump": "the clock of",
    "no scene": "camera 'scene' has sent nothing",
    "shuffled joints": "SIGINT came",
}


@pytest.mark.campaign
def test_every_fault_ends_in_rest_and_a_named_reason(tmp_path: Path) -> None:
    assert set(REASONS) <= set(BROKEN)
    for one in unstarved("jazzy", tmp_path, "faults", *REASONS):
        fault = one["fault"]
        assert re.search(REASONS[fault], one["reason"]), one
        if BROKEN[fault]:
            assert one["still_after_s"] > 1.0, one  # it went on
        else:
            assert one["still_after_s"] < 3.0, one  # 0.1 to 0.6 s where the machine is free; docs/robots.md
        codes = {"SIGTERM": 143, "kill -9 of the policy": -9, "shuffled joints": 130}
        assert one["exit"] == codes.get(fault, 1), one
