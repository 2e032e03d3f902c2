"""What the system gives a process that must be on time: a core of its own, priority, memory that stays, exact sleep.

Each is asked for and none is needed; what was got is told in words, either way.
"""

from __future__ import annotations

import ctypes
import gc
import os
import time
from dataclasses import dataclass

SPIN_S = 60e-6  # before a deadline, spent looking at the clock: waking up takes about as long
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4
_PR_SET_TIMERSLACK = 29


@dataclass(frozen=True)
class Wishes:
    """What to ask the system for.

    Attributes:
        core: the CPU to run on; None leaves that to the system.
        priority: of SCHED_FIFO, 1 to 99; None keeps the usual scheduling.
        lock_memory: whether pages that were used once stay in memory.
    """

    core: int | None = None
    priority: int | None = 80
    lock_memory: bool = True


def prepare(wishes: Wishes) -> dict[str, str]:
    """Ask for it, for this process; returns what was got, by ``core``, ``priority``, ``memory`` and ``timer``."""
    libc = ctypes.CDLL(None, use_errno=True)
    got = {"core": "left to the system", "priority": "usual", "memory": "not locked", "timer": "as the system has it"}
    if wishes.core is not None:
        try:
            os.sched_setaffinity(0, {wishes.core})
            got["core"] = f"{wishes.core}"
        except (OSError, AttributeError) as error:
            got["core"] = f"left to the system (core {wishes.core}: {error})"
    if wishes.priority is not None:
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(wishes.priority))
            got["priority"] = f"SCHED_FIFO {wishes.priority}"
        except (OSError, AttributeError) as error:
            got["priority"] = f"usual (SCHED_FIFO {wishes.priority}: {error})"
    if wishes.lock_memory:
        # Only what was touched: locking all that is mapped would fill the memory with libraries that nobody calls.
        if libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT) == 0:
            got["memory"] = "locked"
        else:
            got["memory"] = f"not locked ({os.strerror(ctypes.get_errno())})"
    if libc.prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0) == 0:
        got["timer"] = "exact"
    return got


def no_collections() -> None:
    """From here on nothing is collected: what the process has made so far stays, and what follows makes no cycles."""
    gc.collect()
    gc.freeze()
    gc.disable()


def wait_until(deadline: float) -> float:
    """Sleep until ``time.monotonic`` says ``deadline``, the last moment awake; returns what it says then."""
    left = deadline - time.monotonic() - SPIN_S
    if left > 0.0:
        time.sleep(left)  # by clock_nanosleep, to an absolute time
    while (now := time.monotonic()) < deadline:
        pass
    return now
