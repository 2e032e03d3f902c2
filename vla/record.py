"""Recording demonstrations.

Each worker process plays whole episodes and saves each as a shard (``vla.episodes``); when all are there they are
joined into a LeRobot dataset (``vla.assemble``). Shards stay in ``OUT/.episodes``: a killed run goes on from them,
and a run with more ``--episodes`` adds to them.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from vla import perturb
from vla.contracts import Env, EnvSpec, VlaError, episode_seed
from vla.dataset import VLA_JSON, Recorded, frames_per_second
from vla.demonstrate import noisy_dims, play_episode
from vla.episodes import Episode, Shard, write_shard
from vla.files import write_atomically
from vla.interrupt import leave_signals_to_parent
from vla.provenance import commit, versions
from vla.quota import Quota
from vla.registry import load_env, spec_of, tasks_of
from vla.sensors import NoisySensors

SHARDS = ".episodes"
COMMAND = "command.json"


@dataclass(frozen=True)
class RecordSettings:
    """What is to be recorded.

    Attributes:
        env: the env's name.
        out: the dataset's folder.
        episodes: how many episodes are played; failures count. Of an env with several tasks: how many of each task
            are kept, for which up to MOST_ATTEMPTS times as many are played.
        seed: the run's seed; episode i has ``episode_seed("record", seed, i)``.
        noise: the most that an episode's action noise may have as standard deviation, in metres. Each episode draws
            its own from 0 to this.
        items: fewest and most items, each episode draws its own; None leaves it to the env.
        language: ``en``, ``zh`` or ``both``.
        kind: ``all``, ``category``, ``named`` or ``any``.
        video_format: ``h264`` or ``images``.
        keep_failures: whether failed episodes enter the dataset; with an agent they always do.
        workers: processes; 0 for one on each CPU.
        agent: an agent, by name or folder, that acts in turns with the expert, see ``vla.demonstrate``; "" for none.
        env_options: arguments for the env's constructor, e.g. ``{"cameras_px": 224}``.
        randomize: axes of ``vla.perturb`` that are varied from episode to episode.
    """

    env: str
    out: Path
    episodes: int
    seed: int = 0
    noise: float = 0.0
    items: tuple[int, int] | None = None
    language: str = "both"
    kind: str = "any"
    video_format: str = "h264"
    keep_failures: bool = False
    workers: int = 0
    agent: str = ""
    env_options: dict[str, Any] = field(default_factory=dict)
    randomize: tuple[str, ...] = ()

    def identity(self) -> dict[str, Any]:
        """What must be the same for a run to go on in a folder: all but its size, place and speed."""
        names = ("env", "seed", "noise", "items", "language", "kind", "video_format", "keep_failures")
        values = {name: getattr(self, name) for name in names}
        values |= {"items": list(self.items) if self.items else None}
        if self.env_options:  # these three are absent from older recordings
            values["env_options"] = self.env_options
        if self.randomize:
            values["randomize"] = sorted(self.randomize)
        return values | ({"agent": self.agent_hash()} if self.agent else {})

    def agent_hash(self) -> str:
        """The hash of the agent's weights."""
        from vla.agent import load

        return load(self.agent, "cpu").hash

    def options(self, seed: int) -> dict[str, Any]:
        """The reset options of the episode with this seed; only what was asked for."""
        options: dict[str, Any] = {"split": "train"}
        if self.language != "both":
            options["language"] = self.language
        if self.kind != "any":
            options["kind"] = self.kind
        if self.items:
            low, high = self.items
            options["items"] = int(np.random.default_rng([seed, 1]).integers(low, high + 1))
        harder = perturb.for_reset(self.harder(seed))
        return options | ({"perturb": harder} if harder else {})

    def harder(self, seed: int) -> dict[str, str]:
        """The perturbations of the episode with this seed."""
        return perturb.drawn(self.randomize, seed)


@dataclass(frozen=True)
class RecordSummary:
    """What a recording came to: ``played`` episodes, of which ``succeeded`` did; ``kept`` are in the dataset.

    ``unfilled`` names the tasks of which fewer could be kept than was asked for, and how many were.
    """

    played: int
    succeeded: int
    kept: int
    frames: int
    new: int
    wall_s: float
    unfilled: dict[str, int] = field(default_factory=dict)


def record(settings: RecordSettings, command: str = "", show: bool = True) -> RecordSummary:
    """Record what is not recorded yet, and write the dataset.

    Args:
        settings: what to record, and where.
        command: the command line, kept in the dataset.
        show: whether to draw a progress bar.

    Raises:
        VlaError: if ``settings.out`` holds something else or another recording, or another run records there, an axis
            can't be randomised, no episode succeeded, a worker died or the disk is full. Finished episodes are kept in
            each case.
    """
    began = time.perf_counter()
    spec = spec_of(settings.env, settings.env_options)
    frames_per_second(spec)
    if settings.agent:
        _agent(settings).spec.require(spec, f"agent {settings.agent}", f"env {settings.env}")
    perturb.require(
        dict.fromkeys(settings.randomize, "medium"),
        perturb.for_training(load_env(settings.env)),
        f"vla record --env {settings.env}",
    )
    if settings.noise and not noisy_dims(spec)[0]:
        raise VlaError(f"--noise moves actions that are lengths, and the env {settings.env} has none")
    with _claim(settings, spec) as folder:
        return replace(_record(settings, spec, folder, command, show), wall_s=time.perf_counter() - began)


def _record(settings: RecordSettings, spec: EnvSpec, folder: Path, command: str, show: bool) -> RecordSummary:
    shards = dict(_finished(folder))
    quota = Quota(settings.episodes, tasks_of(settings.env, settings.env_options))
    counted, todo = quota.plan(_kept(shards))
    if not todo and (settings.out / VLA_JSON).exists() and len(_read_facts(settings.out)["shards"]) == len(counted):
        return _summary(quota, {index: shards[index] for index in counted}, 0)
    new = 0
    with _Bar("recording", len(counted) + len(todo), show) as bar:
        bar.start_at(len(counted), sum(shards[index].facts["success"] for index in counted))
        while todo:  # more than once only where failures are to be made good
            for index in _play_all(settings, todo):
                shards[index] = Shard(_shard_path(folder, index))
                bar.advance(shards[index].facts["success"])
            new += len(todo)
            counted, todo = quota.plan(_kept(shards))
            bar.extend(len(counted) + len(todo))
    from vla.assemble import assemble

    shards = {index: shards[index] for index in counted}
    ordered = list(shards.values())
    summary = _summary(quota, shards, new)
    facts = {
        "env": settings.env,
        "recording": settings.identity(),
        "command": command,
        "episodes_played": summary.played,
        "episodes_succeeded": summary.succeeded,
        "shards": [shard.path.stem for shard in ordered],
        "versions": versions(),
        "commit": commit(),
    }
    with _Bar("writing the dataset", summary.kept, show, rate=False) as bar:
        assemble(settings.out, ordered, spec, settings.video_format, facts, bar.advance)
    return summary


@contextmanager
def _claim(settings: RecordSettings, spec: EnvSpec) -> Iterator[Path]:
    """The shards' folder, made or found to belong to the same recording; nobody else records there meanwhile."""
    folder, out = settings.out / SHARDS, settings.out
    wanted = {"recording": settings.identity(), "env_spec": json.loads(json.dumps(spec.to_dict()))}
    begun = (folder / COMMAND).exists()
    if begun:
        there = json.loads((folder / COMMAND).read_text(encoding="utf-8"))
        if there != wanted:
            raise VlaError(f"{out} holds another recording; name another --out.\n{_difference(there, wanted)}")
    elif out.exists() and any(out.iterdir()):
        gone = f"a finished dataset without its {SHARDS}" if (out / VLA_JSON).exists() else "something else"
        raise VlaError(f"{out} holds {gone}, so there is no recording to go on with; name an empty or new folder")
    lock = FileLock(folder / "lock", timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        if not begun:
            write_atomically(folder / COMMAND, json.dumps(wanted, indent=1))
    except Timeout:
        raise VlaError(f"another vla record is at work in {out}; wait for it, or name another --out") from None
    except OSError as error:
        raise VlaError(f"cannot write {folder}: {error.strerror or error}") from error
    try:
        for leftover in folder.glob("*.tmp"):
            leftover.unlink()
        yield folder
    finally:
        lock.release()


def _difference(there: dict[str, Any], wanted: dict[str, Any]) -> str:
    rows = []
    for part in ("recording", "env_spec"):
        for key in wanted[part]:
            if there[part].get(key) != wanted[part][key]:
                rows.append(f"  {key}:\n    in the folder: {there[part].get(key)}\n    asked for: {wanted[part][key]}")
    return "\n".join(rows)


def _shard_path(folder: Path, index: int) -> Path:
    return folder / f"{index:06d}.npz"


def _finished(folder: Path) -> Iterator[tuple[int, Shard]]:
    """The shards that are there; damaged ones are recorded again."""
    for path in sorted(folder.glob("*.npz")):
        try:
            yield int(path.stem), Shard(path)
        except VlaError:
            path.unlink()


def _kept(shards: dict[int, Shard]) -> dict[int, bool]:
    return {index: shard.kept for index, shard in shards.items()}


def _read_facts(out: Path) -> dict[str, Any]:
    return Recorded.open(out).facts


def _summary(quota: Quota, shards: dict[int, Shard], new: int) -> RecordSummary:
    kept = [shard for shard in shards.values() if shard.kept]
    succeeded = sum(shard.facts["success"] for shard in shards.values())
    frames = sum(shard.facts["steps"] for shard in kept)
    return RecordSummary(len(shards), succeeded, len(kept), frames, new, 0.0, quota.unfilled(_kept(shards)))


# Playing, in this process or in workers. A worker keeps its env from one episode to the next.

_worker_env: Env | None = None
_agents: dict[str, Any] = {}


def _agent(settings: RecordSettings) -> Any:
    """The settings' agent, loaded once in each process; None if there is none."""
    if not settings.agent:
        return None
    if settings.agent not in _agents:
        import torch

        from vla.agent import load

        if multiprocessing.parent_process():
            torch.set_num_threads(1)
        _agents[settings.agent] = load(settings.agent, "cpu")
    return _agents[settings.agent]


def _begin_worker(name: str, options: dict[str, Any], path: list[str]) -> None:
    global _worker_env
    leave_signals_to_parent()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.path[:] = path
    from vla.registry import make_env

    _worker_env = make_env(name, **options)


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for its next episode for ever."""
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)


def _work(settings: RecordSettings, index: int, env: Env | None = None) -> int:
    env = env or _worker_env
    assert env is not None
    seed = episode_seed("record", settings.seed, index)
    options = settings.options(seed) | Quota(settings.episodes, getattr(env, "tasks", ())).options(index)
    strength = settings.harder(seed).get("noise")
    sensors = NoisySensors(env.env_spec, strength, seed) if strength else None
    episode = play_episode(env, seed, options, settings.noise, _agent(settings), sensors)
    # In turns with an agent, what the expert did is right even where the agent spoilt the episode.
    if not episode.facts["success"] and not (settings.keep_failures or settings.agent):
        episode = Episode(episode.facts)
    fps = frames_per_second(env.env_spec)
    write_shard(_shard_path(settings.out / SHARDS, index), episode, settings.video_format, fps)
    return index


def _play_all(settings: RecordSettings, todo: list[int]) -> Iterator[int]:
    """Play the episodes with these numbers; yields each number when its shard is on the disk."""
    from vla.parallel import available_cpus
    from vla.registry import make_env

    workers = min(settings.workers or available_cpus(), len(todo))
    if workers <= 1:
        env = make_env(settings.env, **settings.env_options) if todo else None
        try:
            for index in todo:
                yield _work(settings, index, env)
        finally:
            if env:
                env.close()
        return
    # Workers share the machine by process; numeric libraries and Mesa must not start a thread for each core as well.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "LP_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    context = multiprocessing.get_context("spawn")  # a fork would copy GL contexts and threads half alive
    arguments = (settings.env, settings.env_options, list(sys.path))
    pool = ProcessPoolExecutor(workers, context, _begin_worker, arguments)
    try:
        yield from _drain(lambda index: pool.submit(_work, settings, index), todo, 2 * workers)
    except BrokenProcessPool as error:
        raise VlaError(
            "a worker process died (out of memory? try fewer --workers); finished episodes are kept, "
            "and the same command goes on from them"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _drain(submit: Callable[[int], Future[int]], todo: list[int], ahead: int) -> Iterator[int]:
    """Keep ``ahead`` episodes handed out, so that an error or Ctrl-C leaves little behind."""
    queue = iter(todo)
    waiting = {submit(index) for index in itertools.islice(queue, ahead)}
    while waiting:
        done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        for future in done:
            yield future.result()
            waiting |= {submit(index) for index in [next(queue, None)] if index is not None}


class _Bar:
    """A progress bar: done, share of successes, rate, time left."""

    def __init__(self, text: str, total: int, show: bool, rate: bool = True) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

        from vla.progress import Progress

        extra = [TextColumn("{task.fields[rate]}")] if rate else []
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), *extra, TimeRemainingColumn(),
            disable=not show,
        )  # fmt: skip
        self._task = self._bar.add_task(text, total=total, rate="")
        self._done = self._good = self._new = 0
        self._began = time.perf_counter()

    def start_at(self, done: int, good: int) -> None:
        self._done, self._good = done, good
        self._bar.update(self._task, completed=done)

    def extend(self, total: int) -> None:
        self._bar.update(self._task, total=total)

    def advance(self, success: bool = True) -> None:
        self._done, self._good, self._new = self._done + 1, self._good + success, self._new + 1
        speed = self._new / (time.perf_counter() - self._began)
        text = f"{self._good / self._done:.1%} succeed, {speed:.2f} episodes/s"
        self._bar.update(self._task, advance=1, rate=text)

    def __enter__(self) -> _Bar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
