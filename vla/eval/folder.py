"""What the folder of an evaluation holds: ``results.json``, ``report.html`` and ``videos/``, written and read.

A robustness suite has the folders of its parts in ``suite/``.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from vla.contracts import VlaError
from vla.host.files import read_json, write_atomically
from vla.rollout.player import EpisodeResult

FORMAT_VERSION = 1
RESULTS, REPORT = "results.json", "report.html"
_HASH = "content_hash"  # in results.json: of all else in it
_UNFINISHED = "unfinished_run"  # in it until all episodes are played: those that are, with every figure whole
# What is read of a summary and of each of its episodes, with the types that it may have.
_SUMMARY: dict[str, Any] = {"env": str, "agent": str, "seed": int, "split": str, "episodes_detail": list}
_EPISODE: dict[str, Any] = {
    "index": int,
    "seed": int,
    "instruction": str,
    "language": str,
    "kind": str,
    "category": str,
    "success": bool,
    "progress": (int, float),
    "steps": int,
    "items": list,
}


def part_folder(out: Path, axis: str, strength: str) -> Path:
    """Where a part of the suite has its results."""
    return out / "suite" / f"{axis}_{strength.replace(' ', '')}"


def write_results(out: Path, summary: dict[str, Any]) -> None:
    """Write ``results.json`` alone, with a hash of what is in it. Raises OSError."""
    plain = _plain(summary)
    write_atomically(out / RESULTS, as_json({**plain, _HASH: _hash(plain)}))


def write_all(out: Path, summary: dict[str, Any], shown: Sequence[EpisodeResult]) -> None:
    """Write the results, the videos of the episodes to show, and the report. Raises OSError."""
    from vla.eval.pages.report import write_report

    write_results(out, summary)  # first what can't be had again
    _write_videos(out / "videos", shown)
    summary["videos"] = [f"videos/{_video_name(result)}" for result in shown]
    write_report(out / REPORT, summary, shown)
    write_results(out, summary)


def write_unfinished(out: Path, summary: dict[str, Any], done: Sequence[EpisodeResult]) -> None:
    """Write what is finished of a run, so that ``unfinished`` can read it. Raises OSError."""
    filmed = [result for result in done if result.video]
    kept = [
        {k: v for k, v in asdict(replace(one, video=None, last=None)).items() if k not in ("video", "last")}
        for one in done
    ]
    more = {_UNFINISHED: kept, "videos": [f"videos/{_video_name(result)}" for result in filmed]}
    write_results(out, summary | more)
    _write_videos(out / "videos", filmed)
    write_last(out, done)


def write_last(out: Path, results: Sequence[EpisodeResult]) -> None:
    """Write the last pictures of those episodes that have one into ``frames/``. Raises OSError."""
    for result in results:
        if result.last is not None:
            (out / "frames").mkdir(exist_ok=True)
            write_atomically(out / last_name(result), result.last)


def last_name(result: EpisodeResult) -> str:
    """Where the last picture of an episode lies in the folder."""
    return f"frames/episode_{result.index:04d}_last.png"


def _write_videos(folder: Path, shown: Sequence[EpisodeResult]) -> None:
    """Have exactly these episodes' videos in the folder, beside whatever else is there."""
    names = {_video_name(result) for result in shown}
    if folder.is_dir():
        for old in folder.glob("episode_[0-9]*_[sf]*.mp4"):
            if old.name not in names:
                old.unlink()
    for result in shown:
        folder.mkdir(exist_ok=True)
        assert result.video is not None
        write_atomically(folder / _video_name(result), result.video)


def read_results(path: Path) -> dict[str, Any]:
    """Read a ``results.json``, given it or its folder.

    Raises:
        VlaError: there is none, it is damaged, or it is of another format.
    """
    file = path / RESULTS if path.is_dir() else path
    if not file.exists():
        raise VlaError(f"there is no {file}: name a folder that vla eval wrote, or its results.json")
    data = read_json(file)
    told = data.pop(_HASH, None)  # older files have none
    if told is not None and told != _hash(data):
        raise VlaError(
            f"{file} is damaged: it is not what vla eval wrote, by its own '{_HASH}' (leave that line out if you "
            "changed the file on purpose)"
        )
    version = data.get("format_version", FORMAT_VERSION)
    if version != FORMAT_VERSION:
        raise VlaError(f"{file} has format {version}; this version reads {FORMAT_VERSION}")
    problem = _problem(data)
    if problem:
        raise VlaError(f"{file} is no results.json of vla eval: {problem}")
    return data


def _problem(data: dict[str, Any]) -> str | None:
    """What keeps this from being the content of a ``results.json``; None if nothing does."""
    for name, kind in _SUMMARY.items():
        if not isinstance(data.get(name), kind):
            return f"'{name}' is missing or no {kind.__name__}"
    for name in ("settings", "env_spec", "versions", "machine"):
        if not isinstance(data.get(name), dict | None):
            return f"'{name}' is no object"
    if not data["episodes_detail"]:
        return "'episodes_detail' is empty"
    for place, episode in enumerate(data["episodes_detail"]):
        for name, kind in _EPISODE.items():
            if not isinstance(episode, dict) or not isinstance(episode.get(name), kind):
                return f"'{name}' of episode {place} is missing or wrong"
        if not all(isinstance(item, dict) and {"name", "asked", "placed"} <= set(item) for item in episode["items"]):
            return f"'items' of episode {place} is wrong"
    return None


def episodes_of(data: dict[str, Any], out: Path) -> list[EpisodeResult]:
    """The episodes that a ``results.json`` tells of, with the videos that are in its folder ``out``."""
    names = {field.name for field in fields(EpisodeResult)} - {"split"}
    return [
        _with_video(out, data, EpisodeResult(split=data["split"], **{k: v for k, v in e.items() if k in names}))
        for e in data["episodes_detail"]
    ]


def _with_video(out: Path, data: dict[str, Any], result: EpisodeResult) -> EpisodeResult:
    file = out / "videos" / _video_name(result)
    if f"videos/{file.name}" in data.get("videos", []) and file.is_file():
        result.video = file.read_bytes()
    if data.get("settings", {}).get("judge") and (out / last_name(result)).is_file():
        result.last = (out / last_name(result)).read_bytes()
    return result


def _video_name(result: EpisodeResult) -> str:
    """File name of an episode's video."""
    return f"episode_{result.index:04d}_{'success' if result.success else 'failure'}.mp4"


def unfinished(data: dict[str, Any], out: Path) -> list[EpisodeResult]:
    """The episodes that ``write_unfinished`` kept, with their videos. Raises VlaError where they are damaged."""
    names = {field.name for field in fields(EpisodeResult)}
    try:
        kept = [EpisodeResult(**{k: v for k, v in one.items() if k in names}) for one in data.get(_UNFINISHED, [])]
    except (TypeError, AttributeError) as error:
        raise VlaError(f"{out / RESULTS} is damaged: no episodes to go on from") from error
    return [_with_video(out, data, result) for result in kept]


def _hash(plain: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(plain).encode()).hexdigest()[:16]


def as_json(summary: Mapping[str, Any]) -> str:
    """The file's text: UTF-8 as it is, no NaN. What an env gave that is no JSON is made so, and costs no results."""
    return json.dumps(_plain(summary), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    """``value`` in JSON's own types: numpy's numbers as numbers, NaN and infinity as null, what is left as text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)
