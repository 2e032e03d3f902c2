"""The contracts that everything else leans on: what an observation, an action chunk and an env are.

Units are metres, radians and seconds. The frame is the robot base: x forward, y left, z up.
Images are uint8 arrays of shape (height, width, 3) in RGB order, named by camera.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np

_MOST_PIXELS, _DOTS = 16_384, (".", "..")


class VlaError(Exception):
    """An error that a user can act on. The command line prints its message alone, without a traceback."""


class MissingExtraError(VlaError):
    """Something needs an optional extra that is not installed. The message holds the line that installs it."""


class NoExpertError(VlaError):
    """The env has no scripted expert, so nothing can be demonstrated in it."""


class SpecMismatchError(VlaError):
    """Two parts that should fit do not: an agent and an env, a dataset and a recipe."""


class BadObservationError(VlaError):
    """An observation lacks a camera, has the wrong shape or type, or holds NaN or infinity."""


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

    def require(self, other: EnvSpec, mine: str, theirs: str) -> None:
        """Raise SpecMismatchError, with both sides printed, unless ``other`` fits this spec.

        Args:
            other: the spec to compare with.
            mine: what this spec belongs to, e.g. ``agent tidy_desk``.
            theirs: what the other belongs to, e.g. ``env tidy_desk``.
        """
        rows = []
        for name in ("cameras", "state", "action", "dt", "relative"):
            left, right = getattr(self, name), getattr(other, name)
            same = abs(left - right) < 1e-9 if name == "dt" else left == right
            if not same:
                rows.append(f"  {name}:\n    {mine}: {_show(left)}\n    {theirs}: {_show(right)}")
        for what in ("state", "action"):
            left, right = self.groups(what), other.groups(what)
            if not rows and not (len(left) == len(right) and all(map(Group.fits, left, right))):
                rows.append(f"  {what}:\n    {mine}: {_show(left)}\n    {theirs}: {_show(right)}")
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


@dataclass
class Observation:
    """What a policy sees at one moment.

    Attributes:
        images: camera name to a uint8 array (height, width, 3), RGB.
        state: float32 (S,), SI units, in the order of ``EnvSpec.state``.
        instruction: what the robot is asked to do, in any language.
        time: seconds since the episode began.
        stale: whether the images may show an earlier scene: of what is decided on them, one action should be played.
    """

    images: dict[str, np.ndarray]
    state: np.ndarray
    instruction: str
    time: float = 0.0
    stale: bool = False

    def check(self, spec: EnvSpec) -> None:
        """Raise BadObservationError unless this observation is what ``spec`` promises."""
        for camera in spec.cameras:
            image = self.images.get(camera.name)
            if image is None:
                raise BadObservationError(
                    f"no image from camera '{camera.name}'; present: {sorted(self.images) or 'none'}"
                )
            wanted = (camera.height, camera.width, 3)
            if image.shape != wanted or image.dtype != np.uint8:
                raise BadObservationError(
                    f"camera '{camera.name}' must give uint8 {wanted}, and gave {image.dtype} {image.shape}"
                )
        if self.state.shape != (len(spec.state),):
            raise BadObservationError(f"the state must have shape ({len(spec.state)},), and has {self.state.shape}")
        bad = [name for name, value in zip(spec.state, self.state, strict=True) if not np.isfinite(value)]
        if bad:
            raise BadObservationError(f"the state holds NaN or infinity in {', '.join(bad)}")


@dataclass
class Chunk:
    """A policy's answer: the actions for the next ``len(actions) * dt`` seconds.

    Attributes:
        actions: float32 (H, A), absolute, in SI units, in the order of ``EnvSpec.action``.
        dt: seconds between two actions.
        time: the time of the observation that this chunk answers, in seconds.
        execute: how many of the actions the policy would have played before it looks again; None for all of them.
    """

    actions: np.ndarray
    dt: float
    time: float = 0.0
    execute: int | None = None


@dataclass
class StepResult:
    """What happened while one action was played.

    Attributes:
        reward: the sum of ``info["reward_terms"]``.
        terminated: the task is done (success).
        truncated: the time ran out.
        info: at least ``success`` (bool), ``progress`` (float, 0 to 1) and ``reward_terms`` (name to float).
    """

    reward: float
    terminated: bool
    truncated: bool
    info: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ExpertStep:
    """A scripted expert's answer at one step.

    Attributes:
        action: float32 (A,), absolute, as ``Env.step`` takes it.
        sub_instruction: what the expert is doing now, e.g. ``put the red pen in the pen tray``.
    """

    action: np.ndarray
    sub_instruction: str


@runtime_checkable
class Expert(Protocol):
    """A scripted policy that may look at the simulator's state. One is made for each episode."""

    def act(self) -> ExpertStep:
        """The action for the env's present state."""
        ...


@dataclass(frozen=True)
class ReferringExpression:
    """A sentence that asks for one thing in view, where the cameras show it, how it lies, and how far off it is.

    Attributes:
        text: e.g. ``put the red pen in the pen tray``.
        points: as ``Env.points`` gives them, for that item and its place.
        yaws: float32 (4,), rad: how far the item is turned about the vertical in the base frame, and the turn after
            which it looks the same, 2 pi where it has no symmetry; both again for its place. Where one is round, stands
            upright or is not known, the second number is 0.
        offsets: float32 (6,), metres, base frame: from the end effector to the item's centre, and to its place. NaN
            where it is not known.
    """

    text: str
    points: dict[str, np.ndarray]
    yaws: np.ndarray = field(default_factory=lambda: np.zeros(4, np.float32))
    offsets: np.ndarray = field(default_factory=lambda: np.full(6, np.nan, np.float32))


@runtime_checkable
class Env(Protocol):
    """A gymnasium env that keeps the project's contract. See CONTRIBUTING.md for how to add one.

    What else an env may be able to do is in ``vla.abilities``.

    ``step(action)`` is ``play(action)`` followed by ``observe()``; evaluation calls the two apart, so that
    it renders only when the policy looks.

    An env may also offer ``referring_expressions() -> list[ReferringExpression]``, one for each thing or
    group of things that could be asked for now, and then takes the reset option ``stage="midway"``: a scene as in the
    middle of an episode. ``vla.stills`` teaches pointing with them.

    An env may measure safety: ``play``'s info then has ``safety``, a dict of what was largest during the action
    (``drops`` is a count), and the env has ``safety_limits``, a dict by the same names; beyond is a violation.

    An env of several tasks has ``tasks``, their names, and takes the reset option ``task``; episodes are then counted
    for each task. Where the tasks are a benchmark with tiers, ``benchmark`` is a ``vla.benchmark.Benchmark``.

    An env class may list in ``PERTURBATIONS`` the axes of ``vla.perturb`` that it can do, and then takes the reset
    option ``perturb``, axis to strength.

    An adapter for envs of others has ``reading``, a line that says what of their observations it uses, and what not.

    An env class with a line ``ARGUMENT = "task"`` takes what follows the colon in ``--env metaworld:reach-v3`` as that
    argument of its constructor. An info of ``reset`` with ``stale`` true says that the first picture may show an
    earlier scene; ``observe`` then says so too.
    """

    env_spec: EnvSpec

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[str, Any], dict]:
        """Begin an episode. ``options`` may hold split, language, items, kind, category, instruction.

        Returns the observation (camera names, ``state`` and ``instruction`` as keys) and an info with at least
        ``instruction``, ``language``, ``kind`` and ``category``.
        """
        ...

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict]:
        """Gymnasium's step."""
        ...

    def play(self, action: np.ndarray) -> StepResult:
        """Carry out one action for ``dt`` seconds, without rendering."""
        ...

    def observe(self) -> Observation:
        """Render and read the present observation. Arrays are fresh at each call."""
        ...

    def points(self) -> dict[str, np.ndarray]:
        """Privileged labels for training: camera name to float32 (6,).

        In order: u, v, visible of the item to move now, then u, v, visible of the place where it goes;
        u and v run from -1 to 1, right and down; visible is 0 or 1.
        """
        ...

    def expert(self) -> Expert:
        """A fresh scripted expert for this episode. Raises NoExpertError where the env has none."""
        ...

    def close(self) -> None:
        """Free the renderer."""
        ...


def as_observation(raw: dict[str, Any], spec: EnvSpec, time: float = 0.0) -> Observation:
    """Turn a gymnasium observation dict (camera names, ``state``, ``instruction``) into an Observation."""
    images = {camera.name: raw[camera.name] for camera in spec.cameras if camera.name in raw}
    return Observation(images, raw["state"], raw["instruction"], time)


# The first four fill the numbers of 32 bits. A new use goes to the end, and leaves the seeds of the others alone.
_STREAMS = ("record", "validate", "evaluate", "stills", "questions", "rewards")
_STREAM_SIZE = 2**30


def episode_seed(stream: str, seed: int, index: int) -> int:
    """The seed of episode ``index`` in a run with ``seed``. Streams never meet, whatever the user passes.

    Args:
        stream: ``record`` (demonstrations), ``validate`` (closed loop during training), ``evaluate``, ``stills``; from
            2**32 on, which not every env of others takes: ``questions`` (about scenes), ``rewards`` (episodes that an
            agent learns from by itself).
        seed: the run's seed, any integer.
        index: the episode's number in the run.
    """
    return _STREAMS.index(stream) * _STREAM_SIZE + (seed * 1_000_003 + index) % _STREAM_SIZE
