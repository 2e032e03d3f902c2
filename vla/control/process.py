"""The 200 Hz loop in a process of its own, and the handle by which a policy's process feeds it.

    control = ControlProcess(PANDA, make_driver)
    with control:
        control.push(chunk)          # as often as there are answers
        control.beat()               # at least twice a second
        control.state().q

The two share memory and nothing else: neither waits for the other. If the policy's process dies, however it does, the
arm comes to rest and the control process ends by itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from vla.contracts import Chunk, VlaError
from vla.contracts.errors import one_line
from vla.control import realtime
from vla.control.arm import ArmSpec
from vla.control.driver import Driver
from vla.control.loop import ACTION, LATE_US, LONGEST, TIMED, Boxes, ControlLoop
from vla.control.reasons import Reason
from vla.control.supervisor import Patience
from vla.control.timeline import Timeline
from vla.host.parent import Parent

_EVERY = 10  # ticks from one status to the next; a change is told at once


@dataclass(frozen=True)
class ControlSettings:
    """How the process runs.

    Attributes:
        wishes: what to ask the system for.
        patience: how long to bear with what is missing.
        timeline: makes what chunks are placed on; importable, since it is called in the other process.
    """

    wishes: realtime.Wishes = field(default_factory=realtime.Wishes)
    patience: Patience = field(default_factory=Patience)
    timeline: Callable[[], Timeline] = Timeline


@dataclass(frozen=True)
class ArmState:
    """An arm with N joints at one tick; times are of ``time.monotonic``.

    Attributes:
        time: of the tick, s.
        received: when the measurement came, s.
        q, velocity: measured, rad and rad/s, (N,); NaN where the robot does not tell.
        gripper, gripper_force: measured opening, 0 to 1, and newtons; NaN where the robot does not tell.
        command, command_velocity: commanded, rad and rad/s, (N,).
        command_gripper: commanded opening, 0 to 1.
    """

    time: float
    received: float
    q: np.ndarray
    velocity: np.ndarray
    gripper: float
    gripper_force: float
    command: np.ndarray
    command_velocity: np.ndarray
    command_gripper: float


@dataclass(frozen=True)
class ControlStatus:
    """What the control process tells of itself; see ``vla.control.loop.status_fields``."""

    ticks: int
    skipped: int
    resting: Reason | None
    latched: Reason | None
    chunk: int
    begun: bool
    at_rest: bool
    ended: bool
    answered: float
    cpu: float
    worst_late: float
    worst_jitter: float
    worst_busy: float
    late: np.ndarray
    jitter: np.ndarray
    busy: np.ndarray
    counts: dict[Reason, int]


class ControlProcess:
    """Starts the control process, and talks to it.

    Args:
        arm: the arm.
        make_driver: called in the other process; it and what it holds must pickle, so a function of a module (or a
            ``functools.partial`` of one), not of a script.
        settings: how it runs.

    Attributes:
        granted: what the system gave it, in words, once it has started; see ``realtime.prepare``.
    """

    def __init__(
        self, arm: ArmSpec, make_driver: Callable[[], Driver], settings: ControlSettings | None = None
    ) -> None:
        self.arm, self._make = arm, make_driver
        self.settings = settings or ControlSettings()
        self.granted: dict[str, str] = {}
        self._boxes: Boxes | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._told: np.ndarray = np.zeros(len(Reason), np.int64)
        self._lock = threading.Lock()  # whoever decides, watches and records asks for state and status

    def start(self, within_s: float = 30.0) -> Self:
        """Start the process, and wait until it ticks (not until the robot has told its joints).

        Raises VlaError if it can't be started: what the driver raised, in one line.
        """
        self._boxes = boxes = Boxes.make(len(self.arm.joints))
        payload = pickle.dumps((self.arm, self._make, self.settings, boxes))
        read, write = os.pipe()
        code = f"import sys; sys.path[:] = {sys.path!r}; from vla.control.process import _main; _main({write})"
        # Threads of numpy's would only be in the way, and no picture is drawn over there.
        env = {**os.environ, "MUJOCO_GL": "disable", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, pass_fds=(write,), env=env
        )
        os.close(write)
        assert self._process.stdin is not None
        self.beat()
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(payload)
            self._process.stdin.close()
        with open(read, "rb") as answers:
            heard = bool(select.select([answers], [], [], within_s)[0])
            answer = json.loads(answers.readline() or b"{}") if heard else {}
        if "granted" not in answer:
            self.close()
            why = answer.get("error") or ("it ended" if heard else f"it did not answer within {within_s:.0f} s")
            raise VlaError(f"the control process of the arm '{self.arm.name}' did not start: {why}")
        self.granted = answer["granted"]
        return self

    def push(self, chunk: Chunk, begin: float | None = None, images: float | None = None) -> None:
        """Hand over a chunk. It is checked over there; one that is refused is counted, and the former goes on.

        Args:
            chunk: actions (H, 10) as ``Controller.set_target`` takes them; its time is that of the observation, by
                ``time.monotonic``.
            begin: when its first action is due; None for ``chunk.time``.
            images: when the oldest picture was taken that it answers; None for ``chunk.time``.

        Raises:
            VlaError: it has another shape, or more than 256 actions.
        """
        if chunk.actions.ndim != 2 or chunk.actions.shape[1] != ACTION or len(chunk.actions) > LONGEST:
            raise VlaError(f"a chunk holds up to {LONGEST} actions of {ACTION} numbers, not {chunk.actions.shape}")
        box, count = self._open.chunks, len(chunk.actions)
        draft = box.draft
        draft["time"], draft["dt"], draft["count"] = chunk.time, chunk.dt, count
        draft["begin"] = chunk.time if begin is None else begin
        draft["actions"][:count] = chunk.actions
        draft["pushed"] = time.monotonic()
        self.beat(chunk.time if images is None else images)
        box.publish()

    @property
    def pushed(self) -> int:
        """The number of the chunk that was pushed last, as ``ControlStatus.chunk`` counts them; 0 before the first."""
        return self._open.chunks.sent

    def beat(self, images: float | None = None) -> None:
        """Say that the policy lives; with ``images``, that it decides on pictures of that time."""
        orders = self._open.orders
        orders.draft["beat"] = time.monotonic()
        if images is not None:
            orders.draft["images"] = images
        orders.publish()

    def estop(self) -> None:
        """Let the arm come to rest, and stay there until ``rearm``."""
        self._open.orders.draft["estops"] += 1
        self._open.orders.publish()

    def rearm(self) -> None:
        """Ask a latched arm to take commands again: only chunks that answer what is seen from then on are played.

        It stays latched, and ``status`` says so, while the cause is there.
        """
        self._open.orders.draft["rearmed"] = time.monotonic()
        self._open.orders.draft["rearms"] += 1
        self._open.orders.publish()

    def state(self) -> ArmState | None:
        """The arm at the newest tick; None before the first measurement."""
        box = self._open.states
        with self._lock:
            box.read()
            if not box.number:
                return None
            values: dict[str, Any] = {name: np.array(box.seen[name]) for name in box.fields.names or ()}
        values |= {name: float(value) for name, value in values.items() if not value.shape}
        return ArmState(**values)

    def status(self) -> ControlStatus:
        """What the process last told of itself, 20 times a second and at each change."""
        box = self._open.status
        with self._lock:
            box.read()
            told = box.number > 0
            seen: dict[str, Any] = {name: np.array(box.seen[name]) for name in box.fields.names or ()}
        for name in ("resting", "latched"):
            seen[name] = Reason(int(seen[name])) if told and seen[name] >= 0 else None
        for name in ("begun", "at_rest", "ended"):
            seen[name] = bool(seen[name])
        for name in TIMED:
            seen[f"worst_{name}"] = float(seen[f"worst_{name}"])
        for name in ("ticks", "skipped", "chunk"):
            seen[name] = int(seen[name])
        for name in ("answered", "cpu"):
            seen[name] = float(seen[name])
        seen["counts"] = {reason: int(count) for reason, count in zip(Reason, seen["counts"], strict=True)}
        return ControlStatus(**seen)

    def news(self) -> dict[Reason, int]:
        """The interventions since the last call, and how many of each: for a log, and for whoever watches."""
        with self._lock:
            self._open.status.read()
            counts = np.array(self._open.status.seen["counts"])
            new, self._told = counts - self._told, counts
        return {reason: int(count) for reason, count in zip(Reason, new, strict=True) if count}

    def most_memory(self) -> int:
        """The most memory that the process, which runs, has had, bytes."""
        lines = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii").splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process's number."""
        assert self._process is not None
        return self._process.pid

    def close(self, within_s: float = 3.0) -> None:
        """Let the arm come to rest, and the process end; it is killed if it does not within ``within_s`` seconds."""
        if self._boxes is None:
            return
        self._boxes.orders.draft["quit"] = 1
        self._boxes.orders.publish()
        if self._process is not None:
            try:
                self._process.wait(within_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._boxes.status.read()
        self._boxes.close()
        self._boxes = None

    @property
    def _open(self) -> Boxes:
        if self._boxes is None:
            raise VlaError("the control process is not running: call start first")
        return self._boxes

    def __enter__(self) -> Self:
        return self.start() if self._process is None else self

    def __exit__(self, *_: object) -> None:
        self.close()


def _main(answers: int) -> None:
    """The other process. ``answers`` is the pipe on which it says that it has started, or why it could not."""
    parent = Parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the policy's process, which says when to end
    with open(answers, "w", encoding="utf-8") as pipe:
        try:
            arm, make, settings, boxes = pickle.load(sys.stdin.buffer)
            driver = make()
            loop = ControlLoop(arm, driver, boxes, settings.patience, settings.timeline)
            granted = realtime.prepare(settings.wishes)
        except BaseException as error:
            pipe.write(json.dumps({"error": one_line(error)}) + "\n")
            raise SystemExit(1) from error
        pipe.write(json.dumps({"granted": granted}) + "\n")
    try:
        _Ticker(loop, boxes, parent).run()
    finally:
        driver.close()
        boxes.close()


class _Ticker:
    """Calls the loop on time, keeps the books, and knows when to end."""

    def __init__(self, loop: ControlLoop, boxes: Boxes, parent: Parent) -> None:
        self._loop, self._boxes, self._parent = loop, boxes, parent
        self._status: Any = boxes.status.draft
        self._status["resting"] = self._status["latched"] = -1
        self._failure: BaseException | None = None
        signal.signal(signal.SIGTERM, self._quit)

    def _quit(self, *_: object) -> None:
        self._loop.quitting = Reason.QUIT

    def run(self) -> None:
        loop, dt, status = self._loop, self._loop.supervisor.dt, self._status
        realtime.no_collections()
        deadline, rests, before = time.monotonic(), 0, 0.0
        while rests < 3:
            deadline += dt
            now = realtime.wait_until(deadline)
            late = now - deadline
            if late > dt:
                missed = int(late / dt)
                status["skipped"] += missed
                deadline += missed * dt
            self._tick(deadline)
            busy = time.monotonic() - now
            self._count(late, abs(late - before), busy)
            before = late
            if self._parent.gone:
                loop.quitting = Reason.POLICY_DIED
            elif self._boxes.orders.seen["quit"] and loop.quitting is None:
                loop.quitting = Reason.QUIT
            rests = rests + 1 if loop.quitting is not None and loop.supervisor.at_rest else 0
        self._tell(ended=1)
        if self._failure is not None:
            raise self._failure

    def _tick(self, now: float) -> None:
        if self._failure is None:
            try:
                return self._loop.tick(now)
            except Exception as error:
                self._failure, self._loop.quitting = error, Reason.INTERNAL
        if self._loop.supervisor.begun:  # whatever failed, the way to rest is known
            self._loop.supervisor.rest(Reason.INTERNAL)
        return None

    def _count(self, *timed: float) -> None:
        status, supervisor = self._status, self._loop.supervisor
        status["ticks"] += 1
        for name, seconds in zip(TIMED, timed, strict=True):
            status[name][int(np.searchsorted(LATE_US, 1e6 * max(0.0, seconds), "right")) - 1] += 1
            worst = f"worst_{name}"
            if seconds > status[worst]:
                status[worst] = seconds
        if self._loop.heeded == self._loop.heeded:  # not NaN
            status["answered"] = time.monotonic() - self._loop.heeded
            status["chunk"] = self._boxes.chunks.number
        resting = -1 if supervisor.resting is None else int(supervisor.resting)
        latched = -1 if supervisor.latched is None else int(supervisor.latched)
        changed = status["resting"] != resting or status["latched"] != latched
        status["resting"], status["latched"] = resting, latched
        if changed or status["ticks"] % _EVERY == 0 or status["at_rest"] != supervisor.at_rest:
            self._tell()

    def _tell(self, ended: int = 0) -> None:
        status, supervisor = self._status, self._loop.supervisor
        status["begun"], status["at_rest"], status["ended"] = supervisor.begun, supervisor.at_rest, ended
        status["counts"] = supervisor.counts
        status["cpu"] = time.process_time()
        self._boxes.status.publish()
