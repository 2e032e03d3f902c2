"""How a gymnasium observation is read: which parts are pictures, which are the state; what is known of some envs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gymnasium import spaces

from envs.gymnasium.pictures import PictureForm, told
from vla.contracts import BadObservationError, CameraSpec, VlaError

Path = tuple[str | int, ...]
_MOST_NUMBERS = 1000  # of a part of several dimensions that still belongs to the state: a matrix, and no map


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
    state: tuple[str, ...] = ()
    action: tuple[str, ...] = ()
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
class Leaf:
    """One part of an observation: the keys that lead to it, and its space."""

    path: Path
    space: spaces.Space

    @property
    def name(self) -> str:
        """Its keys with slashes between; ``observation`` for an observation without parts."""
        return "/".join(map(str, self.path)) or "observation"

    @property
    def form(self) -> PictureForm | None:
        """How its pictures come; None where it is none."""
        return PictureForm.of_space(self.space)

    def bounds(self) -> tuple[np.ndarray, np.ndarray] | None:
        """The least and largest of each number of the state that it gives; None where it can give none."""
        if isinstance(self.space, spaces.Box) and self.space.dtype.kind in "biuf":
            return self.space.low.astype(np.float64).ravel(), self.space.high.astype(np.float64).ravel()
        if isinstance(self.space, spaces.MultiBinary | spaces.Discrete | spaces.MultiDiscrete):
            size = spaces.flatdim(self.space)
            return np.zeros(size), np.ones(size)
        return None

    def numbers(self, value: Any, owner: str) -> np.ndarray:
        """Its part of the state, float32: a box row by row, what is discrete as zeros with a one at the choice.

        Raises BadObservationError where ``value`` does not have the shape of the space, or is not finite.
        """
        space = self.space
        try:
            if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
                chosen = np.asarray(value, dtype=space.dtype)
                kept = chosen.reshape(space.shape or ())
                if kept not in space:
                    raise ValueError
                return np.asarray(spaces.flatten(space, kept[()]), dtype=np.float32)
            found = np.asarray(value, dtype=np.float32)
        except (TypeError, ValueError):
            found = None
        if found is None or found.shape != space.shape:
            raise BadObservationError(f"{owner}: {self.name} was {told(value)} where {space} was promised")
        if not np.isfinite(found).all():
            raise BadObservationError(f"{owner}: {self.name} holds NaN or infinity: {found.ravel().tolist()}")
        return found.ravel()


@dataclass(frozen=True)
class Layout:
    """Where cameras and state are in an observation.

    Attributes:
        cameras: the cameras, in the observation's order.
        pictures: for each camera the part that is its picture, and the picture's form.
        vectors: the parts of the state.
        unused: the names of the parts that are neither.
        low, high: the bounds of the state, float32 (S,).
    """

    cameras: tuple[CameraSpec, ...]
    pictures: tuple[tuple[Leaf, PictureForm], ...]
    vectors: tuple[Leaf, ...]
    unused: tuple[str, ...]
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, space: spaces.Space, parts: str = "") -> Layout:
        """Read an observation space.

        What ``PictureForm`` takes for a picture is a camera: ``pixels`` and a bare picture are called ``image``, as
        LeRobot calls them, any other goes by its last key. The state is ``agent_pos``, LeRobot's key, where there is
        one; else all other boxes, with up to 1000 numbers where they have several dimensions, and what is
        MultiBinary, one after the other.

        Args:
            space: of the observations; dicts and tuples may be nested.
            parts: the names of the parts to use instead, split by commas, in the order of the state. What is Discrete
                or MultiDiscrete can be asked for so.

        Raises VlaError where there is no such part, or it can be used for neither.
        """
        leaves = list(_leaves(space, ()))
        chosen = _chosen(leaves, parts)
        pictures = [(leaf, form) for leaf in chosen if (form := leaf.form)]
        vectors = [leaf for leaf in chosen if not leaf.form]
        if not parts:
            usual = [leaf for leaf in vectors if _is_usual(leaf)]
            vectors = [leaf for leaf in usual if leaf.path == ("agent_pos",)] or usual
        used = {leaf.path for leaf, _ in pictures} | {leaf.path for leaf in vectors}
        bounds = [leaf.bounds() or (np.zeros(0), np.zeros(0)) for leaf in vectors]
        low = np.concatenate([np.zeros(0), *(low for low, _ in bounds)]).astype(np.float32)
        high = np.concatenate([np.zeros(0), *(high for _, high in bounds)]).astype(np.float32)
        names = _camera_names([leaf.path for leaf, _ in pictures])
        return cls(
            cameras=tuple(CameraSpec(name, *form.size) for name, (_, form) in zip(names, pictures, strict=True)),
            pictures=tuple(pictures),
            vectors=tuple(vectors),
            unused=tuple(leaf.name for leaf in leaves if leaf.path not in used),
            low=np.nextafter(low, np.float32(-np.inf)),  # rounded outwards
            high=np.nextafter(high, np.float32(np.inf)),
        )

    def read_images(self, observation: Any, owner: str) -> dict[str, np.ndarray]:
        """Camera name to a fresh picture, uint8 (height, width, 3). Raises BadObservationError, naming ``owner``."""
        return {
            camera.name: form.read(_at(observation, leaf, owner), f"{owner}: {leaf.name}")
            for camera, (leaf, form) in zip(self.cameras, self.pictures, strict=True)
        }

    def read_state(self, observation: Any, owner: str) -> np.ndarray:
        """The state, a fresh float32 (S,). Raises BadObservationError, naming the ``owner``."""
        parts = [leaf.numbers(_at(observation, leaf, owner), owner) for leaf in self.vectors]
        return np.concatenate([np.zeros(0, np.float32), *parts])

    def __str__(self) -> str:
        """What is used of the observation as what, and what is not, in one line."""
        told = [
            f"camera {camera.name} ({camera.height} x {camera.width}) from {leaf.name}"
            for camera, (leaf, _) in zip(self.cameras, self.pictures, strict=True)
        ]
        parts = [f"{leaf.name} ({np.size(leaf.bounds()[0])})" for leaf in self.vectors]  # type: ignore[index]
        told.append(f"state from {', '.join(parts)}" if parts else "no state")
        return "; ".join([*told, f"not used: {', '.join(self.unused)}"] if self.unused else told)


def _leaves(space: spaces.Space, path: Path) -> Iterator[Leaf]:
    if isinstance(space, spaces.Dict | spaces.Tuple):
        inner = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
        for key, part in inner:
            yield from _leaves(part, (*path, key))
    else:
        yield Leaf(path, space)


def _chosen(leaves: list[Leaf], parts: str) -> list[Leaf]:
    if not parts:
        return leaves
    by_name = {leaf.name: leaf for leaf in leaves}
    names = [name.strip() for name in parts.split(",")]
    for name in names:
        leaf = by_name.get(name)
        if leaf is None:
            raise VlaError(f"--env-option parts: the observation has no '{name}'; it has {', '.join(by_name)}")
        if not leaf.form and leaf.bounds() is None:
            raise VlaError(f"--env-option parts: '{name}' is neither a picture nor numbers: {leaf.space}")
    return [by_name[name] for name in dict.fromkeys(names)]


def _is_usual(leaf: Leaf) -> bool:
    """Whether a part that is no picture belongs to the state unasked."""
    if isinstance(leaf.space, spaces.MultiBinary):
        return True
    several = leaf.bounds() is not None and isinstance(leaf.space, spaces.Box)
    return several and (len(leaf.space.shape or ()) <= 1 or spaces.flatdim(leaf.space) <= _MOST_NUMBERS)


def _camera_names(paths: list[Path]) -> list[str]:
    """A name for each picture: its last key, or all of them where that would not tell them apart."""
    last = ["image" if path in ((), ("pixels",)) else str(path[-1]) for path in paths]
    names = ["_".join(map(str, path)) if last.count(leaf) > 1 else leaf for leaf, path in zip(last, paths, strict=True)]
    # A number alone is no name, and an observation of ours has two keys of its own.
    names = [f"image_{name}" if name.isdecimal() or name in ("state", "instruction") else name for name in names]
    return [name.replace("/", "_") for name in names]


def _at(observation: Any, leaf: Leaf, owner: str) -> Any:
    for key in leaf.path:
        try:
            observation = observation[key]
        except (KeyError, IndexError, TypeError) as error:
            raise BadObservationError(f"{owner}: the observation has no {leaf.name}, which it promised") from error
    return observation
