"""The columns of a recorded dataset, as LeRobot's ``meta/info.json`` names them."""

from __future__ import annotations

from typing import Any

from vla.contracts import EnvSpec, VlaError
from vla.data.recording.shards import PIXEL_FORMAT


def frames_per_second(spec: EnvSpec) -> int:
    """1 / dt, which LeRobot needs as a whole number. Raises VlaError otherwise."""
    fps = round(1 / spec.dt)
    if fps < 1 or abs(fps * spec.dt - 1) > 1e-6:
        raise VlaError(f"LeRobot's format needs a whole number of steps a second, and dt is {spec.dt} s")
    return fps


def features(spec: EnvSpec, video_format: str) -> dict[str, dict[str, Any]]:
    """LeRobot's ``features`` for an env: dtype, shape and names of each column."""

    def column(dtype: str, names: list[str] | None, size: int = 1) -> dict[str, Any]:
        return {"dtype": dtype, "shape": [size], "names": names}

    fps = frames_per_second(spec)
    table: dict[str, dict[str, Any]] = {}
    for camera in spec.cameras:
        image = {"shape": [camera.height, camera.width, 3], "names": ["height", "width", "channels"]}
        if video_format == "h264":
            size = {"video.height": camera.height, "video.width": camera.width, "video.fps": fps, "video.channels": 3}
            kind = {"video.codec": "h264", "video.pix_fmt": PIXEL_FORMAT, "has_audio": False, "is_depth_map": False}
            table[f"observation.images.{camera.name}"] = {"dtype": "video", **image, "info": {**size, **kind}}
        else:
            table[f"observation.images.{camera.name}"] = {"dtype": "image", **image}
    table["observation.state"] = column("float32", list(spec.state), len(spec.state))
    table["action"] = column("float32", list(spec.action), len(spec.action))
    table["action.executed"] = column("float32", list(spec.action), len(spec.action))
    names = [f"{what}_{axis}" for what in ("item", "place") for axis in ("u", "v", "visible")]
    table.update({f"points.{camera.name}": column("float32", names, 6) for camera in spec.cameras})
    table["progress"] = column("float32", None)
    table["by_expert"] = column("float32", None)
    table["success"] = column("bool", None)
    table["seed"] = column("int64", None)
    table["sub_instruction"] = column("string", None)
    table["timestamp"] = column("float32", None)
    table.update({name: column("int64", None) for name in ("frame_index", "episode_index", "index", "task_index")})
    return table
