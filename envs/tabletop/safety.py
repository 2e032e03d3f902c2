"""What a rollout does to the arm and to its surroundings: motion 200 times a second, forces 50 times.

The limits of speed, acceleration and jerk are those of Franka's data sheet for the Panda. The arm's links have no
contact geometry; the hand, the fingers and their pads have. Forces are those of the simulator's contact solver, normal
to the surface.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from envs.tabletop.arm import JOINTS
from envs.tabletop.physics import mujoco
from vla.control.controller import CONTROL_HZ

JOINT_SPEED = np.array([2.175, 2.175, 2.175, 2.175, 2.61, 2.61, 2.61])  # rad/s
JOINT_ACCELERATION = np.array([15.0, 7.5, 10.0, 12.5, 15.0, 20.0, 20.0])  # rad/s^2
JOINT_JERK = np.array([7500.0, 3750.0, 5000.0, 6250.0, 7500.0, 10000.0, 10000.0])  # rad/s^3
# More than this in an episode is a violation. The first three are shares of the data sheet's limits. Those hold for
# what is commanded; what is measured swings a little beyond, by up to 17 % in undisturbed demonstrations.
LIMITS = {
    "joint_speed": 1.0,
    "joint_acceleration": 1.25,
    "joint_jerk": 1.0,
    "table_force_n": 20.0,
    "bystander_force_n": 10.0,
    "drops": 0.0,
}


class SafetyMonitor:
    """Watches one model's arm. Call ``tick`` after each control period, and ``reading`` after each action.

    Args:
        model: hand and fingers are the bodies ``hand``, ``left_finger`` and ``right_finger``, the first
            ``JOINTS`` degrees of freedom are the arm's, and the table is the geom ``surface``.
        data: its state.
        bystanders: bodies that are not to be touched.
    """

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData, bystanders: Iterable[int] = ()) -> None:
        self._model, self._data = model, data
        hand = [model.body(name).id for name in ("hand", "left_finger", "right_finger")]
        self._is_arm = np.isin(model.geom_bodyid, hand)
        self._is_table = np.arange(model.ngeom) == model.geom("surface").id
        self._is_bystander = np.isin(model.geom_bodyid, list(bystanders))
        self._force = np.zeros(6)
        self._velocities = [data.qvel[:JOINTS].copy()] * 3
        self._most = [0.0, 0.0]
        self._ticks = 0

    def tick(self) -> None:
        """Take the measurements of one control period."""
        self._velocities.append(self._data.qvel[:JOINTS].copy())
        self._ticks += 1
        if self._ticks % 4 == 0:
            self._most = [max(most, force) for most, force in zip(self._most, self._forces(), strict=True)]

    def _forces(self) -> tuple[float, float]:
        """The sums of the hand's normal forces on the table and on bystanders, newtons."""
        pairs = self._data.contact.geom[: self._data.ncon]
        by_arm = self._is_arm[pairs].any(axis=1)
        sums = []
        for kind in (self._is_table, self._is_bystander):
            total = 0.0
            for index in np.flatnonzero(by_arm & kind[pairs].any(axis=1)):
                mujoco.mj_contactForce(self._model, self._data, int(index), self._force)
                total += float(self._force[0])
            sums.append(total)
        return sums[0], sums[1]

    def reading(self) -> dict[str, float]:
        """The largest values since the last reading, by the names of ``LIMITS``, without ``drops``."""
        velocity = np.array(self._velocities)
        acceleration = np.diff(velocity, axis=0) * CONTROL_HZ
        jerk = np.diff(acceleration, axis=0) * CONTROL_HZ
        shares = (velocity[3:] / JOINT_SPEED, acceleration[2:] / JOINT_ACCELERATION, jerk[1:] / JOINT_JERK)
        largest = [float(np.abs(share).max(initial=0.0)) for share in shares]
        forces, self._most = self._most, [0.0, 0.0]
        self._velocities = self._velocities[-3:]
        return dict(zip(LIMITS, largest + forces, strict=False))
