"""The control process on the wall clock: it follows, it rests, it ends by itself.

Times are generous: machines are shared.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from vla.contracts import Chunk, VlaError
from vla.control.arm import PANDA
from vla.control.controller import CONTROL_HZ, Controller
from vla.control.loop import Boxes, ControlLoop
from vla.control.process import ControlProcess, ControlSettings
from vla.control.realtime import Wishes
from vla.control.reasons import Reason
from vla.control.rotation import matrix_to_6d
from vla.control.simulated import SimulatedArm
from vla.control.supervisor import Patience

HOME = Controller(PANDA).home
SETTINGS = ControlSettings(Wishes(priority=None), Patience(joints_s=1.0, heartbeat_s=2.0))  # a shared machine stumbles


def moving(time_s: float, metres: float = 0.1, count: int = 30) -> Chunk:
    """A chunk to the left, from now on, over ``count`` tenths of a second."""
    controller = Controller(PANDA)
    actions = np.zeros((count, 10), np.float32)
    actions[:, :3] = controller.position + np.outer(np.arange(1, count + 1) / count, (0.0, metres, 0.0))
    actions[:, 3:9], actions[:, 9] = matrix_to_6d(controller.rotation), 1.0
    return Chunk(actions, 0.1, time_s)


def eventually(what: Callable[[], bool], within_s: float = 10.0) -> None:
    end = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)


def process(**arm) -> ControlProcess:
    strict = replace(PANDA, limits=replace(PANDA.limits, tracking_error=0.1))
    return ControlProcess(strict, partial(SimulatedArm, tuple(HOME), **arm), SETTINGS).start()


def test_it_follows_a_chunk_then_rests_and_tells_both() -> None:
    control = process()
    try:
        eventually(lambda: control.state() is not None)
        eventually(lambda: control.status().resting is Reason.NO_CHUNK)
        assert control.granted.keys() >= {"priority", "memory"}
        control.push(moving(time.monotonic(), count=10))
        eventually(lambda: control.status().resting is None)
        eventually(lambda: control.status().resting is Reason.CHUNK_ENDED)
        eventually(lambda: control.status().at_rest)
        state, status = control.state(), control.status()
        assert state is not None and state.q[0] > 0.05 and not state.command_velocity.any()
        assert status.counts[Reason.CHUNK_ENDED] == 1 and status.answered > 0.0
        assert status.late.sum() == status.busy.sum() == status.ticks > 100
        assert control.news()[Reason.NO_CHUNK] == 1 and not control.news()
        control.push(Chunk(np.full((3, 10), np.nan, np.float32), 0.1, time.monotonic()))
        eventually(lambda: control.status().counts[Reason.NAN] == 1)
        control.push(moving(time.monotonic(), metres=20.0))
        eventually(lambda: control.status().counts[Reason.JUMP] == 1)
        with pytest.raises(VlaError, match="up to 256 actions of 10 numbers, not \\(3, 9\\)"):
            control.push(Chunk(np.zeros((3, 9), np.float32), 0.1))
    finally:
        control.close()
    assert not control.alive


def test_an_emergency_stop_holds_until_rearmed_and_old_chunks_are_forgotten() -> None:
    control = process()
    try:
        control.push(moving(time.monotonic()))
        eventually(lambda: control.status().resting is None)
        control.estop()
        eventually(lambda: control.status().latched is Reason.ESTOP and control.status().at_rest)
        control.push(moving(time.monotonic()))
        control.rearm()
        eventually(lambda: control.status().latched is None)
        time.sleep(0.1)
        assert control.status().resting is Reason.NO_CHUNK
        control.push(moving(time.monotonic(), metres=0.05))
        eventually(lambda: control.status().resting is None)
    finally:
        control.close()


def test_a_chunk_that_came_before_the_rearming_is_forgotten_even_within_one_tick() -> None:
    now = [100.0]
    boxes = Boxes.make(len(PANDA.joints))
    loop = ControlLoop(PANDA, SimulatedArm(tuple(HOME), clock=lambda: now[0]), boxes, Patience())
    orders, chunks = boxes.orders, boxes.chunks

    def tick() -> Reason | None:
        now[0] += 1.0 / CONTROL_HZ
        orders.draft["beat"] = orders.draft["images"] = now[0]
        orders.publish()
        loop.tick(now[0])
        return loop.supervisor.resting

    def push() -> None:
        chunk, draft = moving(now[0]), chunks.draft
        draft["time"] = draft["begin"] = draft["pushed"] = now[0]
        draft["dt"], draft["count"] = chunk.dt, len(chunk.actions)
        draft["actions"][: len(chunk.actions)] = chunk.actions
        chunks.publish()

    try:
        tick()
        push()
        assert [tick() for _ in range(20)][-1] is None
        orders.draft["estops"] += 1
        assert {tick() for _ in range(100)} == {Reason.ESTOP} and loop.supervisor.at_rest
        now[0] += 0.1  # the process does not get its turn
        push()
        orders.draft["rearms"] += 1
        orders.draft["rearmed"] = now[0] + 1e-4
        assert {tick() for _ in range(20)} == {Reason.NO_CHUNK}
        push()
        assert tick() is None
    finally:
        boxes.close()


@pytest.mark.parametrize(
    ("arm", "reason"), [({"blocked": (0,)}, Reason.TRACKING), ({"silent_after_s": 4.0}, Reason.STALE_JOINTS)]
)
def test_an_arm_that_is_blocked_or_silent_comes_to_rest(arm: dict, reason: Reason) -> None:
    control = process(**arm)
    try:
        eventually(lambda: control.state() is not None)
        control.push(moving(time.monotonic(), 0.24, count=20))
        eventually(lambda: control.status().resting is None)
        eventually(lambda: control.status().resting is reason and control.status().at_rest)
        assert (control.status().latched is reason) == reason.latches
    finally:
        control.close()


POLICY = """
import time
from functools import partial
from tests.test_control_process import PANDA, HOME, SETTINGS, ControlProcess, SimulatedArm, moving
from tests.test_control_process import WatchedArm
control = ControlProcess(PANDA, WatchedArm, SETTINGS).start()
print(control.pid, flush=True)
while True:
    control.push(moving(time.monotonic()))
    time.sleep(0.1)
"""


class WatchedArm(SimulatedArm):
    """Writes down when it was last sent a motion, and when it was left at rest."""

    def __init__(self) -> None:
        super().__init__(tuple(HOME))
        self._moved = 0.0

    def send(self, q: np.ndarray, velocity: np.ndarray, gripper: float) -> None:
        super().send(q, velocity, gripper)
        if velocity.any():
            self._moved = time.monotonic()

    def close(self) -> None:
        print("left at rest:", self._moved, time.monotonic(), file=sys.stderr, flush=True)


def test_kill_9_of_the_policy_brings_the_arm_to_rest_and_the_process_to_its_end() -> None:
    policy = subprocess.Popen(
        [sys.executable, "-c", POLICY], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=os.getcwd()
    )
    assert policy.stdout is not None and policy.stderr is not None
    pid = int(policy.stdout.readline())
    time.sleep(1.0)
    os.kill(policy.pid, signal.SIGKILL)
    killed = time.monotonic()
    told = policy.stderr.read().partition("left at rest:")[2].split()  # ends when the control process does, too
    policy.wait()
    policy.stdout.close()
    policy.stderr.close()
    last_motion, closed = map(float, told[:2])
    assert killed - 0.5 < last_motion < killed + 0.2 + 0.5, "0.2 s, and what a shared machine may be late"
    assert closed < killed + 2.0
    eventually(lambda: gone(pid))


def gone(pid: int) -> bool:
    try:  # nobody may have collected what is left of it
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def broken() -> SimulatedArm:
    raise VlaError("the robot is not there")


class DiesArm(SimulatedArm):
    """Its reading fails after a while."""

    def __init__(self) -> None:
        super().__init__(tuple(HOME))
        self._reads = 0

    def read(self, into) -> None:
        super().read(into)
        self._reads += 1
        if self._reads > 100:
            raise OSError("the line is dead")


def test_what_fails_is_told(capfd: pytest.CaptureFixture) -> None:
    with pytest.raises(VlaError, match=r"arm 'panda' did not start: the robot is not there"):
        ControlProcess(PANDA, broken, SETTINGS).start()
    control = ControlProcess(PANDA, DiesArm, SETTINGS).start()
    eventually(lambda: not control.alive)
    status = control.status()
    assert status.ended and status.at_rest and status.resting is Reason.INTERNAL
    control.close()
    assert "the line is dead" in capfd.readouterr().err
