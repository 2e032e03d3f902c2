"""Shared memory between the policy and the control process: mailboxes in which the newest message wins.

Nobody waits for anybody: a writer never blocks, and a reader copies the newest message that is whole. A message is
written into the next of a few slots and only then announced, so a writer that is killed in the middle leaves the one
before it. Every slot carries its message's number and a checksum, so a message that was overwritten while it was copied
is detected and read again, whatever order the processor's memory keeps.
"""

from __future__ import annotations

import zlib
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory
from typing import Any
from unittest import mock

import numpy as np

SLOTS = 4
_HEADER = 64  # bytes: the newest message's number, on a cache line of its own
_TRIES = 8


class Mailbox:
    """One message, overwritten by its only writer and read by any number of processes.

    Of one process only one thread at a time may read it and look at ``seen``, or write it.

    It pickles as its name, for other processes of this machine. Its maker frees it, or Python does if that is killed.

    Args:
        fields: a structured dtype: what a message holds.
        name: of a mailbox that exists; None makes one.

    Attributes:
        draft: a message to fill in, 0-d structured array; ``publish`` sends it.
        seen: the newest message that ``read`` got; zeros before the first.
        number: how many messages had been published when ``seen`` was; 0 before the first.
        torn: reads that found a message being overwritten, and were tried again.
    """

    def __init__(self, fields: Any, name: str | None = None) -> None:
        self.fields = np.dtype(fields)
        slot = np.dtype([("sum", "u8"), ("number", "u8"), ("message", self.fields)], align=True)
        self._shared = _shared_memory(name, _HEADER + SLOTS * slot.itemsize)
        self._mine = name is None
        memory: Any = self._shared.buf
        self._latest: Any = np.frombuffer(memory, "u8", 1)
        self._slots: Any = np.frombuffer(memory, "u1", SLOTS * slot.itemsize, _HEADER).reshape(SLOTS, -1)
        self._out, self._in, self._seen = _Slot(slot), _Slot(slot), _Slot(slot)
        self.draft: Any = self._out.content["message"]
        self.torn = 0

    @property
    def seen(self) -> Any:
        """See the class. The same array each time: the next ``read`` may change it."""
        return self._seen.content["message"]

    @property
    def number(self) -> int:
        """See the class."""
        return int(self._seen.content["number"])

    @property
    def sent(self) -> int:
        """How many messages have been published."""
        return int(self._latest[0])

    def publish(self) -> None:
        """Send the draft, which keeps what it holds."""
        number = int(self._latest[0]) + 1
        self._out.content["number"] = number
        self._out.content["sum"] = self._out.checksum()
        self._slots[number % SLOTS] = self._out.bytes
        self._latest[0] = number

    def read(self) -> bool:
        """Copy the newest message into ``seen``; returns whether there was a newer one."""
        for _ in range(_TRIES):
            number = int(self._latest[0])
            if number == self.number:
                return False
            self._in.bytes[:] = self._slots[number % SLOTS]
            if self._in.content["number"] == number and self._in.content["sum"] == self._in.checksum():
                self._in, self._seen = self._seen, self._in
                return True
            self.torn += 1
        return False

    def close(self) -> None:
        """Let go of the memory; its maker frees it. To be called once, by everybody who has it."""
        self._latest = self._slots = None
        self._shared.close()
        if self._mine:
            self._mine = False
            self._shared.unlink()

    def __reduce__(self) -> tuple[type, tuple[Any, str]]:
        return Mailbox, (self.fields, self._shared.name)


def _shared_memory(name: str | None, size: int) -> SharedMemory:
    """New shared memory, or that of this name. Only its maker's tracker knows it: another's would free it at its end.

    Python 3.13 has ``track=False`` for this.
    """
    if name is None:
        return SharedMemory(None, True, size)
    with mock.patch.object(resource_tracker, "register"):
        return SharedMemory(name)


class _Slot:
    """A copy of a slot in this process's own memory, as bytes and as what they mean."""

    def __init__(self, slot: np.dtype) -> None:
        array = np.zeros(1, slot)
        self.content: Any = array.reshape(())
        self.bytes = array.view("u1")
        self._summed = memoryview(self.bytes)[8:]  # all but the checksum

    def checksum(self) -> int:
        return zlib.crc32(self._summed)


def chunk_fields(horizon: int, width: int) -> np.dtype:
    """A chunk of up to ``horizon`` actions of ``width`` numbers. Times are of ``time.monotonic``, seconds.

    ``time`` is that of the observation, ``begin`` that of the first action, ``pushed`` when it was handed over;
    ``count`` actions are filled.
    """
    times = [("time", "f8"), ("begin", "f8"), ("pushed", "f8"), ("dt", "f8")]
    return np.dtype([*times, ("count", "i8"), ("actions", "f8", (horizon, width))], align=True)


def order_fields() -> np.dtype:
    """What the policy's process asks for, apart from motion.

    ``beat`` is when it last said that it lives, ``images`` when the oldest picture that it decides on was taken.
    ``estops`` and ``rearms`` count: one more than before stops the arm, or lets it go on. ``rearmed`` is when the
    last rearming was asked for. ``quit`` ends the process.
    """
    times, counts = ("beat", "images", "rearmed"), ("estops", "rearms", "quit")
    return np.dtype([*((name, "f8") for name in times), *((name, "i8") for name in counts)], align=True)


def state_fields(joints: int) -> np.dtype:
    """The arm as it is, and as it was told to be; SI units. ``time`` is the tick's, ``received`` the measurement's."""
    times = [("time", "f8"), ("received", "f8")]
    measured = [("q", "f8", joints), ("velocity", "f8", joints), ("gripper", "f8"), ("gripper_force", "f8")]
    told = [("command", "f8", joints), ("command_velocity", "f8", joints), ("command_gripper", "f8")]
    return np.dtype([*times, *measured, *told], align=True)
