"""Coming to rest: the soonest path from any motion to none that keeps the limits of acceleration and jerk.

The paths are Ruckig's (Berscheid and Kröger, "Jerk-limited Real-time Trajectory Generation with Arbitrary Target
States", RSS 2021); nothing here leaves the machine.
"""

from __future__ import annotations

import numpy as np
from ruckig import ControlInterface, InputParameter, Result, Ruckig, Trajectory

from vla.control.limits import Limits

_FINE = (Result.Working, Result.Finished)


class Path:
    """A motion of N joints that ends at rest.

    Attributes:
        duration: seconds.
    """

    def __init__(self, trajectory: Trajectory) -> None:
        self._trajectory, self.duration = trajectory, float(trajectory.duration)

    def at(self, t: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Positions (rad), velocities (rad/s) and accelerations (rad/s^2), (N,), ``t`` seconds after its begin.

        After its end it stays there.
        """
        over = t >= self.duration
        q, velocity, acceleration = map(np.array, self._trajectory.at_time(min(t, self.duration)))
        return (q, 0.0 * velocity, 0.0 * acceleration) if over else (q, velocity, acceleration)


class Stopping:
    """Makes such paths for one arm.

    Args:
        limits: accelerations and, where given, jerks. Without jerks the acceleration may turn from one end to the other
            within ``dt``.
        dt: the control period, seconds.

    Attributes:
        acceleration, jerk: what the paths keep, rad/s^2 and rad/s^3, (N,).
    """

    def __init__(self, limits: Limits, dt: float) -> None:
        self.acceleration = np.array(limits.acceleration)
        self.jerk = np.array(limits.jerk) if limits.jerk else 2.0 * self.acceleration / dt
        joints = len(limits.acceleration)
        self._ruckig = Ruckig(joints, dt)
        self._halt, self._settle = InputParameter(joints), InputParameter(joints)
        for wanted in (self._halt, self._settle):
            wanted.max_velocity, wanted.max_acceleration = limits.velocity, limits.acceleration
            wanted.max_jerk = self.jerk
        self._halt.control_interface = ControlInterface.Velocity
        self._joints = joints

    def halt(self, q: np.ndarray, velocity: np.ndarray, acceleration: np.ndarray) -> Path:
        """The soonest path to rest from positions, velocities and accelerations, (N,): all joints end together.

        A velocity or an acceleration beyond the limits is brought down within them.
        """
        path = self._path(self._halt, q, velocity, acceleration)
        assert path is not None, f"no way to rest from q {q}, velocity {velocity}, acceleration {acceleration}"
        return path

    def settle(self, q: np.ndarray, velocity: np.ndarray, acceleration: np.ndarray, rest: np.ndarray) -> Path:
        """The soonest path that ends at rest in ``rest``, rad, (N,); just to rest where there is none."""
        self._settle.target_position = rest
        return self._path(self._settle, q, velocity, acceleration) or self.halt(q, velocity, acceleration)

    def _path(
        self, wanted: InputParameter, q: np.ndarray, velocity: np.ndarray, acceleration: np.ndarray
    ) -> Path | None:
        wanted.current_position, wanted.current_velocity = q, velocity
        wanted.current_acceleration = acceleration
        trajectory = Trajectory(self._joints)
        return Path(trajectory) if self._ruckig.calculate(wanted, trajectory) in _FINE else None
