"""LeRobot v3 datasets that others made: their features become an EnvSpec, and what they lack gets a plain default."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vla.contracts import CameraSpec, EnvSpec, SpecMismatchError, VlaError
from vla.dataset import Recorded, Source
from vla.dataset_files import as_array, read_parquet
from vla.files import read_json

STATE, ACTION, SUCCESS = "observation.state", "action", "next.success"
_IMAGES, _IMAGE = "observation.images.", "observation.image"


class PlainDataset(Recorded):
    """A LeRobot v3 dataset without ``meta/vla.json``.

    ``observation.images.NAME`` is the camera NAME, ``observation.image`` the camera ``image``; ``observation.state``
    and ``action`` keep their names and units; ``dt`` is 1 / fps, and the task is the instruction. No action dimension
    counts as relative, since the features do not say which could be. Columns that are not there are set so: every turn
    is the expert's, every episode succeeded unless ``next.success`` says otherwise, points are zeros (not known),
    progress is zero, the sub-instruction is the instruction.

    Raises VlaError for an older format, SpecMismatchError where there are no actions or no camera.
    """

    def __init__(self, root: Path) -> None:
        info = read_json(root / "meta/info.json")
        version = str(info.get("codebase_version"))
        if not version.startswith("v3."):
            convert = "python -m lerobot.scripts.convert_dataset_v21_to_v30"
            raise VlaError(
                f"{root} is a LeRobot dataset of version {version}, and this program reads v3.0; convert it: {convert} "
                f"--repo-id=local/{root.name} --root={root} --push-to-hub=false"
            )
        features = info.get("features") or {}
        self._keys = _cameras(features)
        if ACTION not in features or not self._keys:
            lacking = "a camera" if ACTION in features else f"the column '{ACTION}'"
            raise SpecMismatchError(
                f"{root} lacks {lacking}, so nothing can be learnt from it; it has {_shown(features)}"
            )
        super().__init__(root, {"env_spec": _spec(root, info, self._keys).to_dict()}, info, [])
        lengths = self._episode_table(["episode_index", "length"]).sort_by("episode_index").column("length").to_pylist()
        self.episodes = [{"episode_index": number, "steps": steps} for number, steps in enumerate(lengths)]
        chinese = any("\u4e00" <= letter <= "\u9fff" for text in self.instructions for letter in text)
        self.spec = replace(self.spec, episode_steps=max(lengths, default=1), languages=("zh",) if chinese else ("en",))
        self.facts = {"env_spec": self.spec.to_dict()}
        self.mapping = self._told(features)

    def image_key(self, camera: str) -> str:
        """See ``Recorded``."""
        return self._keys[camera]

    def _told(self, features: dict[str, Any]) -> tuple[str, ...]:
        spec = self.spec
        cameras = [f"{self._keys[c.name]} is camera {c.name}, {c.height}x{c.width}" for c in spec.cameras]
        used = {STATE, ACTION, SUCCESS, "timestamp", "frame_index", "episode_index", "index", "task_index"}
        unused = [name for name in features if name not in used and name not in self._keys.values()]
        return (
            f"{self.root}: a LeRobot dataset of {len(self.episodes)} episodes, read as",
            *(f"  {line}" for line in cameras),
            f"  {STATE} is the state: {', '.join(spec.state)}" if spec.state else "  no state",
            f"  {ACTION} is the action, absolute: {', '.join(spec.action)}",
            f"  dt {spec.dt:.4g} s; {len(self.instructions)} instruction(s), e.g. '{(self.instructions or [''])[0]}'",
            *([f"  {SUCCESS} tells which episodes --data.only_success true would keep"] if SUCCESS in features else []),
            *([f"  not used: {', '.join(unused)}"] if unused else []),
        )

    def columns(self) -> tuple[dict[str, np.ndarray], list[str]]:
        """See ``Recorded``."""
        features, spec = self._info["features"], self.spec
        wanted = [ACTION, "episode_index", "frame_index", "task_index"]
        wanted += [name for name in (STATE, SUCCESS) if name in features]
        tables = [read_parquet(file, wanted) for file in self._data_files()]
        lacking = sorted(set(wanted) - set(tables[0].column_names))
        if lacking:
            raise VlaError(f"{self._data_files()[0]} lacks the column '{lacking[0]}', which meta/info.json promises")
        found = {name: np.concatenate([as_array(table.column(name)) for table in tables]) for name in wanted}
        episode, count = found["episode_index"].astype(np.int64), len(found["episode_index"])
        if count != self.frames:
            raise VlaError(f"{self.root / 'data'} holds {count} frames, and meta says {self.frames}")
        expected = np.repeat(np.arange(len(self.episodes)), [facts["steps"] for facts in self.episodes])
        if not np.array_equal(episode, expected):
            raise VlaError(f"{self.root / 'data'} does not hold the episodes of meta/episodes, one after the other")
        action = found[ACTION].reshape(count, -1).astype(np.float32)
        state = (
            found[STATE].reshape(count, -1).astype(np.float32) if STATE in found else np.zeros((count, 0), np.float32)
        )
        success = np.ones(count, dtype=bool)
        if SUCCESS in found:
            reached = np.zeros(len(self.episodes), dtype=bool)
            np.logical_or.at(reached, episode, found[SUCCESS].reshape(count).astype(bool))
            success = reached[episode]
        instruction = found["task_index"].astype(np.int64)
        columns = {
            "state": state,
            "action": action,
            "executed": action,
            "progress": np.zeros(count, np.float32),
            "by_expert": np.ones(count, np.float32),
            "success": success,
            "seed": np.zeros(count, np.int64),
            "episode": episode,
            "frame": found["frame_index"].astype(np.int64),
            "instruction": instruction,
            "sub_instruction": instruction,
        }
        columns |= {f"points.{camera.name}": np.zeros((count, 6), np.float32) for camera in spec.cameras}
        return columns, list(self.instructions)

    def sources(self, camera: str) -> list[Source]:
        """See ``Recorded``. A video may hold frames that belong to no episode: LeRobot's times say which do."""
        key = self.image_key(camera)
        if self._info["features"][key]["dtype"] == "image":
            return super().sources(camera)
        names = [f"videos/{key}/{name}" for name in ("chunk_index", "file_index", "from_timestamp")]
        table = self._episode_table(["episode_index", "length", *names]).sort_by("episode_index")
        sources: list[Source] = []
        for length, chunk, file, begins in zip(*(table.column(n).to_pylist() for n in ("length", *names)), strict=True):
            path, rows = self._video_file(key, chunk, file), round(begins / self.spec.dt) + np.arange(length)
            if not sources or sources[-1].path != path:
                sources.append(Source(path, length, rows))
                continue
            last = sources[-1]
            assert last.rows is not None
            last.frames, last.rows = last.frames + length, np.concatenate((last.rows, rows))
        for source in sources:
            if source.rows is None or (np.diff(source.rows) <= 0).any():
                raise VlaError(f"{source.path} holds the episodes in another order than {self.root / 'meta/episodes'}")
        return sources


def _cameras(features: dict[str, Any]) -> dict[str, str]:
    """Camera name to column. Pictures that are not of red, green and blue are no cameras."""
    keys: dict[str, str] = {}
    for key, feature in features.items():
        named = key == _IMAGE or key.startswith(_IMAGES)
        if named and feature["dtype"] in ("image", "video") and _height_width(feature) is not None:
            keys.setdefault("image" if key == _IMAGE else key.removeprefix(_IMAGES), key)
    return keys


def _height_width(feature: dict[str, Any]) -> tuple[int, int] | None:
    """The size of a picture of three channels; None for another."""
    shape, facts = list(feature["shape"]), feature.get("info") or {}
    if len(shape) != 3 or facts.get("is_depth_map") or facts.get("video.is_depth_map"):
        return None
    names = [str(name).rstrip("s") for name in feature.get("names") or []]
    channels = names.index("channel") if "channel" in names else (2 if shape[2] == 3 else 0)
    if shape[channels] != 3:
        return None
    height, width = (size for axis, size in enumerate(shape) if axis != channels)
    return int(height), int(width)


def _spec(root: Path, info: dict[str, Any], keys: dict[str, str]) -> EnvSpec:
    features, sizes = info["features"], {}
    for name, key in keys.items():
        sizes[name] = _height_width(features[key]) or (0, 0)
    return EnvSpec(
        name=root.name,
        cameras=tuple(CameraSpec(name, *size) for name, size in sizes.items()),
        state=_names(features[STATE], "state") if STATE in features else (),
        action=_names(features[ACTION], "action"),
        dt=1 / info["fps"],
        episode_steps=1,
    )


def _names(feature: dict[str, Any], what: str) -> tuple[str, ...]:
    """The names of a column's dimensions: LeRobot's, a list or lists by group, else numbers."""
    size, given = int(np.prod(feature["shape"])), feature.get("names")
    groups = given.values() if isinstance(given, dict) else [given or []]
    names = [str(name) for group in groups for name in (group if isinstance(group, (list, tuple)) else [group])]
    return tuple(names) if len(names) == size else tuple(f"{what}_{index}" for index in range(size))


def _shown(features: dict[str, Any]) -> str:
    return ", ".join(f"{name} {feature['dtype']} {feature['shape']}" for name, feature in features.items()) or "none"
