"""Progress bars, and what stands in for them where the output is a file."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import rich.progress
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

_EVERY_S = 30.0


class Progress(rich.progress.Progress):
    """Rich's progress bars. Where the output is no terminal, a line now and then says how far each one is."""

    _said = 0.0

    def start(self) -> None:
        """Begin to show them."""
        self._said = time.monotonic()
        super().start()

    def advance(self, task_id: rich.progress.TaskID, advance: float = 1) -> None:
        """See rich."""
        super().advance(task_id, advance)
        self._say(task_id)

    def update(self, task_id: rich.progress.TaskID, **changes: Any) -> None:
        """See rich."""
        super().update(task_id, **changes)
        self._say(task_id)

    def _say(self, task_id: rich.progress.TaskID) -> None:
        if self.disable or self.console.is_terminal or time.monotonic() - self._said < _EVERY_S:
            return
        self._said = time.monotonic()
        task = next(task for task in self.tasks if task.id == task_id)
        left = "" if task.time_remaining is None else f", {timedelta(seconds=round(task.time_remaining))} left"
        total = "" if task.total is None else f" of {task.total:.0f}"
        notes = "".join(f", {text}" for text in task.fields.values() if text)
        self.console.print(f"{task.description}: {task.completed:.0f}{total}{notes}{left}", markup=False)


class EpisodeBar(Progress):
    """A bar for each stage of episodes: how many are done, the share that succeeded, how fast it goes, the time left.

    Args:
        console: where to; None for the standard output.
        show: False shows nothing.

    Attributes:
        begun: whether any stage has begun.
    """

    def __init__(self, console: Console | None = None, show: bool = True) -> None:
        texts = TextColumn("{task.description}"), TextColumn("{task.fields[score]}")
        columns = (texts[0], BarColumn(), MofNCompleteColumn(), texts[1], TimeRemainingColumn())
        super().__init__(*columns, console=console, disable=not show)
        self.begun, self._began = False, 0.0
        self._done = self._good = self._new = 0
        self._task = rich.progress.TaskID(0)

    def stage(self, name: str, total: int, done: int = 0, good: int = 0) -> None:
        """A stage of ``total`` episodes begins; ``done`` of them need not be played, of which ``good`` succeeded."""
        if self.begun:
            self.update(self._task, total=self._done)
        self.begun, self._began = True, time.perf_counter()
        self._done, self._good, self._new = done, good, 0
        self._task = self.add_task(name, total=total, completed=done, score="")

    def part(self, name: str, done: int, good: int) -> None:
        """A part of the stage begins; ``done`` of its episodes need not be played, of which ``good`` succeeded."""
        self._done, self._good = self._done + done, self._good + good
        self.update(self._task, description=name, completed=self._done)

    def extend(self, total: int) -> None:
        """The stage has so many episodes now."""
        self.update(self._task, total=total)

    def count(self, success: bool | None) -> None:
        """One more is done; None if it is nothing that succeeds or fails."""
        self._done, self._new, self._good = self._done + 1, self._new + 1, self._good + bool(success)
        speed = self._new / max(time.perf_counter() - self._began, 1e-9)
        score = f"{self._good / self._done:.1%} succeed, {speed:.2f} episodes/s" if success is not None else ""
        self.update(self._task, completed=self._done, score=score)
