"""Progress bars, and what stands in for them where the output is a file."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import rich.progress

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
