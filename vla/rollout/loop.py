"""The one loop that lets an agent act in simulated envs: many episodes side by side, in lock step.

Results do not depend on the number of workers: a fixed number of slots play in lock step, slot i plays episodes
i, i + slots, ..., every decision batch holds the slots in order, and the noise of each decision comes from
the episode's seed and the decision's number. Workers only step envs.

Nor do they depend on interruptions. A row of a batch is computed alike whatever the other rows show, but not whatever
the batch's size and its sentences are: a sum's order, and so its last bit, follows from the shapes, and what a policy
keeps of a sentence was made in the batch in which it first came. So when a run goes on, each slot waits for the round
in which its next episode would have begun, and until then its row holds the sentence of the episode that it had played
in that round.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from vla.contracts import EnvSpec, Observation, VlaError
from vla.control.chunking import Chunking
from vla.host.parallel import SlotPool, WorkerDied
from vla.rollout.player import EpisodePlayer, EpisodeRequest, EpisodeResult, Turn
from vla.runner import Actor, Runner, noise_seed

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


ALL_RAISED = 5  # episodes at least, and one for each slot: an env that raised in all of them is not asked again


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
    runner: Runner
    observation: Observation


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
    earlier: Sequence[EpisodeResult] = (),
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
        earlier: results of an earlier run of the same ``episodes`` that was cut short. They are not played again, and
            the others come out as they would have there.

    Returns:
        one result for each episode, in the order of ``episodes``. An episode in which the env raised is a failure
        with ``raised`` and ``error``.

    Raises:
        SpecMismatchError: agent and env do not fit.
        RolloutInterrupted: a worker died, or Ctrl-C; the finished episodes are in its ``results``.
        VlaError: the env or the agent refused something, or the env raised in each of the first episodes.
    """
    if not episodes:
        return []
    slots = min(slots, len(episodes))
    queues = {slot: deque(episodes[slot::slots]) for slot in range(slots)}
    timing = timing if timing is not None else Timing()
    finished = _known(queues, earlier)
    past = _past(episodes, finished, slots) if agent.begin() is agent else {}
    running: dict[int, _Running] = {}
    begun = time.perf_counter()

    def take(turns: dict[int, Turn]) -> None:
        """Note what the slots did, and which episode each of them plays now."""
        for slot, turn in turns.items():
            for result in turn.ended:
                finished[result.index] = result
                queues[slot].popleft()
                running.pop(slot, None)
                if on_episode is not None:
                    on_episode(result)
                _require_some_unraised(env_name, episodes[: max(ALL_RAISED, slots)], finished)
            if turn.observation is None:
                continue
            if slot in running:
                running[slot].runner.step += turn.steps
                running[slot].observation = turn.observation
            else:
                request = queues[slot][0]
                runner = Runner(agent, request.seed, execute, chunking and chunking(), request.perturb)
                running[slot] = _Running(request, runner, turn.observation)

    factory = partial(EpisodePlayer, env_name, env_options or {}, record_frames)
    with SlotPool(factory, slots, workers) as pool:
        try:
            spec = pool.call({0: ("spec",)})[0]
            timing.spec = spec
            agent.spec.require(spec, f"agent {agent.name}", f"env {env_name}")
            number, told = 0, set[str]()
            while any(queues.values()):
                timer = time.perf_counter()
                while idle := [slot for slot, queue in queues.items() if queue and slot not in running]:
                    take(pool.call({slot: ("begin", queues[slot][0]) for slot in idle}))
                timing.env_s += time.perf_counter() - timer
                if not running:
                    break  # none could begin
                ghosts = {slot: said[number] for slot, said in past.items() if number < len(said)}
                filler = next(iter(running.values())).observation
                awake = {slot: one for slot, one in sorted(running.items()) if slot not in ghosts}
                if awake or set(ghosts.values()) - told:
                    orders = _decide(agent, awake, observation_filter, timing, ghosts, filler)
                    timer = time.perf_counter()
                    turns = pool.call({s: ("advance", a, _second(queues[s])) for s, a in orders.items()})
                    _account(timing, turns, pool.workers, time.perf_counter() - timer)
                    take(turns)
                told |= set(ghosts.values())
                number += 1
        except (WorkerDied, KeyboardInterrupt) as error:
            by_user = isinstance(error, KeyboardInterrupt)
            reason = "interrupted" if by_user else str(error)
            kept = [finished[e.index] for e in episodes if e.index in finished]
            message = f"{reason}; {len(kept)} of {len(episodes)} episodes were finished"
            raise RolloutInterrupted(message, kept, by_user) from error
        finally:
            timing.wall_s += time.perf_counter() - begun
    return [finished[episode.index] for episode in episodes]


def _known(queues: dict[int, deque[EpisodeRequest]], earlier: Sequence[EpisodeResult]) -> dict[int, EpisodeResult]:
    """Take from the queues what was finished earlier; returns it by index. A slot plays its episodes in order."""
    known, finished = {result.index: result for result in earlier}, {}
    for queue in queues.values():
        while queue and queue[0].index in known:
            index = queue.popleft().index
            finished[index] = known[index]
    return finished


def _past(
    episodes: Sequence[EpisodeRequest], finished: Mapping[int, EpisodeResult], slots: int
) -> dict[int, list[str]]:
    """For each slot the sentence that it had in each of its rounds, as far as its episodes are finished."""
    said: dict[int, list[str]] = {}
    for place, episode in enumerate(episodes):
        if episode.index in finished:
            result = finished[episode.index]
            said.setdefault(place % slots, []).extend([result.instruction] * result.decisions)
    return said


def _second(queue: deque[EpisodeRequest]) -> EpisodeRequest | None:
    return queue[1] if len(queue) > 1 else None


def _require_some_unraised(
    env_name: str, first: Sequence[EpisodeRequest], finished: Mapping[int, EpisodeResult]
) -> None:
    """Raise VlaError once the env has raised in each of the first episodes: it will in the others."""
    if all(episode.index in finished and finished[episode.index].raised for episode in first):
        result = finished[first[0].index]
        which = f"each of the first {len(first)} episodes" if len(first) > 1 else "its only episode"
        problem = str(result.error).removeprefix("the env ")
        raise VlaError(f"env {env_name} failed in {which}; in episode {result.index}, seed {result.seed}, it {problem}")


def _decide(
    agent: Actor,
    awake: dict[int, _Running],
    observation_filter: ObservationFilter | None,
    timing: Timing,
    ghosts: Mapping[int, str],
    filler: Observation,
) -> dict[int, np.ndarray]:
    """Ask the policy once for all slots; returns the actions that each slot plays now.

    The rows of ``ghosts``, slot to sentence, see the ``filler``, and their answers are thrown away.
    """
    observations = {slot: one.runner.see(one.observation) for slot, one in awake.items()}
    if observation_filter is not None:
        observations = {slot: observation_filter(seen, awake[slot].request) for slot, seen in observations.items()}
    seeds = {slot: one.runner.noise_seed for slot, one in awake.items()}
    timer = time.perf_counter()
    if any(one.runner.actor is not agent for one in awake.values()):
        ask = {slot: one.runner.actor.act_batch for slot, one in awake.items()}
        chunks = {slot: ask[slot]([observations[slot]], [seeds[slot]])[0] for slot in awake}
    else:
        rows = sorted([*awake, *ghosts])
        seen = [observations[slot] if slot in awake else replace(filler, instruction=ghosts[slot]) for slot in rows]
        answers = agent.act_batch(seen, [seeds.get(slot, 0) for slot in rows])
        if len(answers) != len(rows):
            raise VlaError(f"agent {agent.name} gave {len(answers)} chunks for {len(rows)} observations")
        chunks = {slot: chunk for slot, chunk in zip(rows, answers, strict=True) if slot in awake}
    if not awake:
        return {}
    timing.policy_s += time.perf_counter() - timer
    timing.decisions += len(chunks)
    if timing.sample is None:
        timing.sample, timing.first_round = next(iter(observations.values())), (timing.decisions, timing.policy_s)
    return {slot: awake[slot].runner.push(chunk) for slot, chunk in chunks.items()}


def _account(timing: Timing, turns: dict[int, Turn], workers: int, seconds: float) -> None:
    """Book one round: the slowest worker's video time counts as video, the rest as stepping the envs."""
    video = [0.0] * workers
    for slot, turn in turns.items():
        timing.env_steps += turn.steps
        video[slot % workers] += turn.video_s
    timing.video_s += max(video)
    timing.env_s += max(0.0, seconds - max(video))
