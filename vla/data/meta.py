"""Opening a dataset's ``meta/``: whoever wrote it, it is checked before anything is read or made by it."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from vla.contracts import EnvSpec, VlaError
from vla.host.files import parse_json, read_json, read_text, require_keys

INFO_JSON = "meta/info.json"
_EPISODE = {"episode_index": int, "seed": int, "options": dict, "instruction": str, "success": bool, "steps": int}
# What LeRobot's path of a video may hold in braces. ``str.format`` would take more: attributes, widths of gigabytes.
_FIELD = re.compile(r"\{(video_key|chunk_index|file_index)(?::0?(\d{1,2})d)?\}")
_MOST_FPS, _MOST_NUMBERS = 10_000, 2**31  # frames a second; numbers in a row of one column


def read_info(root: Path) -> dict[str, Any]:
    """LeRobot's ``meta/info.json``. Raises VlaError, naming the file, where what this program reads is not right."""
    file = root / INFO_JSON
    info = read_json(file)
    require_keys(info, {"features": dict, "fps": (int, float), "total_frames": int, "total_episodes": int}, str(file))
    if not 0 < info["fps"] <= _MOST_FPS:
        raise VlaError(f"{file} is damaged: 'fps' is {info['fps']}")
    for name, feature in info["features"].items():
        wrong = _wrong(feature)
        if wrong:
            raise VlaError(f"{file} is damaged: the feature '{name}' {wrong}")
    if any(feature["dtype"] == "video" for feature in info["features"].values()):
        require_keys(info, {"video_path": str}, str(file))
        if re.search(r"[{}]", _FIELD.sub("", info["video_path"])):
            raise VlaError(
                f"{file} is damaged: 'video_path' is '{info['video_path']}', and may hold {{video_key}}, "
                "{chunk_index:03d} and {file_index:03d}"
            )
    return info


def _wrong(feature: Any) -> str:
    """What is wrong with an entry of LeRobot's ``features``; empty for nothing."""
    if not isinstance(feature, dict):
        return f"is {str(feature)[:40]}"
    shape, names = feature.get("shape"), feature.get("names")
    if not isinstance(feature.get("dtype"), str):
        return "lacks its 'dtype'"
    if not isinstance(shape, list) or not all(type(size) is int and size > 0 for size in shape):
        return f"has the shape {str(shape)[:40]}"
    if math.prod(shape) > _MOST_NUMBERS or (math.prod(shape) > 2**16 and feature["dtype"] not in ("image", "video")):
        return f"has the shape {shape}: too large"
    if not isinstance(names, (list, dict, type(None))) or not isinstance(feature.get("info"), (dict, type(None))):
        return "has 'names' or 'info' that cannot be read"
    return ""


def video_file(root: Path, info: dict[str, Any], key: str, chunk: Any, file: Any) -> Path:
    """Where a video lies. Raises VlaError for a number that is none, and for a place outside of the dataset."""
    values = {"video_key": key, "chunk_index": chunk, "file_index": file}
    if type(chunk) is not int or type(file) is not int:
        raise VlaError(
            f"{root / 'meta/episodes'} names the video {chunk}, {file} of {key}, which should be two numbers"
        )
    path = _FIELD.sub(lambda match: str(values[match[1]]).zfill(int(match[2] or 0)), info["video_path"])
    if Path(path).is_absolute() or ".." in Path(path).parts or "\0" in path:
        raise VlaError(f"{root / INFO_JSON} names the video {path}, which is not in the dataset")
    return root / path


def read_facts(file: Path, version: int) -> dict[str, Any]:
    """``meta/vla.json``. Raises VlaError, naming the file, where what this program reads is not right."""
    facts = read_json(file)
    if facts.get("format_version") != version:
        raise VlaError(f"{file} has format version {facts.get('format_version')}; this program reads {version}")
    require_keys(facts, {"env_spec": dict, "env": str, "recording": dict}, str(file))
    if not isinstance(facts["recording"].get("env_options", {}), dict):
        raise VlaError(f"{file} is damaged: 'env_options' should be an object")
    try:
        EnvSpec.from_dict(facts["env_spec"])
    except VlaError as error:
        raise VlaError(f"{file} is damaged: {error}") from error
    return facts


def read_episodes(file: Path) -> list[dict[str, Any]]:
    """``meta/vla_episodes.jsonl``, a dict for each episode. Raises VlaError, naming file and line, if it is damaged."""
    episodes = []
    for number, line in enumerate(read_text(file).split("\n"), 1):  # splitlines() also parts a sentence at U+2028
        if line:
            where = f"{file}, line {number},"
            facts = parse_json(line, where)
            require_keys(facts, _EPISODE | {"final_state": list}, where)
            if not all(type(value) in (int, float) for value in facts["final_state"]):
                raise VlaError(f"{where} is damaged: 'final_state' should hold numbers")
            episodes.append(facts)
    return episodes
