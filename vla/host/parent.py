"""Whether the process that started this one still lives, told as early as the system knows."""

from __future__ import annotations

import os

_EXITING = 0x4  # PF_EXITING of Linux's include/linux/sched.h, which proc_pid_stat(5) shows
_FLAGS = 6  # its place behind the command's name, which may hold anything


class Parent:
    """This process's parent, as it was when this was made.

    A process that is killed counts as somebody's parent until its memory is taken down: for a large one on a busy
    machine, as long as an arm takes to brake. That it has begun to exit is known at once, on Linux.
    """

    def __init__(self) -> None:
        self._pid = os.getppid()
        try:
            self._stat: int | None = os.open(f"/proc/{self._pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._stat = None

    @property
    def gone(self) -> bool:
        """Whether it has ended, or is about to. Takes some 15 us."""
        if os.getppid() != self._pid:
            return True
        if self._stat is None:
            return False
        try:
            fields = os.pread(self._stat, 1024, 0).rpartition(b")")[2].split()
        except ProcessLookupError:
            return True
        except OSError:
            return False
        return len(fields) > _FLAGS and bool(int(fields[_FLAGS]) & _EXITING)
