"""Whether the death of the process that started this one is told."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

# The parent has memory that takes the system a while to take down; its child tells what it knows, line by line.
CHILD = """
import os, sys, time
from vla.host.parent import Parent
if {blind}:
    def fails(*_):  # as on a system without /proc
        raise FileNotFoundError
    os.open = fails
parent, pid = Parent(), os.getppid()
print(parent.gone, flush=True)
while not parent.gone:
    time.sleep(0.001)
print("gone", time.monotonic(), os.getppid() == pid, flush=True)
"""
PARENT = """
import subprocess, sys
import numpy as np
held = np.ones(40_000_000)
subprocess.Popen([sys.executable, "-c", sys.argv[1]]).wait()
"""


def killed(blind: bool) -> tuple[float, bool]:
    """Seconds until a child was told that its parent was killed, and whether it still was its parent then."""
    command = [sys.executable, "-c", PARENT, CHILD.format(blind=blind)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "False\n"
    time.sleep(0.1)
    at = time.monotonic()
    parent.send_signal(signal.SIGKILL)
    _, when, early = parent.stdout.readline().split()
    parent.stdout.close()
    parent.wait()
    return float(when) - at, early == "True"


def test_death_is_told_before_the_memory_is_taken_down() -> None:
    # Mostly at the first try: the child may be asleep for as long as that takes.
    assert any(early and seconds < 1.0 for seconds, early in (killed(blind=False) for _ in range(10)))


def test_death_is_told_where_the_system_shows_no_more() -> None:
    seconds, early = killed(blind=True)
    assert seconds < 2.0 and not early
