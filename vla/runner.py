"""Acting step by step: what one episode, or one robot, needs beside the agent's network.

    runner = agent.runner(seed=7)
    for action in runner.act(env.observe()):
        env.play(action)

The loop of ``vla.rollout`` has a runner for each episode; one that plays the same env seed from the same observations
answers alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from vla.contracts import Chunk, Env, EnvSpec, Observation, StepResult, VlaError
from vla.control.chunking import Chunking, RecedingHorizon
from vla.perturb.latency import DelayedChunking, hold_still
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

    def begin(self) -> Memory:
        """What acts in one episode: itself, unless it remembers what it saw; then something new for each."""
        return self


def noise_seed(episode_seed: int, decision: int) -> int:
    """The seed of a decision's noise, 0 to 2**63 - 1: from the episode's seed and the decision's number alone."""
    return int(np.random.SeedSequence((episode_seed, decision)).generate_state(1, np.uint64)[0] >> 1)


class Runner:
    """An agent in one episode: its memory and sensors, which noise is next, and how much of a chunk is played.

    Args:
        agent: what acts.
        seed: the episode's, 0 or more: it fixes the noise of all decisions. ``vla eval`` takes the env's seed.
        execute: actions to play of each chunk; None takes ``agent.execute`` or 8.
        chunking: the way to play chunks; None means ``RecedingHorizon(execute)``.
        perturb: the axes ``latency`` and ``noise`` of ``vla.perturb``, to strength; others are the env's.

    Attributes:
        actor: what answers in this episode: the agent, or its memory.
        decisions: how many chunks were pushed.
        step: how many actions were played.
    """

    def __init__(
        self,
        agent: Actor,
        seed: int = 0,
        execute: int | None = None,
        chunking: Chunking | None = None,
        perturb: Mapping[str, str] | None = None,
    ) -> None:
        self.agent, self.seed, self.actor = agent, seed, agent.begin()
        self.decisions = self.step = 0
        self._chunking = chunking or RecedingHorizon(execute or getattr(agent, "execute", None) or EXECUTE)
        self._harder = dict(perturb or {})
        self._sensors: Any = None
        self._begun = False

    @property
    def noise_seed(self) -> int:
        """The seed of the next decision's noise."""
        return noise_seed(self.seed, self.decisions)

    def see(self, observation: Observation) -> Observation:
        """What the agent gets to see of an observation. Call it once for each decision."""
        if not self._begun:
            self._begun, spec = True, self.agent.spec
            if "latency" in self._harder:
                still = hold_still(spec, observation)
                self._chunking = DelayedChunking(self._chunking, self._harder["latency"], spec.dt, self.seed, still)
            if "noise" in self._harder:
                self._sensors = NoisySensors(spec, self._harder["noise"], self.seed)
        return self._sensors(observation) if self._sensors else observation

    def push(self, chunk: Chunk) -> np.ndarray:
        """Take the agent's answer; returns the actions to play before it is asked again, float32 (n, A).

        Raises VlaError for a chunk whose actions are not (H, A), or are fewer than what is to be played of them.
        """
        wanted = len(self.agent.spec.action)
        if chunk.actions.ndim != 2 or chunk.actions.shape[1] != wanted:
            raise VlaError(
                f"agent {self.agent.name} gave a chunk of shape {chunk.actions.shape}; "
                f"env {self.agent.spec.name} takes actions of {wanted} entries"
            )
        self.decisions += 1
        return self._chunking.play(chunk, self.step)

    def act(self, observation: Observation) -> np.ndarray:
        """The actions to play from here, all of them, before the next look: float32 (n, A), SI units.

        Raises BadObservationError for an observation that is not what the agent's spec promises, and what ``push``
        raises.
        """
        (chunk,) = self.actor.act_batch([self.see(observation)], [self.noise_seed])
        actions = self.push(chunk)[: 1 if observation.stale else None]
        self.step += len(actions)
        return actions

    def play(self, env: Env) -> Iterator[StepResult]:
        """Play an env that was reset, to the episode's end; yields what each action did.

        Raises SpecMismatchError where agent and env do not fit, and what ``act`` and ``Env.play`` raise.
        """
        self.agent.spec.require(env.env_spec, f"agent {self.agent.name}", f"env {env.env_spec.name}")
        while True:
            for action in self.act(env.observe()):
                result = env.play(action)
                yield result
                if result.terminated or result.truncated:
                    return
