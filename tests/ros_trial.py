"""Starts a trial on real middleware, in a network namespace of its own, and reads what its conductor noted down."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.ros_conductor import BROKEN, HOOK, ROOT, in_namespace
from tests.ros_environment import environment, ros1_environment
from tests.test_deploy_sim import patient_robot
from tests.test_robot_config import PANDA_YAML

WAYS = {"jazzy": "ros2", "kilted": "ros2", "ros1": "ros1", "rosbridge": "rosbridge"}
REST_S = 0.2  # what every way out is to keep


def ros_python(on: str) -> str:
    """A Python for one of ``WAYS``. `.ci/run` makes the environments, and fails if it can't; else tests do without."""
    try:
        return str(ros1_environment() if on == "ros1" else environment(on))
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no ROS for the test: {error}")


def forward_robot(folder: Path, what: str) -> Path:
    """The Panda behind a forward_command_controller on ``what``, position or velocity."""
    file, told = folder / "panda.yaml", PANDA_YAML.index("  adapter: joint_trajectory\n")
    command = f"  adapter: forward_{what}\n  topic: /forward_{what}_controller/commands\n"
    file.write_text(PANDA_YAML[:told] + command + PANDA_YAML[PANDA_YAML.index("  rate_hz", told) :])
    return file


def conduct(on: str, folder: Path, *words: str, robot: Path | None = None) -> list[dict]:
    """What the conductor notes down of the simulated robot. A failure shows all that its processes said.

    Args:
        on: one of ``WAYS``.
        folder: for notes and logs.
        words: the conductor's.
        robot: the file; that of a Panda with more patience without it.
    """
    out = folder / "notes.json"
    env = {"VLA_TRIAL_ROBOT": str(robot or patient_robot(folder)), "VLA_TRIAL_TRANSPORT": WAYS[on]}
    if on == "kilted":
        env["VLA_ROBOT_PYTHON"] = ros_python(on)
    python = ros_python("ros1" if on == "ros1" else "jazzy")
    return noted(out, [python, "-m", "tests.ros_conductor", words[0], str(out), *words[1:]], env)


def noted(out: Path, command: list[str], more: dict[str, str] | None = None) -> Any:
    """What a command, run in a network namespace, writes to ``out``, as JSON."""
    command, env = in_namespace(command)
    env = {k: v for k, v in env.items() if k not in HOOK}  # or the hook would not start Python anew
    env |= {"OMP_NUM_THREADS": "1", **(more or {})}
    run = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=550)
    logs = "\n".join(f"{file}:\n{file.read_text()}" for file in out.parent.glob("*.log"))
    assert run.returncode == 0, f"{run.stdout}\n{run.stderr}\n{logs}"
    return json.loads(out.read_text())


def unstarved(on: str, folder: Path, *words: str) -> list[dict]:
    """The same, once more where the simulated arm was judged blocked: on a busy machine its process comes late."""
    for time in ("first", "second"):
        (folder / time).mkdir()
        found = conduct(on, folder / time, *words)
        if not any("it is blocked" in one["reason"] for one in found):
            break
    return found


def rests(on: str, folder: Path, *faults: str, robot: Path | None = None) -> dict[str, dict]:
    """What came of each fault: of up to three trials the soonest, as long as all took over ``REST_S``.

    A machine whose cores are shared may be late, or so late that the run has ended before anything was broken.
    """

    def rank(one: dict) -> tuple[bool, float]:
        return one["ended_before"], 0.0 if BROKEN[one["fault"]] else one["still_after_s"]

    found: dict[str, dict] = {}
    for time in ("first", "second", "third"):
        late = [fault for fault in faults if fault not in found or rank(found[fault]) > (False, REST_S)]
        if late:
            (folder / time).mkdir()
            for one in conduct(on, folder / time, "faults", *late, robot=robot):
                found[one["fault"]] = min(one, found.get(one["fault"], one), key=rank)
    return found
