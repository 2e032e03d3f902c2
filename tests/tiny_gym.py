"""Tiny gymnasium envs, as other packages bring them: ``--env gymnasium:tests.tiny_gym:tiny/Dot-v0`` names one."""

from __future__ import annotations

import random
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

SIDE, REACH = 24, 0.15


class Dot(gymnasium.Env):
    """A white dot is to be pushed onto a red one. Both lie in [-1, 1]²; an action moves the dot by a tenth of itself.

    Args:
        kind: what is observed: ``pixels/top`` and ``agent_pos``; the bare ``picture``; the ``state`` alone, which is
            drawn by ``render`` if asked.
        tells: whether the info says ``is_success``.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(self, kind: str = "both", tells: bool = True, render_mode: str | None = None) -> None:
        self.kind, self.tells, self.render_mode = kind, tells, render_mode
        picture = spaces.Box(0, 255, (SIDE, SIDE, 3), np.uint8)
        place = spaces.Box(-1.0, 1.0, (2,), np.float64)
        goal = spaces.Box(-1.0, 1.0, (2,), np.float64)
        self.observation_space = {
            "both": spaces.Dict({"pixels": spaces.Dict({"top": picture}), "agent_pos": place, "goal": goal}),
            "picture": picture,
            "state": spaces.Dict({"place": place, "goal": goal}),
        }[kind]
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.dot, self.goal = self.np_random.uniform(-0.9, 0.9, (2, 2))
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict]:
        self.dot = np.clip(self.dot + 0.1 * np.asarray(action, dtype=np.float64), -1, 1)
        there = bool(np.linalg.norm(self.dot - self.goal) < REACH)
        return self._observation(), float(there), there, False, {"is_success": there} if self.tells else {}

    def render(self) -> np.ndarray:
        image = np.zeros((SIDE, SIDE, 3), np.uint8)
        for place, colour in ((self.goal, (255, 0, 0)), (self.dot, (255, 255, 255))):
            column, row = ((place + 1) / 2 * (SIDE - 3)).round().astype(int)
            image[row : row + 3, column : column + 3] = colour
        return image

    def _observation(self) -> Any:
        both = {"pixels": {"top": self.render()}, "agent_pos": self.dot.copy(), "goal": self.goal.copy()}
        state = {"place": self.dot.copy(), "goal": self.goal.copy()}
        return {"both": both, "picture": both["pixels"]["top"], "state": state}[self.kind]


class Counter(gymnasium.Env):
    """Has no pixels, and cannot draw any."""

    def __init__(self, actions: Any = None) -> None:
        self.observation_space = spaces.Box(0.0, 1.0, (2,))
        self.action_space = actions or spaces.Box(-1.0, 1.0, (1,))


class Broken(Dot):
    """A Dot that breaks one promise of gymnasium's, or keeps it in an unusual way.

    Args:
        how: the key of ``RESETS``, ``STEPS``, ``SEEN`` or ``DRAWN``.
        since: the step of an episode from which it does so; 0 is its reset.
        rate: ``render_fps``.
        space, box: spaces to declare for observations and actions instead.
        other: further arguments of Dot.
    """

    def __init__(self, how: str = "", since: int = 0, space: Any = None, box: Any = None, **other: Any) -> None:
        super().__init__(**other)
        self.how, self.since, self.count = how, since, 0
        self.observation_space, self.action_space = space or self.observation_space, box or self.action_space

    def _odd(self, table: dict[str, Any], usual: Any) -> Any:
        return table[self.how](self, usual) if self.how in table and self.count >= self.since else usual

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.count = 0
        if self.how == "small seeds":
            np.zeros(1, np.int32)[0] = seed  # as a simulator in C takes it
        if self.how == "global draws":
            super().reset()
            self.dot, self.goal = np.random.uniform(-0.9, 0.9, (2, 2))
            self.dot[0] = random.uniform(-0.9, 0.9)
            return self._observation(), {}
        return self._odd(RESETS, super().reset(seed=seed))

    def step(self, action: Any) -> Any:
        self.count += 1
        self.given = action
        if self.how == "global draws":
            self.dot = np.clip(self.dot + np.random.uniform(-0.05, 0.05, 2), -1, 1)
        return self._odd(STEPS, super().step(np.zeros(2) if np.shape(action) != (2,) else action))

    def render(self) -> Any:
        return self._odd(DRAWN, super().render())

    def _observation(self) -> Any:
        seen = super()._observation()
        return self._odd(SEEN, seen)

    def close(self) -> None:
        if self.how == "close raises":
            raise RuntimeError("already closed")


def _ended(seen: Any, reward: float) -> Any:
    return seen, reward, True, False, {"success": True}


def _raise(*_: Any) -> Any:
    raise RuntimeError("mjWARN_BADQACC\nand more")


RESETS: dict[str, Any] = {"bare reset": lambda env, given: given[0], "no info": lambda env, given: (given[0], None)}
STEPS: dict[str, Any] = {
    "raises": _raise,
    "four values": lambda env, given: (*given[:2], given[2] or given[3], given[4]),
    "no info": lambda env, given: (*given[:4], None),
    "info is a list": lambda env, given: (*given[:4], ["there"]),
    "no observation": lambda env, given: (None, *given[1:]),
    "no reward": lambda env, given: (given[0], None, *given[2:]),
    "NaN reward": lambda env, given: (given[0], float("nan"), *given[2:]),
    "two rewards": lambda env, given: (given[0], np.ones(2), *given[2:]),
    "array reward": lambda env, given: (given[0], np.array([given[1]]), np.array([given[2]]), *given[3:]),
    "two ends": lambda env, given: (*given[:2], np.zeros(2, bool), *given[3:]),
    "success is a word": lambda env, given: (*given[:4], {"is_success": "yes"}),
    "success at the end": lambda env, given: _ended(*given[:2]) if env.count == 5 else (*given[:4], {}),
    "success unknown": lambda env, given: (*given[:4], {"is_success": None}),
}
SEEN: dict[str, Any] = {
    "NaN": lambda env, seen: {**seen, "agent_pos": np.full(2, np.nan)},
    "three numbers": lambda env, seen: {**seen, "agent_pos": np.zeros(3)},
    "a word": lambda env, seen: {**seen, "agent_pos": "here"},
    "no state": lambda env, seen: {"pixels": seen["pixels"]},
    "no picture": lambda env, seen: {**seen, "pixels": {"top": None}},
    "small picture": lambda env, seen: {**seen, "pixels": {"top": seen["pixels"]["top"][:9]}},
    "same array": lambda env, seen: {**seen, "agent_pos": env.dot},
}
DRAWN: dict[str, Any] = {
    "None": lambda env, image: None,
    "list": lambda env, image: image.tolist(),
    "list of frames": lambda env, image: [image],
    "beyond": lambda env, image: image * 1.2,
    "below": lambda env, image: image / 255.0 - 0.5,
    "NaN pixels": lambda env, image: image * np.nan,
    "two channels": lambda env, image: image[..., :2],
    "grows": lambda env, image: image if env.count < 3 else np.zeros((SIDE + 1, SIDE, 3), np.uint8),
    "words": lambda env, image: image.astype(str),
    "grey": lambda env, image: image[..., :1],
    "grey matrix": lambda env, image: image[..., 0],
    "alpha": lambda env, image: np.concatenate([image, image[..., :1]], axis=2),
    "channels first": lambda env, image: image.transpose(2, 0, 1),
    "floats to 1": lambda env, image: (image / 255.0).astype(np.float32),
    "floats to 255": lambda env, image: image.astype(np.float64),
    "int64": lambda env, image: image.astype(np.int64),
}

gymnasium.register("tiny/Dot-v0", Dot, max_episode_steps=30)
gymnasium.register("tiny/Endless-v0", Dot)
gymnasium.register("tiny/Quiet-v0", Dot, max_episode_steps=30, kwargs={"tells": False})
gymnasium.register("tiny/Counter-v0", Counter, max_episode_steps=30)
gymnasium.register("tiny/Buttons-v0", Counter, max_episode_steps=30, kwargs={"actions": spaces.Discrete(3)})
gymnasium.register("tiny/Broken-v0", Broken, max_episode_steps=8)
gymnasium.register("tiny/VectorOnly-v0", vector_entry_point=Broken, max_episode_steps=8)
gymnasium.register("tiny/NoEnv-v0", entry_point=lambda **_: object(), max_episode_steps=8)
