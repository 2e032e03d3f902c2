"""Opening a dataset, whoever recorded it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vla.contracts import VlaError
from vla.data.dataset import EPISODES_JSONL, FORMAT_VERSION, VLA_JSON, Recorded
from vla.data.lerobot import PlainDataset
from vla.data.meta import read_episodes, read_facts, read_info


def open_dataset(folder: str | Path, columns: Sequence[str] = ()) -> Recorded:
    """Open recorded demonstrations.

    Args:
        folder: the dataset's folder.
        columns: ``NAME=COLUMN``, which columns of another's dataset are what, see ``vla.data.columns``.

    Raises:
        VlaError: if ``folder`` holds none, an unfinished one, one of another format, or one that lacks a file or some
            of its episodes; the file is named. SpecMismatchError: if another's dataset has no actions or no camera.
    """
    root = Path(folder)
    shards = (root / ".episodes").exists()
    for name in ("meta/info.json", VLA_JSON) if shards else ("meta/info.json",):
        if not (root / name).exists():
            hint = "a recording that did not finish: run its command again" if shards else "no LeRobot v3 dataset"
            raise VlaError(f"{root} is {hint} ({name} is missing)")
    if not (root / VLA_JSON).exists():
        recorded: Recorded = PlainDataset(root, columns)
    elif columns:
        raise VlaError(f"{root} was recorded by vla record, whose columns have fixed names: leave --data.columns out")
    else:
        facts = read_facts(root / VLA_JSON, FORMAT_VERSION)
        recorded = Recorded(root, facts, read_info(root), read_episodes(root / EPISODES_JSONL))
    recorded.check()
    return recorded
