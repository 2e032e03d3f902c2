"""The one loop that lets an agent act in simulated envs: many episodes side by side, each lane on a clock of its own.

Who looks next follows from simulated time alone (``vla.rollout.clock``): a fast env decides more often than a slow one
and waits for nobody, while lanes of one pace look together, in lock step. So results do not depend on the number of
workers, nor on how fast the machine is: every decision batch holds the lanes that are due, in order, and the noise of
each decision comes from the episode's seed and the decision's number. Workers only step envs. An evaluation is played
in slots, lanes of one env: slot i plays episodes i, i + slots, ...

Nor do they depend on interruptions. A row of a batch is computed alike whatever the other rows show, but not whatever
the batch's size and its sentences are: a sum's order, and so its last bit, follows from the shapes, and what a policy
keeps of a sentence was made in the batch in which it first came. So when a run goes on, each lane waits for the look
at which its next episode would have begun, and until then its row holds the sentence of the episode that it had played
at that look.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from vla.contracts import EnvSpec, Observation, VlaError
from vla.control.history import everywhere
from vla.control.timeline import Timeline
from vla.host.parallel import SlotPool, WorkerDied, open_pool
from vla.registry import EnvRef
from vla.rollout.clock import Clock, Lane
from vla.rollout.player import EpisodePlayer, EpisodeRequest, EpisodeResult, Turn
from vla.runner import Actor, Runner, pace

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
    env: EnvRef | str,
    agent: Actor,
    episodes: Sequence[EpisodeRequest],
    workers: int = 1,
    slots: int = 8,
    execute: int | None = None,
    on_episode: Callable[[EpisodeResult], None] | None = None,
    record_frames: int = 0,
    observation_filter: ObservationFilter | None = None,
    timeline: Callable[[], Timeline] | None = None,
    timing: Timing | None = None,
    earlier: Sequence[EpisodeResult] = (),
    playback: str | None = None,
) -> list[EpisodeResult]:
    """Let an agent play episodes of one env, ``slots`` of them side by side, in lock step; see ``run_lanes``.

    Args:
        env: which one; a name alone is one without options.
        episodes: what to play.
        slots: episodes side by side, and so the policy's batch size.
        execute: steps to play of each chunk; None takes ``agent.execute`` or 8.
        earlier: results of an earlier run of the same ``episodes`` that was cut short. They are not played again, and
            the others come out as they would have there.
        agent, workers, on_episode, record_frames, observation_filter, timeline, timing, playback: see ``run_lanes``.

    Returns:
        one result for each episode, in the order of ``episodes``.

    Raises:
        what ``run_lanes`` raises.
    """
    ref = EnvRef(env) if isinstance(env, str) else env
    lanes = [Lane(ref, episodes[i::slots], execute, earlier=earlier) for i in range(min(slots, len(episodes)))]
    played = run_lanes(
        agent, lanes, workers, on_episode, record_frames, observation_filter, timeline, timing, playback=playback
    )
    found = {result.index: result for results in played for result in results}
    return [found[episode.index] for episode in episodes]


def run_lanes(
    agent: Actor,
    lanes: Sequence[Lane],
    workers: int = 1,
    on_episode: Callable[[EpisodeResult], None] | None = None,
    record_frames: int = 0,
    observation_filter: ObservationFilter | None = None,
    timeline: Callable[[], Timeline] | None = None,
    timing: Timing | None = None,
    own_dt: bool = False,
    playback: str | None = None,
) -> list[list[EpisodeResult]]:
    """Let an agent play in several envs side by side; cameras are rendered only when the policy looks.

    Args:
        agent: gives a chunk for each observation.
        lanes: the envs, and what each plays.
        workers: processes that step the envs; 1 steps them in this process, unless a cluster was joined
            (``vla.host.cluster``). It does not change the results.
        on_episode: called as each episode ends, in a fixed order.
        record_frames: episodes with an index below this are filmed (``EpisodeResult.video``).
        observation_filter: changes what the agent sees, e.g. for a blank image.
        timeline: makes an episode's timeline, e.g. a ``TemporalEnsemble``; None means the playback's.
        timing: filled in with where the time went.
        own_dt: whether an env may have another ``dt`` than the agent: chunks are then read in the env's steps. That is
            for absolute actions; a displacement is made for a step of one length.
        playback: how chunks are played; see ``vla.runner.Runner``.

    Returns:
        for each lane one result for each of its episodes. An episode in which the env raised is a failure with
        ``raised`` and ``error``.

    Raises:
        SpecMismatchError: agent and env do not fit.
        RolloutInterrupted: a worker died, or Ctrl-C; the finished episodes are in its ``results``.
        VlaError: the env or the agent refused something, or the env raised in each of the first episodes.
    """
    if not any(lane.episodes for lane in lanes):
        return [[] for _ in lanes]
    timing = timing if timing is not None else Timing()
    begun = time.perf_counter()
    player, looks_back = partial(EpisodePlayer, video_below=record_frames), agent.observation_steps
    factories = [partial(player, lane.env, looks_back=looks_back) for lane in lanes]
    with open_pool(factories, len(lanes), workers) as pool:
        run = _Run(agent, lanes, pool, timing, on_episode, observation_filter, timeline, playback)
        try:
            run.play(own_dt)
        except (WorkerDied, KeyboardInterrupt) as error:
            by_user = isinstance(error, KeyboardInterrupt)
            reason = "interrupted" if by_user else str(error)
            order = _interleaved(lanes)
            kept = [run.finished[lane][e.index] for lane, e in order if e.index in run.finished[lane]]
            message = f"{reason}; {len(kept)} of {len(order)} episodes were finished"
            raise RolloutInterrupted(message, kept, by_user) from error
        finally:
            timing.wall_s += time.perf_counter() - begun
    return [[run.finished[lane][e.index] for e in one.episodes] for lane, one in enumerate(lanes)]


class _Run:
    """The lanes while they are played."""

    def __init__(
        self,
        agent: Actor,
        lanes: Sequence[Lane],
        pool: SlotPool,
        timing: Timing,
        on_episode: Callable[[EpisodeResult], None] | None,
        observation_filter: ObservationFilter | None,
        timeline: Callable[[], Timeline] | None,
        playback: str | None,
    ) -> None:
        self._agent, self._lanes, self._pool, self._timing = agent, lanes, pool, timing
        self._playback = playback
        self._on_episode, self._filter, self._timeline = on_episode, observation_filter, timeline
        self._queues = [deque(lane.episodes) for lane in lanes]
        self.finished = [_known(queue, lane.earlier) for queue, lane in zip(self._queues, lanes, strict=True)]
        forgets = agent.begin() is agent
        # What each lane's row said at each of its looks, as far as its episodes were finished earlier.
        self._said: list[list[str]] = [
            [result.instruction for result in known.values() for _ in range(result.decisions)] if forgets else []
            for known in self.finished
        ]
        order, self._first = _interleaved(lanes), dict[str, list[tuple[int, EpisodeRequest]]]()
        for env in dict.fromkeys(lane.env.name for lane in lanes):
            most = max(ALL_RAISED, sum(lane.env.name == env for lane in lanes))
            self._first[env] = [(lane, episode) for lane, episode in order if lanes[lane].env.name == env][:most]
        self._running: dict[int, _Running] = {}
        self._told: set[str] = set()

    def play(self, own_dt: bool) -> None:
        pool, timing, queues = self._pool, self._timing, self._queues
        clock, filler, waiting = Clock(self._paces(own_dt)), None, set[int]()
        while any(queues):
            _, looks = clock.next()
            timer = time.perf_counter()
            turns = pool.answers(lane for lane in looks if lane in waiting)
            _account(timing, turns, pool.workers, time.perf_counter() - timer)
            self._take(turns)
            waiting -= set(looks)
            timer = time.perf_counter()
            while idle := [lane for lane in looks if queues[lane] and lane not in self._running]:
                self._take(pool.call({lane: ("begin", queues[lane][0]) for lane in idle}))
            timing.env_s += time.perf_counter() - timer
            if not any(queues):
                break
            ghosts = {lane: self._said[lane][look] for lane, look in looks.items() if look < len(self._said[lane])}
            awake = {lane: self._running[lane] for lane in looks if lane in self._running and lane not in ghosts}
            filler = filler or next((one.observation for one in self._running.values()), None)
            if filler and (awake or set(ghosts.values()) - self._told):
                orders = _decide(self._agent, awake, self._filter, timing, ghosts, filler)
                timer = time.perf_counter()
                pool.start({lane: ("advance", a, _second(queues[lane])) for lane, a in orders.items()})
                timing.env_s += time.perf_counter() - timer
                waiting |= set(orders)
            self._told |= set(ghosts.values())
            for lane in looks:
                if queues[lane] or lane in ghosts:
                    clock.again(lane)

    def _paces(self, own_dt: bool) -> list[float]:
        """Simulated seconds between two looks, by lane. Raises SpecMismatchError where agent and env do not fit."""
        envs = [lane.env for lane in self._lanes]
        first = [envs.index(env) for env in envs]
        specs = self._pool.call(dict.fromkeys(sorted(set(first)), ("spec",)))
        self._timing.spec, mine = specs[0], self._agent.spec
        for lane, spec in specs.items():
            same = replace(spec, dt=mine.dt) if own_dt and not any(g.delta for g in spec.groups("action")) else spec
            mine.require(same, f"agent {self._agent.name}", f"env {envs[lane].name}")
        self._dt = [specs[one].dt for one in first]
        return [pace(self._agent, lane.execute, dt)[1] * dt for lane, dt in zip(self._lanes, self._dt, strict=True)]

    def _take(self, turns: dict[int, Turn]) -> None:
        """Note what the lanes did, and which episode each of them plays now."""
        for lane, turn in turns.items():
            for result in turn.ended:
                self.finished[lane][result.index] = result
                self._queues[lane].popleft()
                if running := self._running.pop(lane, None):
                    result.said = running.runner.said
                if self._on_episode is not None:
                    self._on_episode(result)
                self._require_some_unraised(self._lanes[lane].env.name)
            if turn.observation is None:
                continue
            if lane in self._running:
                self._running[lane].runner.step += turn.steps
                self._running[lane].observation = turn.observation
            else:
                request, own = self._queues[lane][0], self._lanes[lane]
                timeline = self._timeline() if self._timeline else None
                runner = Runner(
                    self._agent, request.seed, own.execute, timeline, request.perturb, own.latency_s,
                    self._dt[lane], self._playback,
                )  # fmt: skip
                self._running[lane] = _Running(request, runner, turn.observation)

    def _require_some_unraised(self, env: str) -> None:
        """Raise VlaError once the env has raised in each of the first episodes: it will in the others."""
        first = self._first[env]
        results = [self.finished[lane].get(episode.index) for lane, episode in first]
        if all(result is not None and result.raised for result in results):
            result = results[0]
            assert result is not None
            which = f"each of the first {len(first)} episodes" if len(first) > 1 else "its only episode"
            problem = str(result.error).removeprefix("the env ")
            raise VlaError(f"env {env} failed in {which}; in episode {result.index}, seed {result.seed}, it {problem}")


def _interleaved(lanes: Sequence[Lane]) -> list[tuple[int, EpisodeRequest]]:
    """All episodes with their lanes: the first one of each, then the second one of each, and so on."""
    most = max(len(lane.episodes) for lane in lanes)
    return [
        (number, lane.episodes[place])
        for place in range(most)
        for number, lane in enumerate(lanes)
        if place < len(lane.episodes)
    ]


def _known(queue: deque[EpisodeRequest], earlier: Sequence[EpisodeResult]) -> dict[int, EpisodeResult]:
    """Take from the queue what was finished earlier; returns it by index. A lane plays its episodes in order."""
    known, finished = {result.index: result for result in earlier}, {}
    while queue and queue[0].index in known:
        index = queue.popleft().index
        finished[index] = known[index]
    return finished


def _second(queue: deque[EpisodeRequest]) -> EpisodeRequest | None:
    return queue[1] if len(queue) > 1 else None


def _decide(
    agent: Actor,
    awake: dict[int, _Running],
    observation_filter: ObservationFilter | None,
    timing: Timing,
    ghosts: Mapping[int, str],
    filler: Observation,
) -> dict[int, np.ndarray]:
    """Ask the policy once for all lanes that look; returns the actions that each of them plays now.

    The rows of ``ghosts``, lane to sentence, see the ``filler``, and their answers are thrown away.
    """
    observations = {lane: one.runner.see(one.observation) for lane, one in awake.items()}
    if observation_filter is not None:
        for lane, one in awake.items():
            observations[lane] = everywhere(partial(_filtered, observation_filter, one.request), observations[lane])
    seeds = {lane: one.runner.noise_seed for lane, one in awake.items()}
    timer = time.perf_counter()
    if any(one.runner.actor is not agent for one in awake.values()):
        ask = {lane: one.runner.actor.act_batch for lane, one in awake.items()}
        chunks = {lane: ask[lane]([observations[lane]], [seeds[lane]])[0] for lane in awake}
    else:
        rows = sorted([*awake, *ghosts])
        seen = [observations[lane] if lane in awake else replace(filler, instruction=ghosts[lane]) for lane in rows]
        answers = agent.act_batch(seen, [seeds.get(lane, 0) for lane in rows])
        if len(answers) != len(rows):
            raise VlaError(f"agent {agent.name} gave {len(answers)} chunks for {len(rows)} observations")
        chunks = {lane: chunk for lane, chunk in zip(rows, answers, strict=True) if lane in awake}
    if not awake:
        return {}
    timing.policy_s += time.perf_counter() - timer
    timing.decisions += len(chunks)
    if timing.sample is None:
        timing.sample, timing.first_round = next(iter(observations.values())), (timing.decisions, timing.policy_s)
    orders = {}
    for lane, chunk in chunks.items():
        runner, now = awake[lane].runner, awake[lane].observation.time
        runner.push(replace(chunk, time=now))
        orders[lane] = runner.upcoming(now)
    return orders


def _filtered(change: ObservationFilter, request: EpisodeRequest, observation: Observation) -> Observation:
    return change(observation, request)


def _account(timing: Timing, turns: dict[int, Turn], workers: int, seconds: float) -> None:
    """Book one round: the slowest worker's video time counts as video, the rest as stepping the envs."""
    video = [0.0] * workers
    for lane, turn in turns.items():
        timing.env_steps += turn.steps
        video[lane % workers] += turn.video_s
    timing.video_s += max(video)
    timing.env_s += max(0.0, seconds - max(video))
