"""A robot behind a rosbridge, before servers that are ours and rude; ``tests/test_transports.py`` has the real one."""

from __future__ import annotations

import base64
import dataclasses
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.sync.server import ServerConnection, serve

from tests.test_robot_config import PANDA_YAML
from vla.cli import main
from vla.contracts import VlaError
from vla.robots.config import RobotConfig, RosbridgeConfig, load
from vla.robots.io import Command
from vla.robots.rosbridge import RosbridgeRobot

PANDA = load("panda")
NAMES = [*PANDA.joints, "panda_finger_joint1"]
Q = [0.0, -0.26, 0.0, -2.43, 0.0, 2.17, 0.785, 0.04]
Say = Callable[[ServerConnection], None]


@contextmanager
def bridge(say: Say, heard: list[dict[str, Any]]) -> Iterator[RobotConfig]:
    """A server that says something, then listens until the client leaves; the robot that is to be found there."""

    def talk(connection: ServerConnection) -> None:
        say(connection)
        for frame in connection:
            heard.append(json.loads(frame))

    with serve(talk, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        port = server.socket.getsockname()[1]
        try:
            yield dataclasses.replace(PANDA, rosbridge=RosbridgeConfig(f"ws://127.0.0.1:{port}"))
        finally:
            server.shutdown()
            thread.join()


def until(so: Callable[[], Any]) -> Any:
    end = time.monotonic() + 10.0
    while not (found := so()):
        assert time.monotonic() < end
        time.sleep(0.01)
    return found


def published(topic: str, **message: Any) -> str:
    header = {"stamp": {"sec": 12, "nanosec": 500_000_000}, "frame_id": ""}
    return json.dumps({"op": "publish", "topic": topic, "msg": {"header": header, **message}})


def says_joints(connection: ServerConnection) -> None:
    order = np.random.default_rng(2).permutation(len(NAMES))
    names, position = [NAMES[i] for i in order], [Q[i] for i in order]
    connection.send(published("/joint_states", name=names, position=position, velocity=[None] * len(names), effort=[]))


def test_state_and_pictures_come_and_commands_go() -> None:
    image = np.random.default_rng(1).integers(0, 255, (128, 128, 3), np.uint8)
    size = {"height": 128, "width": 128, "step": 384, "is_bigendian": 0, "encoding": "rgb8"}

    def says(connection: ServerConnection) -> None:
        says_joints(connection)
        connection.send(published("/scene/image_raw", data=base64.b64encode(image).decode(), **size))
        connection.send(published("/wrist/image_raw", data=image.ravel().tolist(), **size))

    heard: list[dict[str, Any]] = []
    with bridge(says, heard) as config:
        robot = RosbridgeRobot(config, sends=True)
        joints = until(robot.joints)
        np.testing.assert_array_equal(joints.q, Q[:7])
        assert joints.gripper == 1.0 and joints.stamp == 12.5 and np.isnan(joints.velocity).all()
        pictures = until(lambda: len(robot.pictures()) == 2 and robot.pictures())
        for one in pictures.values():
            np.testing.assert_array_equal(one.image, image)
        robot.send(Command(np.array(Q[:7]), np.full(7, 0.1), 1.0))
        until(lambda: sum(one["op"] == "publish" for one in heard) >= 2)
        assert not robot.problem()
        robot.close()
    told = {one["topic"]: one["msg"] for one in heard if one["op"] == "publish"}
    trajectory = told["/panda_arm_controller/joint_trajectory"]
    first, last = trajectory["points"]
    assert trajectory["joint_names"] == NAMES[:7] and first["positions"] == Q[:7]
    assert first["time_from_start"] == {"sec": 0, "nanosec": 5_000_000} and last["velocities"] == [0.0] * 7
    advertised = {one["topic"]: one["type"] for one in heard if one["op"] == "advertise"}
    assert advertised.keys() == config.command_topics.keys()


@pytest.mark.parametrize(
    ("frame", "problem"),
    [
        ("{", "rosbridge sent what can't be read"),
        ("[1]", "rosbridge sent what can't be read"),
        (b"\xff\xfe", "rosbridge sent what can't be read"),
        ("[" * 100_000, "rosbridge sent what can't be read"),
        (published("/joint_states", name=["a"]), "1 names, 0 positions"),
        (published("/joint_states", name=NAMES, position=["x"] * 8), "rosbridge sent what can't be read"),
        (published("/joint_states", name=NAMES, position=[None] * 8), "' was reported as nan"),
        (published("/scene/image_raw", data="?", encoding="rgb8", height=1, width=1, step=3), "its data are no bytes"),
        (published("/scene/image_raw", data=[999], encoding="rgb8", height=1, width=1, step=3), "no bytes"),
        (json.dumps({"op": "status", "level": "error", "msg": "no such type"}), "rosbridge says: no such type"),
    ],
)
def test_what_nobody_can_read_makes_it_unfit_to_drive(frame: str | bytes, problem: str) -> None:
    with bridge(lambda connection: connection.send(frame), []) as config:
        robot = RosbridgeRobot(config)
        until(robot.problem)
        assert problem in robot.problem() and "\n" not in robot.problem()
        robot.close()


def test_connection_that_is_lost_is_told_and_nothing_more_is_sent() -> None:
    met = threading.Event()

    def leaves(connection: ServerConnection) -> None:
        met.wait(10.0)
        connection.close()

    with bridge(leaves, []) as config:
        robot = RosbridgeRobot(config, sends=True)
        assert not robot.problem()
        met.set()
        until(robot.problem)
        assert f"the rosbridge at {config.rosbridge.url} is lost: " in robot.problem()
        robot.send(Command(np.array(Q[:7]), np.zeros(7), 1.0))
        robot.close()


def nobody() -> int:
    """A port on which nobody listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_nobody_there_is_told_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, url = tmp_path / "mine.yaml", f"ws://127.0.0.1:{nobody()}"
    file.write_text(f"{PANDA_YAML}\nrosbridge:\n  url: {url}\n")
    assert main(["deploy", "--robot", "rosbridge", "--config", str(file), "--out", str(tmp_path), "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert f"no rosbridge at {url}" in error and f"rosbridge.url in {file}" in error and error.count("\n") == 1


def test_server_that_speaks_no_websocket_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        def answers() -> None:
            one, _ = other.accept()
            with one:
                one.recv(4096)
                one.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=answers)
        thread.start()
        config = dataclasses.replace(PANDA, rosbridge=RosbridgeConfig(f"ws://127.0.0.1:{port}"))
        with pytest.raises(VlaError, match=r"no rosbridge at .* 404"):
            RosbridgeRobot(config)
        thread.join()


@pytest.mark.parametrize("url", ["robot:9090", "http://robot", "ws://"])
def test_url_that_is_none_is_told_with_its_line(url: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"{PANDA_YAML}\nrosbridge:\n  url: '{url}'\n")
    with pytest.raises(VlaError, match=r"mine.yaml:\d+: rosbridge.url: should be like ws://robot:9090"):
        load(file)
