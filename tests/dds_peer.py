"""Another vendor's DDS as the robot: CycloneDDS plays the Panda's topics without any ROS, and our transport drives it.

    python -m tests.dds_peer OUT.json

It is run by an environment's Python that has rclpy (see ``tests.ros_environment``). The peer tells joints in an
order of its own, and pictures, takes commands, and says at the end what it got.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
Q = [0.1, -0.26, 0.2, -2.43, 0.3, 2.17, 0.785, 0.04]  # the arm's joints, rad, and a finger's, m
SPEED = 0.05  # rad/s, at which every joint is commanded
COMMANDS = 200


def struct(package: str, kind: str, /, **fields: Any) -> Any:
    """A message of ROS 2 as DDS knows it: a final struct, whose name has an underscore."""
    from cyclonedds.idl import make_idl_struct  # type: ignore[import-not-found]
    from cyclonedds.idl.annotations import final  # type: ignore[import-not-found]

    return final(make_idl_struct(f"{kind}_", f"{package}::msg::dds_::{kind}_", fields))


def messages() -> dict[str, Any]:
    """The messages that a robot needs."""
    from cyclonedds.idl.types import float64, int32, sequence, uint8, uint32  # type: ignore[import-not-found]

    numbers, words = sequence[float64], sequence[str]
    stamp = struct("builtin_interfaces", "Time", sec=int32, nanosec=uint32)
    duration = struct("builtin_interfaces", "Duration", sec=int32, nanosec=uint32)
    header = struct("std_msgs", "Header", stamp=stamp, frame_id=str)
    point = struct(
        "trajectory_msgs", "JointTrajectoryPoint", positions=numbers, velocities=numbers, accelerations=numbers,
        effort=numbers, time_from_start=duration,
    )  # fmt: skip
    dimension = struct("std_msgs", "MultiArrayDimension", label=str, size=uint32, stride=uint32)
    layout = struct("std_msgs", "MultiArrayLayout", dim=sequence[dimension], data_offset=uint32)
    made = (
        stamp,
        header,
        struct(
            "sensor_msgs", "JointState", header=header, name=words, position=numbers, velocity=numbers, effort=numbers
        ),
        struct(
            "sensor_msgs", "Image", header=header, height=uint32, width=uint32, encoding=str, is_bigendian=uint8,
            step=uint32, data=sequence[uint8],
        ),
        struct("trajectory_msgs", "JointTrajectory", header=header, joint_names=words, points=sequence[point]),
        struct("std_msgs", "Float64MultiArray", layout=layout, data=numbers),
    )  # fmt: skip
    return {one.__name__.strip("_"): one for one in made}


def play(seconds: float) -> None:
    """Be the robot for so long, or until all commands came."""
    from cyclonedds.core import Policy, Qos  # type: ignore[import-not-found]
    from cyclonedds.domain import DomainParticipant  # type: ignore[import-not-found]
    from cyclonedds.pub import DataWriter  # type: ignore[import-not-found]
    from cyclonedds.sub import DataReader  # type: ignore[import-not-found]
    from cyclonedds.topic import Topic  # type: ignore[import-not-found]

    from vla.robots.config import load
    from vla.robots.messages import COMMAND_KINDS

    config, kinds = load("panda"), messages()
    here = DomainParticipant(int(os.environ.get("ROS_DOMAIN_ID", "0")))
    assert config.gripper is not None
    old = Policy.DataRepresentation(use_cdrv0_representation=True)  # what ROS 2 writes
    sensor = Qos(Policy.Reliability.BestEffort, Policy.History.KeepLast(5), old)
    takes = Qos(Policy.Reliability.Reliable(10**8), Policy.History.KeepLast(10 * COMMANDS), old)
    topic = lambda name, kind, qos: Topic(here, f"rt{name}", kinds[kind], qos)
    joints = DataWriter(here, topic(config.state.topic, "JointState", sensor), sensor)
    cameras = [DataWriter(here, topic(one.topic, "Image", sensor), sensor) for one in config.cameras.values()]
    readers = {
        name: DataReader(here, topic(name, COMMAND_KINDS[adapter], takes), takes)
        for name, adapter in config.command_topics.items()
    }
    names = [*config.joints, config.gripper.joint]
    order = np.random.default_rng(3).permutation(len(names))
    picture = list(range(256)) * (128 * 128 * 3 // 256)
    size = {"height": 128, "width": 128, "encoding": "rgb8", "is_bigendian": 0, "step": 384}
    got: dict[str, list[Any]] = {name: [] for name in readers}
    end = time.monotonic() + seconds
    while time.monotonic() < end and len(got[config.command.topic]) < COMMANDS:
        now = time.time()
        header = kinds["Header"](stamp=kinds["Time"](sec=int(now), nanosec=int(now % 1 * 1e9)), frame_id="")
        told = {"name": [names[i] for i in order], "position": [Q[i] for i in order]}
        joints.write(kinds["JointState"](header=header, velocity=[0.0] * len(names), effort=[], **told))
        for camera in cameras:
            camera.write(kinds["Image"](header=header, data=picture, **size))
        for name, reader in readers.items():
            got[name] += [one for one in reader.take(100) if hasattr(one, "points") or hasattr(one, "data")]
        time.sleep(0.01)
    report: dict[str, Any] = {name: len(found) for name, found in got.items()}
    if found := got[config.command.topic]:
        report["joints"] = list(found[-1].joint_names)
        report["points"] = [[list(point.positions), list(point.velocities)] for point in found[-1].points]
    if found := got[config.gripper.topic]:
        report["gripper"] = list(found[-1].data)
    print(json.dumps(report), flush=True)


def drive(out: Path) -> None:
    """Drive the peer with our transport, and write down what either says."""
    from vla.robots.config import load
    from vla.robots.io import Command
    from vla.robots.ros2 import Ros2Robot

    peer = subprocess.Popen([sys.executable, "-m", "tests.dds_peer"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    robot = Ros2Robot(load("panda"), sends=True)
    try:
        end = time.monotonic() + 20.0
        while robot.joints() is None or len(robot.pictures()) < 2 or robot.problem():
            assert time.monotonic() < end, (robot.missing(), list(robot.pictures()), robot.problem())
            time.sleep(0.01)
        joints, pictures = robot.joints(), robot.pictures()
        assert joints is not None
        q = np.array(Q[:7])
        # Some more than it waits for: what is sent before the two have met is lost, as ROS 2 has it.
        for number in range(2 * COMMANDS):
            if peer.poll() is not None:
                break
            robot.send(Command(q + 1e-4 * number, np.full(7, SPEED), 0.5))
            time.sleep(0.005)
        told, _ = peer.communicate(timeout=30)
    finally:
        robot.close()
        peer.kill()
    seen = {name: [list(one.image.shape), int(one.image.sum())] for name, one in pictures.items()}
    report = {"q": joints.q.tolist(), "gripper": joints.gripper, "pictures": seen, "peer": json.loads(told)}
    out.write_text(json.dumps(report))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        drive(Path(sys.argv[1]))
    else:
        play(30.0)
