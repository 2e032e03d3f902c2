"""Which episodes a recording consists of: so many in all, or so many good ones of each task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MOST_ATTEMPTS = 3


@dataclass(frozen=True)
class Quota:
    """What ``vla record --episodes`` asks for.

    Attributes:
        episodes: how many are played, failures included; with tasks, how many of each task are kept.
        tasks: the env's tasks; none for an env of one. Episode i is of task ``i % len(tasks)``.
    """

    episodes: int
    tasks: tuple[str, ...] = ()

    def options(self, index: int) -> dict[str, Any]:
        """What an episode's number adds to the reset options."""
        return {"task": self.tasks[index % len(self.tasks)]} if self.tasks else {}

    def plan(self, kept: Mapping[int, bool]) -> tuple[list[int], list[int]]:
        """The episodes that count, of those that were played, and those to be played next.

        Of each task the first episodes count, up to the one that fills its quota, or MOST_ATTEMPTS times the quota if
        it is never filled. So the recording comes out the same however it was interrupted or shared out.

        Args:
            kept: for the number of each episode that was played, whether it is good enough to be kept.
        """
        if not self.tasks:
            every = range(self.episodes)
            return [i for i in every if i in kept], [i for i in every if i not in kept]
        counted: list[int] = []
        todo: list[int] = []
        for task in range(len(self.tasks)):  # one task after the other: changing it is costly
            lacking = self.episodes
            for index in range(task, MOST_ATTEMPTS * self.episodes * len(self.tasks), len(self.tasks)):
                if lacking == 0:
                    break
                (counted if index in kept else todo).append(index)
                lacking -= kept.get(index, True)
        return sorted(counted), todo

    def unfilled(self, kept: Mapping[int, bool]) -> dict[str, int]:
        """The tasks whose quota was not filled, with how many were kept."""
        counted, _ = self.plan(kept)
        found = {
            name: sum(kept[index] for index in counted if index % len(self.tasks) == task)
            for task, name in enumerate(self.tasks)
        }
        return {name: count for name, count in found.items() if count < self.episodes}
