"""How a gymnasium observation is read: which parts are pictures, which are the state; what is known of some envs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gymnasium import spaces

from vla.contracts import CameraSpec

Path = tuple[str, ...]


@dataclass(frozen=True)
class Declared:
    """What gymnasium does not tell about an env.

    Attributes:
        extra: this project's optional extra that brings the package.
        options: arguments for ``gymnasium.make``.
        instruction: the task in words.
        state, action: names, as LeRobot's datasets of this env have them, so that what is trained on those plays here.
        full_reward: a step's reward at which the task is done; progress is the share of it.
    """

    extra: str
    options: dict[str, Any] = field(default_factory=dict)
    instruction: str = ""
    state: Path = ()
    action: Path = ()
    full_reward: float = 0.0


_PIXELS = {"obs_type": "pixels_agent_pos"}
_ARM = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate", "gripper")
_ARMS = tuple(f"{side}_{joint}" for side in ("left", "right") for joint in _ARM)
_POINT = ("motor_0", "motor_1")
DECLARED = {
    "gym_pusht/PushT-v0": Declared(
        "pusht", _PIXELS, "Push the T-shaped block onto the T-shaped target.", _POINT, _POINT, 1.0
    ),
    "gym_aloha/AlohaTransferCube-v0": Declared(
        "aloha", _PIXELS, "Pick up the cube with the right arm and transfer it to the left arm.", _ARMS, _ARMS, 4.0
    ),
    "gym_aloha/AlohaInsertion-v0": Declared("aloha", _PIXELS, "Insert the peg into the socket.", _ARMS, _ARMS, 4.0),
}


@dataclass(frozen=True)
class Layout:
    """Where cameras and state are in an observation.

    Attributes:
        cameras: the cameras, in the observation's order.
        images: for each camera the keys that lead to its picture; empty where the observation is the picture.
        vectors: keys that lead to each part of the state.
        low, high: the bounds of the state, float32 (S,).
    """

    cameras: tuple[CameraSpec, ...]
    images: tuple[Path, ...]
    vectors: tuple[Path, ...]
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, space: spaces.Space) -> Layout:
        """Read an observation space.

        A uint8 box of shape (height, width, 3) is a camera: ``pixels`` and a bare picture are called ``image``, as
        LeRobot calls them, any other goes by its last key. The state is ``agent_pos``, LeRobot's key, where there is
        one; else all boxes of one dimension, one after the other.
        """
        boxes = list(_boxes(space, ()))
        pictures = [(path, box) for path, box in boxes if _is_picture(box)]
        leaves = [path[-1] if path and path != ("pixels",) else "image" for path, _ in pictures]
        names = [
            "_".join(path) if leaves.count(leaf) > 1 else leaf for leaf, (path, _) in zip(leaves, pictures, strict=True)
        ]
        vectors = [(path, box) for path, box in boxes if len(box.shape) == 1]
        vectors = [(path, box) for path, box in vectors if path == ("agent_pos",)] or vectors
        low = np.concatenate([np.zeros(0), *(box.low for _, box in vectors)]).astype(np.float32)
        high = np.concatenate([np.zeros(0), *(box.high for _, box in vectors)]).astype(np.float32)
        return cls(
            cameras=tuple(CameraSpec(name, *box.shape[:2]) for name, (_, box) in zip(names, pictures, strict=True)),
            images=tuple(path for path, _ in pictures),
            vectors=tuple(path for path, _ in vectors),
            low=np.nextafter(low, np.float32(-np.inf)),  # rounded outwards
            high=np.nextafter(high, np.float32(np.inf)),
        )

    def read_images(self, observation: Any) -> dict[str, np.ndarray]:
        """Camera name to a copy of its picture, uint8 (height, width, 3)."""
        return {
            camera.name: np.array(_at(observation, path), dtype=np.uint8)
            for camera, path in zip(self.cameras, self.images, strict=True)
        }

    def read_state(self, observation: Any) -> np.ndarray:
        """The state, float32 (S,)."""
        parts = [np.asarray(_at(observation, path), dtype=np.float32) for path in self.vectors]
        return np.concatenate([np.zeros(0, np.float32), *parts])


def _boxes(space: spaces.Space, path: Path) -> Any:
    if isinstance(space, spaces.Dict):
        for key, inner in space.spaces.items():
            yield from _boxes(inner, (*path, key))
    elif isinstance(space, spaces.Box):
        yield path, space


def _is_picture(box: spaces.Box) -> bool:
    return box.dtype == np.uint8 and len(box.shape) == 3 and box.shape[2] == 3


def _at(observation: Any, path: Path) -> Any:
    for key in path:
        observation = observation[key]
    return observation
