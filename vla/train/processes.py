"""Several training processes side by side on one machine's CPU, each with one thread.

On two cores they see 98 samples a second where one process with two threads sees 55. They speak with each other as
those that torchrun starts (gloo, on loopback), but end in good order with the process that began them: each waits for
the end of its standard input.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress

from vla.contracts import VlaError
from vla.host.interrupt import SIGNALS, StopRequest
from vla.train.result import TrainingStopped

PARENT = "VLA_STAGE_OF"  # set in a process that was begun here


def run_side_by_side(words: Sequence[str], count: int) -> None:
    """Run ``vla`` with these words in ``count`` processes, ranks 0 to ``count - 1``, and wait for all of them.

    A signal to this process asks them to stop, which they do at the same step, after a checkpoint.

    Raises TrainingStopped after such a signal, VlaError where one fails; the others are ended then.
    """
    network = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "ACCELERATE_USE_CPU": "true"}
    shared = network | {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "OMP_NUM_THREADS": "1", PARENT: "1"}
    started: list[subprocess.Popen[bytes]] = []
    with StopRequest() as stop:
        try:
            for rank in range(count):
                own = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
                command = [sys.executable, "-m", "vla", *words]
                # A session of their own: Ctrl-C reaches them once, from here.
                started.append(
                    subprocess.Popen(
                        command, env=os.environ | shared | own, stdin=subprocess.PIPE, start_new_session=True
                    )
                )
            told, waiting = False, list(started)
            while waiting:
                if stop and not told:
                    told = True
                    for one in waiting:
                        one.send_signal(signal.SIGTERM)
                with suppress(subprocess.TimeoutExpired):
                    waiting[0].wait(timeout=0.2)
                ended = [one for one in waiting if one.poll() is not None]
                waiting = [one for one in waiting if one.poll() is None]
                if any(one.returncode not in (0, 128 + signal.SIGTERM) for one in ended):
                    break
        finally:
            for one in started:
                if one.poll() is None:
                    one.kill()
                one.wait()
                if one.stdin:
                    one.stdin.close()
        if stop:
            name = signal.Signals(stop.signal).name
            raise TrainingStopped(f"stopped by {name}; the same command with --resume continues", stop.signal)
    failed = [(rank, one.returncode) for rank, one in enumerate(started) if one.returncode]
    if failed:
        rank, code = failed[0]
        raise VlaError(f"training process {rank} of {count} ended with {code}; what it said is above")


def end_with_parent() -> None:
    """In such a process: stop in good order once the process that began it is gone, however it ended."""
    if os.environ.get(PARENT) and SIGNALS:

        def watch() -> None:
            while os.read(0, 4096):
                pass
            os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=watch, name="parent", daemon=True).start()


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
