"""The workers of a pool as actors of a Ray cluster, on as many machines as it has.

``joined`` joins a cluster, and until it ends ``vla.host.parallel.open_pool`` gives a RayPool. All that workers get and
give goes by value: no machine needs to see another's files, and each has the project installed, the same code and
versions. A worker that dies, or gives no answer for long, is replaced by one on another machine, where its objects are
made anew and told again what they had been told (``retold``), so that nothing comes out differently.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from vla.contracts import MissingExtraError, VlaError
from vla.contracts.errors import one_line
from vla.host.parallel import (
    ELSEWHERE,
    SINGLE_THREADED,
    Elsewhere,
    Objects,
    SlotPool,
    WorkerDied,
    WorkerError,
    available_cpus,
    become_worker,
)
from vla.paths import packages_dir

LOCAL = "ray"  # names the cluster of this machine
REPLACED = 3  # times at the same work; then the work is at fault
LATE_S = 120.0  # without an answer, or ten times what any has taken so far: another worker is asked
_NOTE_S, _PROBE_S, _STORE_BYTES = 10.0, 5.0, 128 * 2**20


@contextmanager
def joined(address: str | None) -> Iterator[None]:
    """Until the block ends, pools have their workers on the cluster at ``address``; None leaves them here.

    Args:
        address: ``ray`` is the cluster that runs on this machine, or ``RAY_ADDRESS`` names; where there is none, one is
            begun and ends with the block. ``HOST:PORT`` is one that this machine is part of, ``ray://HOST:PORT`` any.
            A process that has called ``ray.init`` stays where it is.

    Raises VlaError without the extra ``ray``, and where nothing answers there as a cluster does.
    """
    if address is None:
        yield
        return
    ray = _ray()
    mine = not ray.is_initialized()
    if mine:
        _join(ray, address)
    place = ELSEWHERE.set(Elsewhere(RayPool, lambda: max(1, int(ray.cluster_resources().get("CPU", 1)))))
    try:
        yield
    finally:
        ELSEWHERE.reset(place)
        if mine:
            ray.shutdown()


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
    try:
        import ray
    except ImportError:
        raise MissingExtraError(
            "--cluster needs the extra ray: pip install 'vla[ray]', or uv sync --extra ray"
        ) from None
    return ray


def _join(ray: Any, address: str) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    if address == LOCAL:
        address = os.environ.get("RAY_ADDRESS", LOCAL)
    handler = signal.getsignal(signal.SIGTERM)
    try:
        if address == LOCAL:
            _join_local(ray, quiet)
        else:
            _require_ray_at(address)
            ray.init(address, **quiet)
    except VlaError:
        raise
    except (Exception, SystemExit) as error:
        raise VlaError(f"--cluster {address}: {one_line(error)}") from error
    finally:
        with suppress(ValueError):  # not in the main thread
            signal.signal(signal.SIGTERM, handler)  # Ray puts one of its own there


def _join_local(ray: Any, quiet: dict[str, Any]) -> None:
    """Join the cluster that this machine runs, or begin one where there is none, or but the trace of one."""
    from ray._private.services import canonicalize_bootstrap_address_or_die

    try:
        running = canonicalize_bootstrap_address_or_die("auto")
        _require_ray_at(running)
    except (ConnectionError, VlaError):
        more = {"num_cpus": available_cpus(), "include_dashboard": False, "object_store_memory": _STORE_BYTES}
        ray.init("local", **more, **quiet)
    else:
        ray.init(running, **quiet)


def _require_ray_at(address: str) -> None:
    """Raise VlaError unless a cluster answers there. Ray itself would try for two minutes, and end the process."""
    import grpc
    from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc, ray_client_pb2, ray_client_pb2_grpc
    from ray.util import get_node_ip_address

    client, target = address.startswith("ray://"), address.removeprefix("ray://")
    host, _, port = target.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        raise VlaError(f"--cluster takes ray, HOST:PORT or ray://HOST:PORT, and not '{address}'")
    if not client and host in ("localhost", "127.0.0.1"):  # Ray takes that for the machine's own address
        target = f"{get_node_ip_address()}:{port}"
    ask: Callable[..., Any]
    with grpc.insecure_channel(target, [("grpc.enable_http_proxy", 0)]) as channel:
        if client:
            ask, asked = ray_client_pb2_grpc.RayletDriverStub(channel).ClusterInfo, ray_client_pb2.ClusterInfoRequest()
        else:
            nodes = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel)
            ask, asked = nodes.CheckAlive, gcs_service_pb2.CheckAliveRequest()
        try:
            ask(asked, timeout=_PROBE_S)
        except grpc.RpcError as error:
            if os.environ.get("RAY_USE_TLS", "0") == "1":
                return  # it may well refuse this channel
            if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                raise VlaError(f"no Ray cluster answers at {target}; `ray start --head` begins one") from None
            if error.code() == grpc.StatusCode.UNIMPLEMENTED:
                other = f"{host}:PORT without ray://" if client else f"ray://{host}:PORT, usually 10001"
                raise VlaError(f"what answers at {target} is another door of a Ray cluster: try {other}") from None


class RayPool(SlotPool):
    """A SlotPool whose workers are actors of the cluster that was joined, one CPU each as far as there are so many.

    Raises what SlotPool raises, and VlaError where a machine of the cluster lacks the project or has another version.
    """

    _apart = True

    def _start_workers(self, factories: list[Callable[[], Any]]) -> None:
        ray = _ray()
        self.longest_s = 0.0
        made = ray.put(factories)
        room = int(ray.cluster_resources().get("CPU", 1))
        self._pipes = [_Worker(self, number, made, int(number < room)) for number in range(self.workers)]
        try:
            begun = [worker.taken for worker in self._pipes]
            ready, _ = ray.wait(begun, num_returns=len(begun), timeout=_NOTE_S)
            if len(ready) < len(begun):
                sys.stderr.write(f"\n{len(begun) - len(ready)} workers wait for a free CPU of the cluster\n")
            for worker in self._pipes:
                worker.check()
        except BaseException:
            self.close()
            raise

    def _ready(self, workers: Collection[int]) -> list[int]:
        ray = _ray()
        while True:
            found = [worker for worker in sorted(workers) if self._pipes[worker].look()]
            if found:
                return found
            ray.wait([self._pipes[worker].asked for worker in workers], timeout=1.0)

    def _death(self, worker: int) -> WorkerDied:
        return WorkerDied("the connection to the cluster was lost")

    def close(self, at_once: bool = False) -> None:
        """End the workers."""
        for worker in self._pipes:
            worker.end()
        self._pipes = []


class _Worker:
    """An actor, and what its slots would have to be told again. To the pool it looks like a pipe to a process."""

    def __init__(self, pool: RayPool, number: int, factories: Any, cpus: int) -> None:
        self._ray, self._pool, self._number, self._factories = _ray(), pool, number, factories
        self._told: dict[int, list[tuple[Any, ...]]] = {}  # slot to what takes its object to where it is
        self._batch: dict[int, tuple[Any, ...]] = {}
        self._answer: tuple[dict[int, Any], Exception | None] | None = None
        self.asked: Any = None
        self._node = self._address = ""
        self._begin(cpus)

    def _begin(self, cpus: int) -> None:
        """Start an actor, on another machine than that of the last one if there is one."""
        others = [one["NodeID"] for one in self._ray.nodes() if one["Alive"] and one["NodeID"] != self._node]
        strategy: Any = "SPREAD"
        if self._node and others:
            from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

            strategy = NodeAffinitySchedulingStrategy(others[self._number % len(others)], soft=True)
        actor = self._ray.remote(_Actor).options(num_cpus=cpus, scheduling_strategy=strategy)
        self._actor = actor.remote(_environment(), [os.path.abspath(one) for one in sys.path])
        self._about, self._known = self._actor.about.remote(), set[int]()
        self.taken = self._actor.take.remote(self._factories)

    def check(self) -> None:
        """Wait for a new actor. Raises VlaError where its machine has not what it takes."""
        if self._about is None:
            return
        try:
            self._node, self._address, there = self._ray.get(self._about)
            here = _Actor.installed()
            for name, version in here.items():
                if there.get(name) != version:
                    raise VlaError(
                        f"the cluster's machine {self._address} has {name} {there.get(name)}, and this one {version}: "
                        "the project must be the same on all"
                    )
            self._ray.get(self.taken)
            self._about = None
        except self._ray.exceptions.RayError as error:
            text = str(error)
            if "No module named 'vla" in text:
                raise VlaError(
                    "a machine of the cluster has no vla: install the project there, and `ray start` in its environment"
                ) from error
            if isinstance(error, self._ray.exceptions.RayTaskError):  # what the user named is not there
                where, what = self._address or "a machine", text.strip().splitlines()[-1]
                raise VlaError(f"{where} of the cluster cannot make what is to be run: {what}") from error

    def send(self, batch: dict[int, tuple[Any, ...]] | None) -> None:
        """Have a batch of requests answered."""
        if batch is not None:
            self._batch, self._replaced = batch, 0
            self._ask()

    def _ask(self) -> None:
        again = {slot: self._told.get(slot, []) for slot in self._batch if slot not in self._known}
        self._answer, self._since = None, time.monotonic()
        self.asked = self._actor.answer.remote(self._batch, again)

    def look(self) -> bool:
        """Whether the answer is there. If the actor has died, or is late, another is asked."""
        if self._answer is not None:
            return True
        try:
            if self._ray.wait([self.asked], timeout=0)[0]:
                *answer, seconds = self._ray.get(self.asked)
                self.check()
                self._note(answer[0], answer[1])
                self._pool.longest_s = max(self._pool.longest_s, seconds)
                return True
        except self._ray.exceptions.RayTaskError as error:  # nothing that an object raised
            self._answer = {}, WorkerError(str(error))
            return True
        except self._ray.exceptions.RayError as error:
            self._replace("died", error)
            return False
        if self._about is not None and not self._ray.wait([self.taken], timeout=0)[0]:
            self._since = time.monotonic()  # it is still being started, and has not begun to work
        patience = max(LATE_S, 10 * self._pool.longest_s) * 2**self._replaced
        if self._replaced < REPLACED and time.monotonic() - self._since > patience:
            self._replace(f"gave no answer in {patience:.0f} s", None)
        return False

    def _note(self, done: dict[int, Any], failure: Exception | None) -> None:
        self._answer = done, failure
        self._known |= set(self._batch)
        for slot, one in done.items():
            if hasattr(one, "retold"):
                self._told[slot] = one.retold(self._told.get(slot, []), self._batch[slot])

    def _replace(self, why: str, error: Exception | None) -> None:
        where = f" (on {self._address})" if self._address else ""  # it may not have come to say
        who = f"worker {self._number + 1} of {self._pool.workers}{where}"
        self.end()
        self._replaced += 1
        if self._replaced > REPLACED:
            raise WorkerDied(f"{who} {why}, as {REPLACED} did before it at the same work") from error
        sys.stderr.write(f"\n{who} {why}; another does its work again\n")
        self._begin(0)  # it takes the place of one that had a CPU, and must not wait for one
        self._ask()

    def recv(self) -> tuple[dict[int, Any], Exception | None]:
        """Wait for the answer. Raises WorkerDied where several actors died of it."""
        self._pool._ready([self._number])
        assert self._answer is not None
        answer, self._answer = self._answer, None
        return answer

    def end(self) -> None:
        """End the actor, whatever it does."""
        with suppress(Exception):  # of a cluster that is gone
            self._ray.kill(self._actor)


def _environment() -> dict[str, str]:
    """What a worker's environment has to have of this one: threads, whom the user trusts, and what draws."""
    given = {**SINGLE_THREADED, "OMP_WAIT_POLICY": "PASSIVE"}
    names = ["VLA_ALLOW"]
    if os.environ.get("MUJOCO_GL") in ("egl", "osmesa"):  # anything else is a matter of the machine's display
        names += ["MUJOCO_GL", "PYOPENGL_PLATFORM"]
    return given | {name: os.environ[name] for name in names if name in os.environ}


class _Actor:
    """A worker's life on the cluster. The environment is set before anything is unpacked that could read it."""

    def __init__(self, environment: dict[str, str], path: list[str]) -> None:
        os.environ.update(environment)
        sys.path[:] = [*path, *(one for one in sys.path if one not in path)]
        become_worker()

    def about(self) -> tuple[str, str, dict[str, str]]:
        """The node's id and its address, and what is installed there."""
        import ray

        node = ray.get_runtime_context().get_node_id()
        return node, ray.util.get_node_ip_address(), self.installed()

    @staticmethod
    def installed() -> dict[str, str]:
        """What must be the same on all machines: versions, and a hash of the code."""
        from vla.host.provenance import versions

        digest, root = hashlib.sha256(), packages_dir()
        for package in ("vla", "envs", "policies"):
            for file in sorted((root / package).rglob("*.py")):
                digest.update(str(file.relative_to(root)).encode() + file.read_bytes())
        return {**versions(), "code": digest.hexdigest()[:16]}

    def take(self, factories: list[Callable[[], Any]]) -> None:
        """Take the factories of the slots' objects."""
        self._objects = Objects(factories)

    def answer(
        self, batch: dict[int, tuple[Any, ...]], again: dict[int, list[tuple[Any, ...]]]
    ) -> tuple[dict[int, Any], Exception | None, float]:
        """Tell the objects what they had been told elsewhere; then the answers to a batch, and the seconds it took."""
        for slot, requests in again.items():
            for request in requests:
                _, failure = self._objects.answer({slot: request})
                if failure is not None:
                    return {}, failure, 0.0
        began = time.monotonic()
        return *self._objects.answer(batch), time.monotonic() - began
