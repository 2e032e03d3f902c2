"""A fixed number of slots, each with an object of its own, spread over worker processes."""

from __future__ import annotations

import contextlib
import faulthandler
import itertools
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any

from vla.contracts import VlaError
from vla.host.interrupt import held_back, leave_signals_to_parent

# Workers share a machine by process: libraries in them, Mesa too, must not start a thread for each core.
SINGLE_THREADED = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LP_NUM_THREADS"), "1")
CRASHES = (signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV)


class WorkerDied(VlaError):
    """A worker process ended without an answer: killed, out of memory, or crashed in native code.

    Attributes:
        crashed: whether native code ended it, and nobody from outside.
    """

    def __init__(self, message: str, crashed: bool = False) -> None:
        super().__init__(message)
        self.crashed = crashed


class WorkerError(RuntimeError):
    """A slot's object raised something that is no VlaError. The message holds the worker's traceback."""


def available_cpus() -> int:
    """How many CPUs this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


@contextlib.contextmanager
def _single_threaded_children() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in SINGLE_THREADED}
    os.environ.update(SINGLE_THREADED)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def require_guarded_main() -> None:
    """Raise VlaError in a worker that has only come to read the script which started it, and is made to start anew.

    Without this it would wait for a lock that the process which waits for it holds.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise VlaError(
            "this script works with several processes, and each of them reads it first: put what it does under "
            'if __name__ == "__main__":'
        )


@dataclass(frozen=True)
class Elsewhere:
    """Where ``open_pool`` has its workers if not in processes of this machine: see ``vla.host.cluster``.

    Attributes:
        pool: makes a pool, with SlotPool's arguments.
        cpus: how many workers there is room for.
    """

    pool: Callable[..., SlotPool]
    cpus: Callable[[], int]


ELSEWHERE: ContextVar[Elsewhere | None] = ContextVar("elsewhere", default=None)


def open_pool(factory: Callable[[], Any] | Sequence[Callable[[], Any]], slots: int, workers: int = 1) -> SlotPool:
    """A SlotPool with these arguments, or what stands for it on the cluster that the command has joined."""
    place = ELSEWHERE.get()
    return place.pool(factory, slots, workers) if place else SlotPool(factory, slots, workers)


def by_value() -> bool:
    """Whether the workers of ``open_pool`` may not see this machine's files: all has to come and go by value."""
    return ELSEWHERE.get() is not None


def worker_cpus() -> int:
    """How many CPUs the workers of ``open_pool`` have, all together."""
    place = ELSEWHERE.get()
    return place.cpus() if place else available_cpus()


def in_worker() -> bool:
    """Whether this process is a worker, which shares its machine with others."""
    return _in_worker or multiprocessing.parent_process() is not None


def become_worker() -> None:
    """From now on this process is a worker."""
    global _in_worker
    _in_worker = True


_in_worker = False


class SlotPool:
    """Calls methods on the objects of many slots side by side.

    Slot i lives in worker ``i % workers`` for as long as the pool does; each object is made at its first call.
    One worker means no process at all: the objects live here.

    Args:
        factory: makes a slot's object; it must be picklable. A sequence has one for each slot. A ``close`` method, if
            there is one, is called at the end.
        slots: number of slots.
        workers: number of processes; more than ``slots`` is of no use and is reduced.

    Raises:
        VlaError: fewer than one slot or worker, processes cannot be started, or see ``require_guarded_main``.
    """

    _apart = False  # whether even one worker is a process of its own

    def __init__(self, factory: Callable[[], Any] | Sequence[Callable[[], Any]], slots: int, workers: int = 1) -> None:
        require_guarded_main()
        if slots < 1 or workers < 1:
            raise VlaError(f"slots and workers must be at least 1, and are {slots} and {workers}")
        self.slots, self.workers = slots, min(workers, slots)
        factories = [factory] * slots if callable(factory) else list(factory)
        self._objects = Objects(factories)
        self._processes: list[Any] = []
        self._pipes: list[Any] = []
        # A worker has one batch at a time: were both sides to write more than a pipe holds, neither would read.
        self._sent: list[list[int]] = [[] for _ in range(self.workers)]
        self._queued: dict[int, tuple[Any, ...]] = {}
        self._answers: dict[int, Any] = {}
        self._failures: dict[int, Exception] = {}
        if self.workers > 1 or self._apart:
            try:
                self._start_workers(factories)
            except OSError as error:
                self.close(at_once=True)
                raise VlaError(
                    f"worker processes cannot be started: {error.strerror or error}; try fewer --workers"
                ) from error

    def _start_workers(self, factories: list[Callable[[], Any]]) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would copy GL contexts and threads half alive
        resource_tracker.ensure_running()  # it would let the signals through again
        with _single_threaded_children(), held_back():
            for _ in range(self.workers):
                ours, theirs = context.Pipe()
                process = context.Process(target=_serve, args=(theirs, factories), daemon=True)
                process.start()
                theirs.close()  # so that a dead worker reads as the end of the pipe
                self._processes.append(process)
                self._pipes.append(ours)

    def call(self, requests: dict[int, tuple[Any, ...]]) -> dict[int, Any]:
        """Call ``(method name, *arguments)`` on each slot named, all at once, and wait for all.

        Returns:
            slot to answer, in the order of ``requests``.

        Raises:
            VlaError: what a slot's object raised as such.
            WorkerDied: a worker ended without an answer.
            WorkerError: any other exception in a slot.
        """
        self.start(requests)
        return self.answers(requests)

    def start(self, requests: dict[int, tuple[Any, ...]]) -> None:
        """Have ``(method name, *arguments)`` called on each slot named; ``answers`` waits for it.

        A slot has one request at a time. Without processes the work is done when it is waited for.
        """
        self._queued |= requests
        for worker in range(len(self._pipes)):
            self._send(worker)

    def answers(self, slots: Iterable[int]) -> dict[int, Any]:
        """The answers to what was started on these slots, in their order. Raises what ``call`` raises."""
        slots = list(slots)
        if not self._pipes:
            return {slot: self._objects.call(slot, *self._queued.pop(slot)) for slot in slots}
        for slot in slots:
            while slot not in self._answers and slot not in self._failures:
                self._receive(slot % self.workers)
        failures = [self._failures.pop(slot) for slot in slots if slot in self._failures]
        found = {slot: self._answers.pop(slot) for slot in slots if slot in self._answers}
        if failures:
            raise failures[0]
        return found

    def each(self, method: str, items: Iterable[Any]) -> Generator[Any]:
        """``method(item)`` for each item, by whichever slot is free; yields the answers as they come.

        Raises what ``call`` raises.
        """
        todo = iter(items)
        if not self._pipes:
            for item in todo:
                yield self._objects.call(0, method, item)
            return
        busy = set[int]()
        for slot, item in zip(range(self.workers), todo, strict=False):
            self.start({slot: (method, item)})
            busy.add(slot)
        while busy:
            for slot in self._ready(busy):
                answer = self.answers([slot])[slot]
                busy.discard(slot)
                for item in itertools.islice(todo, 1):
                    self.start({slot: (method, item)})
                    busy.add(slot)
                yield answer

    def _ready(self, workers: Collection[int]) -> list[int]:
        """Which of them have answered, once any has."""
        ready = wait([self._pipes[worker] for worker in workers])
        return sorted(worker for worker in workers if self._pipes[worker] in ready)

    def _send(self, worker: int) -> None:
        batch = {slot: request for slot, request in self._queued.items() if slot % self.workers == worker}
        if self._sent[worker] or not batch:
            return
        for slot in batch:
            del self._queued[slot]
        self._sent[worker] = list(batch)
        with contextlib.suppress(ConnectionError):  # it has died, which is told when its answer is read
            self._pipes[worker].send(batch)

    def _receive(self, worker: int) -> None:
        try:
            done, failure = self._pipes[worker].recv()
        except (EOFError, ConnectionError):
            done, failure = {}, self._death(worker)
        except WorkerDied as died:
            done, failure = {}, died
        self._answers |= done
        self._failures |= {slot: failure for slot in self._sent[worker] if slot not in done}
        self._sent[worker] = []
        self._send(worker)

    def _death(self, worker: int) -> WorkerDied:
        process = self._processes[worker]
        process.join(5)
        code = process.exitcode
        how = f"was ended by signal {signal.Signals(-code).name}" if code and code < 0 else f"ended with code {code}"
        hint = " (out of memory? try fewer --workers)" if code == -signal.SIGKILL else ""
        crashed = bool(code) and -code in CRASHES
        return WorkerDied(f"worker {worker + 1} of {self.workers} (process {process.pid}) {how}{hint}", crashed)

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


class Objects:
    """The slots' objects of one process. They have a working folder of their own, as in a process of their own."""

    def __init__(self, factories: list[Callable[[], Any]]) -> None:
        self._factories = factories
        self._objects: dict[int, Any] = {}
        self._folder = os.curdir

    def call(self, slot: int, method: str, *arguments: Any) -> Any:
        """Call a method on a slot's object, which is made at the first call."""
        with contextlib.chdir(self._folder):
            try:
                if slot not in self._objects:
                    self._objects[slot] = self._factories[slot]()
                return getattr(self._objects[slot], method)(*arguments)
            finally:
                self._folder = os.getcwd()

    def answer(self, batch: dict[int, tuple[Any, ...]]) -> tuple[dict[int, Any], Exception | None]:
        """The answers to a batch of requests, slot by slot, as far as nothing failed; and what did."""
        answers: dict[int, Any] = {}
        try:
            for slot, (method, *arguments) in batch.items():
                answers[slot] = self.call(slot, method, *arguments)
        except VlaError as error:
            return answers, VlaError(str(error))  # of the others some cannot be sent
        except Exception:
            return answers, WorkerError(traceback.format_exc())
        return answers, None

    def close(self) -> None:
        """Free them."""
        for thing in self._objects.values():
            if hasattr(thing, "close"):
                thing.close()
        self._objects = {}


def _serve(pipe: Connection, factories: list[Callable[[], Any]]) -> None:
    """A worker's life: answer batches of requests until the pipe closes or None comes."""
    leave_signals_to_parent()
    faulthandler.enable()  # where native code crashes, it says in what
    threading.Thread(target=_end_with_parent, daemon=True).start()
    objects = Objects(factories)
    while True:
        try:
            batch = pipe.recv()
        except (EOFError, ConnectionError):
            break
        if batch is None:
            break
        try:
            pipe.send(objects.answer(batch))
        except ConnectionError:  # the parent was interrupted, or has died
            break
    objects.close()


def _end_with_parent() -> None:
    """A worker in the middle of something long does not go on with it for a parent that was killed."""
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)
