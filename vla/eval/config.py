"""What an evaluation measures: its settings, the episodes that follow from them, and how they are read from a file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, get_origin, get_type_hints

from vla.contracts import VlaError, episode_seed
from vla.control.playback import playback_of
from vla.perturb import axes as perturb
from vla.registry import EnvRef
from vla.rollout.load import LEROBOT
from vla.rollout.player import EpisodeRequest

# The most that a file may ask for: a number that is written down becomes processes, episodes and pictures.
MOST = {"workers": 1024, "slots": 4096, "episodes": 10**6, "videos": 10**6, "check": 10**6, "execute": 10**4}
MOST["items"] = 1000


@dataclass(frozen=True)
class EvalConfig:
    """What to measure.

    Attributes:
        env: as ``vla.registry`` names it.
        episodes: how many; of each task, if the env has several.
        seed: the run's seed; the episodes' seeds come from ``episode_seed("evaluate", seed, index)``.
        more_seeds: further seeds, each with as many episodes; scores are then told for each seed too.
        workers: processes that step the envs; it does not change the results.
        slots: episodes side by side; the policy's batch size.
        split: ``heldout`` or ``train`` paraphrases, colours and layouts.
        instruction: a user's own sentence for all episodes; None lets the env write them.
        language: ``en``, ``zh`` or None for either.
        kind: ``all``, ``category``, ``named`` or None for any.
        items: items on the desk, None for the env's default.
        execute: steps of each chunk to play, None for the agent's own.
        videos: how many episodes to show: half successes, half failures, as far as there are any.
        check: episodes for each of the checks in ``vla.eval.checks``; 0 leaves them out.
        agent: what names the agent, as ``vla eval --agent`` takes it; None for the one that ships. Noted only.
        playback: how its chunks are played, a name of ``vla.control.playback``, whose ways know of the delay that the
            perturbation ``latency`` makes; None plays each from its first action on when it comes.
        planner: what tells the agent each step, see ``vla.rollout.planner``; None for nobody.
        device: where the agent runs, as ``vla eval --device`` takes it; None for a GPU if there is one. Noted only.
        env_options: arguments for the env's constructor, e.g. ``{"cameras_px": 224}``.
        perturb: what is made harder, axis to strength; see ``vla.perturb``.
        judge: towers of ``vla align`` that judge each episode by its last picture, beside the env: ``clip`` for those
            that ship, or a folder; None for none.
        suite: axis to strengths of the robustness suite that this evaluation is the unperturbed part of; see
            ``vla.eval.robustness``. Empty for none.
    """

    env: str
    episodes: int = 50
    seed: int = 0
    workers: int = 1
    slots: int = 8
    split: str = "heldout"
    instruction: str | None = None
    language: str | None = None
    kind: str | None = None
    items: int | None = None
    execute: int | None = None
    videos: int = 6
    check: int = 0
    agent: str | None = None
    env_options: dict[str, Any] = field(default_factory=dict)
    perturb: dict[str, str] = field(default_factory=dict)
    suite: dict[str, list[str]] = field(default_factory=dict)
    more_seeds: list[int] = field(default_factory=list)
    device: str | None = None
    playback: str | None = None
    planner: str | None = None
    judge: str | None = None

    @property
    def seeds(self) -> list[int]:
        """All seeds."""
        return [self.seed, *self.more_seeds]

    def __post_init__(self) -> None:
        for name, least in (("episodes", 1), ("workers", 1), ("slots", 1), ("videos", 0), ("check", 0)):
            if getattr(self, name) < least:
                raise VlaError(f"--{name} must be at least {least}, and is {getattr(self, name)}")
        if len(set(self.seeds)) < len(self.seeds):
            raise VlaError(f"--seed names a seed twice: {','.join(map(str, self.seeds))}")
        if self.playback is not None:
            playback_of(self.playback)
        if self.check and self.instruction:
            raise VlaError("--check compares the env's own sentences: leave out --instruction")
        if self.check and self.kind == "all":
            raise VlaError(
                "--check swaps what is asked for, and with --kind all that is always everything: leave it out"
            )

    @property
    def env_ref(self) -> EnvRef:
        """The env, as it can be made."""
        return EnvRef(self.env, self.env_options)

    def check_env(self) -> None:
        """Raise VlaError, before anything is made, where the env can't do a perturbation or refuses an option."""
        perturb.require(self.perturb, perturb.axes_of(self.env_ref.env_class), f"env {self.env}")
        self.env_ref.check(self.options)

    @property
    def options(self) -> dict[str, Any]:
        """What every episode's reset is told, whatever its task and its perturbations."""
        options = {
            "split": self.split,
            "language": self.language,
            "kind": self.kind,
            "items": self.items,
            "instruction": self.instruction,
        }
        return {name: value for name, value in options.items() if value is not None}

    def requests(self) -> list[EpisodeRequest]:
        """The episodes to play, in the order of playing.

        Of an env with several tasks each slot plays one task's episodes in a row, since changing the task is costly.
        What an episode is depends on its index alone: task ``index % tasks``.
        """
        given = self.options
        tasks = self.env_ref.tasks()
        requests, count = [], self.episodes * max(1, len(tasks))
        for index in range(count * len(self.seeds)):
            task = {"task": tasks[index % len(tasks)]} if tasks else {}
            seed = episode_seed("evaluate", self.seeds[index // count], index % count)
            requests.append(
                EpisodeRequest(index, seed, given | task, perturb=dict(self.perturb), last=bool(self.judge))
            )
        if tasks:  # the slots take the requests in turn
            requests.sort(key=lambda request: (request.index % len(tasks) // self.slots, request.index))
        return requests

    @classmethod
    def of_file(cls, data: dict[str, Any]) -> Self:
        """The settings that a ``results.json`` records.

        Raises VlaError for unknown ones, and for values that no evaluation could have had.
        """
        kinds = get_type_hints(cls)
        for name, value in data["settings"].items():
            if name not in kinds:
                raise VlaError(f"it has the setting '{name}', which this version does not know")
            origin = get_origin(kinds[name])
            fits = isinstance(value, origin if origin in (dict, list) else kinds[name]) and not isinstance(value, bool)
            if not fits or abs(value if isinstance(value, int) else 0) > MOST.get(name, 2**62):
                raise VlaError(f"its settings are damaged: '{name}' is {str(value)[:80]!r}")
        config = cls(**{"env": data["env"], **data["settings"]})
        if not all(isinstance(seed, int) for seed in config.more_seeds):
            raise VlaError(f"its settings are damaged: 'more_seeds' is {str(config.more_seeds)[:80]}")
        able = tuple(perturb.AXES)  # what this env can do is found out later; here, that no text becomes a path
        perturb.require(config.perturb, able, "an evaluation")
        for axis, strengths in config.suite.items():
            for strength in strengths if isinstance(strengths, list) else [strengths]:
                perturb.require({axis: strength}, able, "an evaluation")
        if (config.agent or "").startswith(LEROBOT) and not Path(str(config.agent).removeprefix(LEROBOT)).is_dir():
            raise VlaError(f"it names the agent '{config.agent}', which is no folder here")
        return config
