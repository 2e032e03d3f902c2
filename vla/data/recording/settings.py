"""What is to be recorded: the settings of ``vla record``, and what each episode's seed makes of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vla.perturb import axes as perturb
from vla.registry import EnvRef


@dataclass(frozen=True)
class RecordSettings:
    """What is to be recorded.

    Attributes:
        env: the env's name.
        out: the dataset's folder.
        episodes: how many episodes are played; failures count. Of an env with several tasks: how many of each task
            are kept, for which up to MOST_ATTEMPTS times as many are played.
        seed: the run's seed; episode i has ``episode_seed("record", seed, i)``.
        noise: the most that an episode's action noise may have as standard deviation, in metres. Each episode draws
            its own from 0 to this.
        items: fewest and most items, each episode draws its own; None leaves it to the env.
        language: ``en``, ``zh`` or ``both``.
        kind: ``all``, ``category``, ``named`` or ``any``.
        video_format: ``h264`` or ``images``.
        keep_failures: whether failed episodes enter the dataset; with an agent they always do.
        workers: processes; 0 for one on each CPU.
        agent: an agent, by name or folder, that acts in turns with the expert, see ``demonstrate.py``; "" for none.
        env_options: arguments for the env's constructor, e.g. ``{"cameras_px": 224}``.
        randomize: axes of ``vla.perturb`` that are varied from episode to episode.
        safe: whether what leads up to a violation of the env's safety limits is left out of what is learnt from.
    """

    env: str
    out: Path
    episodes: int
    seed: int = 0
    noise: float = 0.0
    items: tuple[int, int] | None = None
    language: str = "both"
    kind: str = "any"
    video_format: str = "h264"
    keep_failures: bool = False
    workers: int = 0
    agent: str = ""
    env_options: dict[str, Any] = field(default_factory=dict)
    randomize: tuple[str, ...] = ()
    safe: bool = False

    @property
    def env_ref(self) -> EnvRef:
        """The env, as it can be made."""
        return EnvRef(self.env, self.env_options)

    def identity(self) -> dict[str, Any]:
        """What must be the same for a run to go on in a folder: all but its size, place and speed."""
        names = ("env", "seed", "noise", "items", "language", "kind", "video_format", "keep_failures")
        values = {name: getattr(self, name) for name in names}
        values |= {"items": list(self.items) if self.items else None}
        if self.env_options:  # these and the agent are absent from older recordings
            values["env_options"] = self.env_options
        if self.randomize:
            values["randomize"] = sorted(self.randomize)
        if self.safe:
            values["safe"] = True
        return values | ({"agent": self.agent_hash()} if self.agent else {})

    def agent_hash(self) -> str:
        """The hash of the agent's weights."""
        from vla.agent import load

        return load(self.agent, "cpu").hash

    def options(self, seed: int) -> dict[str, Any]:
        """The reset options of the episode with this seed; only what was asked for."""
        options: dict[str, Any] = {"split": "train"}
        if self.language != "both":
            options["language"] = self.language
        if self.kind != "any":
            options["kind"] = self.kind
        if self.items:
            low, high = self.items
            options["items"] = int(np.random.default_rng([seed, 1]).integers(low, high + 1))
        harder = perturb.for_reset(self.harder(seed))
        return options | ({"perturb": harder} if harder else {})

    def harder(self, seed: int) -> dict[str, str]:
        """The perturbations of the episode with this seed."""
        return perturb.drawn(self.randomize, seed)
