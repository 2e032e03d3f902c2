"""Plays the episodes of a recording, in this process or in workers; each is a shard as soon as it is over.

A worker keeps its env from one episode to the next, and makes a new one after an episode that raised an error.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Generator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from vla.contracts import Env, NoExpertError, VlaError, episode_seed
from vla.contracts.errors import one_line
from vla.data.dataset import frames_per_second
from vla.data.demonstrate import play_episode
from vla.data.quota import Quota
from vla.data.record_settings import RecordSettings
from vla.data.shards import Episode, write_shard
from vla.host.interrupt import held_back, leave_signals_to_parent
from vla.perturb.sensors import NoisySensors

SHARDS = ".episodes"
PATIENCE = 3  # errors in so many episodes, and none that came to its end: it is the env, not the episode
KEPT = "finished episodes are kept, and the same command goes on from them"


def shard_path(settings: RecordSettings, index: int) -> Path:
    """Where the episode with this number is kept."""
    return settings.out / SHARDS / f"{index:06d}.npz"


def play_all(settings: RecordSettings, todo: list[int], proven: bool) -> Generator[int]:
    """Play the episodes with these numbers; yields each number when its shard is on the disk.

    An episode in which the env or the expert raises an error counts as failed; ``facts["error"]`` says which.

    Args:
        settings: the recording's.
        todo: the numbers.
        proven: whether an episode of this recording has come to its end before.

    Raises:
        VlaError: if no episode comes to its end without an error, a worker died or the disk is full.
    """
    held: list[tuple[int, str]] = []  # not written before the env has shown that it works at all
    with closing(_play(settings, todo)) as results:
        for index, error in results:
            if error:
                held.append((index, error))
            else:
                proven = True
                yield index
            if not proven and len(held) >= PATIENCE:
                break
            while proven and held:
                index, error = held.pop(0)
                seed = episode_seed("record", settings.seed, index)
                failed = Episode({"seed": seed, "success": False, "error": error})
                write_shard(shard_path(settings, index), failed, settings.video_format, 0)
                yield index
    if held:
        index, error = held[0]
        seed = episode_seed("record", settings.seed, index)
        raise VlaError(f"{settings.env} fails in every episode; in episode {index} (seed {seed}): {error}")


def load_agent(settings: RecordSettings) -> Any:
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


_agents: dict[str, Any] = {}


class _Player:
    """Plays episodes in an env that is made at the first, and anew after an error."""

    def __init__(self, settings: RecordSettings) -> None:
        self._settings = settings
        self._env: Env | None = None

    def play(self, index: int) -> tuple[int, str]:
        """Play an episode and write its shard; gives its number and "", or what the env or the expert raised."""
        from vla.registry import make_env

        settings, seed = self._settings, episode_seed("record", self._settings.seed, index)
        env = self._env = self._env or make_env(settings.env, **settings.env_options)
        options = settings.options(seed) | Quota(settings.episodes, getattr(env, "tasks", ())).options(index)
        strength, agent = settings.harder(seed).get("noise"), load_agent(settings)
        sensors = NoisySensors(env.env_spec, strength, seed) if strength else None
        try:
            episode = play_episode(env, seed, options, settings.noise, agent, sensors)
        except NoExpertError:
            raise
        except (OSError, MemoryError) as error:  # the machine's fault, not the episode's
            raise VlaError(f"episode {index} (seed {seed}) cannot be played: {one_line(error)}; {KEPT}") from error
        except Exception as error:
            self.close()
            return index, one_line(error)
        # In turns with an agent, what the expert did is right even where the agent spoilt the episode.
        if not episode.facts["success"] and not (settings.keep_failures or settings.agent):
            episode = Episode(episode.facts)
        write_shard(shard_path(settings, index), episode, settings.video_format, frames_per_second(env.env_spec))
        return index, ""

    def close(self) -> None:
        """Free the env."""
        env, self._env = self._env, None
        if env:
            with suppress(Exception):  # one that has just failed
                env.close()


_player: _Player  # a worker's


def _begin_worker(settings: RecordSettings, path: list[str]) -> None:
    global _player
    leave_signals_to_parent()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.path[:] = path
    _player = _Player(settings)


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for its next episode for ever."""
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)


def _work(index: int) -> tuple[int, str]:
    return _player.play(index)


def _play(settings: RecordSettings, todo: list[int]) -> Generator[tuple[int, str]]:
    from vla.host.parallel import available_cpus

    workers = min(settings.workers or available_cpus(), len(todo))
    if workers <= 1:
        with closing(_Player(settings)) as player:
            yield from map(player.play, todo)
        return
    # Workers share the machine by process; numeric libraries and Mesa must not start a thread for each core as well.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "LP_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    context = multiprocessing.get_context("spawn")  # a fork would copy GL contexts and threads half alive
    try:
        with held_back():
            pool = ProcessPoolExecutor(workers, context, _begin_worker, (settings, list(sys.path)))
    except OSError as error:
        raise VlaError(
            f"worker processes cannot be started: {error.strerror or error}; their locks lie in /dev/shm: free some "
            "room there, or use --workers 1"
        ) from error
    try:
        yield from _drain(lambda index: pool.submit(_work, index), todo, 2 * workers)
    except BrokenProcessPool as error:
        _kill(pool)
        raise VlaError(f"a worker process died (out of memory? try fewer --workers); {KEPT}") from error
    except KeyboardInterrupt:
        _kill(pool)
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _kill(pool: ProcessPoolExecutor) -> None:
    """End the workers at once: what they have finished is on the disk, and they take no other signal."""
    for process in list((pool._processes or {}).values()):
        process.kill()


def _drain(submit: Callable[[int], Future[tuple[int, str]]], todo: list[int], ahead: int) -> Generator[tuple[int, str]]:
    """Keep ``ahead`` episodes handed out, so that an error leaves little behind."""
    queue = iter(todo)
    with held_back():  # the first call starts the workers
        waiting = {submit(index) for index in itertools.islice(queue, ahead)}
    while waiting:
        done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        for future in done:
            yield future.result()
            waiting |= {submit(index) for index in [next(queue, None)] if index is not None}
