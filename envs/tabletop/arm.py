"""The arm of the tabletop: which it is, and what its state and its actions are."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from vla.contracts import Group
from vla.control.arm import PANDA

ARM = replace(
    PANDA,
    limits=replace(PANDA.limits, workspace_low=(0.25, -0.45, 0.010), workspace_high=(0.80, 0.45, 0.60)),
)
JOINTS = len(ARM.joints)
FINGER_TRAVEL = 0.04  # metres from closed to open

_ROTATION = ("rot_xx", "rot_yx", "rot_zx", "rot_xy", "rot_yy", "rot_zy")
ACTION = (*(f"ee_{axis} [m]" for axis in "xyz"), *(f"ee_{name} [1]" for name in _ROTATION), "gripper [0..1]")
STATE = (*ACTION, *(f"q{i + 1} [rad]" for i in range(JOINTS)))
ACTION_GROUPS = (
    Group("ee_position", 0, 3, "position", "m", "base"),
    Group("ee_rotation", 3, 9, "rotation", "1", "base"),
    Group("gripper", 9, 10, "gripper", "1"),
)
STATE_GROUPS = (*ACTION_GROUPS, Group("joints", 10, 10 + JOINTS, "joint", "rad"))
RELATIVE = ((0, 0), (1, 1), (2, 2))
# Bounds of the spaces. The tool itself keeps to the workspace, and positions beyond it are clipped to it.
ACTION_LOW = np.array([0.0, -0.45, 0.0] + [-1.0] * 6 + [0.0], np.float32)
ACTION_HIGH = np.array([0.80, 0.45, 0.60] + [1.0] * 6 + [1.0], np.float32)
STATE_LOW = np.array([-1.5] * 3 + [-1.01] * 6 + [0.0] + [-4.0] * JOINTS, np.float32)
STATE_HIGH = np.array([1.5] * 3 + [1.01] * 6 + [1.0] + [4.0] * JOINTS, np.float32)


def rotation_down(yaw: float) -> np.ndarray:
    """The 6-D rotation (6,) of a tool that points straight down, turned by ``yaw`` rad about the base's z axis."""
    c, s = math.cos(yaw), math.sin(yaw)
    return np.array([c, s, 0.0, s, -c, 0.0])
