"""Any gymnasium env with pixels, played as this project's envs are: ``--env gymnasium:gym_pusht/PushT-v0``.

An env of a package that gymnasium does not know yet is named with the module to import, ``gymnasium:MODULE:ID``; the
part of an id before the slash is tried as a module too. ``envs/gymnasium/layout.py`` says how an observation is read.
"""

from __future__ import annotations

import contextlib
import math
import string
from collections.abc import Mapping
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

from envs.gymnasium.layout import DECLARED, Declared, Layout
from envs.gymnasium.make import checked_step, find, make, observation_of_reset, truth, try_out
from envs.gymnasium.pictures import PictureForm, told
from envs.gymnasium.random import OwnRandomness
from vla.contracts import (
    BadObservationError,
    CameraSpec,
    EnvSpec,
    Expert,
    NoExpertError,
    Observation,
    StepResult,
    VlaError,
)

_OPTIONS = ("split", "language", "instruction")
_SUCCESS = ("is_success", "success")


class GymnasiumEnv(gymnasium.Env):
    """A gymnasium env, as ``vla.contracts.Env`` describes an env. Units and meaning of state and action are its own.

    Actions are passed on as they are. Most such envs draw their pictures in every step, so ``play`` is as slow as
    their rendering. Success is the env's own ``is_success`` or ``success`` in the info of any step; a step without
    either means not yet, unless the return (the sum of rewards) reaches ``reward_threshold``. It ends the episode. No
    env of this kind says what is held out: the split is a label, and only the seeds of training and evaluation never
    meet. Each env has the global random generators for itself, seeded at each reset: many draw from them.

    Nothing that the env gives is taken on trust. It is tried out once in each process, in an env of its own: what
    breaks gymnasium's promises there is refused, and what does later is an error of that episode.

    Attributes:
        reading: one line that says what of an observation is used as what, and what is not.

    Args:
        env_id: a gymnasium id such as ``gym_pusht/PushT-v0``, or ``module:id``.
        instruction: the task in words; the declared one (see ``DECLARED``), or the id, if not given.
        state, action: names of the dimensions, split by commas, where they are to be called as an agent calls them.
        parts: names of the parts of the observation to use, split by commas, e.g. ``pixels/top,agent_pos``; if not
            given, what ``Layout.of`` takes.
        dt: seconds between two actions; ``1 / metadata["render_fps"]`` if not given.
        episode_steps: the most actions of an episode; gymnasium's ``max_episode_steps`` if not given.
        reward_threshold: the return that counts as success; gymnasium's own if not given.
        render_mode: ``rgb_array`` or None, for gymnasium's ``render``.
        options: go to ``gymnasium.make``.

    Raises:
        MissingExtraError: the env's package is not installed.
        UnknownNameError: gymnasium knows no such id.
        VlaError: the env has no pixels, no box of actions, does not say what it must, or breaks gymnasium's promises.
    """

    ARGUMENT = "env_id"
    reading: str = ""
    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"]}  # type: ignore[misc]

    def __init__(
        self,
        env_id: str = "",
        instruction: str = "",
        state: str = "",
        action: str = "",
        parts: str = "",
        dt: float | None = None,
        episode_steps: int | None = None,
        reward_threshold: float | None = None,
        render_mode: str | None = None,
        **options: Any,
    ) -> None:
        if not env_id:
            raise VlaError("which gymnasium env? Write it after a colon, e.g. gymnasium:gym_pusht/PushT-v0")
        _require_positive("dt", dt, int | float)
        _require_positive("episode_steps", episode_steps, int)
        if reward_threshold is not None and not _is_number(reward_threshold):
            raise VlaError(f"--env-option reward_threshold must be a number, and is {reward_threshold!r}")
        known = find(env_id)
        declared = DECLARED.get(known.id, Declared(""))
        self.env_id, self.render_mode, self._full_reward = known.id, render_mode, declared.full_reward
        options = {**declared.options, **options}
        if episode_steps is not None:
            options["max_episode_steps"] = episode_steps
        self._randomness = OwnRandomness()
        with self._randomness.in_use():
            self._inner = make(known, options)
        try:
            actions = self._box = self._actions()
            self._layout = Layout.of(self._inner.observation_space, parts)
            draws = not self._layout.cameras  # the picture comes from render()
            if draws and self._inner.render_mode != "rgb_array":
                raise VlaError(
                    f"{self.env_id} has no pixels: no picture in its observation {self._inner.observation_space}, and "
                    "no render mode rgb_array"
                )
            steps: Any = getattr(self._inner.spec, "max_episode_steps", None)
            if steps is None or steps < 1:
                raise VlaError(f"{self.env_id} has no end of its own: give one with --env-option episode_steps=300")
            self._dt = dt or self._own_dt()
            self._trial = try_out(known, options, self._layout, draws)
        except BaseException:
            self.close()
            raise
        drawn = self._trial.drawn
        cameras = (CameraSpec("render", *drawn.size),) if drawn else self._layout.cameras
        self.reading = f"{known.id}: " + ("camera render from render(); " if drawn else "") + str(self._layout)
        self._threshold = known.reward_threshold if reward_threshold is None else reward_threshold
        self._own_instruction = instruction or declared.instruction or known.id
        size = len(self._layout.low)
        self.env_spec = EnvSpec(
            name=known.id,
            cameras=cameras,
            state=_names("state", state, declared.state, size),
            action=_names("action", action, declared.action, actions.low.size),
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
        low, high = (end.astype(np.float32).ravel() for end in (actions.low, actions.high))
        self.action_space = spaces.Box(low, high)
        self.metadata = {**self.metadata, "render_fps": max(1, round(1 / self._dt))}  # type: ignore[misc]
        self._seen: Any = None

    @staticmethod
    def adapted_modules(env_id: str = "", **options: Any) -> tuple[str, ...]:
        """The module of the env's own class or function; none where that is gymnasium's, or there is no such env."""
        try:
            creator = find(env_id).entry_point
        except VlaError:
            return ()
        module = creator.partition(":")[0] if isinstance(creator, str) else getattr(creator, "__module__", None)
        return (module,) if module and module.partition(".")[0] != "gymnasium" else ()

    def _actions(self) -> Any:
        """The box of actions. Raises VlaError where actions are something else."""
        space: Any = self._inner.action_space
        if not isinstance(space, spaces.Box) or space.dtype.kind not in "fiu" or not space.shape:
            raise VlaError(f"{self.env_id} takes actions of {space}; what can be played is a box of numbers")
        return space

    def _own_dt(self) -> float:
        rate: Any = (self._inner.metadata or {}).get("render_fps")
        if not _is_number(rate) or rate <= 0:
            raise VlaError(
                f"{self.env_id} does not say how fast it runs (render_fps is {rate!r}): give seconds a step, e.g. "
                "--env-option dt=0.1"
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
        self._randomness.seed(seed)
        with self._randomness.in_use():
            self._seen = observation_of_reset(self.env_id, self._inner.reset(seed=seed % self._trial.seeds))
        self.instruction = options.get("instruction", self._own_instruction)
        self._steps, self._return, self._succeeded, self._told = 0, 0.0, False, False
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
        """Carry out one action (A,). Whole numbers, where the env wants such, are the nearest ones in its bounds.

        ``terminated`` also where the env ends the episode without success. ``progress`` is the share of a full
        reward, or of the threshold that the return has reached, and 1 after success.

        Raises VlaError, and moves nothing, if the action is not finite; and where the env breaks gymnasium's promises,
        or has told nothing of success in a whole episode.
        """
        if self._seen is None:
            raise VlaError(f"{self.env_id}: call reset before the first step")
        box, size = self._box, self._box.low.size
        action = np.asarray(action, dtype=np.float64)
        if action.shape != (size,) or not np.isfinite(action).all():
            raise VlaError(f"{self.env_id}: an action is {size} finite numbers, and was {action.tolist()}")
        action = action.reshape(box.shape)
        if box.dtype.kind in "iu":
            action = np.clip(np.rint(action), box.low, box.high)
        with self._randomness.in_use():
            given = self._inner.step(action.astype(box.dtype))
        self._seen, reward, terminated, truncated, facts = checked_step(self.env_id, given)
        self._steps += 1
        self._return += reward
        self._succeeded = self._is_success(facts) or self._succeeded
        ended = terminated or truncated
        if ended and not self._succeeded and not self._told and self._threshold is None:
            raise VlaError(
                f"{self.env_id} does not tell success: its info had neither {' nor '.join(_SUCCESS)} in a whole "
                "episode; say which sum of rewards counts, e.g. --env-option reward_threshold=100"
            )
        info = {"success": self._succeeded, "progress": self._progress(reward), "reward_terms": {"reward": reward}}
        return StepResult(reward, terminated or self._succeeded, truncated, info)

    def _is_success(self, facts: Mapping[str, Any]) -> bool:
        """Whether this step's info tells success, or else the return does. Many envs tell it at the end alone."""
        for name in _SUCCESS:
            there = truth(facts.get(name), f"step() of {self.env_id}: info['{name}']")
            if there is not None:
                self._told = True
                return there
        return not self._told and self._threshold is not None and self._return >= self._threshold

    def _progress(self, reward: float) -> float:
        if self._succeeded:
            return 1.0
        if self._full_reward:
            return float(np.clip(reward / self._full_reward, 0.0, 1.0))
        reached = self._return / self._threshold if self._threshold and self._threshold > 0 else 0.0
        return float(np.clip(reached, 0.0, 1.0))

    def observe(self) -> Observation:
        """The present observation. Arrays are fresh at each call.

        Raises BadObservationError where it is not what the env promised: pictures, shapes, finite numbers.
        """
        images = self._layout.read_images(self._seen, self.env_id)
        if self._trial.drawn:
            images = {"render": self._picture(self._trial.drawn)}
        state = self._layout.read_state(self._seen, self.env_id)
        return Observation(images, state, self.instruction, self._steps * self._dt)

    def _picture(self, form: PictureForm | None) -> np.ndarray:
        with self._randomness.in_use():
            drawn: Any = self._inner.render()
        form, what = form or PictureForm.of_array(drawn), f"render() of {self.env_id}"
        if form is None:
            raise BadObservationError(f"{what} gave {told(drawn)} where a picture (height, width, 3) was wanted")
        return form.read(drawn, what)

    def _raw_observation(self) -> dict[str, Any]:
        seen = self.observe()
        return {**seen.images, "state": seen.state, "instruction": seen.instruction}

    def render(self) -> np.ndarray | None:  # type: ignore[override]
        """Gymnasium's render: the env's own picture, or its first camera, where ``render_mode`` is ``rgb_array``."""
        if self.render_mode != "rgb_array":
            return None
        if self._inner.render_mode == "rgb_array":
            return self._picture(self._trial.drawn)
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
        """Close the env. What goes wrong there costs nothing that was measured."""
        with contextlib.suppress(Exception):
            self._inner.close()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool) and math.isfinite(value)


def _require_positive(name: str, value: Any, kind: Any) -> None:
    if value is not None and not (_is_number(value) and isinstance(value, kind) and value > 0):
        what = "a whole number" if kind is int else "a number"
        raise VlaError(f"--env-option {name} must be {what} above 0, and is {value!r}")


def _names(what: str, given: str, declared: tuple[str, ...], size: int) -> tuple[str, ...]:
    """The names of ``size`` dimensions: the user's, the declared ones, or numbers."""
    chosen = tuple(name.strip() for name in given.split(",")) if given else declared
    if given and len(chosen) != size:
        raise VlaError(f"--env-option {what} names {len(chosen)} dimensions, and there are {size}: {given}")
    return chosen if len(chosen) == size else tuple(f"{what}_{index}" for index in range(size))
