"""A tiny dataset written by LeRobot itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

LENGTHS, TASKS = (7, 5, 6), ("push the block", "把方块推到目标", "push the block")


def make_dataset(
    root: Path,
    videos: bool = False,
    size: int = 32,
    state: tuple[str, ...] | None = (),
    camera: str = "images.top",
) -> list[dict[str, Any]]:
    """Write three short episodes with LeRobot's own writer, and return their frames.

    Args:
        root: the dataset's folder, made by this.
        videos: whether the pictures are videos.
        size: side of the pictures.
        state: names of the state's dimensions; three without names if empty, no state at all if None.
        camera: what the camera's column is called, after ``observation.``.
    """
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    picture, names = f"observation.{camera}", ["height", "width", "channel"]
    features: dict[str, Any] = {
        picture: {"dtype": "video" if videos else "image", "shape": (size, size, 3), "names": names},
        "action": {"dtype": "float32", "shape": (2,), "names": {"motors": ["motor_0", "motor_1"]}},
        "next.success": {"dtype": "bool", "shape": (1,), "names": None},
        "next.reward": {"dtype": "float32", "shape": (1,), "names": None},
    }
    if state is not None:
        column = {"motors": list(state)} if state else None
        features["observation.state"] = {"dtype": "float32", "shape": (len(state) or 3,), "names": column}
    dataset = LeRobotDataset.create(
        "somebody/blocks", fps=10, features=features, root=root, use_videos=videos, streaming_encoding=videos
    )
    rng, frames = np.random.default_rng(0), []
    for episode, (length, task) in enumerate(zip(LENGTHS, TASKS, strict=True)):
        for step in range(length):
            image = np.full((size, size, 3), 20 + 40 * episode, np.uint8)
            image[:, : (step + 1) * size // 8] = (200, 30, 30 + 20 * step)
            frame: dict[str, Any] = {
                picture: image,
                "action": rng.normal(size=2).astype(np.float32),
                "next.success": np.array([step == length - 1 and episode != 1]),
                "next.reward": np.zeros(1, np.float32),
                "task": task,
            }
            if state is not None:
                frame["observation.state"] = rng.normal(size=len(state) or 3).astype(np.float32)
            dataset.add_frame(dict(frame))  # which takes the task out
            frames.append(frame | {"episode": episode, "step": step})
        dataset.save_episode()
    dataset.finalize()
    return frames
