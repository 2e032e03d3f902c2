"""Where an arm may be: its tool in the workspace, its links clear of each other and of the table."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import mujoco
import numpy as np

from vla.control.arm import ArmSpec
from vla.control.reasons import Reason

KINDS = (Reason.WORKSPACE, Reason.SELF_COLLISION, Reason.TABLE)
_SLACK = 1e-3  # metres, of the workspace: the controller's own target may lie on its edge


class Geometry:
    """Judges postures, on a model of the arm's kinematics with every shape in its file.

    Links that are neighbours, or touch in the home posture, are built that way and not compared; nor are fingers with
    anything, since touching is what they are for. The base stands on the table.

    Args:
        arm: its model, joints, tool and limits.
    """

    def __init__(self, arm: ArmSpec) -> None:
        limits = arm.limits
        spec = arm.spec(mujoco)
        for number, body in enumerate(spec.bodies[1:]):
            body.name = body.name or f"body {number}"
        for geom in spec.geoms:
            geom.contype = geom.conaffinity = 1
            geom.margin = limits.clearance
        if limits.table is not None:
            plane = mujoco.mjtGeom.mjGEOM_PLANE
            spec.worldbody.add_geom(name=_TABLE, type=plane, size=[0, 0, 1], pos=[0, 0, limits.table])
        for a, b in self._built_touching(spec.compile(), arm):
            spec.add_exclude(bodyname1=a, bodyname2=b)
        self._model = spec.compile()
        self._data = mujoco.MjData(self._model)
        self._data.qpos[:] = self._model.key("home").qpos
        self._qpos = np.array([self._model.joint(name).qposadr[0] for name in arm.joints])
        self._site = self._model.site(arm.tool_site).id
        self._low, self._high = np.array(limits.workspace_low), np.array(limits.workspace_high)
        self._clearance = limits.clearance
        self._table = mujoco.mj_name2id(self._model, mujoco.mjtObj.mjOBJ_GEOM, _TABLE)

    @staticmethod
    def _built_touching(model: Any, arm: ArmSpec) -> list[tuple[str, str]]:
        """The pairs of bodies that are not compared, by name."""
        own = [int(model.joint(name).bodyid[0]) for name in arm.joints]
        link = np.zeros(model.nbody, int)  # which of the arm's joints moves it last, from 1 on; 0 is the base
        finger = np.zeros(model.nbody, bool)
        for body in range(1, model.nbody):
            parent = int(model.body_parentid[body])
            link[body] = own.index(body) + 1 if body in own else link[parent]
            finger[body] = finger[parent] or (body not in own and model.body_jntnum[body] > 0)
        data = mujoco.MjData(model)
        data.qpos[:] = model.key("home").qpos
        mujoco.mj_kinematics(model, data)
        mujoco.mj_collision(model, data)
        home = {tuple(sorted(pair)) for pair in model.geom_bodyid[data.contact.geom[: data.ncon]].tolist()}
        names = [model.body(body).name for body in range(model.nbody)]
        return [
            (names[a], names[b])
            for a, b in combinations(range(model.nbody), 2)
            if finger[a] or finger[b] or abs(link[a] - link[b]) <= 1 or (a, b) in home
        ]

    def depths(self, q: np.ndarray) -> np.ndarray:
        """How far a posture (rad, (N,)) breaks each of ``KINDS``, metres, (3,): 0 where it does not."""
        data = self._data
        data.qpos[self._qpos] = q
        mujoco.mj_kinematics(self._model, data)
        mujoco.mj_collision(self._model, data)
        tool = data.site_xpos[self._site]
        out = max(0.0, float(np.max(np.maximum(self._low - tool, tool - self._high))) - _SLACK)
        itself = table = 0.0
        for geoms, distance in zip(data.contact.geom[: data.ncon], data.contact.dist[: data.ncon], strict=True):
            if self._table in geoms:
                table = max(table, self._clearance - float(distance))
            else:
                itself = max(itself, self._clearance - float(distance))
        return np.array([out, itself, table])


_TABLE = "the table"
