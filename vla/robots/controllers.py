"""The controllers of a simulated robot, which behave as ros2_control's do: they are ours, and no more than a likeness.

What is alike was read in the documentation of ros2_controllers: which trajectories are refused, when one begins, what
is drawn between its points, and that a forward controller keeps its last command for ever.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np


@dataclass(frozen=True)
class _Knot:
    time: float
    q: np.ndarray
    velocity: np.ndarray | None


class TrajectoryController:
    """joint_trajectory_controller, its topic. Times are seconds on the robot's clock.

    Old and new behaviour differ in two ways: what a trajectory starts from (``replaces``: from where the arm was told
    to be, else from where it was measured), and what happens until its stamp (``replaces``: the present one goes on,
    else the arm heads for the first point at once).

    Args:
        joints: by name.
        q: where the arm is, rad, (N,).
        replaces: the behaviour from 6.9 on (``allow_trajectory_replacement``, ``interpolate_from_desired_state``).
    """

    def __init__(self, joints: tuple[str, ...], q: np.ndarray, replaces: bool = False) -> None:
        self.joints, self.replaces = joints, replaces
        self._knots = [_Knot(-math.inf, np.array(q, float), np.zeros(len(joints)))]

    def take(
        self,
        names: tuple[str, ...],
        points: list[tuple[tuple[float, ...], tuple[float, ...], float]],
        stamp: float,
        now: float,
        measured: np.ndarray,
    ) -> str:
        """Take a trajectory of (positions, velocities or (), seconds from its start). Returns why it is refused, or "".

        Args:
            names: the trajectory's joints.
            points: ascending in time.
            stamp: when it starts; 0 for now.
            now: the present.
            measured: where the arm is, rad, (N,).
        """
        unknown = [name for name in names if name not in self.joints]
        if unknown:
            return f"joint '{unknown[0]}' is not one of this controller"
        if len(set(names)) != len(self.joints):
            return f"{len(set(names))} of {len(self.joints)} joints are there, and all are needed"
        if not points:
            return "it has no points"
        times = [time for _, _, time in points]
        if any(a >= b for a, b in pairwise(times)) or times[0] < 0:
            return "its times do not ascend"
        order = [names.index(name) for name in self.joints]
        start = stamp or now
        knots = []
        for positions, velocities, time in points:
            if len(positions) != len(names) or len(velocities) not in (0, len(names)):
                return "a point has too few or too many numbers"
            if not np.isfinite([*positions, *velocities]).all():
                return "a point holds NaN or infinity"
            speed = np.array(velocities, float)[order] if velocities else None
            knots.append(_Knot(start + time, np.array(positions, float)[order], speed))
        if points[-1][1] and max(map(abs, points[-1][1])) > 1e-9:
            return "the velocity at its end is not zero"
        if stamp and knots[-1].time < now:
            return "it lies wholly in the past"
        begin = max(now, start) if self.replaces else now
        q, velocity = self.sample(begin)
        kept = [knot for knot in self._knots if knot.time < begin] if self.replaces and begin > now else []
        if not self.replaces:
            q = np.array(measured, float)
        self._knots = [*kept, _Knot(begin, q, velocity), *(knot for knot in knots if knot.time > begin)]
        return ""

    def sample(self, now: float) -> tuple[np.ndarray, np.ndarray]:
        """Where the arm is told to be, rad, and how fast, rad/s, (N,) each."""
        knots = self._knots
        after = next((place for place, knot in enumerate(knots) if knot.time > now), len(knots))
        if after == len(knots):
            return knots[-1].q, np.zeros(len(self.joints))
        if after == 0:
            return knots[0].q, np.zeros(len(self.joints))
        a, b = knots[after - 1], knots[after]
        if a.time == -math.inf:
            return b.q, np.zeros(len(self.joints))
        span = b.time - a.time
        share = (now - a.time) / span
        if b.velocity is None or a.velocity is None:
            return a.q + share * (b.q - a.q), (b.q - a.q) / span
        # The cubic Hermite polynomial through both ends and their velocities.
        s, d = share, b.q - a.q
        u, w = a.velocity * span, b.velocity * span
        q = a.q + u * s + (3 * d - 2 * u - w) * s**2 + (u + w - 2 * d) * s**3
        return q, (u + 2 * (3 * d - 2 * u - w) * s + 3 * (u + w - 2 * d) * s**2) / span


class ForwardController:
    """forward_command_controller: what came last is done for ever, as positions or as velocities.

    Args:
        q: where the joints are, (N,).
        velocities: whether commands are velocities.
    """

    def __init__(self, q: np.ndarray, velocities: bool = False) -> None:
        self._q, self._velocities = np.array(q, float), velocities
        self._command = np.zeros(len(q)) if velocities else self._q
        self._at = -math.inf

    def take(self, data: tuple[float, ...], now: float) -> str:
        """Take a command. Returns why it is refused, or ""."""
        if len(data) != len(self._q):
            return f"{len(data)} numbers for {len(self._q)} joints"
        if not np.isfinite(data).all():
            return "it holds NaN or infinity"
        self.sample(now)
        self._command = np.array(data, float)
        return ""

    def sample(self, now: float) -> tuple[np.ndarray, np.ndarray]:
        """Where the joints are told to be, and how fast, (N,) each."""
        if not self._velocities:
            return self._command, np.zeros(len(self._q))
        if self._at > -math.inf:
            self._q = self._q + self._command * (now - self._at)
        self._at = now
        return self._q, self._command
