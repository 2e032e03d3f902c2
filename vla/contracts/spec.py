"""What an env, a dataset, an agent and a robot must agree on: cameras, names and units of state and action, time."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from vla.contracts.errors import SpecMismatchError

_MOST_PIXELS, _DOTS = 16_384, (".", "..")
_INFORMATIVE = ("name", "episode_steps", "languages")  # what two that fit may differ in


def language_of(text: str) -> str:
    """``zh`` for a text with a Chinese character, else ``en``."""
    return "zh" if any("\u4e00" <= letter <= "\u9fff" for letter in text) else "en"


@dataclass(frozen=True)
class CameraSpec:
    """A camera's name and its resolution in pixels."""

    name: str
    height: int
    width: int


KINDS = ("position", "rotation", "joint", "gripper", "other")
PER_METRE = {"m": 1.0, "cm": 100.0, "mm": 1000.0}  # how many of a unit of length a metre is


@dataclass(frozen=True)
class Group:
    """Neighbouring dimensions of a state or an action that belong together.

    Attributes:
        name: e.g. ``ee_position``.
        start, stop: the dimensions, as in a slice.
        kind: ``position`` (of a point), ``rotation``, ``joint``, ``gripper`` or ``other``.
        unit: ``m``, ``rad``, ``1`` (entries of a rotation matrix, an opening from 0 to 1), …; "" if it is not known.
        frame: what it is told in: ``base`` (the robot's base), ``world``, …; "" where there is none or nobody knows.
        delta: whether an action is a displacement from where the robot is, rather than an absolute target.
    """

    name: str
    start: int
    stop: int
    kind: str = "other"
    unit: str = ""
    frame: str = ""
    delta: bool = False

    @property
    def dims(self) -> range:
        """The dimensions' numbers."""
        return range(self.start, self.stop)

    def fits(self, other: Group) -> bool:
        """Whether the other means the same; what one of the two does not know counts as the same."""
        same = (self.start, self.stop, self.kind, self.delta) == (other.start, other.stop, other.kind, other.delta)
        known = [(self.unit, other.unit), (self.frame, other.frame)]
        return same and all(left == right for left, right in known if left and right)


def groups_of(names: Sequence[str]) -> tuple[Group, ...]:
    """What the names of dimensions tell, for specs of others and of the time before they had groups.

    The unit stands in brackets at a name's end; one entry of ``dx``, ``dy``, ``dz`` is a displacement.
    """
    found: list[Group] = []
    for place, whole in enumerate(names):
        name, _, unit = whole.removesuffix("]").partition(" [")
        kind, unit = "other", "1" if ".." in unit else unit
        if name.startswith("grip"):
            kind = "gripper"
        elif unit in PER_METRE:
            kind = "position"
        elif unit == "rad":
            kind = "joint"
        elif "_rot_" in name:
            kind = "rotation"
        one = Group(name, place, place + 1, kind, unit, delta=name in ("dx", "dy", "dz"))
        last = found[-1] if found else None
        if last is not None and kind != "other" and (last.kind, last.unit, last.delta) == (kind, unit, one.delta):
            found[-1] = replace(last, stop=place + 1)
        else:
            found.append(one)
    return tuple(found)


@dataclass(frozen=True)
class EnvSpec:
    """What an env, a dataset, an agent and a robot must agree on before they may meet.

    Attributes:
        name: the env's name, e.g. ``tidy_desk``. Informative only: not compared.
        cameras: the cameras, in order.
        state: one name for each state dimension, with its unit, e.g. ``ee_x [m]``.
        action: one name for each action dimension, with its unit.
        dt: seconds between two actions.
        episode_steps: the most actions an episode has. Informative only: not compared.
        languages: ISO codes of the instruction languages that the env writes. Informative only.
        relative: pairs (action index, state index): action dimensions that a policy may predict as an
            offset from the present state. On disk and on the wire they stay absolute.
        state_groups, action_groups: what the dimensions mean, in order and without gaps; empty where the names have to
            tell it. ``groups`` gives them in both cases.

    Raises:
        SpecMismatchError: the groups leave a dimension out, have one twice, or are of an unknown kind.
    """

    name: str
    cameras: tuple[CameraSpec, ...]
    state: tuple[str, ...]
    action: tuple[str, ...]
    dt: float
    episode_steps: int
    languages: tuple[str, ...] = ("en",)
    relative: tuple[tuple[int, int], ...] = ()
    state_groups: tuple[Group, ...] = ()
    action_groups: tuple[Group, ...] = ()

    def __post_init__(self) -> None:
        for what in ("state", "action"):
            groups, count = self.groups(what), len(getattr(self, what))
            if [place for group in groups for place in group.dims] != list(range(count)):
                raise SpecMismatchError(f"{what}_groups of {self.name} must hold each of {count} dimensions once")
            if any(group.kind not in KINDS for group in groups):
                raise SpecMismatchError(f"{what}_groups of {self.name}: a kind is one of {', '.join(KINDS)}")

    def groups(self, what: str) -> tuple[Group, ...]:
        """The groups of ``state`` or ``action``: those that were given, or what the names tell."""
        return getattr(self, f"{what}_groups") or groups_of(getattr(self, what))

    def to_dict(self) -> dict[str, Any]:
        """The spec as plain JSON types; ``from_dict`` reads it back."""
        return {name: value for name, value in asdict(self).items() if value or not name.endswith("_groups")}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> EnvSpec:
        """Read what ``to_dict`` wrote. Raises SpecMismatchError where a field is missing, unknown or impossible."""
        try:
            spec = cls(
                **{
                    **data,
                    "cameras": tuple(CameraSpec(**camera) for camera in data["cameras"]),
                    "state": tuple(data["state"]),
                    "action": tuple(data["action"]),
                    "languages": tuple(data["languages"]),
                    "relative": tuple((int(a), int(s)) for a, s in data["relative"]),
                    "state_groups": tuple(Group(**group) for group in data.get("state_groups", ())),
                    "action_groups": tuple(Group(**group) for group in data.get("action_groups", ())),
                }
            )
        except (KeyError, TypeError, ValueError) as error:
            raise SpecMismatchError(f"this is not an EnvSpec: {error}") from error
        problem = spec._problem()
        if problem:
            raise SpecMismatchError(f"this is not an EnvSpec: {problem}")
        return spec

    def _problem(self) -> str | None:
        """What no env could have; None if there is no such thing. A camera's name becomes the name of files."""
        for camera in self.cameras:
            if not isinstance(camera.name, str) or not re.fullmatch(r"[^/\\\0]+", camera.name) or camera.name in _DOTS:
                return f"a camera cannot be called {camera.name!r}"
            if not all(type(side) is int and 1 <= side <= _MOST_PIXELS for side in (camera.height, camera.width)):
                return f"camera '{camera.name}' cannot have {camera.height} x {camera.width} pixels"
        if len({camera.name for camera in self.cameras}) < len(self.cameras):
            return "two cameras have one name"
        if not all(isinstance(text, str) for text in (self.name, *self.state, *self.action, *self.languages)):
            return "a name is no text"
        if type(self.dt) not in (int, float) or not 0 < self.dt < math.inf:
            return f"dt is {self.dt!r} s"
        if type(self.episode_steps) is not int or self.episode_steps < 1:
            return f"episode_steps is {self.episode_steps!r}"
        if not all(0 <= a < len(self.action) and 0 <= s < len(self.state) for a, s in self.relative):
            return "'relative' names a dimension that is not there"
        return None

    def differences(self, other: EnvSpec) -> dict[str, tuple[str, str]]:
        """What differs, by field, as texts: this spec's and the other's. Groups that differ count as their dimensions.

        A spec of the time before there were groups differs in nothing from one that merely tells more.
        """
        found = {}
        for name in [field.name for field in fields(self) if not field.name.endswith("_groups")]:
            left, right = getattr(self, name), getattr(other, name)
            if abs(left - right) >= 1e-9 if name == "dt" else left != right:
                found[name] = left, right
        for what in ("state", "action"):
            left, right = self.groups(what), other.groups(what)
            if what not in found and not (len(left) == len(right) and all(map(Group.fits, left, right))):
                found[what] = left, right
        return {name: (_show(left), _show(right)) for name, (left, right) in found.items()}

    def require(self, other: EnvSpec, mine: str, theirs: str) -> None:
        """Raise SpecMismatchError, with both sides printed, unless ``other`` fits this spec.

        Args:
            other: the spec to compare with.
            mine: what this spec belongs to, e.g. ``agent tidy_desk``.
            theirs: what the other belongs to, e.g. ``env tidy_desk``.
        """
        rows = [
            f"  {name}:\n    {mine}: {left}\n    {theirs}: {right}"
            for name, (left, right) in self.differences(other).items()
            if name not in _INFORMATIVE
        ]
        if rows:
            raise SpecMismatchError(f"{mine} and {theirs} do not fit:\n" + "\n".join(rows))


def _show(value: Any) -> str:
    if isinstance(value, tuple) and value and isinstance(value[0], CameraSpec):
        return ", ".join(f"{c.name} {c.height}x{c.width}" for c in value)
    if isinstance(value, tuple) and value and isinstance(value[0], Group):
        return ", ".join(
            f"{g.name} [{g.start}:{g.stop}] {' '.join(filter(None, ('delta' * g.delta, g.kind, g.unit, g.frame)))}"
            for g in value
        )
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
