"""The 200 Hz controller: it arrives, it keeps its limits, it refuses nonsense."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vla.contracts import VlaError
from vla.control.arm import PANDA, ArmSpec
from vla.control.controller import CONTROL_HZ, Controller
from vla.control.limits import Limits
from vla.control.rotation import matrix_from_6d, matrix_from_vector, matrix_to_6d, rotation_vector

UR5E = ArmSpec(
    name="ur5e",
    mjcf=Path(__file__).parent / "arms" / "ur5e.xml",
    joints=(
        *("shoulder_pan_joint", "shoulder_lift_joint", "elbow_joint"),
        *("wrist_1_joint", "wrist_2_joint", "wrist_3_joint"),
    ),
    tool_site="tool0",
    limits=Limits((3.0,) * 6, (12.0,) * 6, (0.2, -0.5, 0.02), (0.8, 0.5, 0.7)),
)
DOWN = np.array([1.0, 0, 0, 0, -1.0, 0])


@pytest.fixture(params=[PANDA, UR5E], ids=lambda arm: arm.name)
def controller(request: pytest.FixtureRequest) -> Controller:
    """The battery's arms: one of seven joints, one of six with other names."""
    return Controller(request.param)


def ticks(controller: Controller, n: int) -> tuple[np.ndarray, list[float]]:
    answers = [controller.tick() for _ in range(n)]
    return np.array([q for q, _ in answers]), [gripper for _, gripper in answers]


@pytest.mark.parametrize("target", [(0.35, 0.25, 0.05), (0.7, -0.25, 0.1), (0.5, 0.0, 0.3), (0.68, 0.25, 0.02)])
@pytest.mark.parametrize("yaw", [-1.5, 0.0, 1.2])
def test_reaches_a_pose_to_a_millimetre(controller: Controller, target: tuple[float, ...], yaw: float) -> None:
    rotation = matrix_from_vector(np.array([0, 0, yaw])) @ matrix_from_6d(DOWN)
    controller.set_target(np.array([*target, *matrix_to_6d(rotation), 0.0]), duration=1.0)
    ticks(controller, 2 * CONTROL_HZ)
    assert np.linalg.norm(controller.position - target) < 1e-3
    assert np.linalg.norm(rotation_vector(rotation @ controller.rotation.T)) < 0.01
    assert controller.gripper == 0.0


def test_keeps_velocity_and_acceleration_limits_under_wild_targets(controller: Controller) -> None:
    rng, path = np.random.default_rng(0), []
    for _ in range(40):
        controller.set_target(np.array([*rng.uniform(-1, 1, 3), *rng.normal(size=6), rng.uniform(-1, 2)]))
        path.append(ticks(controller, 20)[0])
    q = np.concatenate(path)
    velocity = np.diff(q, axis=0) * CONTROL_HZ
    acceleration = np.diff(velocity, axis=0) * CONTROL_HZ
    assert np.isfinite(q).all()
    assert (np.abs(velocity) <= np.array(controller.limits.velocity) + 1e-6).all()
    # Near the end of a joint's range the brake may be harder by one tick's rounding.
    assert np.mean(np.abs(acceleration) > 1.05 * np.array(controller.limits.acceleration)) < 0.01


def test_stays_inside_the_workspace(controller: Controller) -> None:
    controller.set_target(np.array([0.5, 0.0, -0.5, *DOWN, 1.0]), duration=1.0)
    ticks(controller, 2 * CONTROL_HZ)
    assert controller.position[2] == pytest.approx(controller.limits.workspace_low[2], abs=1e-3)


@pytest.mark.parametrize("bad", [np.full(10, np.nan), np.zeros(9)])
def test_refuses_a_bad_action_and_stays(controller: Controller, bad: np.ndarray) -> None:
    before = controller.position
    with pytest.raises(VlaError, match="10 finite numbers"):
        controller.set_target(bad)
    ticks(controller, 40)
    assert np.linalg.norm(controller.position - before) < 1e-3


def test_stops_where_it_is_held(controller: Controller) -> None:
    """A joint that stays behind: the arm brakes within its limits, comes to rest there, and says why."""
    controller.set_target(np.array([0.5, 0.2, 0.1, *DOWN, 0.0]), duration=0.5)
    held = controller.q.copy()
    path = [held]
    for _ in range(CONTROL_HZ):
        path.append(controller.tick(held)[0])
        if controller.stopped:
            break
    assert controller.stopped is not None and controller.stopped.startswith(controller.arm.joints)
    with pytest.raises(VlaError, match=f"'{controller.arm.name}' was stopped: "):
        controller.set_target(np.array([0.5, 0.2, 0.1, *DOWN, 0.0]))
    path += list(ticks(controller, 2 * CONTROL_HZ)[0])
    acceleration = np.diff(np.array(path), n=2, axis=0) * CONTROL_HZ**2
    assert (np.abs(acceleration) < 1.05 * np.array(controller.limits.acceleration)).all()
    assert np.abs(controller.q - held).max() < 2e-3 and np.abs(controller.velocity).max() < 1e-2
    controller.reset(held, 1.0)
    controller.set_target(np.array([0.5, 0.2, 0.1, *DOWN, 0.0]))
    assert controller.stopped is None


def test_goes_on_while_joints_lag_a_little_or_for_a_moment(controller: Controller) -> None:
    controller.set_target(np.array([0.5, 0.2, 0.1, *DOWN, 0.0]), duration=0.5)
    behind, late = controller.q.copy(), round(controller.limits.tracking_time * CONTROL_HZ)
    for tick in range(2 * CONTROL_HZ):
        behind = behind + 0.2 * (controller.tick(behind)[0] - behind)  # a servo that is 20 ms behind
        if tick > CONTROL_HZ and tick % 50 < late:  # and an encoder that jumps
            controller.tick(behind + 1.0)
    assert controller.stopped is None
    assert np.linalg.norm(controller.position - (0.5, 0.2, 0.1)) < 1e-3


@pytest.mark.parametrize("bad", [np.full(7, np.nan), np.zeros(3)])
def test_stops_on_measurements_that_are_none(bad: np.ndarray) -> None:
    controller = Controller(PANDA)
    before = controller.q.copy()
    controller.tick(bad)
    assert "7 numbers are wanted" in str(controller.stopped)
    assert np.array_equal(ticks(controller, 5)[0][-1], before)


def test_two_arms_are_two_controllers() -> None:
    left, right = Controller(PANDA), Controller(UR5E)
    rest = right.q.copy()
    left.set_target(np.array([0.5, 0.2, 0.2, *DOWN, 1.0]))
    ticks(left, 50)
    assert np.array_equal(ticks(right, 50)[0][-1], rest)


@pytest.mark.parametrize("change", [{"joints": ("elbow",)}, {"tool_site": "hand"}])
def test_an_arm_that_its_model_lacks_is_refused(change: dict) -> None:
    with pytest.raises(VlaError, match=r"panda\.xml does not fit the arm 'panda': .*(elbow|hand)"):
        Controller(replace(PANDA, **change))


def test_rotations_round_trip() -> None:
    rng = np.random.default_rng(1)
    for vector in [*rng.uniform(-1.7, 1.7, (50, 3)), np.zeros(3), np.array([np.pi, 0, 0])]:
        matrix = matrix_from_vector(vector)
        assert np.allclose(matrix_from_vector(rotation_vector(matrix)), matrix, atol=1e-6)
        assert np.allclose(matrix_from_6d(matrix_to_6d(matrix)), matrix, atol=1e-9)
    assert np.allclose(np.linalg.det(matrix_from_6d(np.zeros(6))), 1.0)
