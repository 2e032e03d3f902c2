"""Ways of playing chunks while the policy is late: what it is told of the meantime, and where its answer lies.

The answer to an observation at time t, which comes d actions later,

- ``receding``: is played from its action d on, since the first d are over;
- ``ensemble``: is averaged with all earlier ones that cover the moment (ACT, arXiv 2304.13705);
- ``guided``: is drawn so that it goes on from the d actions that are played meanwhile, and softly from what was planned
  beyond (real-time chunking: Black et al., arXiv 2506.07339);
- ``prefix``: is drawn given the d actions that are played meanwhile, by a policy that was trained so (Black et al.,
  arXiv 2512.05964);
- ``forward``: answers the state at t + d, by the actions that are played until then, and begins there (VLASH,
  arXiv 2512.01031, here without its training).

d is never assumed: it is the largest of the last few delays, each counted in actions that were played meanwhile. The
first answer does not count, since a network is slow when it is asked for the first time.
"""

from __future__ import annotations

import difflib
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from vla.contracts import EnvSpec, Observation, Pending, VlaError
from vla.control.timeline import TemporalEnsemble, Timeline

_LATELY = 10  # delays that are remembered


@dataclass(frozen=True)
class Playback:
    """A way of playing.

    Attributes:
        name: as ``vla eval --playback`` takes it.
        timeline: makes what chunks are placed on.
        guides: whether the policy draws its answer with the pending actions in mind.
        gives: whether it takes those that are sure as given.
        rolls: whether it is shown the state in which its answer will begin.
    """

    name: str
    timeline: Callable[[], Timeline] = Timeline
    guides: bool = False
    gives: bool = False
    rolls: bool = False


PLAYBACKS = {
    one.name: one
    for one in (
        Playback("receding"),
        Playback("ensemble", TemporalEnsemble),
        Playback("guided", guides=True),
        Playback("prefix", guides=True, gives=True),
        Playback("forward", rolls=True),
    )
}


def playback_of(name: str) -> Playback:
    """The way of playing called ``name``. Raises VlaError, with the nearest, where there is none."""
    if name not in PLAYBACKS:
        near = difflib.get_close_matches(name, PLAYBACKS, n=1, cutoff=0.5)
        guess = f"; did you mean '{near[0]}'?" if near else ""
        raise VlaError(f"there is no way of playing '{name}'; known: {', '.join(PLAYBACKS)}{guess}")
    return PLAYBACKS[name]


class Delay:
    """How many actions will be played before the next answer comes: the most of the last few times."""

    def __init__(self) -> None:
        self._first, self._counted = True, deque[int](maxlen=_LATELY)

    def count(self, actions: int) -> None:
        """So many were played before an answer came."""
        if not self._first:
            self._counted.append(actions)
        self._first = False

    @property
    def actions(self) -> int:
        """See the class; 0 as long as nothing was counted."""
        return max(self._counted, default=0)


def actions_in(seconds: float, dt: float) -> int:
    """How many actions, one each ``dt`` seconds, are begun in a time: of one that is a multiple of it, just those."""
    return max(0, math.ceil(seconds / dt - 1e-6))


def pending(timeline: Timeline, time: float, count: int, sure: int, dt: float, width: int) -> Pending:
    """What a timeline holds from ``time`` on, of what had come by then.

    Args:
        timeline: of chunks.
        time: of the observation, s.
        count: actions to tell.
        sure: how many of them are played before the answer comes.
        dt: seconds between two actions.
        width: numbers of an action.
    """
    targets = [timeline.at(time + place * dt, arrived=time) for place in range(count)]
    known = [target for target in targets if target is not None]
    if len(known) < count:
        return Pending(np.zeros((count, width), np.float32), 0, 0)
    planned = next((place for place, one in enumerate(known) if one.ended or math.isinf(one.age)), count)
    return Pending(np.stack([one.action for one in known]).astype(np.float32), min(sure, count), planned)


def weights(what: Pending) -> np.ndarray:
    """How much each pending action binds the answer, (H,), 0 to 1 (Black et al., arXiv 2506.07339, equation 5).

    Those that are sure to be played bind wholly, those that are planned beyond less and less, and what is only held
    does not; an action that is sure and not planned is what is held.
    """
    place = np.arange(len(what.actions))
    end = max(what.planned, what.sure)
    share = np.clip((end - place) / (end - what.sure + 1.0), 0.0, 1.0)
    soft = share * np.expm1(share) / np.expm1(1.0)
    return np.where(place < what.sure, 1.0, soft).astype(np.float32)


def rolled_forward(observation: Observation, spec: EnvSpec) -> Observation:
    """The observation with the state in which the robot will be when the answer to it begins, as far as that is told.

    State entries of which an action entry says the target (the same name, or a pair of ``spec.relative``) take the last
    action that is sure to be played; the others, e.g. joint positions, stay as they were measured.
    """
    what = observation.pending
    if what is None or what.sure == 0:
        return observation
    names = {name: place for place, name in enumerate(spec.state)}
    pairs = {place: names[name] for place, name in enumerate(spec.action) if name in names} | dict(spec.relative)
    state = observation.state.copy()
    for action, entry in pairs.items():
        state[entry] = what.actions[what.sure - 1, action]
    return replace(observation, state=state)
