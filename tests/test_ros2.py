"""Real ROS 2: the shipped agent tidies the simulated desk through it, and every fault ends in rest and a named reason.

What is real is the middleware (rclpy, Fast DDS) and its processes; the arm, its controller and the desk are simulated.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.ros_conductor import BROKEN, ROOT, in_namespace
from tests.ros_environment import environment
from tests.test_deploy_sim import patient_robot

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session", params=["jazzy"])
def ros_python(request: pytest.FixtureRequest) -> str:
    """A Python with rclpy. `.ci/run` makes the environment, and fails if it can't; elsewhere tests do without."""
    try:
        return str(environment(request.param))
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"ROS 2 can't be installed here: {error}")


def conduct(python: str, folder: Path, *words: str) -> list[dict]:
    """What the conductor notes down. A failure shows all that its processes said."""
    out = folder / "notes.json"
    command, env = in_namespace([python, "-m", "tests.ros_conductor", words[0], str(out), *words[1:]])
    # The hook of the wheels starts Python anew where this is not set; it must not be told that it has.
    env = {k: v for k, v in env.items() if k not in ("_ROS_WHEELS_BOOTSTRAP_COMPLETE", "LD_LIBRARY_PATH")}
    env |= {"VLA_TRIAL_ROBOT": str(patient_robot(folder)), "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=550)
    logs = "\n".join(f"{file}:\n{file.read_text()}" for file in folder.glob("*.log"))
    assert run.returncode == 0, f"{run.stdout}\n{run.stderr}\n{logs}"
    return json.loads(out.read_text())


def test_shipped_agent_tidies_the_desk_through_ros2(ros_python: str, tmp_path: Path) -> None:
    episodes = conduct(ros_python, tmp_path, "episodes", "2", "0.5")
    told = [{k: one[k] for k in ("instruction", "reason", "success", "seconds")} for one in episodes]
    assert sum(one["success"] for one in episodes) >= 1, told
    for one in episodes:
        assert not one["fault"], told
        assert one["ticks"] / (one["seconds"] + 1e-9) > 150  # 200 a second, on a machine that is shared


REASONS = {
    "SIGTERM": "SIGTERM came",
    "kill -9 of the policy": "",
    "gone": "nobody listens on /panda_arm_controller/joint_trajectory any more",
    "clock jump": "the clock of",
    "nan joints": "was reported as nan",
    "no scene": "camera 'scene' has sent nothing",
    "shuffled joints": "SIGINT came",
    "strict qos": "asks for durability transient_local",
}


def test_every_fault_ends_in_rest_and_a_named_reason(ros_python: str, tmp_path: Path) -> None:
    assert set(REASONS) <= set(BROKEN)
    for one in conduct(ros_python, tmp_path, "faults", *REASONS):
        fault = one["fault"]
        assert REASONS[fault] in one["reason"], one
        assert one["still_after_s"] < (12.0 if BROKEN[fault] else 3.0), one
        assert one["exit"] == {
            "SIGTERM": 143,
            "kill -9 of the policy": -9,
            "shuffled joints": 130,
            "strict qos": 2,
        }.get(fault, 1), one
