"""Stopping in good order: a signal is noted, and the work ends at a point where nothing is lost.

SIGTERM (a scheduler, ``kill``) and SIGHUP (the terminal was closed) mean what Ctrl-C means, in every command.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# What asks a run to end. One that the parent process had ignored (nohup) stays ignored.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
# Seconds after which an interruption that nobody holds any more comes again. A last table, say, takes less.
FORGOTTEN_S = 2.0


class Terminated(KeyboardInterrupt):
    """Raised in the main thread by SIGTERM, SIGHUP and Ctrl-C: whatever handles Ctrl-C handles them all."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.signal = number


def exit_code(error: BaseException | None) -> int:
    """The exit code after an interruption: 128 + the signal's number; 130, Ctrl-C's, where none is known."""
    while error is not None:  # what handled it may have raised another error from it
        if isinstance(error, Terminated):
            return 128 + error.signal
        error = error.__cause__ or error.__context__
    return 128 + signal.SIGINT


@contextmanager
def terminating() -> Iterator[None]:
    """While the block runs, SIGTERM, SIGHUP and Ctrl-C raise Terminated; a second one, while it is handled, does not.

    Ctrl-C always does. Libraries swallow such errors now and then, in an import or while an object is deleted: one
    that nobody holds any more, though the block goes on, comes again a little later. C code may make an error of its
    own out of an interruption: one that leaves the block after a signal counts as the interruption, and is its cause.
    Outside the main thread signals are left alone.
    """
    came: list[int] = []
    watched: list[weakref.ref[Terminated]] = []
    running = True

    def interrupt(number: int, _: FrameType | None) -> None:
        handled = any(one != signal.SIGINT for one in came)
        came.append(number)
        if number == signal.SIGINT or not handled:
            raise watch(Terminated(number))  # which no variable here may hold

    def watch(error: Terminated) -> Terminated:
        number = error.signal
        watched.append(weakref.ref(error, lambda _: once_more(number)))
        return error

    def once_more(number: int) -> None:
        if running:
            timer = threading.Timer(FORGOTTEN_S, deliver, (number,))
            timer.daemon = True
            timer.start()

    def deliver(number: int) -> None:
        if running:
            came.clear()
            os.kill(os.getpid(), number)

    def unheard(dropped: sys.UnraisableHookArgs) -> None:
        if not isinstance(dropped.exc_value, Terminated):
            report(dropped)

    before, report = {}, sys.unraisablehook
    if threading.current_thread() is threading.main_thread():
        sys.unraisablehook = unheard
        for number in SIGNALS:
            present = signal.getsignal(number)
            if present is not signal.SIG_IGN and (number != signal.SIGINT or present is signal.default_int_handler):
                before[number] = signal.signal(number, interrupt)
    try:
        yield
    except Exception as error:
        if not came:
            raise
        raise Terminated(came[0]) from error
    finally:
        running = False
        sys.unraisablehook = report
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def held_back() -> Iterator[None]:
    """While the block runs no such signal is delivered, and processes that it starts never get one; then they come.

    A worker that is still importing would answer Ctrl-C with a traceback.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_signals_to_parent() -> None:
    """In a worker process: the parent decides when to end. It reads the end of its pipe if the parent dies."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


class StopRequest:
    """As a context manager, takes SIGINT, SIGTERM and SIGHUP as a wish to stop. A second SIGINT stops at once.

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
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number
