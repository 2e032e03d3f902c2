"""Recording demonstrations.

Each worker process plays whole episodes and saves each as a shard (``shards.py``); when all are there they are joined
into a LeRobot dataset (``assemble.py``). Shards stay in ``OUT/.episodes``: a killed run goes on from them, and a run
with more ``--episodes`` adds to them.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vla.contracts import EnvSpec, VlaError, episode_seed
from vla.data.dataset import VLA_JSON
from vla.data.hashes import hash_files, require_promised
from vla.data.open import open_dataset
from vla.data.recording.assemble import BUILD, assemble
from vla.data.recording.demonstrate import noisy_dims
from vla.data.recording.features import frames_per_second
from vla.data.recording.quota import Quota
from vla.data.recording.settings import RecordSettings
from vla.data.recording.shards import DamagedShardError, Shard
from vla.data.recording.workers import SHARDS, load_agent, play_all, shard_path
from vla.host.files import claimed, holds_nothing, printable, read_json, require_keys, require_room, write_atomically
from vla.host.progress import EpisodeBar
from vla.host.provenance import commit, versions
from vla.perturb import axes as perturb

COMMAND = "command.json"


@dataclass(frozen=True)
class RecordSummary:
    """What a recording came to: ``played`` episodes, of which ``succeeded`` did; ``kept`` are in the dataset.

    ``unfilled`` names the tasks of which fewer could be kept than was asked for, and how many were. ``errors`` has the
    numbers of the episodes that failed because the env or the expert raised an error, and what it said.
    """

    played: int
    succeeded: int
    kept: int
    frames: int
    new: int
    wall_s: float
    unfilled: dict[str, int] = field(default_factory=dict)
    errors: dict[int, str] = field(default_factory=dict)


def record(settings: RecordSettings, command: str = "", show: bool = True) -> RecordSummary:
    """Record what is not recorded yet, and write the dataset.

    Args:
        settings: what to record, and where.
        command: the command line, kept in the dataset.
        show: whether to draw a progress bar.

    Raises:
        VlaError: if ``settings.out`` holds something else or another recording, or another run records there, an axis
            can't be randomised, no episode succeeded, every one raises an error, a worker died or the disk is full.
            Finished episodes are kept in each case.
    """
    began = time.perf_counter()
    spec = settings.env_ref.spec()
    frames_per_second(spec)
    if settings.agent:
        load_agent(settings).spec.require(spec, f"agent {settings.agent}", f"env {settings.env}")
    perturb.require(
        dict.fromkeys(settings.randomize, "medium"),
        perturb.for_training(settings.env_ref.env_class),
        f"vla record --env {settings.env}",
    )
    if settings.noise and not noisy_dims(spec)[0]:
        raise VlaError(f"--noise moves actions that are lengths, and the env {settings.env} has none")
    with _claim(settings, spec):
        return replace(_record(settings, spec, command, show), wall_s=time.perf_counter() - began)


def _record(settings: RecordSettings, spec: EnvSpec, command: str, show: bool) -> RecordSummary:
    shards = dict(_finished(settings))
    quota = Quota(settings.episodes, settings.env_ref.tasks())
    counted, todo = quota.plan(_kept(shards))
    if not todo and _assembled(settings.out, len(counted)):
        return _summary(quota, {index: shards[index] for index in counted}, 0)
    new = 0
    with EpisodeBar(show=show) as bar:
        good = sum(shards[index].facts["success"] for index in counted)
        bar.stage("recording", len(counted) + len(todo), len(counted), good)
        while todo:  # more than once only where failures are to be made good
            proven = any("error" not in shard.facts for shard in shards.values())
            with closing(play_all(settings, todo, proven)) as played:
                for index in played:
                    shards[index] = Shard(shard_path(settings, index))
                    bar.count(shards[index].facts["success"])
            new += len(todo)
            counted, todo = quota.plan(_kept(shards))
            bar.extend(len(counted) + len(todo))
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
    try:
        with EpisodeBar(show=show) as bar:
            bar.stage("writing the dataset", summary.kept)
            assemble(settings.out, ordered, spec, settings.video_format, facts, lambda: bar.count(None))
    except DamagedShardError as error:
        error.path.unlink(missing_ok=True)
        raise VlaError(f"{error}; the same command records that episode again") from error
    return summary


@contextmanager
def _claim(settings: RecordSettings, spec: EnvSpec) -> Iterator[Path]:
    """The shards' folder, made or found to belong to the same recording; nobody else records there meanwhile."""
    folder, out = settings.out / SHARDS, settings.out
    wanted = {"recording": settings.identity(), "env_spec": json.loads(json.dumps(spec.to_dict()))}
    _begun(out, wanted)  # before a lock is put into somebody else's folder
    with claimed(folder, "vla record"):
        if not _begun(out, wanted):
            try:
                write_atomically(folder / COMMAND, json.dumps(wanted, indent=1))
            except OSError as error:
                raise VlaError(f"cannot write {folder}: {error.strerror or error}") from error
        for leftover in folder.glob("*.tmp"):
            leftover.unlink()
        require_room(folder)
        yield folder


def _begun(out: Path, wanted: dict[str, Any]) -> bool:
    """Whether ``wanted`` is on record in ``out``; False if nothing is, or only in ``meta/vla.json``.

    Raises VlaError if there is something else or another recording, or nobody can tell which.
    """
    if out.exists() and not out.is_dir():
        raise VlaError(f"{out} is a file, and the dataset needs a folder; name another --out")
    kinds: dict[str, Any] = {"recording": dict, "env_spec": dict}
    command, lost = out / SHARDS / COMMAND, ""
    try:
        if command.exists():
            there = read_json(command)
            require_keys(there, kinds, str(command))
            _require_same(out, there, wanted)
            return True
        lost = f"{command} is missing"
    except DifferentRecordingError:
        raise
    except VlaError as error:
        lost = str(error)
    shards = len(list((out / SHARDS).glob("*.npz")))
    if shards:
        try:
            there = read_json(out / VLA_JSON)
            require_keys(there, kinds, str(out / VLA_JSON))
        except VlaError:
            raise VlaError(
                f"{lost}, so nobody can tell how the {shards} episodes beside it were recorded; put it back, or delete "
                f"{command.parent} and record them again"
            ) from None
        _require_same(out, there, wanted)
    elif (out / VLA_JSON).exists():
        raise VlaError(
            f"{out} holds a finished dataset without the episodes in {SHARDS}, so there is no recording to go on with; "
            "name an empty or new folder"
        )
    elif not holds_nothing(out) and {path.name for path in out.iterdir()} - {SHARDS, BUILD}:
        raise VlaError(f"{out} holds something else than a recording; name an empty or new folder")
    return False


class DifferentRecordingError(VlaError):
    """The folder holds a recording with other settings."""


def _require_same(out: Path, there: dict[str, Any], wanted: dict[str, Any]) -> None:
    old, new = there["recording"], wanted["recording"]
    differ = {key: (old.get(key), new.get(key)) for key in sorted({*old, *new}) if old.get(key) != new.get(key)}
    differ |= EnvSpec.from_dict(there["env_spec"]).differences(EnvSpec.from_dict(wanted["env_spec"]))
    if differ:
        rows = [f"  {key}:\n    in the folder: {old}\n    asked for: {new}" for key, (old, new) in differ.items()]
        text = printable("\n".join(rows))
        raise DifferentRecordingError(f"{out} holds another recording; name another --out.\n{text}")


def _finished(settings: RecordSettings) -> Iterator[tuple[int, Shard]]:
    """The shards that are there and sound. Damaged ones are removed, with a word, to be recorded again.

    Raises VlaError for one that is not this recording's.
    """
    for path in sorted((settings.out / SHARDS).glob("*.npz")):
        if not path.stem.isdecimal():
            continue
        try:
            shard = Shard(path)
            shard.read()
        except DamagedShardError as error:
            path.unlink()
            print(f"vla: {error}; it is recorded again", file=sys.stderr)
            continue
        index = int(path.stem)
        if shard.facts["seed"] != episode_seed("record", settings.seed, index):
            raise VlaError(f"{path} is not episode {index} of this recording: its seed is another; move it elsewhere")
        yield index, shard


def _kept(shards: dict[int, Shard]) -> dict[int, bool]:
    return {index: shard.kept for index, shard in shards.items()}


def _assembled(out: Path, count: int) -> bool:
    """Whether the dataset is there, whole, and of so many episodes."""
    if not (out / VLA_JSON).exists():
        return False
    try:
        recorded = open_dataset(out)
        require_promised(out, recorded.facts, VLA_JSON, hash_files(out))
    except VlaError as error:
        print(f"vla: {error}; the dataset is written again", file=sys.stderr)
        return False
    return len(recorded.facts.get("shards", [])) == count


def _summary(quota: Quota, shards: dict[int, Shard], new: int) -> RecordSummary:
    kept = [shard for shard in shards.values() if shard.kept]
    succeeded = sum(shard.facts["success"] for shard in shards.values())
    frames = sum(shard.facts["steps"] for shard in kept)
    errors = {index: shard.facts["error"] for index, shard in shards.items() if "error" in shard.facts}
    return RecordSummary(len(shards), succeeded, len(kept), frames, new, 0.0, quota.unfilled(_kept(shards)), errors)
