"""A fixed number of slots, each with an object of its own, spread over worker processes."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any

from vla.contracts import VlaError
from vla.host.interrupt import held_back, leave_signals_to_parent


class WorkerDied(VlaError):
    """A worker process ended without an answer: killed, out of memory, or crashed in native code."""


class WorkerError(RuntimeError):
    """A slot's object raised something that is no VlaError. The message holds the worker's traceback."""


def available_cpus() -> int:
    """How many CPUs this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


@contextlib.contextmanager
def _single_threaded_children() -> Iterator[None]:
    """Workers share the machine by process: libraries in them, Mesa too, must not start a thread for each core."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LP_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class SlotPool:
    """Calls methods on the objects of many slots at once, and returns when all have answered.

    Slot i lives in worker ``i % workers`` for as long as the pool does; each object is made at its first call.
    One worker means no process at all: the objects live here.

    Args:
        factory: makes a slot's object; it must be picklable. A ``close`` method, if there is one, is called at the end.
        slots: number of slots.
        workers: number of processes; more than ``slots`` is of no use and is reduced.
    """

    def __init__(self, factory: Callable[[], Any], slots: int, workers: int = 1) -> None:
        if slots < 1 or workers < 1:
            raise VlaError(f"slots and workers must be at least 1, and are {slots} and {workers}")
        self.slots, self.workers = slots, min(workers, slots)
        self._objects = _Objects(factory)
        self._processes: list[Any] = []
        self._pipes: list[Connection] = []
        if self.workers > 1:
            context = multiprocessing.get_context("spawn")  # a fork would copy GL contexts and threads half alive
            resource_tracker.ensure_running()  # it would let the signals through again
            with _single_threaded_children(), held_back():
                for _ in range(self.workers):
                    ours, theirs = context.Pipe()
                    process = context.Process(target=_serve, args=(theirs, factory), daemon=True)
                    process.start()
                    theirs.close()  # so that a dead worker reads as the end of the pipe
                    self._processes.append(process)
                    self._pipes.append(ours)

    def call(self, requests: dict[int, tuple[Any, ...]]) -> dict[int, Any]:
        """Call ``(method name, *arguments)`` on each slot named, all at once.

        Returns:
            slot to answer, in the order of ``requests``.

        Raises:
            VlaError: what a slot's object raised as such.
            WorkerDied: a worker ended without an answer.
            WorkerError: any other exception in a slot.
        """
        if not self._processes:
            return {slot: self._objects.call(slot, *request) for slot, request in requests.items()}
        batches: dict[int, list[tuple[Any, ...]]] = {}
        for slot, request in requests.items():
            batches.setdefault(slot % self.workers, []).append((slot, *request))
        answers: dict[int, Any] = {}
        failures: list[Exception] = []
        for worker, batch in batches.items():
            try:
                self._pipes[worker].send(batch)
            except (BrokenPipeError, ConnectionError):
                failures.append(self._death(worker))
        for worker in batches:
            try:
                done, problem = self._pipes[worker].recv()
            except (EOFError, ConnectionError):
                failures.append(self._death(worker))
                continue
            answers.update(done)
            if problem:
                user_error, text = problem
                failures.append(VlaError(text) if user_error else WorkerError(text))
        if failures:
            raise failures[0]
        return {slot: answers[slot] for slot in requests}

    def _death(self, worker: int) -> WorkerDied:
        process = self._processes[worker]
        process.join(5)
        code = process.exitcode
        how = f"was ended by signal {signal.Signals(-code).name}" if code and code < 0 else f"ended with code {code}"
        hint = " (out of memory? try fewer --workers)" if code == -signal.SIGKILL else ""
        return WorkerDied(f"worker {worker + 1} of {self.workers} (process {process.pid}) {how}{hint}")

    def close(self, at_once: bool = False) -> None:
        """End the workers and free their objects, ``at_once`` without waiting for what they do. May be called twice."""
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            with contextlib.suppress(OSError):
                process.kill() if at_once else pipe.send(None)
            pipe.close()  # a worker whose answer nobody awaits must not wait for a reader
        for process in self._processes:
            process.join(10)
            if process.is_alive():
                process.kill()
                process.join()
        self._processes, self._pipes = [], []
        self._objects.close()

    def __enter__(self) -> SlotPool:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # After Ctrl-C nobody waits for an answer: workers may be in the middle of something long.
        self.close(at_once=kind is not None and issubclass(kind, KeyboardInterrupt))


class _Objects:
    """The slots' objects of one process."""

    def __init__(self, factory: Callable[[], Any]) -> None:
        self._factory = factory
        self._objects: dict[int, Any] = {}

    def call(self, slot: int, method: str, *arguments: Any) -> Any:
        if slot not in self._objects:
            self._objects[slot] = self._factory()
        return getattr(self._objects[slot], method)(*arguments)

    def close(self) -> None:
        for thing in self._objects.values():
            if hasattr(thing, "close"):
                thing.close()
        self._objects = {}


def _serve(pipe: Connection, factory: Callable[[], Any]) -> None:
    """A worker's life: answer batches of requests until the pipe closes or None comes."""
    leave_signals_to_parent()
    objects = _Objects(factory)
    while True:
        try:
            batch = pipe.recv()
        except (EOFError, ConnectionError):
            break
        if batch is None:
            break
        answers: dict[int, Any] = {}
        problem: tuple[bool, str] | None = None
        try:
            for slot, method, *arguments in batch:
                answers[slot] = objects.call(slot, method, *arguments)
        except VlaError as error:
            problem = (True, str(error))
        except Exception:
            problem = (False, traceback.format_exc())
        try:
            pipe.send((answers, problem))
        except ConnectionError:  # the parent was interrupted, or has died
            break
    objects.close()
