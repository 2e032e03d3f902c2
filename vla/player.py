"""One env and the episode that it plays: the part of the rollout loop that lives in a worker."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from vla.contracts import EnvSpec, Observation, VlaError
from vla.perturb import for_reset


@dataclass(frozen=True)
class EpisodeRequest:
    """One episode to play.

    Attributes:
        index: the episode's number in the run.
        seed: the env's seed; see ``vla.contracts.episode_seed``.
        options: what ``Env.reset`` takes.
        swap: ask for another item than the one that the episode is about; needs ``Env.sentence_for``.
        perturb: axis to strength; see ``vla.perturb``.
    """

    index: int
    seed: int
    options: dict[str, Any] = field(default_factory=dict)
    swap: bool = False
    perturb: dict[str, str] = field(default_factory=dict)


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
        error: why the episode was cut short, None if it was not.
        swapped_to: the item that the swapped instruction names.
        safety: the largest value of each measure of safety, ``drops`` counted; empty where the env has none.
        violations: the measures that went beyond the env's limits.
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
    error: str | None = None
    swapped_to: str | None = None
    safety: dict[str, float] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)


class EpisodePlayer:
    """A slot's env and the episode that it plays. Lives in a worker.

    Args:
        env_name: as ``vla.registry.make_env`` takes it.
        env_options: keyword arguments for the env.
        video_below: episodes with an index below this are filmed.
    """

    def __init__(self, env_name: str, env_options: dict[str, Any], video_below: int) -> None:
        from vla.registry import make_env

        self._env = make_env(env_name, **env_options)
        self._video_below = video_below
        self._film: Any = None
        self._info: dict[str, Any] = {}

    def spec(self) -> EnvSpec:
        """The env's spec."""
        return self._env.env_spec

    def begin(self, request: EpisodeRequest) -> tuple[EpisodeRequest, Observation]:
        """Begin an episode; returns the request and what the policy sees first."""
        options, harder = request.options, for_reset(request.perturb)
        if harder:
            options = {**options, "perturb": harder}
        _, info = self._env.reset(seed=request.seed, options=options or None)
        self._request, self._info = request, {}
        self._stale = bool(info.get("stale"))
        self._result = EpisodeResult(
            request.index,
            request.seed,
            info["instruction"],
            info["language"],
            info["kind"],
            info["category"],
            info.get("split", ""),
            items=[dict(item, placed=False) for item in info.get("items", [])],
        )
        if request.swap:
            self._swap(request)
        self._film, self._video_s = None, 0.0
        if request.index < self._video_below:
            from vla.video import Film

            self._film = Film(self._env, self._env.env_spec.dt)
        return request, self._observe()

    def _swap(self, request: EpisodeRequest) -> None:
        if not hasattr(self._env, "sentence_for"):
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
        return replace(observation, instruction=self._result.instruction) if self._request.swap else observation

    def advance(
        self, actions: np.ndarray, following: EpisodeRequest | None
    ) -> tuple[int, EpisodeResult | None, EpisodeRequest | None, Observation | None, float]:
        """Play actions (n, A); at the episode's end go on with the ``following`` one, if there is one.

        Of the actions that answer a stale first picture (see ``vla.contracts.Env``) only one is played.

        Returns:
            steps played, the result if the episode ended, the request that now runs, what the policy
            sees next (None if nothing is left to play), and seconds spent on the video.
        """
        result, before, steps, video_s = self._result, self._video_s, self._result.steps, 0.0
        result.decisions += 1
        if self._stale:
            actions, self._stale = actions[:1], False
        ended = False
        for action in actions:
            ended = self._play(action)
            if ended:
                break
        steps = result.steps - steps
        if not ended:
            return steps, None, self._request, self._observe(), self._video_s - before
        self._finish()
        video_s = self._video_s - before
        if following is None:
            return steps, result, None, None, video_s
        request, observation = self.begin(following)
        return steps, result, request, observation, video_s

    def _play(self, action: np.ndarray) -> bool:
        result, spec = self._result, self._env.env_spec
        bad = [name for name, value in zip(spec.action, action, strict=True) if not np.isfinite(value)]
        if bad:
            result.error = f"the policy gave NaN or infinity in {', '.join(bad)} at step {result.steps}"
            return True
        step = self._env.play(action)
        self._info = step.info
        result.steps += 1
        for name, value in step.info.get("safety", {}).items():
            before = result.safety.get(name, 0.0)
            result.safety[name] = before + value if name == "drops" else max(before, value)
        if self._film is not None:
            begun = time.perf_counter()
            self._film.look()
            self._video_s += time.perf_counter() - begun
        moved = result.swapped_to is not None and step.info.get("items", {}).get(result.swapped_to, False)
        return step.terminated or step.truncated or moved

    def _finish(self) -> None:
        result, info = self._result, self._info
        result.progress = float(info.get("progress", 0.0))
        result.success = bool(info.get("success", False)) and result.error is None
        result.reward_terms = {name: float(value) + 0.0 for name, value in info.get("reward_terms", {}).items()}
        if result.success:
            result.time_to_success_s = result.steps * self._env.env_spec.dt
        limits = getattr(self._env, "safety_limits", {})
        result.violations = [name for name, value in result.safety.items() if value > limits.get(name, math.inf)]
        for item in result.items:
            item["placed"] = bool(info.get("items", {}).get(item["name"], False))
        if self._film is not None:
            begun = time.perf_counter()
            result.video = self._film.encode()
            self._video_s += time.perf_counter() - begun

    def close(self) -> None:
        """Free the env."""
        self._env.close()
