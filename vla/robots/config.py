"""What one robot is: ``configs/robots/NAME.yaml`` as a dataclass, so checked that what gets through can be driven."""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlparse

from vla import paths
from vla.contracts import CameraSpec, EnvSpec, Group, VlaError
from vla.control.arm import PANDA, ArmSpec
from vla.control.limits import Limits
from vla.robots.dh import mjcf_from_dh
from vla.robots.yaml_file import Lines, read_yaml

ARMS = {PANDA.name: PANDA}
Adapter = Literal["joint_trajectory", "forward_position", "forward_velocity"]
_TOPIC = re.compile(r"~?/?[A-Za-z_]\w*(/[A-Za-z_]\w*)*", re.ASCII)
_ROTATION = ("rot_xx", "rot_yx", "rot_zx", "rot_xy", "rot_yy", "rot_zy")


@dataclass(frozen=True)
class KinematicsConfig:
    """Where the arm's geometry comes from: exactly one of ``arm``, ``mjcf`` and ``dh``.

    Attributes:
        arm: an arm that the project knows: ``panda``.
        mjcf: a MuJoCo file, absolute or beside the YAML file; needs ``joints`` and ``tool_site``, and the keyframe
            ``home`` in the file.
        joints: the joints' names in the MuJoCo file, from the base to the tool.
        tool_site: the site at the tool centre point.
        dh: one row a joint, (a, d, alpha, theta offset) in m and rad; see ``convention``.
        convention: of ``dh``: ``standard`` (Denavit and Hartenberg's) or ``modified`` (Craig's).
        tool: from the last frame to the tool centre point, x y z in m.
        tool_rpy: and its turn about fixed x, y, z, rad.
        home: the posture that spare joints are drawn to, rad; needed with ``dh``.
    """

    arm: str = ""
    mjcf: str = ""
    joints: tuple[str, ...] = ()
    tool_site: str = ""
    dh: tuple[tuple[float, float, float, float], ...] = ()
    convention: Literal["standard", "modified"] = "standard"
    tool: tuple[float, float, float] = (0.0, 0.0, 0.0)
    tool_rpy: tuple[float, float, float] = (0.0, 0.0, 0.0)
    home: tuple[float, ...] = ()


@dataclass(frozen=True)
class LimitsConfig:
    """What the robot may do, at most; see ``vla.control.limits.Limits``. Lists have one number a joint.

    Attributes:
        position_low, position_high: joint range, rad.
        velocity: rad/s.
        acceleration: rad/s^2.
        workspace_low, workspace_high: the box for the tool centre point, m, base frame.
        gripper_speed: openings (0 to 1) a second.
        jerk: rad/s^3; where it is left out, acceleration alone bounds the motion.
        gripper_force: N; a gripper that measures more opens a little.
        table: the height above which the links stay, m; null where there is nothing below the arm.
    """

    position_low: tuple[float, ...]
    position_high: tuple[float, ...]
    velocity: tuple[float, ...]
    acceleration: tuple[float, ...]
    workspace_low: tuple[float, float, float]
    workspace_high: tuple[float, float, float]
    gripper_speed: float = 4.0
    jerk: tuple[float, ...] = ()
    gripper_force: float | None = None
    table: float | None = 0.0


@dataclass(frozen=True)
class StateConfig:
    """How the joints are reported.

    Attributes:
        topic: of sensor_msgs/JointState; may hold other joints too, in any order, and may come in parts.
        rate_hz: how often it should come; pre-flight asks for half of it at least.
        max_age_s: the arm stops when a joint has not been heard of for so long.
    """

    topic: str = "/joint_states"
    rate_hz: float = 200.0
    max_age_s: float = 0.1


@dataclass(frozen=True)
class CommandConfig:
    """How the arm is told where to go.

    Attributes:
        adapter: what listens: ``joint_trajectory`` (joint_trajectory_controller), ``forward_position`` or
            ``forward_velocity`` (forward_command_controller).
        topic: where.
        rate_hz: commands a second; at most 200.
        gain: of ``forward_velocity``: how fast a joint makes up for what it is behind, 1/s.
    """

    adapter: Adapter
    topic: str
    rate_hz: float = 200.0
    gain: float = 10.0


@dataclass(frozen=True)
class GripperConfig:
    """A gripper of one degree of freedom.

    Attributes:
        joint: its joint in the state topic.
        closed, open: that joint's position when it is closed and open, m or rad.
        adapter: ``joint_trajectory`` or ``forward_position``.
        topic: where its commands go.
        command_joint: the name in a trajectory, where it is another than ``joint``.
    """

    joint: str
    closed: float
    open: float
    adapter: Literal["joint_trajectory", "forward_position"]
    topic: str
    command_joint: str = ""


@dataclass(frozen=True)
class CameraConfig:
    """One camera.

    Attributes:
        topic: of sensor_msgs/Image (``rgb8`` or ``bgr8``), or of CompressedImage where it ends in ``/compressed``.
        height, width: as it is published, pixels.
        resize: height and width as the agent gets it: cut to that shape about the middle, then made smaller.
        rate_hz: how often it should come.
        max_age_s: the arm stops when there was no picture for so long.
        intrinsics: fx, fy, cx, cy in pixels of the published picture.
        mount: the frame that the camera is fixed to: ``base`` or the name of a link.
        position: of the optical centre in that frame, m.
        quaternion: of the optical frame (x right, y down, z ahead) in that frame, w x y z.
    """

    topic: str
    height: int
    width: int
    resize: tuple[int, int]
    rate_hz: float = 15.0
    max_age_s: float = 0.5
    intrinsics: tuple[float, float, float, float] | None = None
    mount: str = "base"
    position: tuple[float, float, float] | None = None
    quaternion: tuple[float, float, float, float] | None = None


@dataclass(frozen=True)
class EstopConfig:
    """An emergency stop that is told on a topic. It does not replace the one in hardware.

    Attributes:
        topic: of std_msgs/Bool: true means stop.
        max_age_s: a message must come so often; silence counts as pressed.
    """

    topic: str
    max_age_s: float = 0.5


@dataclass(frozen=True)
class RosbridgeConfig:
    """Where ``--robot rosbridge`` finds the robot.

    Attributes:
        url: of its rosbridge_server, ``ws://`` or ``wss://``.
    """

    url: str = "ws://127.0.0.1:9090"


@dataclass(frozen=True)
class RobotConfig:
    """One robot.

    Attributes:
        name: for messages.
        kinematics: its geometry.
        joints: as the state topic names them, from the base to the tool.
        limits: what it may do at most.
        command: how it is told where to go.
        cameras: by the names that the agent knows.
        state: how its joints are reported.
        gripper: None where there is none.
        estop: None where none is told on a topic.
        rosbridge: where it is found without ROS on this machine.
        dt: seconds between two actions of the agent.
        path: the file it was read from.
    """

    name: str
    kinematics: KinematicsConfig
    joints: tuple[str, ...]
    limits: LimitsConfig
    command: CommandConfig
    cameras: dict[str, CameraConfig]
    state: StateConfig = field(default_factory=StateConfig)
    gripper: GripperConfig | None = None
    estop: EstopConfig | None = None
    rosbridge: RosbridgeConfig = field(default_factory=RosbridgeConfig)
    dt: float = 0.1
    path: Path = Path()

    @property
    def command_topics(self) -> dict[str, str]:
        """The topics of the arm's and the gripper's commands, and what listens there."""
        gripper = {self.gripper.topic: self.gripper.adapter} if self.gripper else {}
        return {self.command.topic: self.command.adapter, **gripper}

    @property
    def arm(self) -> ArmSpec:
        """What the controller needs of it."""
        k, mine = self.kinematics, self.limits
        limits = Limits(
            velocity=mine.velocity,
            acceleration=mine.acceleration,
            workspace_low=mine.workspace_low,
            workspace_high=mine.workspace_high,
            gripper_speed=mine.gripper_speed,
            position_low=mine.position_low,
            position_high=mine.position_high,
            jerk=mine.jerk,
            gripper_force=math.inf if mine.gripper_force is None else mine.gripper_force,
            table=mine.table,
        )
        if k.arm:
            return dataclasses.replace(ARMS[k.arm], name=self.name, limits=limits)
        if k.mjcf:
            return ArmSpec(self.name, (self.path.parent / k.mjcf).resolve(), k.joints, k.tool_site, limits)
        return ArmSpec(self.name, mjcf_from_dh(self.joints, k, mine), self.joints, "tool", limits)

    @property
    def spec(self) -> EnvSpec:
        """What an agent must have been trained for."""
        action = (*(f"ee_{axis} [m]" for axis in "xyz"), *(f"ee_{name} [1]" for name in _ROTATION), "gripper [0..1]")
        groups = (
            Group("ee_position", 0, 3, "position", "m", "base"),
            Group("ee_rotation", 3, 9, "rotation", "1", "base"),
            Group("gripper", 9, 10, "gripper", "1"),
        )
        count = len(self.joints)
        return EnvSpec(
            name=self.name,
            cameras=tuple(CameraSpec(name, *camera.resize) for name, camera in self.cameras.items()),
            state=(*action, *(f"q{i + 1} [rad]" for i in range(count))),
            action=action,
            dt=self.dt,
            episode_steps=100_000,
            relative=((0, 0), (1, 1), (2, 2)),
            state_groups=(*groups, Group("joints", 10, 10 + count, "joint", "rad")),
            action_groups=groups,
        )


def load(where: str | Path) -> RobotConfig:
    """Read a robot's YAML file: a path, or the name of one that ships.

    Raises VlaError with file, line, what is wrong and what would be right.
    """
    file = find(where)
    config, lines = read_yaml(file, RobotConfig)
    config = dataclasses.replace(config, path=file)
    _check_joints(config, lines)
    _check_limits(config, lines)
    _check_parts(config, lines)
    return config


def shipped() -> list[str]:
    """The names of the robots that ship."""
    folder = paths.configs_dir() / "robots"
    return sorted(file.stem for file in folder.glob("*.yaml"))


def find(where: str | Path) -> Path:
    """The file that ``--config`` means: as it is, or below the project's folder, or a name that ships."""
    given, folder = Path(where), paths.configs_dir() / "robots"
    for file in (given, folder / f"{where}.yaml"):
        if file.is_file():
            return file.resolve()
    if given.parts[:2] == ("configs", "robots") and (folder / given.name).is_file():  # as it is in a checkout
        return folder / given.name
    near = difflib.get_close_matches(given.stem, shipped(), 1)
    guess = f"; did you mean {near[0]}?" if near else ""
    raise VlaError(f"no robot at '{where}': no such file, and those that ship are {', '.join(shipped())}{guess}")


def _check_joints(config: RobotConfig, lines: Lines) -> None:
    """Raise VlaError unless joints and kinematics fit."""
    joints, k = config.joints, config.kinematics
    twice = [name for name in joints if joints.count(name) > 1]
    if twice:
        raise lines.error("joints", f"joint '{twice[0]}' is there twice")
    if sum(map(bool, (k.arm, k.mjcf, k.dh))) != 1:
        raise lines.error("kinematics", "name exactly one of 'arm', 'mjcf' and 'dh'")
    if k.arm and k.arm not in ARMS:
        raise lines.error("kinematics.arm", f"there is no arm '{k.arm}'; known: {', '.join(ARMS)}")
    if k.mjcf and not (k.joints and k.tool_site):
        raise lines.error("kinematics", "'mjcf' needs 'joints' and 'tool_site', by their names in that file")
    if k.mjcf and not (config.path.parent / k.mjcf).is_file():
        raise lines.error("kinematics.mjcf", f"there is no file {config.path.parent / k.mjcf}")
    wanted = len(ARMS[k.arm].joints) if k.arm else len(k.joints or k.dh)
    what = f"the arm '{k.arm}'" if k.arm else "its kinematics"
    if len(joints) > wanted:
        over = ", ".join(f"'{name}'" for name in joints[wanted:])
        many = f"joint {over} is one too many" if len(joints) == wanted + 1 else f"joints {over} are too many"
        raise lines.error("joints", f"{many}: {what} has {wanted} joints")
    if len(joints) < wanted:
        last = f"; the last named is '{joints[-1]}'" if joints else ""
        raise lines.error("joints", f"{len(joints)} joints are named, and {what} has {wanted}{last}")
    if k.dh and len(k.home) != wanted:
        raise lines.error("kinematics", f"'home' must have {wanted} numbers, and has {len(k.home)}")


def _check_limits(config: RobotConfig, lines: Lines) -> None:
    """Raise VlaError unless each joint has its limits, and they leave room to move."""
    joints, limits = config.joints, config.limits
    for name in ("position_low", "position_high", "velocity", "acceleration", *(["jerk"] if limits.jerk else [])):
        values, count = getattr(limits, name), len(joints)
        how_many = f"{len(values)} numbers for {count} joints"
        if len(values) < count:
            lacking = ", ".join(f"'{joint}'" for joint in joints[len(values) :])
            raise lines.error(f"limits.{name}", f"{how_many}: none for {lacking}")
        if len(values) > count:
            raise lines.error(f"limits.{name}", f"{how_many}: {values[count]} is one too many")
    for name in ("velocity", "acceleration", *(["jerk"] if limits.jerk else [])):
        for joint, value in zip(joints, getattr(limits, name), strict=True):
            if value <= 0:
                raise lines.error(f"limits.{name}", f"that of '{joint}' is {value}, and must be more than 0")
    for joint, low, high in zip(joints, limits.position_low, limits.position_high, strict=True):
        if low >= high:
            raise lines.error("limits.position_low", f"'{joint}' ranges from {low} to {high}")
    for axis, low, high in zip("xyz", limits.workspace_low, limits.workspace_high, strict=True):
        if low >= high:
            raise lines.error("limits.workspace_low", f"the workspace's {axis} ranges from {low} to {high}")


def _check_parts(config: RobotConfig, lines: Lines) -> None:
    """Raise VlaError for a rate, a camera or a gripper that can't be."""
    if not 0 < config.dt <= 1:
        raise lines.error("dt", f"must be over 0 and at most 1 s, and is {config.dt}")
    if not 10 <= config.command.rate_hz <= 200:
        raise lines.error("command.rate_hz", f"must be from 10 to 200, and is {config.command.rate_hz}")
    _check_topics(config, lines)
    if not config.cameras:
        raise lines.error("cameras", "there must be one at least")
    for name, camera in config.cameras.items():
        if not (1 <= camera.resize[0] <= camera.height and 1 <= camera.resize[1] <= camera.width):
            size, wanted = f"{camera.height} x {camera.width}", f"{camera.resize[0]} x {camera.resize[1]}"
            text = f"must be from 1 x 1 to the picture's {size}, and is {wanted}"
            raise lines.error(f"cameras.{name}.resize", text)
        if camera.quaternion and abs(math.hypot(*camera.quaternion) - 1) > 1e-3:
            raise lines.error(f"cameras.{name}.quaternion", "must have length 1 (w x y z)")
        if camera.rate_hz <= 0:
            raise lines.error(f"cameras.{name}.rate_hz", f"must be more than 0, and is {camera.rate_hz}")
        if camera.max_age_s * camera.rate_hz < 1.5:
            told = f"pictures come {1 / camera.rate_hz:.2f} s apart, and 'max_age_s' is {camera.max_age_s}: too little"
            raise lines.error(f"cameras.{name}", told)
    gripper = config.gripper
    if gripper and gripper.closed == gripper.open:
        raise lines.error("gripper", f"'closed' and 'open' are both {gripper.open}")
    if gripper and gripper.joint in config.joints:
        raise lines.error("gripper.joint", f"'{gripper.joint}' is a joint of the arm")


def _check_topics(config: RobotConfig, lines: Lines) -> None:
    """Raise VlaError for a topic that no ROS takes, one that has two meanings, or an address that is none."""
    command, gripper = config.command, config.gripper
    topics = {"state.topic": config.state.topic, "command.topic": command.topic}
    topics |= {f"cameras.{name}.topic": camera.topic for name, camera in config.cameras.items()}
    topics |= {"gripper.topic": gripper.topic} if gripper else {}
    topics |= {"estop.topic": config.estop.topic} if config.estop else {}
    first: dict[str, str] = {}
    for where, topic in topics.items():
        if not _TOPIC.fullmatch(topic):
            raise lines.error(where, f"'{topic}' is no name of a topic; one is /panda/joint_states")
        if topic in first:
            raise lines.error(where, f"'{topic}' is {first[topic]} already")
        first[topic] = where
    url = urlparse(config.rosbridge.url)
    if url.scheme not in ("ws", "wss") or not url.hostname:
        raise lines.error("rosbridge.url", f"should be like ws://robot:9090, and is '{config.rosbridge.url}'")
