"""Real ROS 2: the shipped agent tidies the simulated desk through it, and every fault ends in rest and a named reason.

What is real is the middleware (rclpy, Fast DDS, CycloneDDS) and its processes; the arm, its controller and the desk are
simulated.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import dds_peer
from tests.ros_conductor import BROKEN
from tests.ros_trial import REST_S, forward_robot, noted, rests, ros_python, unstarved
from vla.robots.config import find, load


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


def test_a_robot_on_another_vendors_dds_is_driven(tmp_path: Path) -> None:
    config, out = load("panda"), tmp_path / "notes.json"
    told = noted(out, [ros_python("jazzy"), "-m", "tests.dds_peer", str(out)])
    peer, arm = told["peer"], config.command.topic
    assert told["q"] == dds_peer.Q[:7] and told["gripper"] == 1.0  # whatever the order that they came in
    assert all(shape == [128, 128, 3] and total == 192 * sum(range(256)) for shape, total in told["pictures"].values())
    assert peer[arm] >= dds_peer.COMMANDS and peer["gripper"] == [0.02]
    (first, speed), (last, rest) = peer["points"]
    assert peer["joints"] == list(config.joints) and speed == [dds_peer.SPEED] * 7 and rest == [0.0] * 7
    assert all(0.0 < end - begin < 0.001 for begin, end in zip(first, last, strict=True))


# `python -m tests.ros_conductor faults OUT.json` tries all of them, which takes minutes: docs/robots.md has what came.
# Who is gone takes two controllers along, and either may be missed first.
REASONS = {
    "SIGTERM": "SIGTERM came",
    "kill -9 of the policy": "",
    "kill -9 of the control process": "the control process is gone",
    "gone": "nobody listens on /panda_(arm_controller/joint_trajectory|hand_controller/commands) any more: its",
    "no scene": "camera 'scene' has sent nothing",
    "clock jump": "the clock of",
    "shuffled joints": "SIGINT came",
}
CODES = {"SIGTERM": 143, "kill -9 of the policy": -9, "shuffled joints": 130}


@pytest.mark.campaign
def test_every_fault_ends_in_rest_within_200_ms_and_a_named_reason(tmp_path: Path) -> None:
    found = rests("jazzy", tmp_path, *REASONS, robot=find("panda"))
    for fault, one in found.items():
        assert re.search(REASONS[fault], one["reason"]), one
        assert one["exit"] == CODES.get(fault, 1), one
        if BROKEN[fault]:
            assert one["still_after_s"] > 1.0, one  # it went on
        else:
            assert one["still_after_s"] <= REST_S, one


@pytest.mark.campaign
@pytest.mark.parametrize("what", ["position", "velocity"])
def test_arm_that_would_run_on_is_brought_to_rest_on_every_way_out(what: str, tmp_path: Path) -> None:
    ways = ("SIGTERM", "kill -9 of the policy", "kill -9 of the control process")
    for one in rests("jazzy", tmp_path, *ways, robot=forward_robot(tmp_path, what)).values():
        assert re.search(REASONS[one["fault"]], one["reason"]) and one["still_after_s"] <= REST_S, one
