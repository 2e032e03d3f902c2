"""Nothing unsafe leaves the supervisor, there is always a way to rest, and each intervention is counted."""

from dataclasses import replace

import numpy as np
import pytest

from vla.control.arm import PANDA
from vla.control.controller import Controller
from vla.control.driver import Reading
from vla.control.geometry import Geometry
from vla.control.reasons import Reason
from vla.control.stopping import Stopping
from vla.control.supervisor import Patience, Supervisor

DT = 0.005
SOFT = replace(PANDA, limits=replace(PANDA.limits, jerk=(300.0,) * 7))


class Bench:
    """A supervisor whose arm is wherever it was told to be."""

    def __init__(self, arm=PANDA, q=None) -> None:
        self.controller, self.sent = Controller(arm), []
        low, high = self.controller.range
        self.supervisor = Supervisor(arm, lambda *said: self.sent.append(said[0].copy()), Patience(), low, high, DT)
        self.reading = Reading(self.controller.home.copy() if q is None else q, np.zeros(7), 1.0, 0.0, 0.0)
        self.supervisor.begin(self.reading)
        self.low, self.high = low, high

    def want(self, q: np.ndarray, gripper: float = 1.0) -> None:
        self.supervisor.command(q, gripper, self.reading)
        self.reading.q = self.supervisor.q.copy()

    def until_rest(self, reason=Reason.CHUNK_ENDED) -> int:
        for tick in range(400):
            self.supervisor.rest(reason)
            if self.supervisor.at_rest:
                return tick + 1
        raise AssertionError("it never came to rest")

    def derivatives(self) -> list[np.ndarray]:
        path = [np.array(self.sent)]
        for _ in range(3):
            path.append(np.diff(path[-1], axis=0) / DT)
        return path


@pytest.mark.parametrize("arm", [PANDA, SOFT], ids=["data sheet's jerk", "little jerk"])
def test_wild_commands_leave_within_every_limit(arm) -> None:
    rng, bench = np.random.default_rng(0), Bench(arm)
    supervisor = bench.supervisor
    for _ in range(20):
        aim = np.where(rng.random(7) < 0.5, bench.low - 0.5, bench.high + 0.5)
        for _ in range(80):
            bench.want(supervisor.q + np.clip(aim - supervisor.q, -0.05, 0.05))
    q, velocity, acceleration, jerk = bench.derivatives()
    assert (q >= bench.low - 1e-6).all() and (q <= bench.high + 1e-6).all()
    assert (np.abs(velocity) <= 1.01 * supervisor.max_velocity).all()
    assert (np.abs(acceleration) <= 1.001 * supervisor.stopping.acceleration).all()
    assert (np.abs(jerk) <= 1.15 * supervisor.stopping.jerk).all()
    geometry = Geometry(arm)
    assert max(geometry.depths(one).max() for one in q[::7]) < 1e-5
    found = {reason.name for reason in Reason if supervisor.counts[reason]}
    assert found >= ({"JERK"} if arm is SOFT else {"VELOCITY", "ACCELERATION", "WORKSPACE"})


def test_what_is_safe_passes_unchanged() -> None:
    bench = Bench()
    bench.controller.set_target(np.array([0.5, 0.2, 0.1, 1, 0, 0, 0, -1, 0, 0.0]), 1.0)
    for _ in range(300):
        q, gripper = bench.controller.tick()
        bench.want(q, gripper)
        assert np.array_equal(bench.sent[-1], q)
    assert bench.supervisor.counts.sum() == 0 and bench.supervisor.gripper == 0.0


@pytest.mark.parametrize(
    ("reason", "q"),
    [
        (Reason.TABLE, [0.0, 1.55, 0.0, -0.4, 0.0, 1.9, 0.8]),
        (Reason.SELF_COLLISION, [0.0, -1.2, 0.0, -3.0, 0.0, 0.05, 0.8]),
        (Reason.WORKSPACE, [2.0, -0.26, 0.0, -2.4, 0.0, 2.17, 0.8]),
        (Reason.JOINT_RANGE, [0.0, -0.26, 0.0, -2.4, 0.0, 3.9, 0.8]),
    ],
)
def test_the_arm_brakes_before_what_it_may_not_touch(reason: Reason, q: list[float]) -> None:
    arm = PANDA
    if reason is not Reason.WORKSPACE:  # which lies before all else
        arm = replace(PANDA, limits=replace(PANDA.limits, workspace_low=(-2, -2, -2), workspace_high=(2, 2, 2)))
    bench = Bench(arm)
    for _ in range(600):
        bench.want(bench.supervisor.q + np.clip(np.array(q) - bench.supervisor.q, -0.02, 0.02))
    assert bench.supervisor.counts[reason] > 0
    assert Geometry(arm).depths(bench.supervisor.q).max() < 1e-5
    assert (bench.supervisor.q <= bench.high).all()


def test_at_rest_within_200_ms_from_the_greatest_speeds() -> None:
    rng = np.random.default_rng(1)
    for _ in range(5):
        bench = Bench()
        way = rng.choice((-1.0, 1.0), 7) * bench.supervisor.max_velocity * DT
        for _ in range(60):
            bench.want(bench.supervisor.q + way)
        fastest = np.abs(bench.supervisor.velocity / bench.supervisor.max_velocity).max()
        assert (bench.until_rest() + 2) * DT <= 0.2, fastest


def test_any_motion_comes_to_rest_within_acceleration_and_jerk() -> None:
    rng, stopping = np.random.default_rng(2), Stopping(SOFT.limits, DT)
    for _ in range(300):
        velocity = rng.uniform(-1.2, 1.2, 7) * PANDA.limits.velocity
        path = stopping.halt(rng.uniform(-2, 2, 7), velocity, rng.uniform(-1, 1, 7) * stopping.acceleration)
        times = np.arange(0.0, path.duration + 0.01, 0.001)
        accelerations = np.array([path.at(t)[2] for t in times])
        assert (np.abs(accelerations) <= stopping.acceleration * (1 + 1e-9)).all()
        assert (np.abs(np.diff(accelerations, axis=0)) / 0.001 <= stopping.jerk * (1 + 1e-6)).all()
        assert not path.at(path.duration)[1].any()
        # the position is the integral of the velocity that it tells
        moved = np.trapezoid([path.at(t)[1] for t in times], times, axis=0)
        assert np.allclose(path.at(0.0)[0] + moved, path.at(9.0)[0], atol=1e-3)


def test_no_number_is_sent_on() -> None:
    bench = Bench()
    before = bench.supervisor.q.copy()
    bench.want(np.full(7, np.nan), np.nan)
    assert np.array_equal(bench.sent[-1], before) and bench.supervisor.gripper == 1.0
    assert bench.supervisor.counts[Reason.NAN] == 1


def test_a_gripper_that_presses_too_hard_gives_way() -> None:
    bench = Bench()
    for _ in range(200):
        bench.want(bench.supervisor.q, 0.0)
        bench.reading.gripper_force = 90.0 if bench.supervisor.gripper < 0.5 else 10.0
    assert 0.0 <= bench.supervisor.gripper <= 0.51 and bench.supervisor.counts[Reason.GRIPPER_FORCE] > 50


@pytest.mark.parametrize(
    ("reason", "change"),
    [
        (Reason.ESTOP, {"estop": True}),
        (Reason.ROBOT_FAULT, {"fault": "the brakes are closed"}),
        (Reason.BAD_JOINTS, {"q": np.full(7, np.nan)}),
        (Reason.TRACKING, {"q": Controller(PANDA).home + 0.25}),
    ],
)
def test_some_things_latch_until_rearmed(reason: Reason, change: dict) -> None:
    bench = Bench()
    supervisor, good = bench.supervisor, replace(bench.reading, q=bench.reading.q.copy())
    bad = replace(bench.reading, **change)
    for _ in range(20):
        why = supervisor.measure(bad, 0.0)
    assert why is reason and supervisor.latched is reason
    bench.until_rest(why)
    assert supervisor.measure(good, 0.0) is reason, "it does not let go by itself"
    if reason is not Reason.TRACKING:  # which is over where the arm is taken as it is
        assert not supervisor.rearm(bad)
    assert supervisor.rearm(good) and supervisor.measure(good, 0.0) is None
    assert supervisor.counts[reason] == 1


def test_joints_that_are_not_told_any_more_end_in_rest_and_nothing_else_does() -> None:
    bench = Bench()
    assert bench.supervisor.measure(bench.reading, 0.09) is None
    assert bench.supervisor.measure(bench.reading, 0.11) is Reason.STALE_JOINTS
    assert bench.supervisor.latched is None
