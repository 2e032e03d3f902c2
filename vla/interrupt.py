"""Stopping in good order: a signal is noted, and the work ends at a point where nothing is lost."""

from __future__ import annotations

import signal
from types import FrameType

from vla.contracts import VlaError


class TrainingStopped(VlaError):
    """A run was asked to stop and wrote a checkpoint first. ``signal`` is the number of what asked."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.signal = number


class StopRequest:
    """As a context manager, takes SIGINT and SIGTERM as a wish to stop. A second SIGINT stops at once.

    Outside the main thread it leaves signals alone.

    Attributes:
        signal: the number of the signal that came, 0 until then.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._before: dict[int, object] = {}

    def __bool__(self) -> bool:
        return self.signal != 0

    def __enter__(self) -> StopRequest:
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        except ValueError:  # not the main thread
            pass
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number
