"""An arm's MuJoCo model from its Denavit-Hartenberg table: what the controller and the self-collision check need."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vla.robots.config import KinematicsConfig, LimitsConfig

_RADIUS = 0.045  # m, of the capsules that stand for the links


def mjcf_from_dh(joints: tuple[str, ...], kinematics: KinematicsConfig, limits: LimitsConfig) -> str:
    """MJCF text with hinge joints by these names, capsules between their axes, the site ``tool`` and a home posture.

    Standard convention: Rot(z, theta) Trans(z, d) Trans(x, a) Rot(x, alpha) (Denavit and Hartenberg, 1955, as in
    Spong's textbook); modified: Rot(x, alpha) Trans(x, a) Rot(z, theta) Trans(z, d) (Craig's).
    """
    modified = kinematics.convention == "modified"
    out, depth = [], 0

    def begin(text: str) -> None:
        nonlocal depth
        out.append(text)
        depth += 1

    for number, (name, (a, d, alpha, offset)) in enumerate(zip(joints, kinematics.dh, strict=True)):
        low, high = limits.position_low[number], limits.position_high[number]
        joint = f'<joint name="{name}" axis="0 0 1" range="{low} {high}"/>'
        turn = f'<joint name="{name}" axis="0 0 1" range="{low} {high}"/>'
        mass = '<inertial pos="0 0 0" mass="1" diaginertia="0.01 0.01 0.01"/>'
        if modified:
            begin(f'<body name="frame{number}" pos="{a} 0 0" quat="{_about("x", alpha)}">{mass}')
            begin(f'<body name="turn{number}" quat="{_about("z", offset)}">{mass}{joint}')
            begin(f'<body name="link{number + 1}" pos="0 0 {d}">{mass}{_capsule((0, 0, -d))}')
        else:
            begin(f'<body name="turn{number}" quat="{_about("z", offset)}">{mass}{turn}{_capsule((0, 0, d))}')
            begin(f'<body name="link{number + 1}" pos="{a} 0 {d}" quat="{_about("x", alpha)}">{mass}')
    roll, pitch, yaw = kinematics.tool_rpy
    x, y, z = kinematics.tool
    tool = f'<site name="tool" pos="{x} {y} {z}" quat="{_rpy(roll, pitch, yaw)}"/>'
    bodies = "".join(out) + tool + "</body>" * depth
    home = " ".join(map(str, kinematics.home))
    return (
        f'<mujoco model="arm"><compiler angle="radian" autolimits="true"/><worldbody>{bodies}</worldbody>'
        f'<keyframe><key name="home" qpos="{home}"/></keyframe></mujoco>'
    )


def _about(axis: str, angle: float) -> str:
    c, s = math.cos(angle / 2), math.sin(angle / 2)
    return f"{c} {s} 0 0" if axis == "x" else f"{c} 0 0 {s}"


def _rpy(roll: float, pitch: float, yaw: float) -> str:
    """Turns about fixed x, then y, then z, as a quaternion w x y z."""
    cr, sr, cp, sp = math.cos(roll / 2), math.sin(roll / 2), math.cos(pitch / 2), math.sin(pitch / 2)
    cy, sy = math.cos(yaw / 2), math.sin(yaw / 2)
    w, x = cr * cp * cy + sr * sp * sy, sr * cp * cy - cr * sp * sy
    y, z = cr * sp * cy + sr * cp * sy, cr * cp * sy - sr * sp * cy
    return f"{w} {x} {y} {z}"


def _capsule(to: tuple[float, float, float]) -> str:
    if max(map(abs, to)) < 1e-3:
        return ""
    end = " ".join(map(str, to))
    return f'<geom type="capsule" size="{_RADIUS}" fromto="0 0 0 {end}" mass="0"/>'
