"""Plays the episodes of a recording, in this process or in workers; each is a shard as soon as it is over.

A worker on a cluster may not see this machine's files: the agent comes to it, and the shard from it, by value. A worker
keeps its env from one episode to the next, and makes a new one after an episode that raised an error.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Generator
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from vla.contracts import Env, NoExpertError, VlaError, episode_seed
from vla.contracts.abilities import tasks_of
from vla.contracts.errors import one_line
from vla.data.recording.demonstrate import play_episode
from vla.data.recording.features import frames_per_second
from vla.data.recording.quota import Quota
from vla.data.recording.settings import RecordSettings
from vla.data.recording.shards import Episode, packed, write_packed, write_shard
from vla.host.parallel import WorkerDied, by_value, in_worker, open_pool, worker_cpus
from vla.perturb.sensors import NoisySensors

SHARDS = ".episodes"
BUNDLE = (".json", ".safetensors", ".onnx")  # what an agent's files end in
CRASHES_BORNE = 3  # of native code, in hours of rendering; an episode that crashes each time ends the recording
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


def load_agent(settings: RecordSettings, files: dict[str, bytes] | None = None) -> Any:
    """The settings' agent, loaded once in each process; None if there is none. ``files`` are its bundle's, by name."""
    if not settings.agent:
        return None
    if settings.agent not in _agents:
        import torch

        from vla.agent import load

        if in_worker():
            torch.set_num_threads(1)
        if files is None:
            _agents[settings.agent] = load(settings.agent, "cpu")
        else:
            with tempfile.TemporaryDirectory() as folder:
                for name, content in files.items():
                    (Path(folder) / name).write_bytes(content)
                _agents[settings.agent] = load(folder, "cpu")
    return _agents[settings.agent]


def _agent_files(settings: RecordSettings) -> dict[str, bytes] | None:
    """The files of the agent's bundle, for workers that can't read them; None where they can, or there is no agent."""
    if not settings.agent or not by_value():
        return None
    from vla.agent import find

    folder, _ = find(settings.agent)
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.suffix in BUNDLE}


_agents: dict[str, Any] = {}


class _Player:
    """Plays episodes in an env that is made at the first, and anew after an error.

    Args:
        settings: the recording's.
        files: of the agent, see ``load_agent``.
        by_value: whether ``play`` gives the shard back instead of writing it.
    """

    def __init__(self, settings: RecordSettings, files: dict[str, bytes] | None, by_value: bool) -> None:
        self._settings, self._files, self._by_value = settings, files, by_value
        self._env: Env | None = None

    def play(self, index: int) -> tuple[int, str, bytes]:
        """Play an episode and write its shard; gives its number, "" or what was raised, and the shard if by value."""
        settings, seed = self._settings, episode_seed("record", self._settings.seed, index)
        agent = load_agent(settings, self._files)  # before the env, which may go to another working folder
        env = self._env = self._env or settings.env_ref.make()
        options = settings.options(seed) | Quota(settings.episodes, tasks_of(env)).options(index)
        strength = settings.harder(seed).get("noise")
        sensors = NoisySensors(env.env_spec, strength, seed) if strength else None
        try:
            episode = play_episode(env, seed, options, settings.noise, agent, sensors, settings.safe)
        except NoExpertError:
            raise
        except (OSError, MemoryError) as error:  # the machine's fault, not the episode's
            raise VlaError(f"episode {index} (seed {seed}) cannot be played: {one_line(error)}; {KEPT}") from error
        except (Exception, SystemExit) as error:
            self.close()
            return index, one_line(error), b""
        # In turns with an agent, what the expert did is right even where the agent spoilt the episode.
        if not episode.facts["success"] and not (settings.keep_failures or settings.agent):
            episode = Episode(episode.facts)
        shard = packed(episode, settings.video_format, frames_per_second(env.env_spec))
        if self._by_value:
            return index, "", shard
        write_packed(shard_path(settings, index), shard)
        return index, "", b""

    def close(self) -> None:
        """Free the env."""
        env, self._env = self._env, None
        if env:
            with suppress(Exception, SystemExit):  # one that has just failed
                env.close()


def _play(settings: RecordSettings, todo: list[int]) -> Generator[tuple[int, str]]:
    workers = min(settings.workers or worker_cpus(), len(todo)) or 1
    settings = replace(settings, out=settings.out.absolute())  # an env may go to another working folder
    left, crashes = dict.fromkeys(todo), 0
    player = partial(_Player, settings, _agent_files(settings), by_value())
    while left:
        try:
            with open_pool(player, min(workers, len(left)), workers) as pool:
                for index, error, shard in pool.each("play", list(left)):
                    if shard:
                        write_packed(shard_path(settings, index), shard)
                    del left[index]
                    yield index, error
        except WorkerDied as died:
            crashes += died.crashed
            if not died.crashed or crashes > CRASHES_BORNE:
                raise VlaError(f"a worker process died: {died}; {KEPT}") from died
            sys.stderr.write(f"\n{died}; its episode is played again by another\n")
