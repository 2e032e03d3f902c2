"""What a pool of workers may hold: an object whose answers depend on those before, and that dies, sleeps or fails."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Total:
    """An answer that depends on those before it."""

    value: int
    process: int

    def retold(self, before: list, request: tuple) -> list:
        return [*before, request]


class Adder:
    """Adds up what it is told; asked for ``late`` for the first time, it sleeps."""

    def __init__(self, slept: Path) -> None:
        self._slept, self._value = slept, 0

    def add(self, number: int) -> Total:
        self._value += number
        return Total(self._value, os.getpid())

    def late(self, number: int) -> int:
        if number == 2 and not self._slept.exists():
            self._slept.touch()
            time.sleep(600)
        return number**2

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def fail(self) -> None:
        raise ZeroDivisionError("a bug")
