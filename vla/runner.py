"""Acting step by step: what one episode, or one robot, needs beside the agent's network.

    runner = agent.runner(seed=7)
    for action in runner.act(env.observe()):
        env.play(action)

The loop of ``vla.rollout`` has a runner for each episode; one that plays the same env seed from the same observations
answers alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from vla.contracts import Chunk, Env, EnvSpec, Observation, StepResult, VlaError
from vla.control.history import PRESENT, History, everywhere
from vla.control.plans import Plans, plan_rate_hz
from vla.control.playback import Delay, actions_in, pending, playback_of, rolled_forward
from vla.control.timeline import Target, Timeline
from vla.perturb.latency import Delays, hold_still
from vla.perturb.sensors import NoisySensors

EXECUTE = 8  # of an agent that does not say how many actions to play


class Memory(Protocol):
    """What acts in one episode."""

    def act_batch(self, observations: Sequence[Observation], noise_seeds: Sequence[int]) -> list[Chunk]:
        """One chunk for each observation."""
        ...


class Actor(Memory, Protocol):
    """What the loop needs of an agent. ``vla.agent.Agent`` has it; so may anything else that acts."""

    spec: EnvSpec
    name: str
    observation_steps: tuple[int, ...] = PRESENT  # what it sees of the past, as ``Observation.past``
    execute: int | None = None  # how many actions of a chunk it would have played before it looks again

    def begin(self) -> Memory:
        """What acts in one episode: itself, unless it remembers what it saw; then something new for each."""
        return self


def noise_seed(episode_seed: int, decision: int) -> int:
    """The seed of a decision's noise, 0 to 2**63 - 1: from the episode's seed and the decision's number alone."""
    return int(np.random.SeedSequence((episode_seed, decision)).generate_state(1, np.uint64)[0] >> 1)


class Runner:
    """An agent in one episode, or on one robot: its memory and sensors, which noise is next, and a timeline.

    Whoever carries out its actions asks for them by time, at whatever rate it has: ``push`` an answer when it comes,
    and ask for the target ``at`` any time.

    Args:
        agent: what acts.
        seed: the episode's, 0 or more: it fixes the noise of all decisions. ``vla eval`` takes the env's seed.
        execute: actions to play of each chunk; None takes ``agent.execute`` or 8.
        timeline: where chunks are placed, and how they are read; None means the playback's.
        playback: a way of playing chunks of ``vla.control.playback``, which knows of the delay. None plays a chunk from
            its first action on whenever it comes: nothing tells it of the perturbation ``latency``.
        perturb: the axes ``latency`` and ``noise`` of ``vla.perturb``, to strength; others are the env's.
        latency_s: seconds from an observation to its answer, which the agent knows of: until then the earlier chunk
            goes on, and what the new one says of the time before is skipped.
        dt: seconds between two actions of the env; None means the agent's.

    A policy of two systems (with a ``plan_rate_hz``) is shown beside the present what its System 2 has answered by
    now, as ``past``: there plans are late, by the perturbation ``latency`` or ``latency_s``, and not chunks.

    Attributes:
        actor: what answers in this episode: the agent, or its memory.
        execute: how many actions of a chunk are played before the next look.
        every: how many actions the env plays from one look to the next.
        decisions: how many chunks were pushed.
        step: how many actions were played.
        said: what the agent said that it does, whenever that was something new, each with the observation's time [s].
    """

    def __init__(
        self,
        agent: Actor,
        seed: int = 0,
        execute: int | None = None,
        timeline: Timeline | None = None,
        perturb: Mapping[str, str] | None = None,
        latency_s: float = 0.0,
        dt: float | None = None,
        playback: str | None = None,
    ) -> None:
        self.agent, self.seed, self.actor = agent, seed, agent.begin()
        self.execute, self.every = pace(agent, execute, dt)
        self.decisions = self.step = 0
        self.said: list[tuple[float, str]] = []
        self._playback, self._delay, self._ahead = playback_of(playback or "receding"), Delay(), 0
        self._aware, self._length = playback is not None, getattr(getattr(agent, "config", None), "chunk", EXECUTE)
        self._dt, self._latency_s = dt or agent.spec.dt, latency_s
        self._timeline = timeline or self._playback.timeline()
        harder = perturb or {}
        self._delays = Delays(harder["latency"], self._dt, seed) if "latency" in harder else None
        self._sensors = NoisySensors(agent.spec, harder["noise"], seed) if "noise" in harder else None
        self._begun = False
        rate = plan_rate_hz(agent)
        self._plans = Plans(rate, self._plan_delay) if rate is not None else None

    @property
    def noise_seed(self) -> int:
        """The seed of the next decision's noise."""
        return noise_seed(self.seed, self.decisions)

    def see(self, observation: Observation) -> Observation:
        """What the agent gets to see of an observation. Call it once for each decision."""
        if not self._begun:
            self._begun = True
            if self._timeline.hold is None:
                self._timeline.hold = hold_still(self.agent.spec, observation)
        seen = everywhere(self._sensors, observation) if self._sensors else observation
        if self._plans is not None:
            now = replace(seen, past=())
            seen = replace(seen, past=(self._plans.look(now),))
        if not (self._playback.guides or self._playback.rolls):
            return seen
        spec, sure = self.agent.spec, self._delay.actions
        going_on = pending(self._timeline, seen.time, self._length, sure, spec.dt, len(spec.action))
        seen = replace(seen, pending=replace(going_on, given=self._playback.gives))
        if self._playback.guides:
            return seen
        self._ahead = sure
        return replace(rolled_forward(seen, spec), pending=None)

    def push(self, chunk: Chunk) -> None:
        """Place the agent's answer on the timeline; its first action is for the observation's time, ``chunk.time``.

        Raises VlaError for a chunk whose actions are not (H, A), or are fewer than what is to be played of them.
        """
        wanted = len(self.agent.spec.action)
        if chunk.actions.ndim != 2 or chunk.actions.shape[1] != wanted:
            raise VlaError(
                f"agent {self.agent.name} gave a chunk of shape {chunk.actions.shape}; "
                f"env {self.agent.spec.name} takes actions of {wanted} entries"
            )
        if not 1 <= self.execute <= len(chunk.actions):
            raise VlaError(
                f"execute must lie between 1 and the chunk's {len(chunk.actions)} actions, and is {self.execute}"
            )
        self.decisions += 1
        if chunk.words and (not self.said or self.said[-1][1] != chunk.words):
            self.said.append((chunk.time, chunk.words))
        if self._plans is not None:  # System 1 answers at once, as soon as there is a plan
            self._timeline.push(chunk, chunk.time, max(chunk.time, self._plans.first_s))
            self._length = len(chunk.actions)
            return
        late = self._delays.next() if self._delays else 0.0
        if self._aware:
            begin, arrival = chunk.time + self._ahead * chunk.dt, chunk.time + late + self._latency_s
            self._delay.count(actions_in(late + self._latency_s, chunk.dt))
            self._timeline.push(chunk, begin, max(arrival, begin))
        else:
            begin = chunk.time + late
            self._timeline.push(chunk, begin, begin + self._latency_s)
        self._length = len(chunk.actions)

    def _plan_delay(self) -> float:
        return (self._delays.next() if self._delays else 0.0) + self._latency_s

    def at(self, t: float) -> Target | None:
        """What is to be done at time ``t``, in seconds on the observations' clock; see ``Timeline.at``."""
        return self._timeline.at(t)

    def upcoming(self, t: float) -> np.ndarray:
        """The actions from a look at time ``t`` to the next one, float32 (every, A), SI units."""
        return self._timeline.actions(t, self.every, self._dt)

    def act(self, observation: Observation) -> np.ndarray:
        """The actions to play from here, all of them, before the next look: float32 (n, A), SI units.

        Raises BadObservationError for an observation that is not what the agent's spec promises, and what ``push``
        raises.
        """
        (chunk,) = self.actor.act_batch([self.see(observation)], [self.noise_seed])
        self.push(replace(chunk, time=observation.time))
        actions = self.upcoming(observation.time)[: 1 if observation.stale else None]
        self.step += len(actions)
        return actions

    def play(self, env: Env) -> Iterator[StepResult]:
        """Play an env that was reset, to the episode's end; yields what each action did.

        Raises SpecMismatchError where agent and env do not fit, and what ``act`` and ``Env.play`` raise.
        """
        self.agent.spec.require(env.env_spec, f"agent {self.agent.name}", f"env {env.env_spec.name}")
        history, played = History(self.agent.observation_steps), self.step
        while True:
            for action in self.act(history.add(replace(env.observe(), time=self.step * self._dt))):
                result = env.play(action)
                yield result
                if result.terminated or result.truncated:
                    return
                played += 1
                if history.looks_back and played < self.step:
                    history.add(env.observe())


def pace(agent: Actor, execute: int | None = None, dt: float | None = None) -> tuple[int, int]:
    """How many actions of each chunk are played before the next look, and how many actions of the env that takes."""
    count = execute or agent.execute or EXECUTE
    return count, max(1, round(count * agent.spec.dt / (dt or agent.spec.dt)))
