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

from vla.contracts import EnvSpec, Observation
from vla.perturb.axes import delay_ms, rng_of

JITTER = 0.2  # standard deviation of a delay, as a share of its mean


class Delays:
    """The delays of an episode's decisions, one after the other.

    Args:
        strength: of the perturbation: ``mild``, ``medium``, ``strong`` or e.g. ``150ms``.
        dt: seconds between two actions of the env.
        seed: the episode's.
    """

    def __init__(self, strength: str, dt: float, seed: int) -> None:
        self._mean, self._dt, self._rng = delay_ms(strength) / 1000 / dt, dt, rng_of(seed, "latency")

    def next(self) -> float:
        """How much later the next chunk begins, in seconds: a multiple of ``dt``."""
        late = max(0.0, self._mean * (1.0 + JITTER * self._rng.normal()))
        whole = math.floor(late)
        return (whole + int(self._rng.random() < late - whole)) * self._dt


def hold_still(spec: EnvSpec, observation: Observation) -> np.ndarray | None:
    """The action (A,), float32, that leaves the robot where it is; None where the spec does not tell.

    A displacement is 0. An absolute target is known if ``spec.relative`` pairs its entry with a state entry, or if one
    has the very same name: then that state entry holds it. Of any other, e.g. a velocity, or what an outside env calls
    ``action_0``, nothing says what would: 0 may as well be a far corner.
    """
    names = {name: index for index, name in enumerate(spec.state)}
    sources = {index: names[name] for index, name in enumerate(spec.action) if name in names} | dict(spec.relative)
    moved = {index for group in spec.groups("action") if group.delta for index in group.dims}
    if not moved | set(sources) >= set(range(len(spec.action))):
        return None
    held = [0.0 if index in moved else observation.state[sources[index]] for index in range(len(spec.action))]
    return np.array(held, np.float32)
