"""One tick after the other: chunks come in, safe commands go out. It knows nothing of processes and reads no clock."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vla.contracts import Chunk
from vla.control.arm import ArmSpec
from vla.control.controller import CONTROL_HZ, Controller
from vla.control.driver import Driver, Reading
from vla.control.reasons import Reason
from vla.control.shared import Mailbox, chunk_fields, order_fields, state_fields
from vla.control.supervisor import Patience, Supervisor
from vla.control.timeline import Target, Timeline

ACTION = 10  # numbers of an action: position, 6-D rotation, gripper's opening
LONGEST = 256  # actions of a chunk


@dataclass(frozen=True)
class Boxes:
    """The mailboxes between the policy's process, which writes the first two, and the control process.

    Attributes:
        chunks, orders, states, status: see the functions named after them.
    """

    chunks: Mailbox
    orders: Mailbox
    states: Mailbox
    status: Mailbox

    @classmethod
    def make(cls, joints: int) -> Boxes:
        """New ones for an arm with so many joints."""
        fields = (chunk_fields(LONGEST, ACTION), order_fields(), state_fields(joints), status_fields())
        return cls(*map(Mailbox, fields))

    def close(self) -> None:
        """Let go of them all."""
        for box in (self.chunks, self.orders, self.states, self.status):
            box.close()


TIMED = ("late", "jitter", "busy")
LATE_US = np.concatenate(([0.0], np.geomspace(1.0, 1e6, 121)))  # edges of the histogram, microseconds


def status_fields() -> np.dtype:
    """What the control process tells of itself.

    ``ticks`` were played and ``skipped`` left out because the one before came too late. ``late``, ``jitter`` and
    ``busy`` count ticks by how long after its deadline a tick began, how far that was from a period after the one
    before, and how long it took, between the edges ``LATE_US``; the ``worst_`` of each is in seconds. ``counts`` are
    the supervisor's, ``resting`` and ``latched`` a ``Reason`` or -1. ``chunk`` is the number of the newest chunk that
    was taken, ``answered`` how long after its push the first command that heeds it was sent, ``cpu`` what the process
    used of a CPU, seconds.
    """
    numbers = [
        (name, "i8") for name in ("ticks", "skipped", "resting", "latched", "chunk", "begun", "at_rest", "ended")
    ]
    times = [(name, "f8") for name in ("answered", "cpu", *(f"worst_{name}" for name in TIMED))]
    bins = [(name, "i8", len(LATE_US)) for name in TIMED]
    return np.dtype([*numbers, *times, *bins, ("counts", "i8", len(Reason))], align=True)


@dataclass
class ControlLoop:
    """The tick of the control process.

    Args:
        arm: the arm.
        driver: what is driven.
        boxes: where chunks come from and state goes to.
        patience: of the supervisor.
        timeline: makes what chunks are placed on, as ``vla.control.playback`` has them.

    Attributes:
        reading: the newest measurement.
        supervisor: what sends.
        quitting: why the process is to end; the arm comes to rest first.
        heeded: when the chunk was pushed that this tick's command is the first to heed; NaN where there is none such.
    """

    arm: ArmSpec
    driver: Driver
    boxes: Boxes
    patience: Patience
    timeline: Callable[[], Timeline] = Timeline
    quitting: Reason | None = None
    heeded: float = field(default=math.nan, init=False)

    def __post_init__(self) -> None:
        joints = len(self.arm.joints)
        self.reading, self._controller = Reading.of(joints), Controller(self.arm)
        low, high = self._controller.range
        self.supervisor = Supervisor(self.arm, self.driver.send, self.patience, low, high, 1.0 / CONTROL_HZ)
        self._plans, self._rearms, self._estops = self.timeline(), 0, 0
        self._after = -math.inf  # chunks that answer an observation before this are not played
        self._played: Target | None = None
        self._unheeded = (math.nan, math.nan)  # when the newest chunk was pushed, and when it begins

    def tick(self, now: float) -> None:
        """Read, decide and send; ``now`` is ``time.monotonic``'s."""
        supervisor, boxes, self.heeded = self.supervisor, self.boxes, math.nan
        self.driver.read(self.reading)
        boxes.orders.read()
        if not supervisor.begun:
            if not math.isfinite(self.reading.received) or supervisor.measure(self.reading, now) is not None:
                return
            supervisor.begin(self.reading)
        orders: Any = boxes.orders.seen
        if orders["estops"] > self._estops:
            self._estops = int(orders["estops"])
            supervisor.latch(Reason.ESTOP)
        why = supervisor.measure(self.reading, now)
        if orders["rearms"] > self._rearms and supervisor.at_rest:
            self._rearms = int(orders["rearms"])
            if supervisor.rearm(self.reading):
                self._after = max(self._after, float(orders["rearmed"]))  # a chunk may have come in the same tick
                why = supervisor.measure(self.reading, now)
        self._take_chunk()
        target = self._plans.at(now)
        why = self.quitting or why or self._why_rest(target, now)
        if why is not None or target is None:
            self._rest(why or Reason.NO_CHUNK, now)
        else:
            self._follow(target, now)
        self._tell(now)

    def _why_rest(self, target: Target | None, now: float) -> Reason | None:
        orders: Any = self.boxes.orders.seen
        if target is None:
            return Reason.NO_CHUNK
        if now - orders["beat"] > self.patience.heartbeat_s:
            return Reason.HEARTBEAT
        if now - orders["images"] > self.patience.images_s:
            return Reason.STALE_IMAGES
        if target.ended:
            return Reason.CHUNK_ENDED
        return Reason.STALE_CHUNK if target.age > self.patience.chunk_s else None

    def _take_chunk(self) -> None:
        box = self.boxes.chunks
        if not box.read():
            return
        seen: Any = box.seen
        count = int(seen["count"])
        actions = np.array(seen["actions"][:count], np.float32)
        numbers = np.array([seen["time"], seen["begin"], seen["dt"]])
        if not 1 <= count <= LONGEST or not np.isfinite(actions).all() or not np.isfinite(numbers).all():
            return self.supervisor.note(Reason.NAN)
        if seen["time"] < self._after:
            return None  # it answers what was seen before the arm was stopped
        chunk = Chunk(actions, float(seen["dt"]), float(seen["time"]))
        if self._jumps(chunk, float(seen["begin"]), float(seen["pushed"])):
            return self.supervisor.note(Reason.JUMP)
        self._plans.push(chunk, float(seen["begin"]), float(seen["pushed"]))
        self._unheeded = (float(seen["pushed"]), float(seen["begin"]))
        return None

    def _jumps(self, chunk: Chunk, begin: float, now: float) -> bool:
        """Whether a chunk leaps from where the tool is told to be, or between two of its actions that are to come."""
        due = min(max(0, int((now - begin) / chunk.dt)), len(chunk.actions) - 1)
        points = np.vstack((self._controller.position, chunk.actions[due:, :3]))
        return bool((np.linalg.norm(np.diff(points, axis=0), axis=1) > self.patience.jump_m).any())

    def _rest(self, why: Reason, now: float) -> None:
        self._played = None
        if why not in (Reason.CHUNK_ENDED, Reason.NO_CHUNK):
            self._after = now
            if self._plans.at(now) is not None:
                self._plans = self.timeline()
        self.supervisor.rest(why)
        self._controller.follow(self.supervisor.q, self.supervisor.velocity, self.supervisor.gripper)

    def _follow(self, target: Target, now: float) -> None:
        controller, supervisor = self._controller, self.supervisor
        if self._played is None:
            controller.stay()
        before = self._played
        if before is None or before.until != target.until or not np.array_equal(before.action, target.action):
            controller.set_target(target.action, max(target.until - now, controller.dt))
        self._played = target
        q, gripper = controller.tick()
        supervisor.command(q, gripper, self.reading)
        if supervisor.changed:
            controller.follow(supervisor.q, supervisor.velocity, supervisor.gripper)
        pushed, begin = self._unheeded
        if now >= begin:
            self.heeded, self._unheeded = pushed, (math.nan, math.nan)

    def _tell(self, now: float) -> None:
        supervisor, reading = self.supervisor, self.reading
        state: Any = self.boxes.states.draft
        state["time"], state["received"] = now, reading.received
        state["q"], state["velocity"] = reading.q, reading.velocity
        state["gripper"], state["gripper_force"] = reading.gripper, reading.gripper_force
        state["command"], state["command_velocity"] = supervisor.q, supervisor.velocity
        state["command_gripper"] = supervisor.gripper
        self.boxes.states.publish()
