"""The one loop that lets an agent act in simulated envs: many episodes side by side, in lock step.

Results do not depend on the number of workers: a fixed number of slots play in lock step, slot i plays episodes
i, i + slots, ..., every decision batch holds the slots in order, and the noise of each decision comes from
the episode's seed and the decision's number. Workers only step envs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np

from vla.chunking import Chunking, RecedingHorizon
from vla.contracts import Chunk, EnvSpec, Observation, VlaError
from vla.latency import DelayedChunking, hold_still
from vla.parallel import SlotPool, WorkerDied
from vla.player import EpisodePlayer, EpisodeRequest, EpisodeResult
from vla.sensors import NoisySensors

__all__ = [
    "Actor",
    "EpisodeRequest",
    "EpisodeResult",
    "ObservationFilter",
    "RolloutInterrupted",
    "Timing",
    "noise_seed",
    "run_episodes",
]


class Actor(Protocol):
    """What the loop needs of an agent. ``vla.agent.Agent`` has it; so may anything else that acts.

    One that remembers what it saw has ``begin()`` too, which gives something with an ``act_batch`` for one episode.
    """

    spec: EnvSpec
    name: str

    def act_batch(self, observations: list[Observation], noise_seeds: list[int]) -> list[Chunk]:
        """One chunk for each observation."""
        ...


@dataclass
class Timing:
    """Where the time of a run went. Seconds, summed over the rounds of the loop.

    Attributes:
        decisions: chunks that the policy gave.
        policy_s: spent inside the policy.
        env_steps: actions played.
        env_s: waiting for the envs, camera renders included and videos left out.
        video_s: drawing and encoding videos.
        wall_s: the whole run.
        sample: the first observation, e.g. to time a single decision.
        spec: the spec of the env that was played.
        first_round: decisions of the first round and the policy's seconds for them, which warm it up.
    """

    decisions: int = 0
    policy_s: float = 0.0
    env_steps: int = 0
    env_s: float = 0.0
    video_s: float = 0.0
    wall_s: float = 0.0
    sample: Observation | None = None
    spec: EnvSpec | None = None
    first_round: tuple[int, float] = (0, 0.0)

    def warm(self) -> tuple[int, float]:
        """Decisions and the policy's seconds after the first round; all of them if there was no other."""
        decisions, seconds = self.first_round
        if self.decisions > decisions:
            return self.decisions - decisions, self.policy_s - seconds
        return self.decisions, self.policy_s


class RolloutInterrupted(VlaError):
    """The run ended early.

    Attributes:
        results: the episodes that were finished.
        by_user: whether it was Ctrl-C, rather than a worker that died.
    """

    def __init__(self, message: str, results: list[EpisodeResult], by_user: bool) -> None:
        super().__init__(message)
        self.results, self.by_user = results, by_user


ObservationFilter = Callable[[Observation, EpisodeRequest], Observation]


@dataclass
class _Running:
    request: EpisodeRequest
    chunking: Chunking
    observation: Observation
    sensors: NoisySensors | None = None
    memory: Any = None
    step: int = 0
    decisions: int = 0


def noise_seed(episode_seed: int, decision: int) -> int:
    """The seed of a decision's noise, 0 to 2**63 - 1: from the episode's seed and the decision's number alone."""
    return int(np.random.SeedSequence((episode_seed, decision)).generate_state(1, np.uint64)[0] >> 1)


def run_episodes(
    env_name: str,
    agent: Actor,
    episodes: Sequence[EpisodeRequest],
    workers: int = 1,
    slots: int = 8,
    execute: int | None = None,
    on_episode: Callable[[EpisodeResult], None] | None = None,
    record_frames: int = 0,
    observation_filter: ObservationFilter | None = None,
    chunking: Callable[[], Chunking] | None = None,
    env_options: dict[str, Any] | None = None,
    timing: Timing | None = None,
) -> list[EpisodeResult]:
    """Let an agent play episodes, several side by side; cameras are rendered only when the policy looks.

    Args:
        env_name: as ``vla.registry.make_env`` takes it.
        agent: gives a chunk for each observation.
        episodes: what to play.
        workers: processes that step the envs; 1 steps them in this process. It does not change the results.
        slots: episodes side by side, and so the policy's batch size.
        execute: steps to play of each chunk; None takes ``agent.execute`` or 8.
        on_episode: called as each episode ends, in a fixed order.
        record_frames: episodes with an index below this are filmed (``EpisodeResult.video``).
        observation_filter: changes what the agent sees, e.g. for a blank image.
        chunking: makes an episode's way to play chunks; None means ``RecedingHorizon(execute)``.
        env_options: keyword arguments for the env, e.g. ``{"cameras_px": 128}``.
        timing: filled in with where the time went.

    Returns:
        one result for each episode, in the order of ``episodes``.

    Raises:
        SpecMismatchError: agent and env do not fit.
        RolloutInterrupted: a worker died, or Ctrl-C; the finished episodes are in its ``results``.
        VlaError: the env or the agent refused something.
    """
    if not episodes:
        return []
    steps_per_chunk = execute or getattr(agent, "execute", None) or 8
    make_chunking = chunking or partial(RecedingHorizon, steps_per_chunk)
    slots = min(slots, len(episodes))
    waiting = {slot: list(episodes[slot::slots]) for slot in range(slots)}
    timing = timing if timing is not None else Timing()
    finished: dict[int, EpisodeResult] = {}
    begun = time.perf_counter()
    factory = partial(EpisodePlayer, env_name, env_options or {}, record_frames)
    with SlotPool(factory, slots, workers) as pool:
        try:
            spec = pool.call({0: ("spec",)})[0]
            timing.spec = spec
            agent.spec.require(spec, f"agent {agent.name}", f"env {env_name}")
            timer = time.perf_counter()
            starts = pool.call({slot: ("begin", waiting[slot].pop(0)) for slot in range(slots)})
            timing.env_s += time.perf_counter() - timer
            running = {slot: _begin(agent, start[0], start[1], make_chunking(), spec) for slot, start in starts.items()}
            while running:
                orders = _decide(agent, running, spec, observation_filter, timing)
                timer = time.perf_counter()
                answers = pool.call(
                    {slot: ("advance", a, (waiting[slot] or [None])[0]) for slot, a in orders.items()}  # type: ignore[list-item]
                )
                _account(timing, answers, pool.workers, time.perf_counter() - timer)
                for slot, (played, result, request, observation, _) in answers.items():
                    if result is None:
                        running[slot].step += played
                        running[slot].observation = observation
                        continue
                    finished[result.index] = result
                    if on_episode is not None:
                        on_episode(result)
                    del running[slot]
                    if request is not None:
                        waiting[slot].pop(0)
                        running[slot] = _begin(agent, request, observation, make_chunking(), spec)
                running = dict(sorted(running.items()))
        except (WorkerDied, KeyboardInterrupt) as error:
            by_user = isinstance(error, KeyboardInterrupt)
            reason = "interrupted" if by_user else str(error)
            kept = [finished[e.index] for e in episodes if e.index in finished]
            message = f"{reason}; {len(kept)} of {len(episodes)} episodes were finished"
            raise RolloutInterrupted(message, kept, by_user) from error
        finally:
            timing.wall_s += time.perf_counter() - begun
    return [finished[episode.index] for episode in episodes]


def _begin(
    agent: Actor, request: EpisodeRequest, observation: Observation, chunking: Chunking, spec: EnvSpec
) -> _Running:
    sensors, harder = None, request.perturb
    if "latency" in harder:
        still = hold_still(spec, observation)
        chunking = DelayedChunking(chunking, harder["latency"], spec.dt, request.seed, still)
    if "noise" in harder:
        sensors = NoisySensors(spec, harder["noise"], request.seed)
    memory = agent.begin() if hasattr(agent, "begin") else None
    return _Running(request, chunking, observation, sensors, memory)


def _decide(
    agent: Actor,
    running: dict[int, _Running],
    spec: EnvSpec,
    observation_filter: ObservationFilter | None,
    timing: Timing,
) -> dict[int, np.ndarray]:
    """Ask the policy once for all slots; returns the actions that each slot plays now."""
    observations = [one.sensors(one.observation) if one.sensors else one.observation for one in running.values()]
    if observation_filter is not None:
        pairs = zip(observations, running.values(), strict=True)
        observations = [observation_filter(observation, one.request) for observation, one in pairs]
    seeds = [noise_seed(one.request.seed, one.decisions) for one in running.values()]
    timer = time.perf_counter()
    if hasattr(agent, "begin"):
        asked = zip(running.values(), observations, seeds, strict=True)
        chunks = [one.memory.act_batch([seen], [seed])[0] for one, seen, seed in asked]
    else:
        chunks = agent.act_batch(observations, seeds)
    timing.policy_s += time.perf_counter() - timer
    timing.decisions += len(chunks)
    if timing.sample is None:
        timing.sample, timing.first_round = observations[0], (timing.decisions, timing.policy_s)
    if len(chunks) != len(observations):
        raise VlaError(f"agent {agent.name} gave {len(chunks)} chunks for {len(observations)} observations")
    orders = {}
    for (slot, one), chunk in zip(running.items(), chunks, strict=True):
        if chunk.actions.ndim != 2 or chunk.actions.shape[1] != len(spec.action):
            raise VlaError(
                f"agent {agent.name} gave a chunk of shape {chunk.actions.shape}; "
                f"env {spec.name} takes actions of {len(spec.action)} entries"
            )
        one.decisions += 1
        orders[slot] = one.chunking.play(chunk, one.step)
    return orders


def _account(timing: Timing, answers: dict[int, Any], workers: int, seconds: float) -> None:
    """Book one round: the slowest worker's video time counts as video, the rest as stepping the envs."""
    video = [0.0] * workers
    for slot, answer in answers.items():
        timing.env_steps += answer[0]
        video[slot % workers] += answer[4]
    timing.video_s += max(video)
    timing.env_s += max(0.0, seconds - max(video))
