"""Any gymnasium env with pixels, played as this project's envs are: ``--env gymnasium:gym_pusht/PushT-v0``.

An env of a package that gymnasium does not know yet is named with the module to import, ``gymnasium:MODULE:ID``; the
part of an id before the slash is tried as a module too. ``envs/gymnasium_layout.py`` says how an observation is read.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import os
import string
import warnings
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

from envs.gymnasium_layout import DECLARED, Declared, Layout
from vla import gl
from vla.contracts import (
    CameraSpec,
    EnvSpec,
    Expert,
    MissingExtraError,
    NoExpertError,
    Observation,
    StepResult,
    VlaError,
)
from vla.registry import UnknownNameError, require_typed

_OPTIONS = ("split", "language", "instruction")
_SUCCESS = ("is_success", "success")


class GymnasiumEnv(gymnasium.Env):
    """A gymnasium env, as ``vla.contracts.Env`` describes an env. Units and meaning of state and action are its own.

    Actions are passed on as they are. Most such envs draw their pictures in every step, so ``play`` is as slow as
    their rendering. Success is the env's own ``is_success`` or ``success`` in the info of any step; where it has
    neither, the return (the sum of rewards) must reach ``reward_threshold``. It ends the episode. No env of this kind
    says what is held out: the split is a label, and only the seeds of training and evaluation never meet.

    Args:
        env_id: a gymnasium id such as ``gym_pusht/PushT-v0``, or ``module:id``.
        instruction: the task in words; the declared one (see ``DECLARED``), or the id, if not given.
        state, action: names of the dimensions, split by commas, where they are to be called as an agent calls them.
        dt: seconds between two actions; ``1 / metadata["render_fps"]`` if not given.
        episode_steps: the most actions of an episode; gymnasium's ``max_episode_steps`` if not given.
        reward_threshold: the return that counts as success; gymnasium's own if not given.
        render_mode: ``rgb_array`` or None, for gymnasium's ``render``.
        options: go to ``gymnasium.make``.

    Raises:
        MissingExtraError: the env's package is not installed.
        UnknownNameError: gymnasium knows no such id.
        VlaError: the env has no pixels, no box of actions, or does not say what it must.
    """

    ARGUMENT = "env_id"
    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"]}  # type: ignore[misc]

    def __init__(
        self,
        env_id: str = "",
        instruction: str = "",
        state: str = "",
        action: str = "",
        dt: float | None = None,
        episode_steps: int | None = None,
        reward_threshold: float | None = None,
        render_mode: str | None = None,
        **options: Any,
    ) -> None:
        if not env_id:
            raise VlaError("which gymnasium env? Write it after a colon, e.g. gymnasium:gym_pusht/PushT-v0")
        known = _find(env_id)
        declared = DECLARED.get(known.id, Declared(""))
        self.env_id, self.render_mode, self._full_reward = known.id, render_mode, declared.full_reward
        self._inner = _make(known, {**declared.options, **options}, episode_steps)
        try:
            actions, self._layout = self._inner.action_space, Layout.of(self._inner.observation_space)
            if not isinstance(actions, spaces.Box) or len(actions.shape) != 1:
                raise VlaError(
                    f"{self.env_id} takes actions of {actions}; what can be played is a box of one dimension"
                )
            self._drawn = not self._layout.cameras  # the picture comes from render()
            cameras = self._layout.cameras or (self._camera_of_render(),)
            self._dt, steps = dt or self._own_dt(), self._inner.spec.max_episode_steps  # type: ignore[union-attr]
            if steps is None:
                raise VlaError(f"{self.env_id} has no end of its own: give one with --env-option episode_steps=300")
        except BaseException:
            self._inner.close()
            raise
        known_threshold = known.reward_threshold
        self._threshold = known_threshold if reward_threshold is None else reward_threshold
        self._own_instruction = instruction or declared.instruction or known.id
        size = len(self._layout.low)
        self.env_spec = EnvSpec(
            name=known.id,
            cameras=cameras,
            state=_names("state", state, declared.state, size),
            action=_names("action", action, declared.action, actions.shape[0]),
            dt=self._dt,
            episode_steps=steps,
        )
        self.observation_space = spaces.Dict(
            {
                **{c.name: spaces.Box(0, 255, (c.height, c.width, 3), np.uint8) for c in cameras},
                "state": spaces.Box(self._layout.low, self._layout.high, (size,), np.float32),
                "instruction": spaces.Text(max_length=1000, min_length=1, charset=string.printable),
            }
        )
        self.action_space = spaces.Box(actions.low.astype(np.float32), actions.high.astype(np.float32))
        self.metadata = {**self.metadata, "render_fps": round(1 / self._dt)}  # type: ignore[misc]
        self._seen: Any = None

    def _camera_of_render(self) -> CameraSpec:
        if self._inner.render_mode != "rgb_array":
            raise VlaError(
                f"{self.env_id} has no pixels: no picture in its observation {self._inner.observation_space}, and no "
                "render mode rgb_array"
            )
        self._inner.reset(seed=0)
        return CameraSpec("render", *self._picture().shape[:2])

    def _picture(self) -> np.ndarray:
        drawn: Any = self._inner.render()
        return np.array(drawn, dtype=np.uint8)

    def _own_dt(self) -> float:
        rate = self._inner.metadata.get("render_fps")
        if not rate:
            raise VlaError(
                f"{self.env_id} does not say how fast it runs: give seconds a step, e.g. --env-option dt=0.1"
            )
        return 1 / rate

    # --- an episode ----------------------------------------------------------------------------------------------

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[str, Any], dict]:
        """Begin an episode. ``options``: ``split`` (a label), ``language`` (``en``), ``instruction`` (your own words).

        Raises VlaError where an option is unknown.
        """
        options = {name: value for name, value in (options or {}).items() if value is not None}
        unknown = sorted(set(options) - set(_OPTIONS))
        if unknown:
            raise VlaError(f"{self.env_id} has no reset option '{unknown[0]}'; it has {', '.join(_OPTIONS)}")
        for name, values in (("split", ("train", "heldout")), ("language", ("en",))):
            if options.get(name, values[0]) not in values:
                raise VlaError(f"{self.env_id}: {name} must be one of {', '.join(values)}, and was '{options[name]}'")
        if seed is None:
            seed = int(self.np_random.integers(2**31))
        super().reset(seed=seed)
        self._seen, _ = self._inner.reset(seed=seed)
        self.instruction = options.get("instruction", self._own_instruction)
        self._steps, self._return, self._succeeded = 0, 0.0, False
        info = {
            "instruction": self.instruction,
            "language": "en",
            "kind": "gymnasium",
            "category": self.env_id,
            "split": options.get("split", "train"),
            "seed": seed,
        }
        return self._raw_observation(), info

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict]:
        """Gymnasium's step: ``play`` and then the observation."""
        result = self.play(action)
        return self._raw_observation(), result.reward, result.terminated, result.truncated, result.info

    def play(self, action: np.ndarray) -> StepResult:
        """Carry out one action (A,). Raises VlaError, and moves nothing, if it is not finite.

        ``terminated`` also where the env ends the episode without success. ``progress`` is the share of a full
        reward, or of the threshold that the return has reached, and 1 after success.
        """
        if self._seen is None:
            raise VlaError(f"{self.env_id}: call reset before the first step")
        box: Any = self._inner.action_space
        action = np.asarray(action, dtype=box.dtype)
        if action.shape != box.shape or not np.isfinite(action).all():
            raise VlaError(f"{self.env_id}: an action is {box.shape[0]} finite numbers, and was {action.tolist()}")
        self._seen, gained, terminated, truncated, facts = self._inner.step(action)
        reward = float(gained)
        self._steps += 1
        self._return += reward
        self._succeeded = self._succeeded or self._is_success(facts)
        info = {"success": self._succeeded, "progress": self._progress(reward), "reward_terms": {"reward": reward}}
        return StepResult(reward, bool(terminated) or self._succeeded, bool(truncated), info)

    def _is_success(self, facts: dict[str, Any]) -> bool:
        for name in _SUCCESS:
            if name in facts:
                return bool(facts[name])
        if self._threshold is None:
            raise VlaError(
                f"{self.env_id} does not tell success: its info has neither {' nor '.join(_SUCCESS)}; say which sum of "
                "rewards counts, e.g. --env-option reward_threshold=100"
            )
        return self._return >= self._threshold

    def _progress(self, reward: float) -> float:
        if self._succeeded:
            return 1.0
        if self._full_reward:
            return float(np.clip(reward / self._full_reward, 0.0, 1.0))
        reached = self._return / self._threshold if self._threshold and self._threshold > 0 else 0.0
        return float(np.clip(reached, 0.0, 1.0))

    def observe(self) -> Observation:
        """The present observation. Arrays are fresh at each call."""
        images = {"render": self._picture()} if self._drawn else self._layout.read_images(self._seen)
        return Observation(images, self._layout.read_state(self._seen), self.instruction, self._steps * self._dt)

    def _raw_observation(self) -> dict[str, Any]:
        seen = self.observe()
        return {**seen.images, "state": seen.state, "instruction": seen.instruction}

    def render(self) -> np.ndarray | None:  # type: ignore[override]
        """Gymnasium's render: the env's own picture, or its first camera, where ``render_mode`` is ``rgb_array``."""
        if self.render_mode != "rgb_array":
            return None
        if self._inner.render_mode == "rgb_array":
            return self._picture()
        return self.observe().images[self.env_spec.cameras[0].name]

    def points(self) -> dict[str, np.ndarray]:
        """Camera name to six zeros: where things are is not known here."""
        return {camera.name: np.zeros(6, np.float32) for camera in self.env_spec.cameras}

    def expert(self, seed: int = 0) -> Expert:
        """There is none: raises NoExpertError."""
        raise NoExpertError(
            f"{self.env_id} has no scripted expert; train on a dataset of it: vla train RECIPE --data DIR"
        )

    def close(self) -> None:
        """Close the env."""
        self._inner.close()


def _find(env_id: str) -> Any:
    """Gymnasium's own record of an env, its package imported if need be."""
    module, _, name = env_id.rpartition(":")
    package = module or name.rpartition("/")[0]
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # it would greet on the terminal
    with contextlib.suppress(VlaError):  # not every env draws with OpenGL
        gl.choose_backend()  # before anything imports mujoco
    if name not in gymnasium.registry and package.replace(".", "_").isidentifier():
        if package not in {known.partition("/")[0] for known in DECLARED}:
            require_typed(f"gymnasium:{env_id}", f"the package {package} of the env '{env_id}'")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of the package's own making
                importlib.import_module(package)
        except ModuleNotFoundError as error:
            _refuse_missing(name, package, error)
    if name in gymnasium.registry:
        return gymnasium.registry[name]
    near = difflib.get_close_matches(name, gymnasium.registry, n=3, cutoff=0.5)
    guess = f"the nearest are {', '.join(near)}" if near else f"it knows {len(gymnasium.registry)} others"
    raise UnknownNameError(f"gymnasium knows no env '{name}'; {guess}; one of another package is written module:id")


def _refuse_missing(name: str, package: str, error: ModuleNotFoundError) -> None:
    """Say how to install what is missing; say nothing where ``package`` was only a guess and there is no such thing."""
    extras = {known.partition("/")[0]: declared.extra for known, declared in DECLARED.items()}
    if package in extras:
        missing = f"the env {name} needs the package {error.name}, which is not installed here"
        raise MissingExtraError(f"{missing}: uv sync --extra {extras[package]}") from error
    if error.name != package.partition(".")[0]:
        raise VlaError(f"the env {name} needs the package {error.name}, which is not installed here") from error


def _make(known: Any, options: dict[str, Any], episode_steps: int | None) -> gymnasium.Env:
    """The env itself, with pictures if it can draw any."""
    if episode_steps is not None:
        options = {**options, "max_episode_steps": episode_steps}
    creator = known.entry_point
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            creator = creator if callable(creator) else gymnasium.envs.registration.load_env_creator(creator)
            if "rgb_array" in getattr(creator, "metadata", {}).get("render_modes", ()):
                options = {"render_mode": "rgb_array", **options}
            return gymnasium.make(known, disable_env_checker=True, **options)
    except ImportError as error:  # gymnasium's own envs ask for pygame, mujoco, … so
        raise VlaError(f"the env {known.id} cannot be made: {str(error).splitlines()[0]}") from error
    except (TypeError, ValueError, gymnasium.error.Error) as error:
        raise VlaError(f"the env {known.id} does not take {options}: {str(error).splitlines()[0]}") from error


def _names(what: str, given: str, declared: tuple[str, ...], size: int) -> tuple[str, ...]:
    """The names of ``size`` dimensions: the user's, the declared ones, or numbers."""
    chosen = tuple(name.strip() for name in given.split(",")) if given else declared
    if given and len(chosen) != size:
        raise VlaError(f"--env-option {what} names {len(chosen)} dimensions, and there are {size}: {given}")
    return chosen if len(chosen) == size else tuple(f"{what}_{index}" for index in range(size))


ENV = GymnasiumEnv
