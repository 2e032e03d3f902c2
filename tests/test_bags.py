"""Bags of ROS 2 and of ROS 1 become LeRobot datasets that say what the bags say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_typestore

from vla.cli import main
from vla.data.open import open_dataset
from vla.robots.bag import look, read_episode
from vla.robots.config import load
from vla.robots.recorder import COMMAND
from vla.robots.replay import ReplayRobot
from vla.robots.state import Kinematics

PANDA = load("panda")
HOME = np.array([0.0, -0.26, 0.0, -2.43, 0.0, 2.17, 0.785])
SECONDS, EPOCH = 2.0, 1_700_000_000


def joints_at(t: float) -> np.ndarray:
    """Where the arm of these bags is, and its finger, at a time."""
    return np.array([*(HOME + 0.1 * np.sin(t) * np.arange(1, 8) / 7), 0.04 * (1 - t / SECONDS)])


def picture_at(t: float, camera: str) -> np.ndarray:
    image = np.zeros((128, 128, 3), np.uint8)
    image[..., 0 if camera == "scene" else 2] = int(100 * t)
    return image


def write_bag(path: Path, kind: str, told: bool = False, until: dict[str, float] | None = None) -> Path:
    """A bag of a Panda that moves: joints in two parts and another order, and two cameras."""
    ros1 = kind == "ros1"
    store = get_typestore(Stores.ROS1_NOETIC if ros1 else Stores.ROS2_JAZZY)
    types = store.types

    def header(t: float) -> Any:
        stamp = types["builtin_interfaces/msg/Time"](sec=EPOCH + int(t), nanosec=int(t % 1 * 1e9))
        return types["std_msgs/msg/Header"](stamp=stamp, frame_id="", **({"seq": 0} if ros1 else {}))

    def joints(t: float, which: list[int], names: list[str]) -> Any:
        values = joints_at(t)[which]
        empty = np.zeros(0)
        return types["sensor_msgs/msg/JointState"](
            header=header(t), name=[names[i] for i in which], position=values, velocity=empty, effort=empty
        )

    def image(t: float, camera: str) -> Any:
        data = picture_at(t, camera)
        return types["sensor_msgs/msg/Image"](
            header=header(t), height=128, width=128, encoding="rgb8", is_bigendian=0, step=384, data=data.ravel()
        )

    names, messages = [*PANDA.joints, "panda_finger_joint1"], []
    for tick in range(int(SECONDS * 100) + 1):
        t = tick / 100
        for part in ([7, 2, 0, 5], [6, 1, 4, 3]):
            messages.append((t, "/joint_states", "sensor_msgs/msg/JointState", joints(t, part, names)))
        if told:
            messages.append((t, COMMAND, "sensor_msgs/msg/JointState", joints(t + 0.03, list(range(8)), names)))
        if tick % 5 == 0:
            for camera in ("scene", "wrist"):
                messages.append((t, f"/{camera}/image_raw", "sensor_msgs/msg/Image", image(t, camera)))
    plugin = StoragePlugin.SQLITE3 if kind == "sqlite" else StoragePlugin.MCAP
    writer: Any = Writer1(path) if ros1 else Writer2(path, version=9, storage_plugin=plugin)
    with writer:
        connections: dict[str, Any] = {}
        for t, topic, message_kind, message in messages:
            if t > (until or {}).get(topic, 9.0):
                continue
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, message_kind, typestore=store)
            serialize = store.serialize_ros1 if ros1 else store.serialize_cdr
            writer.write(connections[topic], int((EPOCH + t) * 1e9), serialize(message, message_kind))
    return path


@pytest.mark.parametrize("kind", ["mcap", "sqlite", "ros1"])
def test_bag_becomes_a_dataset(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bags = [write_bag(tmp_path / f"one{number}{'.bag' if kind == 'ros1' else ''}", kind) for number in range(2)]
    out = tmp_path / "data"
    words = ["--instruction", "put the cup on the tray", "--out", str(out), "--format", "images"]
    assert main(["bag", "import", *map(str, bags), *words]) == 0
    assert "2 episodes are in" in capsys.readouterr().out
    recorded = open_dataset(out)
    assert [one["steps"] for one in recorded.episodes] == [20, 20] and recorded.instructions == [
        "put the cup on the tray"
    ]
    assert recorded.spec == recorded.spec.from_dict(recorded.spec.to_dict())
    PANDA.spec.require(recorded.spec, "robot", "dataset")
    episode = read_episode(bags[0], PANDA, "put the cup on the tray", 0)
    kinematics = Kinematics(PANDA)
    for step in (0, 7, 19):
        # Everything has spoken at 0.00 s: the second part of the joints comes with the first.
        now, later = joints_at(0.1 * step), joints_at(0.1 * step + 0.1)
        np.testing.assert_allclose(episode.arrays["state"][step], kinematics.state(now[:7], now[7] / 0.04), atol=1e-5)
        np.testing.assert_allclose(episode.arrays["action"][step][:9], kinematics.pose(later[:7]), atol=1e-5)
        assert episode.arrays["action"][step][9] == pytest.approx(later[7] / 0.04, abs=1e-5)
        np.testing.assert_array_equal(episode.images["scene"][step], picture_at(0.1 * step, "scene"))


def test_lerobot_reads_what_was_imported(tmp_path: Path) -> None:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    bag, out = write_bag(tmp_path / "one", "mcap"), tmp_path / "data"
    assert main(["bag", "import", str(bag), "--instruction", "把杯子放到托盘上", "--out", str(out)]) == 0
    dataset = LeRobotDataset("x/y", root=out, video_backend="pyav")
    item = dataset[10]
    assert item["task"] == "把杯子放到托盘上" and item["observation.images.scene"].shape == (3, 128, 128)
    assert abs(float(item["observation.images.scene"][0].mean()) * 255 - 100) < 3


def test_commands_are_the_actions_where_the_bag_has_them(tmp_path: Path) -> None:
    episode = read_episode(write_bag(tmp_path / "one", "mcap", told=True), PANDA, "go", 0)
    pose = Kinematics(PANDA).pose(joints_at(0.53)[:7])
    np.testing.assert_allclose(episode.arrays["action"][4][:9], pose, atol=1e-5)


def test_info_proposes_a_mapping(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # In two parts, no message has all joints; the command has.
    bag = write_bag(tmp_path / "one", "mcap", told=True)
    assert {topic.name: topic.size for topic in look(bag).topics}["/scene/image_raw"] == (128, 128)
    assert main(["bag", "info", str(bag)]) == 0
    told = capsys.readouterr().out
    for line in (
        "state:",
        "  topic: /joint_states",
        "  scene: #",
        "    topic: /scene/image_raw",
        "    resize: [128, 128]",
    ):
        assert line in told


def test_bag_that_lacks_something_says_what(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bag = write_bag(tmp_path / "one", "mcap", until={"/wrist/image_raw": -1.0})
    wanted = ["bag", "import", str(bag), "--instruction", "go", "--out", str(tmp_path / "data")]
    assert main(wanted) == 2
    assert "has nothing of panda on /wrist/image_raw" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()
    short = write_bag(tmp_path / "two", "mcap", until={"/wrist/image_raw": 0.1})
    assert main([*wanted[:2], str(short), *wanted[3:]]) == 2
    assert "which is no episode" in capsys.readouterr().err


def test_what_is_no_bag_is_told_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.mcap").write_bytes(b"nothing")
    (tmp_path / "b.bag").write_bytes(b"#ROSBAG V2.0\nxxxx")
    (tmp_path / "c").mkdir()
    for name in ("a.mcap", "b.bag", "c", "d.mcap"):
        assert main(["bag", "info", str(tmp_path / name)]) == 2
        error = capsys.readouterr().err
        assert name in error and error.count("\n") == 1


def test_recording_stands_in_for_its_robot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bag, out = write_bag(tmp_path / "one", "mcap"), tmp_path / "data"
    words = ["--instruction", "tidy the desk", "--out", str(out), "--format", "images"]
    assert main(["bag", "import", str(bag), *words]) == 0
    robot = ReplayRobot(PANDA, out)
    joints = robot.joints()
    assert joints is not None and robot.instruction == "tidy the desk"
    np.testing.assert_allclose(joints.q, joints_at(0.0)[:7], atol=1e-6)
    np.testing.assert_array_equal(robot.pictures()["wrist"].image, picture_at(0.0, "wrist"))
    words = ["deploy", "--robot", "replay", "--data", str(out), "--out", str(tmp_path / "look"), "--device", "cpu"]
    code = main(words)  # the arm of these bags stands where it may; its pictures are plain
    told = capsys.readouterr()
    assert code == 0 and "nothing was moved" in told.out and "first chunk" in told.out, told
    assert main([*words, "--episode", "7"]) == 2
    assert "has no episode 7: it has 1" in capsys.readouterr().err
    assert main(["deploy", "--robot", "replay"]) == 2
    assert "--data DIR" in capsys.readouterr().err
