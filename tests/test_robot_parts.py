"""What every transport shares: the inbox, the adapters, and the controllers of the simulated robot."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
import pytest

from vla.contracts import VlaError
from vla.robots.adapters import GripperAdapter, adapters_of, require_finite
from vla.robots.config import load
from vla.robots.controllers import ForwardController, TrajectoryController
from vla.robots.inbox import Inbox
from vla.robots.io import Command, Joints
from vla.robots.messages import Floats, Message, Trajectory
from vla.robots.pictures import fit, from_compressed, from_message
from vla.robots.topics import TopicRobot

PANDA = load("panda")
NAMES = [*PANDA.joints, "panda_finger_joint1"]
REST = (0.0,) * 7
Q = np.array([0.0, -0.26, 0.0, -2.43, 0.0, 2.17, 0.785])


def reported(*parts: tuple[list[str], list[float], float, float]) -> Inbox:
    inbox = Inbox(PANDA)
    for names, position, stamp, received in parts:
        inbox.take_joints(names, position, [0.0] * len(names), stamp, received)
    return inbox


def test_joints_are_mapped_by_name_whatever_their_order() -> None:
    order = np.random.default_rng(1).permutation(8)
    values = [*Q, 0.02]
    inbox = reported(([NAMES[i] for i in order] + ["rail"], [values[i] for i in order] + [9.0], 5.0, 105.0))
    joints = inbox.joints()
    assert joints is not None and joints.gripper == pytest.approx(0.5) and joints.received == 105.0
    np.testing.assert_array_equal(joints.q, Q)


def test_parts_are_merged_and_as_old_as_the_oldest() -> None:
    inbox = reported((NAMES[:3], [*Q[:3]], 1.0, 101.0))
    assert inbox.joints() is None and inbox.missing() == NAMES[3:]
    inbox.take_joints(NAMES[3:], [*Q[3:], 0.04], [], 1.1, 101.1)
    joints = inbox.joints()
    assert joints is not None and joints.received == 101.0
    assert np.isnan(joints.velocity[3:]).all() and not np.isnan(joints.velocity[:3]).any()


def test_frozen_stamps_are_no_news() -> None:
    inbox = reported((NAMES, [*Q, 0.0], 1.0, 101.0), (NAMES, [*Q, 0.0], 1.0, 109.0))
    joints = inbox.joints()
    assert joints is not None and joints.received == 101.0 and not inbox.problem()


@pytest.mark.parametrize("jump", [-30.0, 1.0, 3600.0])
def test_clock_that_jumps_is_told(jump: float) -> None:
    inbox = reported((NAMES, [*Q, 0.0], 1000.0, 101.0), (NAMES, [*Q, 0.0], 1000.005 + jump, 101.005))
    assert f"jumped by {jump:+.2f} s" in inbox.problem()


def test_late_pictures_are_old_ones() -> None:
    inbox, image = Inbox(PANDA), np.zeros((128, 128, 3), np.uint8)
    for number, late in enumerate((0.02, 0.01, 0.31, 1.5)):
        inbox.take_picture("scene", image, 50.0 + number, 100.0 + number + late)
        assert inbox.pictures()["scene"].received == pytest.approx(100.0 + number + (0.02, 0.01, 0.01, 0.01)[number])
        assert bool(inbox.problem()) is (late > 1.0)
    assert inbox.problem() == "/scene/image_raw has come to be 1.2 s late"


def test_messages_that_catch_up_are_no_jump() -> None:
    whole = [(NAMES, [*Q, 0.0], 1.0 + number, 101.0 + number + late) for number, late in enumerate((0, 0.4, 0.8, 0))]
    assert not reported(*whole).problem()
    assert "jumped by +0.70 s" in reported(*whole, (NAMES, [*Q, 0.0], 5.0, 104.3)).problem()


def test_late_messages_are_no_jump() -> None:
    inbox = reported((NAMES, [*Q, 0.0], 1.0, 101.0), (NAMES, [*Q, 0.0], 1.1, 101.4))
    assert not inbox.problem()


def test_joint_that_is_no_number_is_a_problem_and_not_taken() -> None:
    inbox = reported((NAMES, [*Q, 0.0], 1.0, 101.0), (NAMES, [np.nan, *Q[1:], 0.0], 1.1, 101.1))
    assert "joint 'panda_joint1' was reported as nan" in inbox.problem()
    assert np.isfinite(inbox.joints().q).all()  # type: ignore[union-attr]


def test_message_with_too_few_numbers_is_a_problem() -> None:
    assert "8 names, 7 positions" in reported((NAMES, [*Q], 1.0, 101.0)).problem()


def test_picture_of_another_size_is_a_problem() -> None:
    inbox = Inbox(PANDA)
    inbox.take_picture("scene", np.zeros((240, 320, 3), np.uint8), 1.0, 101.0)
    assert "camera 'scene' sends 240 x 320, and its file says 128 x 128" in inbox.problem()
    assert not inbox.pictures()


def test_estop_fails_closed() -> None:
    inbox = Inbox(load("generic_arm"))
    assert "silent" in inbox.estop(100.0)
    inbox.take_estop(False, 100.0)
    assert not inbox.estop(100.4) and "silent" in inbox.estop(100.6)
    inbox.take_estop(True, 101.0)
    assert "pressed" in inbox.estop(101.1)
    assert not Inbox(PANDA).estop(100.0)  # it has none


def test_picture_is_cut_about_the_middle_then_made_smaller() -> None:
    image = np.zeros((480, 640, 3), np.uint8)
    image[:, 80:560, 0] = 200  # the middle square
    small = fit(image, (128, 128))
    assert small.shape == (128, 128, 3) and (small[..., 0] == 200).all()


@pytest.mark.parametrize(("encoding", "bytes_"), [("rgb8", [1, 2, 3]), ("bgr8", [3, 2, 1]), ("bgra8", [3, 2, 1, 9])])
def test_encodings_give_the_same_picture(encoding: str, bytes_: list[int]) -> None:
    row = bytes(bytes_ * 2) + b"\0\0"  # with padding
    image = from_message(row * 3, encoding, 3, 2, len(row))
    assert image.shape == (3, 2, 3) and (image == [1, 2, 3]).all()


def test_broken_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match="too few"):
        from_message(b"123", "rgb8", 2, 2, 6)
    with pytest.raises(ValueError, match="'yuv422' is not read"):
        from_message(b"123", "yuv422", 1, 1, 2)
    with pytest.raises(ValueError, match="neither"):
        from_compressed(b"123")


# --- adapters ----------------------------------------------------------------------------------------------------


def driven(velocity: np.ndarray, replaces: bool) -> tuple[list[np.ndarray], TrajectoryController]:
    """A joint_trajectory_controller that got 50 commands at this speed, then none any more; where it went, per tick."""
    adapter, q, went = adapters_of(PANDA)[0], Q.copy(), []
    controller = TrajectoryController(PANDA.joints, Q, replaces)
    measured = Q
    for tick in range(200):
        now = tick * 0.005
        if tick < 50:
            q = q + velocity * 0.005
            (message,) = adapter.messages(Command(q, velocity, 1.0), None)
            assert isinstance(message, Trajectory)
            points = [(p.positions, p.velocities, p.time) for p in message.points]
            assert controller.take(message.joints, points, 0.0, now, measured) == ""
        measured, _ = controller.sample(now + 0.005)
        went.append(measured)
    return went, controller


@pytest.mark.parametrize("replaces", [False, True])
def test_trajectories_are_followed_and_end_at_rest_by_themselves(replaces: bool) -> None:
    velocity = np.array([0.5, -0.3, 0.0, 0.2, 0.0, 0.1, 1.0])
    went, _ = driven(velocity, replaces)
    np.testing.assert_allclose(went[49], Q + 50 * 0.005 * velocity, atol=1e-9)
    speed = np.diff(went, axis=0) / 0.005
    assert np.abs(speed[:48] - velocity).max() < 1e-6
    brakes = np.abs(np.diff(speed[48:], axis=0)) / 0.005
    assert (brakes <= np.array(PANDA.limits.acceleration) * 1.01).all()
    seconds = np.max(np.abs(velocity) / PANDA.limits.acceleration)
    still = 50 + int(np.ceil(seconds / 0.005)) + 1
    assert np.abs(speed[still:]).max() < 1e-9


def test_velocity_controller_drifts_off_unless_it_gets_zeros() -> None:
    robot = dataclasses.replace(PANDA, command=dataclasses.replace(PANDA.command, adapter="forward_velocity"))
    adapter = adapters_of(robot)[0]
    joints = Joints(Q, np.zeros(7), 1.0, 0.0)
    (moving,) = adapter.messages(Command(Q, np.full(7, 0.1), 1.0), joints)
    (rest,) = adapter.rest(joints)
    assert isinstance(moving, Floats) and isinstance(rest, Floats)
    controller = ForwardController(Q, velocities=True)
    controller.take(moving.data, 0.0)
    assert controller.sample(5.0)[0][0] == pytest.approx(0.5)  # what it does without a watchdog
    controller.take(rest.data, 5.0)
    assert controller.sample(9.0)[0][0] == pytest.approx(0.5)
    assert adapter.messages(Command(Q, np.full(7, 0.1), 1.0), None) == [rest]  # nobody knows where the arm is


class Listed(TopicRobot):
    """A robot whose messages are kept."""

    def __init__(self, adapter: Literal["joint_trajectory", "forward_velocity"], sends: bool) -> None:
        command = dataclasses.replace(PANDA.command, adapter=adapter)
        super().__init__(dataclasses.replace(PANDA, command=command), sends)
        self.told: list[Message] = []

    def _publish(self, message: Message) -> None:
        assert message.topic in self._spoken
        self.told.append(message)

    def _leave(self) -> None:
        pass


def test_who_watches_stops_an_arm_that_would_run_on_and_no_other() -> None:
    zeros, watcher = Floats(PANDA.command.topic, REST), Listed("forward_velocity", False)
    watcher.close()
    assert not watcher.told  # it may have watched what somebody else drives
    watcher.stop()
    assert set(watcher.told) == {zeros}
    sender = Listed("forward_velocity", True)
    sender.close()
    assert set(sender.told) == {zeros}
    braking = Listed("joint_trajectory", False)
    braking.stop()
    assert not braking.told and not braking._spoken


def test_velocity_command_makes_up_for_what_the_arm_is_behind() -> None:
    robot = dataclasses.replace(PANDA, command=dataclasses.replace(PANDA.command, adapter="forward_velocity"))
    (message,) = adapters_of(robot)[0].messages(Command(Q + 0.05, np.zeros(7), 1.0), Joints(Q, np.zeros(7), 1.0, 0.0))
    assert isinstance(message, Floats) and message.data == pytest.approx([0.5] * 7)


def test_gripper_is_told_only_what_is_new_and_now_and_then_again() -> None:
    assert PANDA.gripper is not None
    adapter = GripperAdapter(PANDA.gripper, 4.0)
    told = [adapter.messages(Command(Q, np.zeros(7), opening), None) for opening in (1.0, 1.0, 0.5, 0.5)]
    assert told == [[Floats(PANDA.gripper.topic, (0.04,))], [], [Floats(PANDA.gripper.topic, (0.02,))], []]
    later = [adapter.messages(Command(Q, np.zeros(7), 0.5), None) for _ in range(200)]
    assert 0 < sum(map(bool, later)) <= 4


def test_command_with_nan_is_not_sent() -> None:
    with pytest.raises(VlaError, match="finite"):
        require_finite(Command(Q * np.nan, np.zeros(7), 1.0))


# --- the controllers' likeness ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "points", "stamp", "why"),
    [
        (PANDA.joints[:6], [(tuple(Q[:6]), REST[:6], 0.1)], 0.0, "6 of 7 joints"),
        ((*PANDA.joints[:6], "elbow"), [(tuple(Q), REST, 0.1)], 0.0, "'elbow' is not one"),
        (PANDA.joints, [], 0.0, "no points"),
        (PANDA.joints, [(tuple(Q), REST, 0.1)], 5.0, "wholly in the past"),
        (PANDA.joints, [(tuple(Q), (1.0, *REST[1:]), 0.1)], 0.0, "velocity at its end"),
        (PANDA.joints, [(tuple(Q), REST, 0.2), (tuple(Q), REST, 0.1)], 0.0, "do not ascend"),
        (PANDA.joints, [((np.nan, *Q[1:]), REST, 0.1)], 0.0, "NaN"),
    ],
)
def test_trajectory_controller_refuses(names: tuple, points: list, stamp: float, why: str) -> None:
    controller = TrajectoryController(PANDA.joints, Q)
    assert why in controller.take(names, points, stamp, 10.0, Q)
    np.testing.assert_array_equal(controller.sample(11.0)[0], Q)


def test_old_and_new_controller_differ_until_the_stamp() -> None:
    for replaces in (False, True):
        controller = TrajectoryController(PANDA.joints, Q, replaces)
        assert controller.take(PANDA.joints, [(tuple(Q + 1.0), REST, 1.0)], 0.0, 0.0, Q) == ""
        one, _ = controller.sample(0.5)
        assert controller.take(PANDA.joints, [(tuple(Q - 1.0), REST, 1.0)], 0.75, 0.5, one) == ""
        later, _ = controller.sample(0.7)
        assert (later[0] > one[0]) is np.True_ if replaces else later[0] < one[0] + 0.2
        np.testing.assert_allclose(controller.sample(2.0)[0], Q - 1.0)
        if replaces:  # the first goes on to the stamp, then the second begins
            alone = TrajectoryController(PANDA.joints, Q, True)
            alone.take(PANDA.joints, [(tuple(Q + 1.0), REST, 1.0)], 0.0, 0.0, Q)
            np.testing.assert_allclose(later, alone.sample(0.7)[0])
