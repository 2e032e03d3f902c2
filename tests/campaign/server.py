"""Runs command lines in forks of one warm process: importing torch takes seconds, a fork milliseconds."""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import resource
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
MEMORY = 32 * 2**30  # of address space; a number in a hostile file must not take the machine's memory


@dataclass
class Command:
    """A command that was begun: its process, where its words go, and when that was."""

    pid: int
    out: Path
    err: Path
    began: float


@dataclass
class Done:
    """What became of a command: its exit code (None if it had to be ended), its words, and who outlived it."""

    code: int | None
    out: str
    err: str
    seconds: float
    orphans: list[str] = field(default_factory=list)


class Server:
    """The warm process, seen from outside."""

    def __init__(self) -> None:
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        environment = os.environ | threads | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "COLUMNS": "160"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.campaign.server"],
            cwd=ROOT,
            env=environment | {"OMP_WAIT_POLICY": "PASSIVE", "ACCELERATE_USE_CPU": "true", "MPLBACKEND": "Agg"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        self._answer(300)

    def start(self, argv: list[str], cwd: Path, log: str = "") -> Command:
        """Begin ``vla ARGV`` in a session of its own; ``finish`` must follow. Two in one folder need a ``log`` each."""
        words = cwd.parent / f"{cwd.name}{log}"  # beside the folder, whose disk may be full
        command = Command(0, words.with_suffix(".out"), words.with_suffix(".err"), time.monotonic())
        logs = [str(command.out), str(command.err)]
        command.pid = int(self._ask(30, argv=argv, cwd=str(cwd), logs=logs)["pid"])
        return command

    def finish(self, command: Command, limit_s: float) -> Done:
        """Wait for the command and its children; what is left after ``limit_s`` is ended."""
        try:
            answer = self._ask(limit_s, wait=command.pid)
        except TimeoutError:
            os.kill(command.pid, signal.SIGKILL)
            answer = self._answer(30) | {"code": None}
        seconds, deadline = time.monotonic() - command.began, time.monotonic() + 5
        while (left := _session(command.pid)) and time.monotonic() < deadline:
            time.sleep(0.02)
        orphans = []
        for one in left:
            with contextlib.suppress(psutil.Error):
                orphans.append(" ".join(one.cmdline())[:80])
                one.kill()
        out, err = (
            path.read_bytes().decode("utf-8", "backslashreplace") if path.exists() else ""
            for path in (command.out, command.err)
        )
        return Done(answer["code"], out, err, seconds, orphans)

    def run(self, argv: list[str], cwd: Path, limit_s: float = 120) -> Done:
        """``start`` and ``finish``."""
        return self.finish(self.start(argv, cwd), limit_s)

    def _ask(self, limit_s: float, **order: Any) -> dict[str, Any]:
        assert self._process.stdin
        self._process.stdin.write((json.dumps(order) + "\n").encode())
        return self._answer(limit_s)

    def _answer(self, limit_s: float) -> dict[str, Any]:
        assert self._process.stdout
        if not select.select([self._process.stdout], [], [], limit_s)[0]:
            raise TimeoutError
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the warm process ended")
        return json.loads(line)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


def _session(leader: int) -> list[psutil.Process]:
    """The living processes of a session, which the leader may have left."""
    found = []
    for pid in psutil.pids():
        with contextlib.suppress(OSError, psutil.Error):
            if os.getsid(pid) == leader and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                found.append(psutil.Process(pid))
    return found


def _serve() -> dict[str, Any] | None:
    """Answer orders until there are no more. Returns None then; in a fork, its order."""
    answers = os.dup(1)

    def answer(**what: object) -> None:
        os.write(answers, (json.dumps(what) + "\n").encode())

    answer(ready=True)
    while line := sys.stdin.buffer.readline():
        order = json.loads(line)
        if "wait" in order:
            answer(code=os.waitstatus_to_exitcode(os.waitpid(order["wait"], 0)[1]))
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # threads that sleep, and that no fork needs
            pid = os.fork()
        if pid == 0:
            os.close(answers)
            return order
        answer(pid=pid)
    return None


def _become(order: dict[str, Any]) -> None:
    os.setsid()
    os.chdir(order["cwd"])
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for fd, name in enumerate([os.devnull, *order["logs"]]):
        opened = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC if fd else os.O_RDONLY, 0o644)
        os.dup2(opened, fd)
        os.close(opened)
    sys.argv = ["vla", *order["argv"]]


WARM = """accelerate av jinja2 matplotlib.pyplot pandas pyarrow.parquet rich.progress torch.utils.tensorboard
    torch._dynamo torch.distributed.fsdp policies.flow tests.campaign.recipe tests.fake_env
    vla.data.recording.assemble vla.commands.compare vla.commands.eval vla.commands.record vla.commands.train
    vla.eval.compare vla.eval.evaluate vla.data.recording.record vla.eval.repeat vla.data.recording.replay
    vla.eval.pages.report vla.train.trainer"""


def _warm_up() -> None:
    for name in WARM.split():
        importlib.import_module(name)
    from matplotlib import pyplot

    pyplot.subplots()[0].canvas.draw()  # finds its fonts
    pyplot.close("all")


def _end(code: int) -> None:
    """End as an interpreter does, but leave its hundreds of modules standing."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a fork that is not yet a command ends without a word
    _warm_up()
    gc.freeze()  # no copy of what the forks have in common
    order = _serve()
    if order:
        from vla.cli import main

        _become(order)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            code = main()
        except BaseException:
            traceback.print_exc()
            code = 1
        _end(code)
