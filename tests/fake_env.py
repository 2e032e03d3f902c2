"""DotEnv: a tiny env in plain numpy for tests. A point moves on a plane and closes its gripper on coloured dots.

It keeps the whole ``vla.contracts.Env`` protocol, runs thousands of steps a second and needs no renderer.
``--env tests.fake_env:DotEnv`` names it on the command line.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from vla.contracts import (
    CameraSpec,
    EnvSpec,
    ExpertStep,
    Observation,
    ReferringExpression,
    StepResult,
    VlaError,
)
from vla.perturb import axes as perturb

COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 170, 60),
    "blue": (40, 70, 220),
    "yellow": (235, 200, 30),
}
CHINESE = {"red": "红", "green": "绿", "blue": "蓝", "yellow": "黄"}
CATEGORIES = {"warm": ("red", "yellow"), "cool": ("green", "blue")}
CHINESE_CATEGORIES = {"warm": "暖色", "cool": "冷色"}
HALF = 0.5  # the plane runs from -HALF to HALF in x and y [m]
STRIDE = 0.08  # the farthest that the point moves in one step [m]
REACH = 0.04  # a dot counts as held if the gripper closes this near [m]


class DotEnv:
    """A point must visit the dots that the instruction asks for, and close its gripper on each of them.

    Args:
        cameras_px: height and width of each camera.
        cameras: 1 (``scene``) or 2 (``scene`` and ``wrist``).
        quality: taken for likeness with the real envs; it changes nothing.
    """

    PERTURBATIONS = ("state",)

    def __init__(self, cameras_px: int = 32, cameras: int = 2, quality: str = "fast") -> None:
        self.env_spec = EnvSpec(
            name="dot",
            cameras=tuple(CameraSpec(name, cameras_px, cameras_px) for name in ("scene", "wrist")[:cameras]),
            state=("x [m]", "y [m]", "gripper [0..1]"),
            action=("x [m]", "y [m]", "gripper [0..1]"),
            dt=0.1,
            episode_steps=60,
            languages=("en", "zh"),
            relative=((0, 0), (1, 1)),
        )
        self._point: np.ndarray = np.zeros(2)
        self._gripper, self._steps = 1.0, 0
        self._dots: dict[str, np.ndarray] = {}
        self._asked: list[str] = []
        self._placed: set[str] = set()
        self._disturbed = False
        self._instruction, self._language = "", "en"

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[str, Any], dict]:
        """See ``vla.contracts.Env``. Raises VlaError for an unknown option or a sentence without a colour."""
        options = dict(options or {})
        unknown = set(options) - {
            "split",
            "language",
            "items",
            "kind",
            "category",
            "instruction",
            "stage",
            "perturb",
        }
        if unknown:
            raise VlaError(f"DotEnv has no option {sorted(unknown)}")
        rng = np.random.default_rng(seed)
        language = options.get("language") or str(rng.choice(["en", "zh"]))
        kind = options.get("kind") or str(rng.choice(["all", "category", "named"]))
        names = list(rng.permutation(list(COLOURS))[: options.get("items") or 2])
        sentence = options.get("instruction")
        category = ""
        if sentence:
            kind, language = (
                "named",
                "zh" if any(ord(letter) > 0x3000 for letter in sentence) else "en",
            )
            named = [name for name in COLOURS if name in sentence.lower() or CHINESE[name] in sentence]
            if not named:
                raise VlaError(f"'{sentence}' names no dot; the colours are {', '.join(COLOURS)}")
            names = named[:1] + [name for name in names if name != named[0]]
        if kind == "all":
            asked = names
        elif kind == "named":
            asked = names[:1]
        else:
            category = options.get("category") or next(c for c, members in CATEGORIES.items() if names[0] in members)
            if not set(names) & set(CATEGORIES[category]):
                names[0] = CATEGORIES[category][0]
            asked = [name for name in names if name in CATEGORIES[category]]
        split = options.get("split") or "train"
        self._asked = [str(name) for name in asked]
        self._language = language
        self._instruction = sentence or self._sentence(kind, category, split == "heldout")
        self._place_dots([str(name) for name in names], rng)
        harder = options.get("perturb") or {}
        perturb.require(harder, self.PERTURBATIONS, "DotEnv")
        if "state" in harder:
            farthest = {"mild": 0.1, "medium": 0.2, "strong": 0.4}[harder["state"]]
            away = perturb.rng_of(seed or 0, "state").uniform(-farthest, farthest, 2)
            self._point = np.clip(self._point + away, -HALF, HALF)
        self._gripper, self._steps, self._placed, self._disturbed = 1.0, 0, set(), False
        info = {
            "instruction": self._instruction,
            "language": language,
            "kind": kind,
            "category": category,
            "split": split,
            "seed": seed,
            "items": [
                {
                    "name": n,
                    "category": next(c for c, m in CATEGORIES.items() if n in m),
                    "asked": n in self._asked,
                }
                for n in self._dots
            ],
        }
        return self._raw(), info

    def _sentence(self, kind: str, category: str, heldout: bool) -> str:
        if kind == "all":
            text = ("visit every dot", "走到所有的点") if not heldout else ("go to all of the dots", "请走遍所有的点")
        elif kind == "category":
            text = (
                f"visit the {category} dots",
                f"走到{CHINESE_CATEGORIES[category]}的点",
            )
        else:
            name = self._asked[0]
            text = (f"visit the {name} dot", f"走到{CHINESE[name]}点")
            if heldout:
                text = (f"please go to the {name} dot", f"请去{CHINESE[name]}点那里")
        return text[self._language == "zh"]

    def _place_dots(self, names: list[str], rng: np.random.Generator) -> None:
        taken: list[np.ndarray] = []
        self._dots = {}
        for name in [*names, "point"]:
            spot = rng.uniform(-0.42, 0.42, 2)
            while any(np.linalg.norm(spot - other) < 0.2 for other in taken):
                spot = rng.uniform(-0.42, 0.42, 2)
            taken.append(spot)
            if name != "point":
                self._dots[name] = spot
        self._point = taken[-1]

    def play(self, action: np.ndarray) -> StepResult:
        """See ``vla.contracts.Env``."""
        target = np.clip(np.asarray(action[:2], dtype=np.float64), -HALF, HALF)
        offset = target - self._point
        self._point = self._point + offset * min(1.0, STRIDE / max(float(np.linalg.norm(offset)), 1e-9))
        self._gripper = float(np.clip(action[2], 0, 1))
        self._steps += 1
        if self._gripper < 0.5:
            for name, spot in self._dots.items():
                if np.linalg.norm(self._point - spot) < REACH:
                    self._placed.add(name)
                    self._disturbed |= name not in self._asked
        done = len(self._placed & set(self._asked))
        success = done == len(self._asked) and not self._disturbed
        terms = {
            "placed": done / len(self._asked),
            "disturbed": -float(self._disturbed),
        }
        info = {
            "success": success,
            "progress": done / len(self._asked),
            "reward_terms": terms,
            "disturbed": self._disturbed,
            "items": {name: name in self._placed for name in self._dots},
        }
        return StepResult(
            sum(terms.values()),
            success,
            self._steps >= self.env_spec.episode_steps,
            info,
        )

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict]:
        """See ``vla.contracts.Env``."""
        result = self.play(action)
        return (
            self._raw(),
            result.reward,
            result.terminated,
            result.truncated,
            result.info,
        )

    def observe(self) -> Observation:
        """See ``vla.contracts.Env``."""
        raw = self._raw()
        images = {camera.name: raw[camera.name] for camera in self.env_spec.cameras}
        return Observation(images, raw["state"], self._instruction, self._steps * self.env_spec.dt)

    def points(self) -> dict[str, np.ndarray]:
        """See ``vla.contracts.Env``. The item's place is where it lies: a dot does not travel."""
        return self._points_of(self._goal())

    def referring_expressions(self) -> list[ReferringExpression]:
        """See ``vla.contracts.Env``: one for each dot."""
        english = self._language == "en"
        texts = {name: f"visit the {name} dot" if english else f"走到{CHINESE[name]}点" for name in self._dots}
        return [
            ReferringExpression(text, self._points_of(name), self.yaws_of(name), self.offsets_of(name))
            for name, text in texts.items()
        ]

    def offsets_of(self, name: str) -> np.ndarray:
        """From the arm to a dot, on a plane, which is its own place; heights are not known."""
        x, y = self._dots[name] - self._point
        return np.array([x, y, math.nan] * 2, np.float32)

    @staticmethod
    def yaws_of(name: str) -> np.ndarray:
        """A made-up turn for each dot: the env shows none, but labels must find their way."""
        return np.array([0.1 * list(COLOURS).index(name) + 0.05, math.pi, 0.0, 0.0], np.float32)

    def _points_of(self, goal: str) -> dict[str, np.ndarray]:
        labels = {}
        for camera in self.env_spec.cameras:
            centre, half = self._view(camera.name)
            uv = (self._dots[goal] - centre) / half * (1, -1)
            visible = float(np.abs(uv).max() <= 1)
            labels[camera.name] = np.array([*np.clip(uv, -1, 1), visible] * 2, dtype=np.float32)
        return labels

    def expert(self, seed: int = 0) -> DotExpert:
        """A fresh expert. ``seed`` is taken for likeness with the real envs."""
        return DotExpert(self)

    def film(self, width: int, height: int) -> np.ndarray:
        """See ``vla.contracts.abilities.Films``."""
        return self._render("scene", height, width)

    def close(self) -> None:
        """Nothing to free."""

    def _goal(self) -> str:
        return next((name for name in self._asked if name not in self._placed), self._asked[-1])

    def _view(self, camera: str) -> tuple[np.ndarray, float]:
        """A camera's centre and half width on the plane [m]."""
        return (np.zeros(2), HALF) if camera == "scene" else (self._point, HALF / 2)

    def _raw(self) -> dict[str, Any]:
        images = {c.name: self._render(c.name, c.height, c.width) for c in self.env_spec.cameras}
        state = np.array([*self._point, self._gripper], dtype=np.float32)
        return {**images, "state": state, "instruction": self._instruction}

    def _render(self, camera: str, height: int, width: int) -> np.ndarray:
        centre, half = self._view(camera)
        x = centre[0] + half * ((np.arange(width) + 0.5) / width * 2 - 1)
        y = centre[1] - half * ((np.arange(height) + 0.5) / height * 2 - 1)
        image = np.full((height, width, 3), 240, dtype=np.uint8)
        for name, spot in self._dots.items():
            inside = (y[:, None] - spot[1]) ** 2 + (x[None, :] - spot[0]) ** 2 < 0.08**2
            image[inside] = COLOURS[name]
        across = np.maximum(abs(y[:, None] - self._point[1]), abs(x[None, :] - self._point[0]))
        image[across < 0.04] = (20, 20, 20) if self._gripper < 0.5 else (120, 120, 120)
        return image


class DotExpert:
    """Goes straight to the next dot that was asked for, closes the gripper there, and opens it again."""

    def __init__(self, env: DotEnv) -> None:
        self._env = env

    def act(self) -> ExpertStep:
        """The action for the env's present state."""
        env, goal = self._env, self._env._goal()
        spot = env._dots[goal]
        offset = spot - env._point
        distance = float(np.linalg.norm(offset))
        target = env._point + offset * min(1.0, STRIDE / max(distance, 1e-9))
        close = distance < REACH / 2 and goal not in env._placed
        text = f"visit the {goal} dot" if env._language == "en" else f"走到{CHINESE[goal]}点"
        return ExpertStep(np.array([*target, 0.0 if close else 1.0], dtype=np.float32), text)


ENV = DotEnv
