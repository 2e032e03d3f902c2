"""A robot that is a recording: an episode of a dataset goes by in real time, and what is sent moves nothing.

For a look at how an agent fits a robot that is elsewhere: ``vla deploy --robot replay --data DIR``.
"""

from __future__ import annotations

import math
import time
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from vla.contracts import VlaError
from vla.data.open import open_dataset
from vla.robots.adapters import require_finite
from vla.robots.config import RobotConfig
from vla.robots.io import Capabilities, Command, Counter, Joints, Picture


class ReplayRobot:
    """See ``RobotIO``. The episode begins with the first question, and over and over again.

    Args:
        config: the robot that was recorded.
        data: the dataset's folder.
        episode: which of it.

    Attributes:
        instruction: what the episode is about.

    Raises:
        SpecMismatchError: the dataset is another robot's. VlaError: there is no such episode.
    """

    capabilities = Capabilities("replay", moves=False)

    def __init__(self, config: RobotConfig, data: Path, episode: int = 0) -> None:
        self.config = config
        recorded = open_dataset(data)
        config.spec.require(recorded.spec, f"robot {config.name}", f"dataset {data}")
        columns, _ = recorded.columns()
        rows = np.flatnonzero(columns["episode"] == episode)
        if not len(rows):
            raise VlaError(f"{data} has no episode {episode}: it has {len(recorded.episodes)}, from 0 on")
        first, last = int(rows[0]), int(rows[-1]) + 1
        self._state = columns["state"][first:last]
        self._frames = {}
        for name in config.cameras:
            every: Any = chain.from_iterable(recorded.read_frames(one, name) for one in recorded.sources(name))
            self._frames[name] = list(islice(every, first, last))
        self.instruction = recorded.instructions[int(columns["instruction"][first])]
        self._begun, self._step, self._counters = math.nan, -1, list[Counter]()

    def _now(self) -> tuple[int, float]:
        """The present step, counted on through repetitions, and when it began."""
        now = time.monotonic()
        if math.isnan(self._begun):
            self._begun = now
        step = int((now - self._begun) / self.config.dt)
        at = self._begun + step * self.config.dt
        if step != self._step:
            self._step = step
            for counter in self._counters:
                for topic in (self.config.state.topic, *(camera.topic for camera in self.config.cameras.values())):
                    counter.tick(topic, at)
        return step, at

    def joints(self) -> Joints | None:
        """See ``RobotIO.joints``."""
        step, at = self._now()
        state = self._state[step % len(self._state)].astype(float)
        return Joints(state[10:], np.full(len(state) - 10, math.nan), float(state[9]), at)

    def pictures(self) -> dict[str, Picture]:
        """See ``RobotIO.pictures``."""
        step, at = self._now()
        return {name: Picture(frames[step % len(frames)], at) for name, frames in self._frames.items()}

    def send(self, command: Command) -> None:
        """See ``RobotIO.send``; a recording goes its own way."""
        require_finite(command)

    def stop(self) -> None:
        """See ``RobotIO.stop``."""

    def problem(self) -> str:
        """See ``RobotIO.problem``."""
        return ""

    def estop(self) -> str:
        """See ``RobotIO.estop``."""
        return ""

    def missing(self, since: float = -math.inf) -> list[str]:
        """See ``RobotIO.missing``."""
        return []

    def watch(self) -> Counter:
        """See ``RobotIO.watch``."""
        self._counters.append(Counter())
        return self._counters[-1]

    def close(self) -> None:
        """See ``RobotIO.close``."""
