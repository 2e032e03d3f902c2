"""The perturbation ``latency``: the chunk that answers an observation begins to be played some time later.

Modelled: one delay for each decision, the sum of what the camera, the policy and the way to the arm take, since only
their sum tells in the motion. The observation shows the moment of the decision; its chunk begins a delay later, from
its first action, since nothing tells the agent of the delay; until then the earlier chunk goes on, beyond the actions
that would have been played of it, and holds its last action if it runs out. Before the first chunk arrives the robot
stays where it is; where it is not known what would hold it there, the first chunk comes at once. The policy is asked
as often as without latency. A chunk that arrives after one that answers a later observation is dropped.

The delay of a decision is normal, with a fifth of its mean as standard deviation, and never negative. An env plays
whole actions, so it is rounded up or down to whole steps at random, with the odds that keep its mean: of 50 ms in an
env with steps of 100 ms about every second chunk comes one step late, and the others at once.
"""

from __future__ import annotations

import math

import numpy as np

from vla.contracts import Chunk, EnvSpec, Observation
from vla.control.chunking import Chunking
from vla.perturb.axes import delay_ms, rng_of

JITTER = 0.2  # standard deviation of a delay, as a share of its mean


class DelayedChunking:
    """Plays what ``chunking`` plays, each chunk later by its own delay. See ``vla.control.chunking.Chunking``.

    Args:
        chunking: the episode's way to play chunks without latency.
        strength: of the perturbation: ``mild``, ``medium``, ``strong`` or e.g. ``150ms``.
        dt: seconds between two actions.
        seed: the episode's.
        hold: the action (A,) to play before the first chunk arrives; with None that one is not late.
    """

    def __init__(self, chunking: Chunking, strength: str, dt: float, seed: int, hold: np.ndarray | None) -> None:
        self._chunking, self._hold = chunking, hold
        self._mean, self._rng = delay_ms(strength) / 1000 / dt, rng_of(seed, "latency")
        self._arriving: list[tuple[int, np.ndarray]] = []  # first step and actions of each chunk, the newest last

    def play(self, chunk: Chunk, step: int) -> np.ndarray:
        """See ``Chunking``. As many actions as without latency, float32 (n, A)."""
        now = self._chunking.play(chunk, step)
        rest = chunk.actions[len(now) :]
        late = self._delay_steps()
        if self._hold is None and not self._arriving:
            late = 0
        self._arriving.append((step + late, np.concatenate((now, rest))))
        return np.stack([self._action(s) for s in range(step, step + len(now))]).astype(np.float32)

    def _delay_steps(self) -> int:
        late = max(0.0, self._mean * (1.0 + JITTER * self._rng.normal()))
        whole = math.floor(late)
        return whole + int(self._rng.random() < late - whole)

    def _action(self, step: int) -> np.ndarray:
        arrived = [place for place, (begin, _) in enumerate(self._arriving) if begin <= step]
        if not arrived:
            assert self._hold is not None
            return self._hold
        self._arriving = self._arriving[arrived[-1] :]  # what came before the newest is never played again
        begin, actions = self._arriving[0]
        return actions[min(step - begin, len(actions) - 1)]


def hold_still(spec: EnvSpec, observation: Observation) -> np.ndarray | None:
    """The action (A,), float32, that leaves the robot where it is; None where the spec does not tell.

    An action entry is known to be an absolute target if ``spec.relative`` pairs it with a state entry, or if one has
    the very same name: then that state entry holds it. Of any other, e.g. a velocity, or what an outside env calls
    ``action_0``, nothing says what would: 0 may as well be a far corner.
    """
    names = {name: index for index, name in enumerate(spec.state)}
    pairs = dict(spec.relative)
    sources = [pairs.get(index, names.get(name)) for index, name in enumerate(spec.action)]
    known = [source for source in sources if source is not None]
    return observation.state[known].astype(np.float32) if len(known) == len(sources) else None
