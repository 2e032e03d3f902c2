"""Tiny gymnasium envs, as other packages bring them: ``--env gymnasium:tests.tiny_gym:tiny/Dot-v0`` names one."""

from __future__ import annotations

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


gymnasium.register("tiny/Dot-v0", Dot, max_episode_steps=30)
gymnasium.register("tiny/Endless-v0", Dot)
gymnasium.register("tiny/Quiet-v0", Dot, max_episode_steps=30, kwargs={"tells": False})
gymnasium.register("tiny/Counter-v0", Counter, max_episode_steps=30)
gymnasium.register("tiny/Buttons-v0", Counter, max_episode_steps=30, kwargs={"actions": spaces.Discrete(3)})
