"""What an observation, an action chunk and an env are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from vla.contracts.errors import BadObservationError
from vla.contracts.spec import EnvSpec


@dataclass(frozen=True)
class Pending:
    """What the robot will go on with from an observation on, until the answer to it comes.

    Attributes:
        actions: float32 (H, A), absolute, SI units: the first is for the observation's time, the others ``dt`` apart.
            Beyond what is planned the last planned action is repeated: it would be held.
        sure: how many of them will be played before the answer comes, as far as can be told.
        planned: how many of them are planned. Where neither this nor ``sure`` is above 0 nothing is known to go on.
        given: whether the policy is to take those that are sure as given, which it has to be trained for.
    """

    actions: np.ndarray
    sure: int
    planned: int
    given: bool = False


@dataclass(frozen=True)
class Plan:
    """What the slow one of two systems answered.

    Attributes:
        latent: float32 (D,), for the fast one.
        words: what is to be done now; empty where it says nothing.
        time: of the observation that it answers [s].
    """

    latent: np.ndarray
    words: str = ""
    time: float = 0.0


@dataclass
class Observation:
    """What a policy sees at one moment.

    Attributes:
        images: camera name to a uint8 array (height, width, 3), RGB.
        state: float32 (S,), SI units, in the order of ``EnvSpec.state``.
        instruction: what the robot is asked to do, in any language.
        time: seconds since the episode began, or on a robot's own clock; what answers it is placed by it.
        stale: whether the images may show an earlier scene: of what is decided on them, one action should be played.
        past: earlier observations, the oldest first, for a policy that looks back; see ``vla.control.history``.
        pending: what is going on meanwhile, for a policy that is to go on from there; see ``vla.control.playback``.
        plan: what System 2 answered to an earlier observation, for a policy of two systems that is asked apart; see
            ``vla.agent.Agent.plan``.
    """

    images: dict[str, np.ndarray]
    state: np.ndarray
    instruction: str
    time: float = 0.0
    stale: bool = False
    past: tuple[Observation, ...] = ()
    pending: Pending | None = None
    plan: Plan | None = None

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
        for earlier in self.past:
            earlier.check(spec)


@dataclass
class Chunk:
    """A policy's answer: the actions for the next ``len(actions) * dt`` seconds.

    Attributes:
        actions: float32 (H, A), absolute, in SI units, in the order of ``EnvSpec.action``.
        dt: seconds between two actions.
        time: the time of the observation that this chunk answers, in seconds.
        execute: how many of the actions the policy would have played before it looks again; None for all of them.
        words: what the policy says that it does, where it says anything: a sub-instruction.
    """

    actions: np.ndarray
    dt: float
    time: float = 0.0
    execute: int | None = None
    words: str = ""


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
        points: as ``vla.contracts.abilities.Points`` gives them, for that item and its place.
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

    What else an env may be able to do (tasks, safety, pointing, films, …) is in ``vla.contracts.abilities``.

    ``step(action)`` is ``play(action)`` followed by ``observe()``; evaluation calls the two apart, so that
    it renders only when the policy looks.

    An info of ``reset`` with ``stale`` true says that the first picture may show an earlier scene; ``observe`` then
    says so too.
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
