"""From end-effector targets, a few a second, to joint targets, 200 a second.

The same controller runs inside the simulated envs and before a real arm. It is fed with absolute pose targets,
interpolates between them in time, solves inverse kinematics on its own model of the arm, and clips to joint range,
velocity, acceleration and workspace. It never waits: after a target's time is up, it stays there. Where it is told what
the joints really do, it stops an arm that does not follow.
"""

from __future__ import annotations

import mujoco
import numpy as np

from vla.contracts import VlaError
from vla.control.arm import ArmSpec
from vla.control.limits import JointLimiter
from vla.control.rotation import matrix_from_6d, matrix_from_vector, rotation_vector

CONTROL_HZ = 200


class Controller:
    """Interpolation, inverse kinematics and limits for one arm.

    The controller integrates its own commanded joint positions, so noise in the measured ones cannot make it tremble.

    Args:
        arm: its model, joints, tool and limits.

    Attributes:
        q, velocity: the commanded joint positions, rad, and velocities, rad/s, (N,).
        gripper: the commanded opening, 0 closed to 1 open.
        home: joint positions of the arm's home posture, rad, (N,).
        stopped: why the arm was stopped; None while it follows. ``reset`` lets it go on.

    Raises:
        VlaError: the model lacks a joint, the tool's site or the keyframe ``home``.
    """

    def __init__(self, arm: ArmSpec) -> None:
        self.arm, self.limits = arm, arm.limits
        self.dt = 1.0 / CONTROL_HZ
        self._model = arm.spec(mujoco).compile()
        self._data = mujoco.MjData(self._model)
        try:
            joints = [self._model.joint(name) for name in arm.joints]
            self._site = self._model.site(arm.tool_site).id
            key = self._model.key("home").qpos
        except KeyError as error:
            raise VlaError(f"{arm.file} does not fit the arm '{arm.name}': {error.args[0]}") from error
        self._qpos = _span([joint.qposadr[0] for joint in joints])
        self._dofs = _span([joint.dofadr[0] for joint in joints])
        joint_range = np.array([joint.range for joint in joints])
        self._low = np.array(self.limits.position_low or joint_range[:, 0])
        self._high = np.array(self.limits.position_high or joint_range[:, 1])
        self.range = self._low, self._high
        self._limiter = JointLimiter(self.limits, self._low, self._high, self.dt)
        self.home = key[self._qpos].copy()
        self._workspace_low = np.array(self.limits.workspace_low)
        self._workspace_high = np.array(self.limits.workspace_high)
        self._jacobian = np.zeros((6, self._model.nv))
        self.reset(self.home, 1.0)

    def reset(self, q: np.ndarray, gripper: float) -> None:
        """Start at rest from joint positions ``q`` (rad, (N,)) and a gripper opening (0 closed, 1 open)."""
        self.q = np.array(q, dtype=float)
        self.velocity = np.zeros(len(self.arm.joints))
        self.gripper = float(gripper)
        self._forward()
        self.stay()
        self.stopped: str | None = None
        self._rest, self._late = self.q, 0

    def _forward(self) -> None:
        self._data.qpos[self._qpos] = self.q
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_comPos(self._model, self._data)

    @property
    def position(self) -> np.ndarray:
        """The commanded tool centre point, metres, base frame, (3,)."""
        return self._data.site_xpos[self._site].copy()

    @property
    def rotation(self) -> np.ndarray:
        """The commanded tool orientation, base frame, (3, 3)."""
        return self._data.site_xmat[self._site].reshape(3, 3).copy()

    def set_target(self, action: np.ndarray, duration: float = 0.1) -> None:
        """Move to a pose within ``duration`` seconds, then stay there until the next target.

        Args:
            action: (10,): position (3, metres), 6-D rotation, gripper opening (0 closed, 1 open); absolute, base
                frame. The position is clipped to the workspace, the opening to 0..1.
            duration: seconds.

        Raises:
            VlaError: the action has another shape, or holds NaN or infinity: the former target stays. Or the arm was
                stopped: it stays at rest.
        """
        if self.stopped:
            raise VlaError(f"the arm '{self.arm.name}' was stopped: {self.stopped}")
        action = np.asarray(action, dtype=float)
        if action.shape != (10,) or not np.isfinite(action).all():
            raise VlaError(f"an action must be 10 finite numbers, and was {action.tolist()}; the arm holds still")
        target = np.minimum(np.maximum(action[:3], self._workspace_low), self._workspace_high)
        self._start_position, self._start_rotation = self._reference()
        self._move = target - self._start_position
        self._turn = rotation_vector(matrix_from_6d(action[3:9]) @ self._start_rotation.T)
        self._gripper_target = float(min(1.0, max(0.0, action[9])))
        self._ticks, self._total = 0, max(1, round(duration / self.dt))

    def _reference(self) -> tuple[np.ndarray, np.ndarray]:
        """Where the interpolated target is now. Starting there keeps the path continuous while the arm lags."""
        share = self._ticks / self._total
        return self._start_position + share * self._move, matrix_from_vector(share * self._turn) @ self._start_rotation

    def follow(self, q: np.ndarray, velocity: np.ndarray, gripper: float) -> None:
        """Go on from what was really commanded: joint positions, rad, and velocities, rad/s, (N,), and the opening.

        For one whose commands a supervisor may change. The path to the target stays as it was.
        """
        self.q, self.velocity, self.gripper = q.copy(), velocity.copy(), gripper
        self._forward()

    def stay(self) -> None:
        """Let the tool's present commanded pose be the target, and where the path to the next one begins."""
        self._start_position, self._start_rotation = self.position, self.rotation
        self._move, self._turn = np.zeros(3), np.zeros(3)
        self._gripper_target, self._ticks, self._total = self.gripper, 1, 1

    def tick(self, measured: np.ndarray | None = None) -> tuple[np.ndarray, float]:
        """One control period. Returns joint position targets (N,), rad, and the gripper opening, 0 to 1.

        Args:
            measured: the arm's joint positions as they are, rad, (N,). With them an arm that does not follow (see
                ``Limits.tracking_error``), or whose sensors give no number, is stopped: it comes to rest where it was
                measured last, and ``stopped`` says why.
        """
        if measured is not None and not self.stopped:
            self._supervise(np.asarray(measured, dtype=float))
        if self.stopped:
            wanted = self._brakeable(self._rest - self.q)
        else:
            self._ticks = min(self._ticks + 1, self._total)
            position, rotation = self._reference()
            error = np.concatenate((position - self.position, rotation_vector(rotation @ self.rotation.T)))
            mujoco.mj_jacSite(self._model, self._data, self._jacobian[:3], self._jacobian[3:], self._site)
            wanted = self._solve(self._jacobian[:, self._dofs], error)
        self.velocity = self._limiter.clip(self.q, self.velocity, wanted)
        self.q = np.minimum(np.maximum(self.q + self.velocity * self.dt, self._low), self._high)
        step = self.limits.gripper_speed * self.dt
        self.gripper += min(step, max(-step, self._gripper_target - self.gripper))
        self._forward()
        return self.q.copy(), self.gripper

    def _supervise(self, measured: np.ndarray) -> None:
        """Stop the arm if the measured joints, rad, (N,), can't be trusted or stay behind the commanded ones."""
        if measured.shape != self.q.shape or not np.isfinite(measured).all():
            self.stopped = f"its joints were measured as {measured.tolist()}, and {len(self.q)} numbers are wanted"
            self._rest = self.q
            return
        behind = np.abs(measured - self.q)
        worst = int(np.argmax(behind))
        self._late = self._late + 1 if behind[worst] > self.limits.tracking_error else 0
        if self._late > self.limits.tracking_time * CONTROL_HZ:
            self.stopped = f"{self.arm.joints[worst]} is {behind[worst]:.2f} rad from where it was commanded"
            self._rest = np.minimum(np.maximum(measured, self._low), self._high)
            self._gripper_target = self.gripper

    def _brakeable(self, step: np.ndarray) -> np.ndarray:
        """Joint velocities, rad/s, towards a place that is ``step`` (rad, (N,)) away, and at rest there.

        No joint goes faster than it can still brake before it: v^2 = 2 a s. Without this the tool overshoots a target
        that stops, and the table is below it.
        """
        gain = 0.25 / self.dt
        brake = np.sqrt(2.0 * self._limiter.max_acceleration * np.abs(step))
        share = np.min(brake / np.maximum(gain * np.abs(step), 1e-9), initial=1.0)
        return share * gain * step

    def _solve(self, jacobian: np.ndarray, error: np.ndarray) -> np.ndarray:
        """Joint velocities, rad/s, for a pose error (6,): damped least squares, posture in the null space.

        Buss, "Introduction to Inverse Kinematics with Jacobian Transpose, Pseudoinverse and Damped Least Squares
        methods", 2004, eq. 11.
        """
        damping, posture_gain = 1e-5, 0.5
        posture = posture_gain * (self.home - self.q)
        gram = jacobian @ jacobian.T
        gram[np.diag_indices(6)] += damping
        inverse = jacobian.T @ np.linalg.inv(gram)
        return posture - inverse @ (jacobian @ posture) + self._brakeable(inverse @ error)


def _span(indices: list[int]) -> slice | np.ndarray:
    """Indices as a slice where they follow each other: a view is as fast as it gets."""
    first, last = int(indices[0]), int(indices[-1])
    return slice(first, last + 1) if list(indices) == list(range(first, last + 1)) else np.array(indices)
