"""Bags of ROS 2 (MCAP, SQLite) and ROS 1: what is in one, and a LeRobot dataset made of several.

A bag is read as it comes: its own message definitions where it has them, Jazzy's or Noetic's where not.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from vla.contracts import EnvSpec, VlaError
from vla.contracts.spec import language_of
from vla.data.recording.assemble import assemble
from vla.data.recording.features import frames_per_second
from vla.data.recording.shards import Episode, Shard, write_shard
from vla.host.provenance import commit, versions
from vla.robots import config as robots
from vla.robots.config import RobotConfig
from vla.robots.pictures import fit, from_compressed, from_message
from vla.robots.recorder import COMMAND, import_rosbags
from vla.robots.state import Kinematics

_JOINTS = "sensor_msgs/msg/JointState"
_IMAGES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
_GAP_S = 1.0  # a longer silence is not bridged


@dataclass
class Topic:
    """One topic of a bag: its type, how many messages, how often, and what the first one holds."""

    name: str
    kind: str
    count: int
    hz: float
    names: tuple[str, ...] = ()
    size: tuple[int, int] = (0, 0)


@dataclass
class Bag:
    """What is in a bag.

    Attributes:
        path: where it is.
        seconds: how long it is.
        topics: by name.
        robots: shipped robots whose joints are all there, by name, with the topic.
    """

    path: Path
    seconds: float
    topics: list[Topic]
    robots: dict[str, str] = field(default_factory=dict)

    def proposal(self) -> str:
        """The part of a robot's file that this bag asks for: state, cameras; what can't be known is marked."""
        lines = []
        joints = [topic for topic in self.topics if topic.kind == _JOINTS and topic.name != COMMAND]
        if joints:
            lines += ["joints: [" + ", ".join(joints[0].names) + "] # the arm's, in order, without the gripper's"]
            lines += ["state:", f"  topic: {joints[0].name}", f"  rate_hz: {joints[0].hz:.0f}"]
        pictures = [topic for topic in self.topics if topic.kind in _IMAGES]
        if pictures:
            lines += ["cameras:"]
        for number, topic in enumerate(pictures):
            words = [word for word in topic.name.split("/") if word]
            side = min(topic.size)
            lines += [
                f"  {words[0] if words else f'camera{number}'}: # the agent's name for it",
                f"    topic: {topic.name}", f"    height: {topic.size[0]}", f"    width: {topic.size[1]}",
                f"    resize: [{min(128, side)}, {min(128, side)}]", f"    rate_hz: {topic.hz:.0f}",
            ]  # fmt: skip
        return "\n".join(lines)


def _reader(path: Path) -> Any:
    rosbags = import_rosbags()
    if not path.exists():
        raise VlaError(f"there is no bag at {path}")
    stores = rosbags.typesys.Stores
    store = stores.ROS1_NOETIC if path.suffix == ".bag" else stores.ROS2_JAZZY
    if path.suffix == ".mcap" and path.with_name("metadata.yaml").is_file():
        path = path.parent
    try:
        return rosbags.highlevel.AnyReader([path], default_typestore=rosbags.typesys.get_typestore(store))
    except Exception as error:  # what its readers raise is of many kinds
        raise VlaError(f"{path} is no bag that can be read: {_line(error)}") from error


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or repr(error)


def look(path: Path) -> Bag:
    """What is in a bag. Raises VlaError where it is none, or is damaged."""
    reader = _reader(path)
    try:
        with reader:
            seconds = max(1e-9, 1e-9 * reader.duration)
            topics = []
            for name, info in sorted(reader.topics.items()):
                one = Topic(name, info.msgtype or "", info.msgcount, info.msgcount / seconds)
                wanted = [c for c in reader.connections if c.topic == name]
                if one.kind in (_JOINTS, *_IMAGES) and info.msgcount:
                    _, _, raw = next(reader.messages(wanted))
                    message = reader.deserialize(raw, one.kind)
                    if one.kind == _JOINTS:
                        one.names = tuple(message.name)
                    else:
                        one.size = _image(message, one.kind).shape[:2]
                topics.append(one)
    except VlaError:
        raise
    except Exception as error:
        raise VlaError(f"{path} cannot be read: {_line(error)}") from error
    bag = Bag(path, seconds, topics)
    for name in robots.shipped():
        joints = set(robots.load(name).joints)
        for topic in topics:
            if topic.kind == _JOINTS and joints <= set(topic.names) and topic.name != COMMAND:
                bag.robots.setdefault(name, topic.name)
    return bag


def _image(message: Any, kind: str) -> np.ndarray:
    if kind == _IMAGES[1]:
        return from_compressed(message.data)
    return from_message(message.data, message.encoding, message.height, message.width, message.step)


@dataclass
class _Track:
    """A series in time: seconds, and what was there."""

    what: str
    times: list[float] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)

    def at(self, t: float) -> Any:
        """What was newest at ``t``. Raises VlaError where that is too old."""
        place = int(np.searchsorted(self.times, t + 1e-6)) - 1
        if place < 0 or t - self.times[place] > _GAP_S:
            raise VlaError(f"{self.what} is silent for more than {_GAP_S:.0f} s around {t:.1f} s")
        return self.values[place]


def _tracks(path: Path, config: RobotConfig) -> dict[str, _Track]:
    """Joints (with the gripper), commands where there are any, and cameras by name."""
    gripper = config.gripper
    wanted = [*config.joints, *([gripper.joint] if gripper else [])]
    cameras = {}
    for name, camera in config.cameras.items():
        plain = camera.topic.removesuffix("/compressed")
        cameras[plain] = cameras[f"{plain}/compressed"] = name
    tracks = {"joints": _Track(config.state.topic), **{n: _Track(c.topic) for n, c in config.cameras.items()}}
    tracks["command"] = _Track(COMMAND)
    parts: dict[str, dict[str, float]] = {config.state.topic: {}, COMMAND: {}}
    reader = _reader(path)
    try:
        with reader:
            for connection, nanoseconds, raw in reader.messages():
                topic, t = connection.topic, 1e-9 * (nanoseconds - reader.start_time)
                if topic in parts and connection.msgtype == _JOINTS:
                    message = reader.deserialize(raw, connection.msgtype)
                    merged = parts[topic]
                    merged.update(zip(message.name, map(float, message.position), strict=True))
                    if all(math.isfinite(merged.get(name, math.nan)) for name in wanted):
                        track = tracks["joints" if topic == config.state.topic else "command"]
                        track.times.append(t)
                        track.values.append(np.array([merged[name] for name in wanted]))
                elif topic in cameras and connection.msgtype in _IMAGES:
                    image = _image(reader.deserialize(raw, connection.msgtype), connection.msgtype)
                    track = tracks[cameras[topic]]
                    track.times.append(t)
                    track.values.append(fit(image, config.cameras[cameras[topic]].resize))
    except VlaError:
        raise
    except Exception as error:
        raise VlaError(f"{path} cannot be read: {_line(error)}") from error
    return tracks


def read_episode(path: Path, config: RobotConfig, instruction: str, number: int) -> Episode:
    """One bag as one episode: a step every ``dt`` from where everything has spoken to where something falls silent.

    The action is where the arm was told to be one step later, if the bag says so (``/vla/command``), else where it was.

    Raises VlaError for a bag without the robot's joints or a camera, or with a gap in one of them.
    """
    tracks = _tracks(path, config)
    silent = [track.what for name, track in tracks.items() if not track.times and name != "command"]
    if silent:
        raise VlaError(
            f"{path} has nothing of {config.name} on {', '.join(silent)}; `vla bag info {path}` says what it has"
        )
    told = tracks["command"] if tracks["command"].times else tracks["joints"]
    begin = max(track.times[0] for name, track in tracks.items() if track.times)
    end = min(track.times[-1] for track in tracks.values() if track.times)
    steps = int((end - begin) / config.dt)
    if steps < 2:
        raise VlaError(f"{path} holds {max(0.0, end - begin):.2f} s in which everything speaks, which is no episode")
    kinematics, gripper = Kinematics(config), config.gripper

    def opening(values: np.ndarray) -> float:
        share = (values[-1] - gripper.closed) / (gripper.open - gripper.closed) if gripper else 1.0
        return float(np.clip(share, 0.0, 1.0))

    joints = len(config.joints)
    state, action, images = [], [], {name: list[np.ndarray]() for name in config.cameras}
    for step in range(steps):
        t = begin + step * config.dt
        now, later = tracks["joints"].at(t), told.at(t + config.dt)
        state.append(kinematics.state(now[:joints], opening(now)))
        action.append(np.concatenate((kinematics.pose(later[:joints]), [opening(later)])))
        for name, frames in images.items():
            frames.append(tracks[name].at(t))
    actions = np.array(action, np.float32)
    arrays = {"state": np.array(state), "action": actions, "executed": actions}
    arrays |= {"progress": np.linspace(0, 1, steps, dtype=np.float32), "by_expert": np.ones(steps, np.float32)}
    arrays |= {f"points.{name}": np.zeros((steps, 6), np.float32) for name in config.cameras}
    facts = {
        "seed": number, "options": {}, "instruction": instruction, "language": language_of(instruction),
        "kind": "", "category": "", "items": [], "success": True, "progress": 1.0, "steps": steps, "noise": 0.0,
        "final_state": state[-1].tolist(), "bag": str(path),
    }  # fmt: skip
    return Episode(facts, arrays, [instruction] * steps, {name: np.stack(frames) for name, frames in images.items()})


def import_bags(
    bags: list[Path], config: RobotConfig, instruction: str, out: Path, video_format: str = "h264"
) -> Iterator[tuple[Path, int]]:
    """Make a LeRobot dataset of bags, one episode each; yields each bag with its number of steps.

    Raises VlaError where ``out`` holds something, or a bag can't be read; nothing is then left of ``out``.
    """
    if out.exists() and any(out.iterdir()):
        raise VlaError(f"--out {out} holds something already; name an empty folder")
    spec: EnvSpec = replace(config.spec, episode_steps=1_000_000)
    fps, shards = frames_per_second(spec), []
    folder = out / "shards"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        for number, bag in enumerate(bags):
            episode = read_episode(bag, config, instruction, number)
            file = folder / f"episode_{number:06d}.npz"
            write_shard(file, episode, video_format, fps)
            shards.append(Shard(file))
            yield bag, episode.facts["steps"]
    except BaseException:
        shutil.rmtree(out)
        raise
    facts = {
        "env": "", "recording": {"bags": [str(bag) for bag in bags], "robot": config.name},
        "command": "vla bag import", "versions": versions(), "commit": commit(),
    }  # fmt: skip
    assemble(out, shards, spec, video_format, facts)
    shutil.rmtree(folder)
