"""The simulated desk through a real ROS 1 (rosmaster, rospy) and a real rosbridge (rosbridge-server-rs on Jazzy).

What is real is the middleware and its processes; the arm, its controller and the desk are simulated.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.ros_trial import REST_S, rests, unstarved
from tests.test_rosbridge import nobody
from vla.cli import main
from vla.contracts import VlaError


@pytest.mark.parametrize("on", ["ros1", "rosbridge"])
def test_sigterm_in_the_middle_of_motion_ends_at_rest(on: str, tmp_path: Path) -> None:
    one = rests(on, tmp_path, "SIGTERM")["SIGTERM"]
    assert one["exit"] == 143 and one["reason"] == "SIGTERM came", one
    assert one["seconds"] > 0.5 and one["still_after_s"] <= REST_S, one


REASONS = {
    "ros1": {"gone": "nobody listens on", "kill -9 of the policy": ""},
    "rosbridge": {"kill -9 of the bridge": "the rosbridge at ws://127.0.0.1:9090 is lost", "kill -9 of the policy": ""},
}


@pytest.mark.campaign
@pytest.mark.parametrize("on", REASONS)
def test_faults_end_in_rest_and_a_named_reason(on: str, tmp_path: Path) -> None:
    for fault, one in rests(on, tmp_path, *REASONS[on]).items():
        assert REASONS[on][fault] in one["reason"], one
        assert one["still_after_s"] <= REST_S, one


@pytest.mark.campaign
@pytest.mark.parametrize("on", ["ros1", "rosbridge"])
def test_shipped_agent_tidies_the_desk(on: str, tmp_path: Path) -> None:
    episodes = unstarved(on, tmp_path, "episodes", "2", "0.5")
    assert any(one["success"] for one in episodes), episodes
    assert not any(one["fault"] for one in episodes), episodes


def test_no_rospy_is_told_in_a_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "rospy", None)
    for command in (["deploy", "--robot", "ros1", "--dry-run"], ["sim-robot", "--ros1"]):
        assert main(command) == 2
        error = capsys.readouterr().err
        assert "no rospy for this Python" in error and "python3-rospy" in error and error.count("\n") == 1


@pytest.mark.parametrize("uri", ["http://127.0.0.1:{port}", "nonsense", "http://127.0.0.1:x"])
def test_master_that_does_not_answer_is_told(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from vla.robots.ros1 import require_master

    uri = uri.format(port=nobody())
    monkeypatch.setenv("ROS_MASTER_URI", uri)
    with pytest.raises(VlaError, match=r"no ROS master answers at .*start `roscore`, or set ROS_MASTER_URI") as raised:
        require_master()
    assert uri in str(raised.value) and "\n" not in str(raised.value)
