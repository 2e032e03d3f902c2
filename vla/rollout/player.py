"""One env and the episode that it plays: the part of the rollout loop that lives in a worker."""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from vla.contracts import BadObservationError, Env, EnvSpec, Observation, VlaError
from vla.contracts.abilities import AsksFor, MeasuresSafety, explain
from vla.contracts.errors import one_line
from vla.control.history import PRESENT, History
from vla.host.pictures import png
from vla.perturb.axes import for_reset
from vla.registry import EnvRef


@dataclass(frozen=True)
class EpisodeRequest:
    """One episode to play.

    Attributes:
        index: the episode's number in the run.
        seed: the env's seed; see ``vla.contracts.episode_seed``.
        options: what ``Env.reset`` takes.
        swap: ask for another item than the one that the episode is about; needs ``vla.contracts.abilities.AsksFor``.
        perturb: axis to strength; see ``vla.perturb``.
        last: keep its last picture, for a judge.
    """

    index: int
    seed: int
    options: dict[str, Any] = field(default_factory=dict)
    swap: bool = False
    perturb: dict[str, str] = field(default_factory=dict)
    last: bool = False


@dataclass
class EpisodeResult:
    """What became of one episode.

    Attributes:
        index: from the request.
        seed: from the request.
        instruction: the sentence that the env gave (or the swapped one).
        language: ISO code.
        kind: e.g. ``all``, ``category``, ``named``.
        category: e.g. ``pens``; empty if the instruction is about all of them.
        split: ``train`` or ``heldout``.
        success: decided by the env.
        progress: share of the task done at the end, 0 to 1.
        steps: actions played.
        decisions: how often the policy was asked.
        reward_terms: each term at the episode's last step.
        time_to_success_s: simulated seconds until success, None without it.
        items: for each item ``name``, ``category``, ``asked`` and ``placed``.
        video: an mp4 file's content, where one was asked for.
        last: a PNG of the first camera's last picture, where it was to be kept.
        reason: of a failure, in words that are the same for all of its kind, e.g. ``dropped``; empty after a success,
            and where the instruction was swapped.
        why: what went wrong, in a sentence.
        error: why the episode was cut short, one line; None if it was not.
        raised: whether that was the env, by an exception or an observation that breaks its promise.
        swapped_to: the item that the swapped instruction names.
        safety: the largest value of each measure of safety, ``drops`` counted; empty where the env has none.
        violations: the measures that went beyond the env's limits.
        said: what the agent said that it did, each with its time [s]; see ``vla.runner.Runner``.
    """

    index: int
    seed: int
    instruction: str
    language: str
    kind: str
    category: str
    split: str
    success: bool = False
    progress: float = 0.0
    steps: int = 0
    decisions: int = 0
    reward_terms: dict[str, float] = field(default_factory=dict)
    time_to_success_s: float | None = None
    items: list[dict[str, Any]] = field(default_factory=list)
    video: bytes | None = None
    last: bytes | None = None
    reason: str = ""
    why: str = ""
    error: str | None = None
    raised: bool = False
    swapped_to: str | None = None
    safety: dict[str, float] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    said: list[tuple[float, str]] = field(default_factory=list)


@dataclass
class Turn:
    """What a slot did in one round.

    Attributes:
        steps: actions played.
        ended: the episodes that ended, in order. One that could not begin ends at once.
        observation: what the policy sees next in the episode that runs now, None if none does.
        video_s: seconds spent on the video.
        begun: the episode that began in it and runs now.
    """

    steps: int = 0
    ended: list[EpisodeResult] = field(default_factory=list)
    observation: Observation | None = None
    video_s: float = 0.0
    begun: EpisodeRequest | None = None

    def retold(self, before: list[tuple[Any, ...]], request: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        """The requests that take a player made anew to where this turn, the answer to ``request``, left it.

        ``before`` are those that take it to the turn before. What came before an episode does not change it.
        """
        if self.begun is not None:
            return [("begin", self.begun)]
        return [] if self.ended else [*before, request]


class EpisodePlayer:
    """A slot's env and the episode that it plays. Lives in a worker.

    An exception of the env ends its episode as a failure, and the next one begins in an env that is made anew.

    Args:
        env: which one; it is made when it is first needed.
        video_below: episodes with an index below this are filmed.
        looks_back: the agent's ``observation_steps``.
    """

    def __init__(self, env: EnvRef, video_below: int, looks_back: tuple[int, ...] = PRESENT) -> None:
        self._ref, self._video_below, self._looks_back = env, video_below, looks_back
        self._made: Env | None = None
        self._film: Any = None
        self._info: dict[str, Any] = {}
        self._truncated = False
        self._begun = False  # whether any episode did

    @property
    def _env(self) -> Any:
        self._made = self._made or self._ref.make()
        return self._made

    def spec(self) -> EnvSpec:
        """The env's spec."""
        return self._env.env_spec

    def begin(self, request: EpisodeRequest) -> Turn:
        """Begin an episode.

        Raises VlaError where the env refuses the first one: that comes from the settings, and would meet all of them.
        """
        self._request, self._info, self._film, self._video_s = request, {}, None, 0.0
        self._result = EpisodeResult(request.index, request.seed, "", "", "", "", "")
        self._history = History(self._looks_back)
        env = self._env
        try:
            options, harder = request.options, for_reset(request.perturb)
            if harder:
                options = {**options, "perturb": harder}
            _, info = env.reset(seed=request.seed, options=options or None)
            self._stale = bool(info.get("stale"))
            result = self._result
            for name in ("instruction", "language", "kind", "category"):
                setattr(result, name, info[name])
            result.split = info.get("split", "")
            result.items = [dict(item, placed=False) for item in info.get("items", [])]
            if request.swap:
                self._swap(request)
            if request.index < self._video_below:
                from vla.host.video import Film

                self._film = Film(env, env.env_spec.dt, self._result.instruction)
            observation = self._observe()
        except (Exception, SystemExit) as error:
            by_settings = isinstance(error, VlaError) and not isinstance(error, BadObservationError)
            if by_settings and (request.swap or not self._begun):
                raise
            self._failed(error)
            self.close()
            return Turn(ended=[self._result])
        self._begun = True
        return Turn(observation=observation, begun=request)

    def _swap(self, request: EpisodeRequest) -> None:
        if not isinstance(self._env, AsksFor):
            raise VlaError(
                f"env {self._env.env_spec.name} has no sentence_for(item), which a swapped instruction needs"
            )
        # The last word of a name is its noun. Another noun leaves no doubt about what the sentence means.
        nouns = {item["name"].split()[-1] for item in self._result.items if item["asked"]}
        rest = [item["name"] for item in self._result.items if not item["asked"]]
        others = [name for name in rest if name.split()[-1] not in nouns] or rest
        if not others:
            raise VlaError(f"episode {request.index} has no other item to swap the instruction to")
        other = others[request.seed % len(others)]
        self._result.swapped_to = other
        self._result.instruction = self._env.sentence_for(other)

    def _observe(self) -> Observation:
        observation = self._env.observe()
        observation.check(self._env.env_spec)
        # Chunks are placed by this time, which an env of others may leave out.
        observation = replace(observation, time=self._result.steps * self._env.env_spec.dt)
        if self._request.swap:
            observation = replace(observation, instruction=self._result.instruction)
        return self._history.add(observation)

    def advance(self, actions: np.ndarray, following: EpisodeRequest | None) -> Turn:
        """Play actions (n, A); at the episode's end go on with the ``following`` one, if there is one.

        Of the actions that answer a stale first picture (see ``vla.contracts.Env``) only one is played.
        """
        result, turn = self._result, Turn()
        before, steps = self._video_s, result.steps
        result.decisions += 1
        if self._stale:
            actions, self._stale = actions[:1], False
        try:
            ended = False
            for left, action in zip(range(len(actions) - 1, -1, -1), actions, strict=True):
                ended = self._play(action)
                if ended:
                    break
                if left and self._history.looks_back:
                    self._observe()
            if ended:
                self._finish()
            else:
                turn.observation = self._observe()
        except (Exception, SystemExit) as error:
            self._failed(error)
            ended = True
        turn.steps, turn.video_s = result.steps - steps, self._video_s - before
        if ended:
            turn.ended.append(result)
            if result.raised:
                self.close()
            if following is not None:
                begun = self.begin(following)
                turn.ended += begun.ended
                turn.observation, turn.begun = begun.observation, begun.begun
        return turn

    def _play(self, action: np.ndarray) -> bool:
        result, spec = self._result, self._env.env_spec
        bad = [name for name, value in zip(spec.action, action, strict=True) if not np.isfinite(value)]
        if bad:
            result.error = f"the policy gave NaN or infinity in {', '.join(bad)} at step {result.steps}"
            return True
        step = self._env.play(action)
        self._info, self._truncated = step.info, bool(step.truncated)
        result.steps += 1
        for name, value in step.info.get("safety", {}).items():
            before = result.safety.get(name, 0.0)
            result.safety[name] = before + value if name == "drops" else max(before, value)
        if self._film is not None:
            begun = time.perf_counter()
            self._film.look()
            self._video_s += time.perf_counter() - begun
        moved = result.swapped_to is not None and step.info.get("items", {}).get(result.swapped_to, False)
        return bool(step.terminated or step.truncated or moved)

    def _finish(self) -> None:
        result, info = self._result, self._info
        progress = float(info.get("progress", 0.0))
        if math.isfinite(progress):
            result.progress = progress
        elif result.error is None:
            result.error, result.raised = f"the env gave {progress} as progress at step {result.steps}", True
        result.success = bool(info.get("success", False)) and result.error is None
        terms = {name: float(value) + 0.0 for name, value in info.get("reward_terms", {}).items()}
        result.reward_terms = {name: value for name, value in terms.items() if math.isfinite(value)}
        result.safety = {name: float(value) for name, value in result.safety.items() if math.isfinite(value)}
        if result.success:
            result.time_to_success_s = result.steps * self._env.env_spec.dt
        limits = self._env.safety_limits if isinstance(self._env, MeasuresSafety) else {}
        result.violations = [name for name, value in result.safety.items() if value > limits.get(name, math.inf)]
        for item in result.items:
            item["placed"] = bool(info.get("items", {}).get(item["name"], False))
        if result.error is not None:
            result.reason, result.why = "error", result.error
        elif not result.success and not self._request.swap:  # the env knows what it asked for, not what the swap did
            fell = explain(self._env, result.progress, self._truncated, result.steps * self._env.env_spec.dt)
            result.reason, result.why = fell.reason, fell.detail
        if self._request.last:
            result.last = png(self._env.observe().images[self._env.env_spec.cameras[0].name])
        self._develop()

    def _failed(self, error: BaseException) -> None:
        """End the episode as a failure, for what the env raised."""
        result = self._result
        result.error, result.raised = f"the env raised at step {result.steps}: {one_line(error)}", True
        result.reason, result.why = "error", result.error
        with contextlib.suppress(Exception):  # how far it came, as far as that can be told
            self._finish()

    def _develop(self) -> None:
        if self._film is not None:
            begun, result = time.perf_counter(), self._result
            outcome = f"✓ success after {result.steps * self._env.env_spec.dt:.1f} s"
            if not result.success:
                outcome = f"✗ {result.reason or 'failure'}" + (f": {result.why}" if result.why else "")
            result.video = self._film.encode(outcome, result.success)
            self._video_s += time.perf_counter() - begun

    def close(self) -> None:
        """Free the env. The next episode makes a new one."""
        env, self._made = self._made, None
        if env is not None:
            with contextlib.suppress(Exception, SystemExit):  # one that has raised may do so again
                env.close()
