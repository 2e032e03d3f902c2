"""A robot's YAML file: what ships is sound, and every mistake is told with its line."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import mujoco
import numpy as np
import pytest

from vla.agent import load as load_agent
from vla.contracts import SpecMismatchError, VlaError
from vla.control.arm import PANDA
from vla.control.controller import Controller
from vla.paths import configs_dir
from vla.robots import config as robots
from vla.robots.config import KinematicsConfig
from vla.robots.dh import mjcf_from_dh

PANDA_YAML = (configs_dir() / "robots" / "panda.yaml").read_text()


@pytest.mark.parametrize("name", robots.shipped())
def test_shipped_robot_can_be_driven(name: str) -> None:
    config = robots.load(name)
    controller = Controller(config.arm)
    low, high = np.array(config.limits.workspace_low), np.array(config.limits.workspace_high)
    assert (low < controller.position).all() and (controller.position < high).all()
    # At home the tool points down, its x ahead: the desk's convention.
    assert controller.rotation[2, 2] < -0.99 and controller.rotation[0, 0] > 0.99
    target = np.concatenate((controller.position + (0.0, 0.05, -0.05), controller.rotation.T[:2].ravel(), [0.5]))
    controller.set_target(target, 0.5)
    for _ in range(200):
        controller.tick()
    np.testing.assert_allclose(controller.position, target[:3], atol=2e-3)


def test_shipped_agent_fits_the_panda_and_no_other_arm() -> None:
    agent = load_agent("tidy_desk", "cpu")
    agent.spec.require(robots.load("panda").spec, "agent", "robot")
    agent.spec.require(robots.load("fr3").spec, "agent", "robot")
    with pytest.raises(SpecMismatchError) as raised:
        agent.spec.require(robots.load("ur5e").spec, "agent tidy_desk", "robot ur5e")
    assert "agent tidy_desk: ee_x [m]" in str(raised.value) and "q6 [rad]\n" in str(raised.value) + "\n"


def test_table_of_denavit_and_hartenberg_gives_the_panda() -> None:
    half = np.pi / 2
    rows = (
        (0.0, 0.333, 0.0, 0.0), (0.0, 0.0, -half, 0.0), (0.0, 0.316, half, 0.0), (0.0825, 0.0, half, 0.0),
        (-0.0825, 0.384, -half, 0.0), (0.0, 0.0, half, 0.0), (0.088, 0.0, half, 0.0),
    )  # fmt: skip
    kinematics = KinematicsConfig(
        dh=rows,
        convention="modified",
        tool=(0.0, 0.0, 0.107 + 0.1034),
        tool_rpy=(0.0, 0.0, -np.pi / 4),
        home=(0.0,) * 7,
    )
    limits = robots.load("panda").limits
    ours = mujoco.MjModel.from_xml_string(mjcf_from_dh(PANDA.joints, kinematics, limits))
    known = mujoco.MjModel.from_xml_path(str(PANDA.file))
    rng = np.random.default_rng(0)
    for _ in range(5):
        q = rng.uniform(limits.position_low, limits.position_high)
        poses = []
        for model, site in ((ours, "tool"), (known, "grip")):
            data = mujoco.MjData(model)
            data.qpos[:7] = q
            mujoco.mj_kinematics(model, data)
            poses.append((data.site(site).xpos.copy(), data.site(site).xmat.copy()))
        np.testing.assert_allclose(poses[0][0], poses[1][0], atol=1e-6)
        np.testing.assert_allclose(poses[0][1], poses[1][1], atol=1e-6)


def test_standard_table_is_the_product_of_its_matrices() -> None:
    config = robots.load("ur5e")
    controller = Controller(config.arm)
    q = np.array([0.3, -1.2, 1.4, -1.0, -1.3, 0.4])
    controller.reset(q, 1.0)
    pose = np.eye(4)
    for (a, d, alpha, offset), angle in zip(config.kinematics.dh, q, strict=True):
        c, s, ca, sa = np.cos(angle + offset), np.sin(angle + offset), np.cos(alpha), np.sin(alpha)
        pose @= np.array([[c, -s * ca, s * sa, a * c], [s, c * ca, -c * sa, a * s], [0, sa, ca, d], [0, 0, 0, 1]])
    np.testing.assert_allclose(controller.position, (pose @ (*config.kinematics.tool, 1.0))[:3], atol=1e-6)


MISTAKES = {
    "a joint too many": (
        "  - panda_joint7\n",
        "  - panda_joint7\n  - panda_joint8\n",
        ":6: joints: joint 'panda_joint8' is one too many: the arm 'panda' has 7 joints",
    ),
    "a joint too few": (
        "  - panda_joint7\n",
        "",
        ":6: joints: 6 joints are named, and the arm 'panda' has 7",
    ),
    "a joint twice": (
        "panda_joint7",
        "panda_joint6",
        ":6: joints: joint 'panda_joint6' is there twice",
    ),
    "a key misspelt": (
        "  velocity:",
        "  velocitty:",
        ":17: limits.velocitty: there is no such setting; did you mean 'velocity'?",
    ),
    "no such arm": (
        "  arm: panda #",
        "  arm: pandda #",
        ":5: kinematics.arm: there is no arm 'pandda'",
    ),
    "a limit too few": (
        "20.0, 20.0]",
        "20.0]",
        ":18: limits.acceleration: 6 numbers for 7 joints: none for 'panda_joint7'",
    ),
    "a limit too many": (
        "20.0, 20.0]",
        "20.0, 20.0, 1.5]",
        ": 8 numbers for 7 joints: 1.5 is one too many",
    ),
    "a limit of zero": (
        "[2.1, 2.1",
        "[0.0, 2.1",
        ":17: limits.velocity: that of 'panda_joint1' is 0.0, and must be more than 0",
    ),
    "no number": (
        "rate_hz: 30",
        "rate_hz: fast",
        ".rate_hz: should be a finite number, and is 'fast'",
    ),
    "not a number": (
        "rate_hz: 30",
        "rate_hz: .nan",
        ".rate_hz: should be a finite number",
    ),
    "an unknown adapter": (
        "adapter: joint_trajectory",
        "adapter: joint_trajektory",
        "command.adapter: must be one of joint_trajectory, forward_position, forward_velocity, and "
        "is 'joint_trajektory'; did you mean joint_trajectory?",
    ),
    "a missing part": (
        "  topic: /panda_arm_controller/joint_trajectory\n",
        "",
        "command: 'topic' is missing",
    ),
    "a key twice": (
        "name: panda\n",
        "name: panda\nname: panda\n",
        ":4: name: is there twice",
    ),
    "no YAML": (
        "name: panda\n",
        "name: [panda\n",
        "this is no YAML",
    ),
    "too large a picture": (
        "resize: [128, 128]",
        "resize: [256, 256]",
        "cameras.scene.resize: must be from 1 x 1 to the picture's 128 x 128",
    ),
    "too little patience": (
        "    max_age_s: 0.1",
        "    max_age_s: 0.04",
        "cameras.scene: pictures come 0.03 s apart, and 'max_age_s' is 0.04: too little",
    ),
    "a range upside down": (
        "position_low: [-2.8973",
        "position_low: [2.9",
        "'panda_joint1' ranges from 2.9 to 2.8973",
    ),
    "a bad quaternion": (
        "quaternion: [-0.116102",
        "quaternion: [-0.5",
        "must have length 1",
    ),
    "the gripper's joint": (
        "joint: panda_finger_joint1",
        "joint: panda_joint1",
        "gripper.joint: 'panda_joint1' is a joint of the arm",
    ),
    "a tag": (
        "name: panda\n",
        "name: !!python/name:os.system panda\n",
        "should be a text",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_told_with_its_line(mistake: str, tmp_path: Path) -> None:
    before, after, wanted = MISTAKES[mistake]
    assert before in PANDA_YAML
    file = tmp_path / "mine.yaml"
    file.write_text(PANDA_YAML.replace(before, after, 1))
    with pytest.raises(VlaError) as raised:
        robots.load(file)
    assert wanted in str(raised.value) and str(raised.value).startswith(f"{file}:")
    assert "\n" not in str(raised.value)


def test_hostile_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    for text in ("", "a", "[1, 2]", "x: &a [*a]", "[" * 5000, "? [a]\n: b", "name: \x00", "a: " + "b" * 300_000):
        file.write_text(text)
        with pytest.raises(VlaError):
            robots.load(file)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(VlaError, match="no UTF-8"):
        robots.load(file)


def test_unknown_robot_names_the_nearest() -> None:
    with pytest.raises(VlaError, match=r"no robot at 'pnada'.*did you mean panda"):
        robots.load("pnada")
    assert robots.load("configs/robots/panda.yaml") == robots.load("panda")


def test_exponents_without_a_point_are_numbers(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(PANDA_YAML.replace("max_age_s: 0.1", "max_age_s: 1e-1"))
    assert robots.load(file).state == dataclasses.replace(robots.load("panda").state, max_age_s=0.1)
