"""The 200 Hz controller: it arrives, it keeps its limits, it refuses nonsense."""

import numpy as np
import pytest

from vla.contracts import VlaError
from vla.control import CONTROL_HZ, Controller
from vla.control.rotation import matrix_from_6d, matrix_from_vector, matrix_to_6d, rotation_vector
from vla.paths import assets_dir

DOWN = np.array([1.0, 0, 0, 0, -1.0, 0])


@pytest.fixture
def controller() -> Controller:
    return Controller(assets_dir() / "arms" / "panda.xml")


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


def test_rotations_round_trip() -> None:
    rng = np.random.default_rng(1)
    for vector in [*rng.uniform(-1.7, 1.7, (50, 3)), np.zeros(3), np.array([np.pi, 0, 0])]:
        matrix = matrix_from_vector(vector)
        assert np.allclose(matrix_from_vector(rotation_vector(matrix)), matrix, atol=1e-6)
        assert np.allclose(matrix_from_6d(matrix_to_6d(matrix)), matrix, atol=1e-9)
    assert np.allclose(np.linalg.det(matrix_from_6d(np.zeros(6))), 1.0)
