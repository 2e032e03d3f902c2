"""The only one that may send: what the arm is told passes through here, and is safe when it leaves.

A command is safe if it keeps the limits of velocity, acceleration and jerk, and if the arm could still come to rest
from it, within its joints' range, with the tool in the workspace and the links clear of each other and of the table.
A command that breaks the former is clipped to the nearest that does not; in place of one that breaks the latter, the
arm brakes along the stopping path of the command before, which was found to be safe. So there is always a safe way to
rest. What can't be mended that way (joints that are not measured, or not where they were sent; an emergency stop) ends
in rest, and where ``Reason.latches`` says so in a rest that only ``rearm`` ends. Every intervention is counted.

Stopping paths that are kept verified: Beckert, Pereira and Althoff, "Online Verification of Multiple Safety Criteria
for a Robot Trajectory", CDC 2017.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vla.control.arm import ArmSpec
from vla.control.driver import Reading
from vla.control.geometry import KINDS, Geometry
from vla.control.reasons import Reason
from vla.control.stopping import Path, Stopping

_TOLERANCE = 1e-6  # relative, of limits: a command that lies on one is not beyond it
_OPENS = 0.1  # of the gripper's speed: how fast it gives way to a force


@dataclass(frozen=True)
class Patience:
    """How long the control process bears with what is missing, seconds.

    Attributes:
        joints_s: without joint positions.
        images_s: age of the oldest picture that the policy decides on.
        heartbeat_s: without a sign of life from the policy's process. Its death is noticed at the next tick.
        chunk_s: age of the observation that the present chunk answers.
        rest_s: joints may go no faster than they can be at rest after so long, the noticing included.
        jump_m: how far a chunk may begin from where the tool is, and go from one action to the next, metres.
    """

    joints_s: float = 0.1
    images_s: float = 1.5
    heartbeat_s: float = 0.5
    chunk_s: float = 4.0
    rest_s: float = 0.2
    jump_m: float = 0.25


class Supervisor:
    """Checks and sends the commands of one arm; call ``measure``, then ``command`` or ``rest``, once each period.

    Args:
        arm: the arm.
        send: the driver's ``send``.
        patience: for what is missing.
        low, high: the joints' range, rad, (N,).
        dt: the control period, seconds.

    Attributes:
        q, velocity, acceleration, gripper: the last command. None has been sent before ``begin``.
        counts: how often there was each ``Reason``: ticks in which a command was changed, and beginnings of a rest.
        resting: why the arm is resting or on its way to it; None while it follows commands.
        latched: why it stays at rest until ``rearm``; None where it does not.
        changed: whether the last command was not what was wanted.
    """

    def __init__(
        self,
        arm: ArmSpec,
        send: Callable[[np.ndarray, np.ndarray, float], None],
        patience: Patience,
        low: np.ndarray,
        high: np.ndarray,
        dt: float,
    ) -> None:
        self.arm, self.patience, self.dt = arm, patience, dt
        self._send, self._low, self._high = send, low, high
        self.stopping, self._geometry = Stopping(arm.limits, dt), Geometry(arm)
        # From full acceleration to full braking, then to none, and two ticks until it is noticed.
        turning = 3.0 * self.stopping.acceleration / self.stopping.jerk + 2.0 * dt
        in_time = self.stopping.acceleration * np.maximum(patience.rest_s - turning, dt)
        self.max_velocity = np.minimum(arm.limits.velocity, in_time)
        self.counts = np.zeros(len(Reason), np.int64)
        self.resting: Reason | None = Reason.NO_CHUNK
        self.latched: Reason | None = None
        self.changed = self.begun = False
        self._path: Path | None = None
        self._since, self._late = 0.0, 0

    def begin(self, reading: Reading) -> None:
        """Take the arm as it is measured, at rest there."""
        self.q = np.clip(reading.q, self._low, self._high)
        self.velocity, self.acceleration = np.zeros_like(self.q), np.zeros_like(self.q)
        self.gripper = float(np.clip(reading.gripper, 0.0, 1.0)) if np.isfinite(reading.gripper) else 1.0
        self._depths = self._geometry.depths(self.q)
        self._path, self._late, self.begun = None, 0, True

    def note(self, reason: Reason) -> None:
        """Count an intervention of which somebody else takes care, e.g. a chunk that was refused."""
        self.counts[reason] += 1

    def latch(self, reason: Reason) -> None:
        """Let the arm come to rest, and stay there until ``rearm``."""
        if self.latched is None:
            self.latched = reason

    def rearm(self, reading: Reading) -> bool:
        """Let a latched arm go on from where it is measured; returns False, and does not, while its cause is there."""
        if self.latched is not None and self._wrong(reading) is None and self.at_rest:
            self.latched = None
            self.begin(reading)
        return self.latched is None

    @property
    def at_rest(self) -> bool:
        """Whether the last command was one of rest."""
        return not self.begun or not (self.velocity.any() or self.acceleration.any())

    def measure(self, reading: Reading, now: float) -> Reason | None:
        """Judge a measurement; returns why the arm has to rest, None where it need not."""
        wrong = self._wrong(reading)
        if wrong is None and self.begun and self.latched is None:
            behind = float(np.max(np.abs(reading.q - self.q)))
            self._late = self._late + 1 if behind > self.arm.limits.tracking_error else 0
            if self._late * self.dt > self.arm.limits.tracking_time:
                wrong = Reason.TRACKING
        if wrong is not None and self.latched is None:
            self.latch(wrong)
            if wrong is Reason.TRACKING:  # what blocks it is not to be pressed against
                self._rest_along(
                    self.stopping.settle(
                        self.q, self.velocity, self.acceleration, np.clip(reading.q, self._low, self._high)
                    ),
                    wrong,
                )
        if self.latched is not None:
            return self.latched
        return Reason.STALE_JOINTS if now - reading.received > self.patience.joints_s else None

    def _wrong(self, reading: Reading) -> Reason | None:
        if reading.estop:
            return Reason.ESTOP
        if reading.fault:
            return Reason.ROBOT_FAULT
        if not np.isfinite(reading.received):
            return None  # nothing has come yet
        slack = self.arm.limits.tracking_error
        inside = (reading.q > self._low - slack) & (reading.q < self._high + slack)  # false for NaN
        return None if inside.all() else Reason.BAD_JOINTS

    def rest(self, reason: Reason) -> None:
        """Send the next command on the way to rest, or of rest. The gripper holds what it holds."""
        if self._path is None or self.resting is None:
            self._rest_along(self.stopping.halt(self.q, self.velocity, self.acceleration), reason)
        elif reason is not self.resting:
            self.counts[reason] += 1
            self.resting = reason
        self._since += self.dt
        assert self._path is not None
        self._say(*self._along(self._path, self._since), self.gripper)

    def _along(self, path: Path, t: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The command for time ``t`` of a path. Like every other, it goes a whole tick at the velocity it ends with."""
        _, velocity, acceleration = path.at(t)
        return self.q + velocity * self.dt, velocity, acceleration

    def _rest_along(self, path: Path, reason: Reason) -> None:
        self._path, self._since, self.resting = path, 0.0, reason
        self.counts[reason] += 1

    def command(self, q: np.ndarray, gripper: float, reading: Reading) -> None:
        """Send the safe command that is nearest to joint positions ``q`` (rad, (N,)) and an opening (0 to 1)."""
        self._path = self.resting = None
        gripper, gives_way = self._grip(gripper, reading)
        wanted, reasons = self._clipped(q)
        end = self.stopping.halt(*wanted)
        problem, depths = self._problem(wanted[0], end)
        if problem is not None:
            reasons.append(problem)
            wanted = self._along(self.stopping.halt(self.q, self.velocity, self.acceleration), self.dt)
        else:
            self._depths = depths
        for reason in reasons:
            self.counts[reason] += 1
        self.changed = bool(reasons) or gives_way
        self._say(*wanted, gripper)

    def _clipped(self, q: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], list[Reason]]:
        """Position, velocity and acceleration that keep the limits, nearest to ``q``; and which of them ``q`` broke."""
        dt, reasons = self.dt, list[Reason]()
        velocity = (q - self.q) / dt
        if not np.isfinite(velocity).all():
            reasons.append(Reason.NAN)
            velocity = np.zeros_like(self.q)
        excess = float(np.max(np.abs(velocity) / self.max_velocity))
        if excess > 1.0 + _TOLERANCE:
            reasons.append(Reason.VELOCITY)
            velocity = velocity / excess  # all joints alike: the tool slows down and does not swerve
        acceleration = (velocity - self.velocity) / dt
        for reason, middle, most in (
            (Reason.ACCELERATION, 0.0, self.stopping.acceleration),
            (Reason.JERK, self.acceleration, self.stopping.jerk * dt),
        ):
            off = acceleration - middle
            if (np.abs(off) > most * (1.0 + _TOLERANCE) + _TOLERANCE).any():
                reasons.append(reason)
            acceleration = middle + np.minimum(np.maximum(off, -most), most)
        slower = np.minimum(np.maximum(acceleration, -self._gain(-self.velocity)), self._gain(self.velocity))
        if (np.abs(slower - acceleration) > _TOLERANCE).any() and Reason.VELOCITY not in reasons:
            reasons.append(Reason.VELOCITY)
        velocity = self.velocity + slower * dt
        return (self.q + velocity * dt if reasons else q, velocity, slower), reasons

    def _gain(self, velocity: np.ndarray) -> np.ndarray:
        """The largest acceleration now, (N,), that jerk can still end before the largest velocity is passed.

        One that a tick's jerk ends is bounded by the velocity of the next tick alone; a larger one runs out over
        several: v + a dt / 2 + a^2 / (2 J) = v_max. Never so low that jerk would have to be exceeded for it.
        """
        room, tick = np.maximum(self.max_velocity - velocity, 0.0), self.stopping.jerk * self.dt
        several = self.stopping.jerk * (np.sqrt(0.25 * self.dt**2 + 2.0 * room / self.stopping.jerk) - 0.5 * self.dt)
        return np.where(room / self.dt <= tick, room / self.dt, np.maximum(several, tick))

    def _problem(self, q: np.ndarray, end: Path) -> tuple[Reason | None, np.ndarray]:
        """What makes a command unsafe from which the arm would come to rest along ``end``, and how deep it lies."""
        depths, low, high = np.zeros(len(KINDS)), np.minimum(self._low, self.q), np.maximum(self._high, self.q)
        postures = (q, end.at(0.5 * end.duration)[0], end.at(end.duration)[0])
        for posture in postures:
            if (posture < low - _TOLERANCE).any() or (posture > high + _TOLERANCE).any():
                return Reason.JOINT_RANGE, depths
        for posture in postures[1:]:
            depths = np.maximum(depths, self._geometry.depths(posture))
        worse = depths > self._depths + _TOLERANCE  # one that began outside may come back in
        return (KINDS[int(np.argmax(worse))] if worse.any() else None), depths

    def _grip(self, gripper: float, reading: Reading) -> tuple[float, bool]:
        gripper = min(1.0, max(0.0, gripper)) if np.isfinite(gripper) else self.gripper
        if reading.gripper_force > self.arm.limits.gripper_force and gripper <= self.gripper:
            self.counts[Reason.GRIPPER_FORCE] += 1
            return min(1.0, self.gripper + _OPENS * self.arm.limits.gripper_speed * self.dt), True
        return gripper, False

    def _say(self, q: np.ndarray, velocity: np.ndarray, acceleration: np.ndarray, gripper: float) -> None:
        self.q, self.velocity, self.acceleration, self.gripper = q, velocity, acceleration, gripper
        self._send(q, velocity, gripper)
