"""An agent drives a robot: it looks, answers with chunks, and the control process carries them out."""

from __future__ import annotations

import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from signal import Signals
from typing import Any

import numpy as np

from vla.agent import Agent
from vla.contracts import Chunk, Observation
from vla.contracts.errors import one_line
from vla.control.history import History
from vla.control.plans import plan_rate_hz
from vla.control.process import ControlProcess
from vla.control.reasons import Reason
from vla.control.supervisor import Patience
from vla.host.interrupt import StopRequest
from vla.robots.config import RobotConfig
from vla.robots.io import RobotIO
from vla.robots.planning import Planning
from vla.robots.state import Kinematics, observe

STILL = 0.02  # rad/s, below which a measured joint counts as at rest
_MOVED_RAD, _MOVED_GRIPPER, _MOVED_M = 0.03, 0.1, 0.02  # by which joints, the gripper's opening, the tool have moved
_POLL_S = 0.01
_HEED_S = 0.2  # in which a chunk is heeded, if it ever is
_HUNG_S = 1.0  # without a tick, the control process counts as hung
_USUAL = (Reason.NO_CHUNK, Reason.CHUNK_ENDED, Reason.STALE_CHUNK)  # rests that the next chunk ends


def patience_of(config: RobotConfig, seconds_a_chunk: float) -> Patience:
    """How long the supervisor bears with what is missing on this robot."""
    images = max(camera.max_age_s for camera in config.cameras.values())
    return Patience(joints_s=config.state.max_age_s, images_s=images, chunk_s=seconds_a_chunk + 1.0)


@dataclass
class Outcome:
    """How a deployment went.

    Attributes:
        reason: why it ended, in words.
        fault: whether that was something wrong, rather than the end of the task, of the time, or the user's wish.
        signal: the number of the signal that ended it; 0 where none did.
        seconds: from the first chunk to the end.
        decisions: chunks that were sent.
        infer_ms: median and longest time from a picture to its chunk.
        rest_ms: from the wish to stop, or from noticing what was wrong, to measured rest.
        counts: the supervisor's interventions, by name.
        ticks, skipped: of the control process.
    """

    reason: str = ""
    fault: bool = False
    signal: int = 0
    seconds: float = 0.0
    decisions: int = 0
    infer_ms: tuple[float, float] = (0.0, 0.0)
    rest_ms: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)
    ticks: int = 0
    skipped: int = 0

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return asdict(self)


class Deployment:
    """One run of an agent on a robot.

    Args:
        config: the robot's file.
        robot: it, watching.
        control: the control process, not yet started or running.
        agent: what drives it.
        instruction: what it is asked.
        speed: 1 plays chunks as they were demonstrated; below, slower.
        seconds: after which it ends.
        done: says that the task is done, e.g. by a simulator that knows; asked 5 times a second.
        say: gets a line for everything worth telling.
        seed: of the agent's noise.
        on_chunk: gets each chunk that is sent, for a recording.
        give_up_s: a rest that has another cause than a chunk that is over ends the run after so long.
        still_s: an arm that stands still for so long ends it, too, whatever it is told: it is done, or held back.
    """

    def __init__(
        self,
        config: RobotConfig,
        robot: RobotIO,
        control: ControlProcess,
        agent: Agent,
        instruction: str,
        speed: float = 0.5,
        seconds: float = 60.0,
        done: Callable[[], bool] = lambda: False,
        say: Callable[[str], None] = print,
        seed: int = 0,
        on_chunk: Callable[[Chunk], None] = lambda chunk: None,
        give_up_s: float = 2.0,
        still_s: float = 20.0,
    ) -> None:
        self.config, self._robot, self._control, self._agent = config, robot, control, agent
        self._instruction, self._speed, self._seconds = instruction, speed, seconds
        self._done, self._say, self._on_chunk = done, say, on_chunk
        self._give_up_s, self._still_s = give_up_s, still_s
        self._kinematics = Kinematics(config)
        self._runner = agent.runner(seed)
        self._history = History(agent.observation_steps)
        self._planning = Planning(agent, self._look) if plan_rate_hz(agent) is not None else None
        self._lock = threading.Lock()  # the orders' mailbox has one writer at a time
        self._took: list[float] = []
        self._stop = StopRequest()
        self._ended, self._why, self._noticed = threading.Event(), ("", False), 0.0
        self._resting: tuple[Reason | None, float] = (None, 0.0)
        self._thinks_since = time.monotonic()
        self._said: dict[Reason, float] = {}
        self._stood: tuple[np.ndarray, float, Counter[Reason]] = (np.zeros(0), 0.0, Counter())
        self._wanted_m = 0.0  # how far from the tool the newest chunk leads before the next look
        self._begun = 0.0

    @property
    def _step(self) -> float:
        """Seconds between two actions."""
        return self._agent.spec.dt / self._speed

    def run(self) -> Outcome:
        """Drive the robot to the end of the task, of the time, or of what was bearable; it rests when this returns."""
        with self._stop, self._control:
            watcher = threading.Thread(target=self._watch, name="watches the robot", daemon=True)
            self._begun = time.monotonic()
            watcher.start()
            if self._planning is not None:
                self._planning.start()
            try:
                while not self._ended.is_set():
                    self._decide()
            except BaseException as error:
                self._end(f"the policy failed: {one_line(error)}", fault=True)
                raise
            finally:
                self._end("the run was broken off", fault=True)
                if self._planning is not None:
                    self._planning.stop()
                watcher.join()
                outcome = self._rest()
        return outcome

    # --- the policy's own pace -----------------------------------------------------------------------------------

    def _decide(self) -> None:
        """Look, answer, and wait until it is time to look again."""
        seen = self._look()
        if seen is not None and self._planning is not None:
            plan = self._planning.newest(seen.time)
            seen = None if plan is None else replace(seen, plan=plan)  # without one the arm rests
        if seen is None:
            time.sleep(_POLL_S)
            self._thinks_since = time.monotonic()
            return
        begun, runner = time.monotonic(), self._runner
        (chunk,) = runner.actor.act_batch([runner.see(self._history.add(seen))], [runner.noise_seed])
        chunk = replace(chunk, time=seen.time)
        runner.push(chunk)
        slower = Chunk(chunk.actions, self._step, chunk.time)
        if self._ended.is_set():
            return
        # How old the cameras' newest pictures are is what the supervisor minds; how old a chunk is, it knows.
        images = min(picture.received for picture in self._robot.pictures().values())
        with self._lock:
            self._control.push(slower, images=images)
        self._on_chunk(slower)
        self._wanted_m = float(np.linalg.norm(chunk.actions[runner.execute - 1, :3] - seen.state[:3]))
        self._took.append(time.monotonic() - seen.time)
        self._wait(begun + runner.execute * self._step)

    def _wait(self, until: float) -> None:
        """Until it is time to look again, or the arm rests for want of a chunk: it was stopped for a moment."""
        begun = time.monotonic()
        step = begun + self._step
        while not self._ended.is_set() and time.monotonic() < until:
            self._thinks_since = time.monotonic()
            if self._thinks_since > begun + _HEED_S and self._control.status().resting in _USUAL:
                return
            if self._history.looks_back and time.monotonic() >= step:
                step += self._step
                seen = self._look()
                if seen is not None:
                    self._history.add(seen)
            time.sleep(min(_POLL_S, max(0.0, until - time.monotonic())))

    def _look(self) -> Observation | None:
        joints, pictures = self._robot.joints(), self._robot.pictures()
        if joints is None or len(pictures) < len(self.config.cameras):
            return None
        now = time.monotonic()
        stale = any(now - pictures[name].received > camera.max_age_s for name, camera in self.config.cameras.items())
        if stale or not np.isfinite(joints.q).all():
            return None
        return observe(self._kinematics, joints, pictures, self._instruction)

    # --- beside it, 100 times a second ----------------------------------------------------------------------------

    def _watch(self) -> None:
        try:
            self._watch_on()
        except BaseException as error:  # whatever it was: nobody watches any more, so nothing may move
            self._end(f"watching the robot failed: {one_line(error)}", fault=True)

    def _watch_on(self) -> None:
        asked = 0.0
        while not self._ended.is_set():
            now = time.monotonic()
            if self._stop.signal:
                return self._end(f"{Signals(self._stop.signal).name} came", fault=False)
            wrong = (
                self._robot.estop()
                or self._robot.problem()
                or self._plans()
                or self._silence(now)
                or self._supervisor_says(now)
            )
            if wrong:
                return self._end(wrong, fault=True)
            if now - self._begun > self._seconds:
                return self._end(f"{self._seconds:.0f} s are over", fault=False)
            if still := self._stands_still(now):
                return self._end(still, fault=self._wanted_m > _MOVED_M)
            if now - asked > 0.2:
                asked = now
                if self._done():
                    return self._end("the task is done", fault=False)
            self._beat(now)
            time.sleep(_POLL_S)
        return None

    def _beat(self, now: float) -> None:
        """Say that the policy lives, unless it has been thinking for too long, and how old the pictures are."""
        pictures = self._robot.pictures()
        if len(pictures) < len(self.config.cameras) or now - self._thinks_since > 2.0:
            return
        with self._lock:
            self._control.beat(min(picture.received for picture in pictures.values()))

    def _supervisor_says(self, now: float) -> str:
        """Why the supervisor keeps the arm at rest, where no chunk of ours will end that."""
        if lost := self._control_lost(now):
            return lost
        status = self._control.status()
        news = self._control.news()
        self._stood[2].update(news)
        for reason in news:
            if reason not in _USUAL and now - self._said.get(reason, -60.0) > 5.0:  # all are counted in the report
                self._said[reason] = now
                self._say(f"{now - self._begun:6.2f} s  supervisor: {reason.text}")
        if status.latched is not None:
            return self._in_detail(status.latched)
        if status.resting is not self._resting[0]:
            self._resting = (status.resting, now)
        if status.resting is None or status.resting in _USUAL:
            limit = self._give_up_s + 5.0 * self._step + 5.0
        else:
            limit = self._give_up_s + 1.0
        if status.resting is not None and now - self._resting[1] > limit:
            return self._in_detail(status.resting)
        return ""

    def _control_lost(self, now: float) -> str:
        state = self._control.state()
        if not self._control.alive:
            return "the control process is gone"
        hangs = state is not None and now - state.time > _HUNG_S
        return "the control process hangs" if hangs else ""

    def _stands_still(self, now: float) -> str:
        """That the arm has not moved for too long, and what has held it back meanwhile, if it was the supervisor."""
        state = self._control.state()
        if state is None:
            return ""
        at, (before, since, _) = np.append(state.q, state.gripper), self._stood
        limits = np.full(len(at), _MOVED_RAD)
        limits[-1] = _MOVED_GRIPPER
        if len(before) != len(at) or (np.abs(at - before) > limits).any():
            self._stood = (at, now, Counter())
            return ""
        if now - since < self._still_s:
            return ""
        told, held = f"the arm has stood still for {self._still_s:.0f} s", self._held_back()
        if self._wanted_m <= _MOVED_M:
            return f"{told}: it is done, or does not know how to go on"
        why = (
            f"the supervisor holds it back: {held}"
            if held
            else "that is beyond its workspace, or something is in the way"
        )
        return f"{told}, and is to go {100 * self._wanted_m:.0f} cm further: {why}"

    def _held_back(self) -> str:
        """Why the supervisor has changed or refused most of what came since the arm moved last; empty if it did not."""
        counts = [(count, reason) for reason, count in self._stood[2].items() if reason not in _USUAL]
        return max(counts)[1].text if counts else ""

    def _plans(self) -> str:
        return self._planning.problem if self._planning is not None else ""

    def _silence(self, now: float) -> str:
        """Which camera or joint has been silent for so long that the run ends; the supervisor rests long before."""
        for name, picture in self._robot.pictures().items():
            if now - picture.received > self.config.cameras[name].max_age_s + self._give_up_s:
                return f"camera '{name}' has sent nothing new for {now - picture.received:.1f} s"
        joints, state = self._robot.joints(), self.config.state
        if joints is not None and now - joints.received > state.max_age_s + self._give_up_s:
            silent = self._robot.missing(now - state.max_age_s)
            who = f" of '{silent[0]}'" if len(silent) == 1 else ""
            return f"{state.topic} has told nothing new{who} for {now - joints.received:.1f} s"
        return ""

    def _in_detail(self, reason: Reason) -> str:
        text, waited = reason.text, time.monotonic() + 0.5
        while reason in (Reason.ROBOT_FAULT, Reason.ESTOP) and time.monotonic() < waited:  # we hear of it as well
            if why := self._robot.problem() or self._robot.estop():
                return why
            time.sleep(_POLL_S)
        state = self._control.state()
        if reason is Reason.TRACKING and state is not None:
            behind = np.abs(state.q - state.command)
            joint = self.config.joints[int(np.argmax(behind))]
            return f"{text}: '{joint}' is {behind.max():.2f} rad off: it is blocked, or its controller does not follow"
        return text

    # --- the end --------------------------------------------------------------------------------------------------

    def _end(self, why: str, fault: bool) -> None:
        """Have the arm come to rest, at once and for good; the first reason counts."""
        if self._ended.is_set():
            return
        self._why, self._noticed = (why, fault), time.monotonic()
        with self._lock:
            if self._control.alive:
                self._control.estop()
        try:
            if self._control_lost(self._noticed):
                self._robot.stop()  # nobody else is left to
        finally:
            self._ended.set()

    def _rest(self) -> Outcome:
        """Wait until the arm was measured at rest; what became of it all."""
        status, limit, rested = self._control.status(), time.monotonic() + 2.0, float("nan")
        while time.monotonic() < limit and self._control.alive:
            status, state = self._control.status(), self._control.state()
            joints = self._robot.joints()
            measured = state.velocity if state is not None else joints.velocity if joints else np.zeros(1)
            still = not np.isfinite(measured).all() or np.abs(measured).max() < STILL
            if (status.at_rest and still) or not status.begun:
                rested = time.monotonic()
                break
            time.sleep(0.002)
        took = self._took or [0.0]
        why, fault = self._why
        return Outcome(
            why, fault, self._stop.signal, self._noticed - self._begun, self._runner.decisions,
            (round(1e3 * statistics.median(took), 1), round(1e3 * max(took), 1)),
            round(1e3 * (rested - self._noticed), 1),
            {reason.name.lower(): count for reason, count in status.counts.items() if count},
            status.ticks, status.skipped,
        )  # fmt: skip
