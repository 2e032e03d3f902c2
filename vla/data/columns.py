"""Which columns of another's LeRobot dataset are the cameras, the state, the action and the success."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vla.contracts import SpecMismatchError, VlaError

# LeRobot's names first, then those of openpi's converters.
STATES, ACTIONS, SUCCESS = ("observation.state", "state"), ("action", "actions"), "next.success"
_IMAGES, _IMAGE = "observation.images.", "observation.image"
CHANNELS = (1, 3, 4)  # grey is read three times, and alpha is dropped


@dataclass(frozen=True)
class Layout:
    """Columns by what they are used for.

    Attributes:
        cameras: camera name to column.
        state: the state's column; None if there is none.
        action: the action's column.
        success: the column that says when an episode has succeeded; None if there is none.
        unfit: for each picture that is no camera, why not.
    """

    cameras: dict[str, str]
    state: str | None
    action: str
    success: str | None
    unfit: dict[str, str]


def find_layout(features: dict[str, Any], named: Sequence[str], root: Path) -> Layout:
    """Read a dataset's features.

    Args:
        features: ``features`` of ``meta/info.json``.
        named: ``NAME=COLUMN`` for columns that go by other names: NAME is ``state``, ``action``, ``success`` or a
            camera's. Where one camera is named, the others are left out; ``state=`` leaves the state out.
        root: the dataset, for messages.

    Raises:
        VlaError: if ``named`` names a column that is not there or does not fit. SpecMismatchError: if there are no
            actions or no camera.
    """
    chosen = _chosen(features, named, root)
    pictures = {key: _unfit(key, feature) for key, feature in features.items() if _is_picture(feature)}
    cameras = {name: key for name, key in chosen.items() if name not in ("state", "action", "success")}
    for name, key in cameras.items():
        reason = pictures.get(key, "it holds no pictures")
        if reason:
            raise VlaError(f"--data.columns {name}={key}: {root} has the column, and it is no camera: {reason}")
    fit = [key for key, reason in pictures.items() if not reason]
    usual = [key for key in fit if key == _IMAGE or key.startswith(_IMAGES)]
    if not cameras:
        cameras = {_camera_name(key): key for key in usual or [key for key in fit if not key.startswith("next.")]}
    action = chosen.get("action") or next((key for key in ACTIONS if key in features), None)
    unfit = {key: reason for key, reason in pictures.items() if reason}
    if action is None or not cameras:
        lacking = "a camera" if action else f"the column '{ACTIONS[0]}'"
        reasons = "".join(f" ({key} is none: {reason})" for key, reason in unfit.items()) if action else ""
        raise SpecMismatchError(
            f"{root} lacks {lacking}{reasons}, so nothing can be learnt from it; it has {_shown(features)}; "
            f"--data.columns action=…,state=…,CAMERA=… names what is called otherwise"
        )
    state = chosen.get("state", next((key for key in STATES if key in features), "")) or None
    success = chosen.get("success", SUCCESS if SUCCESS in features else "") or None
    for key in filter(None, (action, state, success)):
        if _is_picture(features[key]) or features[key].get("dtype") == "string":
            raise VlaError(f"{root}: the column '{key}' is of {features[key].get('dtype')}s, where numbers are read")
    return Layout(cameras, state, action, success, unfit)


def height_width(feature: dict[str, Any]) -> tuple[int, int]:
    """The size of a picture, whether its channels come first or last."""
    shape = list(feature["shape"])
    axis = _channel_axis(feature)
    height, width = (size for number, size in enumerate(shape) if number != axis)
    return int(height), int(width)


def names_of(feature: dict[str, Any], what: str) -> tuple[str, ...]:
    """The names of a column's dimensions: LeRobot's, a list or lists by group, else numbers."""
    size, given = int(np.prod(feature["shape"])), feature.get("names")
    groups = given.values() if isinstance(given, dict) else [given or []]
    names = [str(name) for group in groups for name in (group if isinstance(group, (list, tuple)) else [group])]
    return tuple(names) if len(names) == size else tuple(f"{what}_{index}" for index in range(size))


def _chosen(features: dict[str, Any], named: Sequence[str], root: Path) -> dict[str, str]:
    chosen: dict[str, str] = {}
    for pair in named:
        name, equals, key = (part.strip() for part in pair.partition("="))
        if not name or not equals:
            raise VlaError(f"--data.columns takes NAME=COLUMN, e.g. state=observation.qpos, and got '{pair}'")
        if key not in features and (key or name not in ("state", "success")):
            near = difflib.get_close_matches(key, features, 1)
            hint = f"did you mean {near[0]}?" if near else f"it has {_shown(features)}"
            raise VlaError(f"--data.columns {pair}: {root} has no column '{key}'; {hint}")
        if name in chosen:
            raise VlaError(f"--data.columns names {name} twice")
        chosen[name] = key
    return chosen


def _is_picture(feature: dict[str, Any]) -> bool:
    return feature.get("dtype") in ("image", "video")


def _unfit(key: str, feature: dict[str, Any]) -> str:
    """Why a picture cannot be a camera; empty if it can."""
    shape, facts = list(feature["shape"]), feature.get("info") or {}
    if facts.get("is_depth_map") or facts.get("video.is_depth_map"):
        return "it is a depth map"
    if len(shape) != 3:
        return f"its shape is {shape}"
    channels = shape[_channel_axis(feature)]
    if channels == 1 and "depth" in key.lower():
        return "it is a depth map"
    return "" if channels in CHANNELS else f"it has {channels} channels, where 1, 3 or 4 are read"


def _channel_axis(feature: dict[str, Any]) -> int:
    names = [str(name).rstrip("s") for name in feature.get("names") or []]
    if "channel" in names[:3]:
        return names.index("channel")
    return 0 if feature["shape"][2] not in CHANNELS and feature["shape"][0] in CHANNELS else 2


def _camera_name(key: str) -> str:
    return key.removeprefix(_IMAGES).removeprefix("observation.")


def _shown(features: dict[str, Any]) -> str:
    return ", ".join(f"{name} {f.get('dtype')} {f.get('shape')}" for name, f in features.items()) or "none"
