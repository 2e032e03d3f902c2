"""tidy_desk: put what an instruction asks for from a desk into a pen tray, a block box and a waste bin.

Two to five items lie among three receptacles. The instruction asks for everything, for one category or for one named
item, in English or Chinese. Success is physical: each asked-for item rests released inside its receptacle for
HOLD_STEPS control steps, and nothing else was disturbed.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

from envs.tabletop.distractors import add_distractors
from envs.tabletop.perturb import perturb_model
from envs.tabletop.safety import LIMITS
from envs.tabletop.table import (
    ACTION,
    ACTION_GROUPS,
    ACTION_HIGH,
    ACTION_LOW,
    DT,
    RELATIVE,
    STATE,
    STATE_GROUPS,
    STATE_HIGH,
    STATE_LOW,
    Tabletop,
    camera_specs,
)
from envs.tidy_desk import instructions
from envs.tidy_desk import layout as tidy_layout
from envs.tidy_desk import words as tidy_words
from envs.tidy_desk.instructions import Goal
from envs.tidy_desk.items import Receptacle, add_item, add_receptacle
from envs.tidy_desk.layout import Placed, choose_things, half_tidied, random_goal, sample_layout
from envs.tidy_desk.options import LONGEST, check_options
from envs.tidy_desk.rewording import reword
from vla.contracts import EnvSpec, Observation, ReferringExpression, StepResult, VlaError
from vla.contracts.abilities import Shortfall
from vla.perturb import axes as perturb

EPISODE_STEPS = 400
HOLD_STEPS = 3  # success must last 0.3 s
DISTURBED = 0.03  # metres that an item which was not asked for may move
RESTING = 0.02  # m/s, below which an item counts as at rest
_FALLEN_FOR = 0.8  # seconds after which what falls at the start has come to rest
_STICKY = 0.03  # metres by which another item must be nearer to become the target
_PRINTABLE = "".join(map(chr, range(32, 127)))
_CHARSET = _PRINTABLE + "。，？！、；：“”‘’（）《》～…" + "".join(map(chr, range(0x4E00, 0xA000)))


class TidyDesk(gymnasium.Env):
    """The desk, as ``vla.contracts.Env`` describes an env.

    Args:
        cameras_px: width and height of the camera images, pixels.
        quality: ``fast``, or ``video`` for images with shadows and anti-aliasing (about 20 times slower).
        render_mode: ``rgb_array`` or None, for gymnasium's ``render``.
        stage: the stage of episodes whose reset options name none.

    ``reset`` options: ``split`` (``train`` or ``heldout``: shades, layouts and paraphrases), ``language`` (``en``,
    ``zh`` or None for either), ``items`` (2 to 5, or None for 3), ``kind`` (``all``, ``category``, ``named`` or
    None), ``category`` (``pens``, ``blocks``, ``waste`` or None), ``instruction`` (a sentence of one's own: it
    decides language, kind and category), ``stage`` (``start``, or ``midway``: mostly the arm is anywhere above the
    desk, often close to an item, and holds one now and then, some items are in place, and some have fallen into or
    onto receptacles where they don't belong; 2 to 5 items if ``items`` is None), ``perturb`` (axis of
    ``PERTURBATIONS`` to strength; see ``vla.perturb``).
    """

    safety_limits: ClassVar[dict[str, float]] = LIMITS
    PERTURBATIONS = ("camera", "light", "texture", "distractors", "layout", "language", "state")
    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": round(1 / DT)}  # type: ignore[misc]

    def __init__(
        self, cameras_px: int = 128, quality: str = "fast", render_mode: str | None = None, stage: str = "start"
    ) -> None:
        self.render_mode, self._stage = render_mode, self._chosen({"stage": stage})["stage"]
        self.tabletop = Tabletop(cameras_px, quality)
        self.env_spec = EnvSpec(
            name="tidy_desk",
            cameras=camera_specs(cameras_px),
            state=STATE,
            action=ACTION,
            dt=DT,
            episode_steps=EPISODE_STEPS,
            languages=instructions.LANGUAGES,
            relative=RELATIVE,
            state_groups=STATE_GROUPS,
            action_groups=ACTION_GROUPS,
        )
        image = spaces.Box(0, 255, (cameras_px, cameras_px, 3), np.uint8)
        self.observation_space = spaces.Dict(
            {camera.name: image for camera in self.env_spec.cameras}
            | {
                "state": spaces.Box(STATE_LOW, STATE_HIGH, dtype=np.float32),
                "instruction": spaces.Text(max_length=LONGEST, min_length=1, charset=_CHARSET),
            }
        )
        self.action_space = spaces.Box(ACTION_LOW, ACTION_HIGH, dtype=np.float32)
        self.placed: list[Placed] = []
        self.receptacles: dict[str, Receptacle] = {}
        self.asked: list[bool] = []

    @classmethod
    def check_options(cls, options: dict[str, Any]) -> None:
        """Raise VlaError for reset options, the instruction among them, that no episode can have."""
        cls._chosen(options)

    @classmethod
    def _chosen(cls, options: dict[str, Any]) -> dict[str, Any]:
        return check_options(options, cls.PERTURBATIONS)

    # --- an episode ----------------------------------------------------------------------------------------------

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[str, Any], dict]:
        """Begin an episode. Raises VlaError where an option is unknown or the instruction can't be understood."""
        if seed is None:
            seed = int(self.np_random.integers(2**31))
        super().reset(seed=seed)
        self.seed, rng = seed, self.np_random
        chosen = self._chosen(options or {})
        self.split, goal, midway = chosen["split"], chosen["goal"], (chosen["stage"] or self._stage) == "midway"
        count = chosen["items"] or (int(rng.integers(2, 6)) if midway else 3)
        self.language = chosen["language"] or str(rng.choice(instructions.LANGUAGES))
        if goal is None:
            kind = chosen["kind"] or ("named" if chosen["category"] else str(rng.choice(instructions.KINDS)))
            goal = random_goal(kind, chosen["category"], rng)
        self.goal: Goal = goal
        self.instruction = chosen["instruction"] or instructions.write(goal, self.language, self.split, rng)

        things = choose_things(goal, count, rng)
        self.receptacles, self.placed = sample_layout(things, self.split, rng)
        self._perturb_scene(chosen["perturb"])
        if goal.kind == "all":
            self.asked = [True] * len(things)
        elif goal.kind == "category":
            self.asked = [placed.item.category == goal.category for placed in self.placed]
        else:
            self.asked = [index == 0 for index in range(len(things))]

        start = self.tabletop.controller.home + rng.uniform(-0.06, 0.06, 7)
        if midway and rng.random() < 0.7:
            self.placed = half_tidied(self.placed, self.receptacles, rng)
        if midway and rng.random() < 0.7:
            lying = [(p.x, p.y) for p in self.placed if p.above == 0.0]
            close = bool(lying) and rng.random() < 0.6
            start = self.tabletop.pose_above_table(rng, lying[int(rng.integers(len(lying)))] if close else None)
        if "state" in self._harder:
            start = self.tabletop.pose_off_home(self._harder["state"], perturb.rng_of(seed, "state"))
        change = partial(perturb_model, perturb=self._harder, seed=seed, keep_in_view=tidy_layout.CORNERS)
        self.tabletop.build(self._add_things, start, change)
        if midway and rng.random() < 0.3:
            self._start_with_something_held(rng)
        if any(placed.above for placed in self.placed):
            self.tabletop.settle(_FALLEN_FOR)
        model = self.tabletop.model
        bodies = [model.body(placed.item.name) for placed in self.placed]
        self._body_ids = [int(body.id) for body in bodies]
        self._velocity_at = [int(model.jnt_dofadr[body.jntadr[0]]) for body in bodies]
        unasked = [body for body, asked in zip(self._body_ids, self.asked, strict=True) if not asked]
        self.tabletop.watch([*unasked, *(model.body(r.name).id for r in self.receptacles.values())])
        self._start = self._item_positions()
        self._steps = self._held_for = 0
        self.touched, self.gripped = set[int](), set[int]()  # items that the fingers ever touched, and held
        self.limit = min(EPISODE_STEPS, 120 * sum(self.asked) + 40)
        self._target: int | None = None
        self._look()
        info = {
            "instruction": self.instruction,
            "language": self.language,
            "kind": goal.kind,
            "category": goal.category,
            "split": self.split,
            "seed": self.seed,
            "items": [
                {"name": placed.item.name, "category": placed.item.category, "asked": asked}
                for placed, asked in zip(self.placed, self.asked, strict=True)
            ],
        }
        return self._raw_observation(), info

    def _perturb_scene(self, harder: dict[str, str]) -> None:
        """Take note of the perturbations, and do those of the sentence and of the items' places."""
        self._harder = harder
        if "language" in harder:
            rng = perturb.rng_of(self.seed, "language")
            self.instruction, self.language = reword(
                self.goal, self.instruction, self.language, harder["language"], rng
            )
        if "layout" in harder:
            rng = perturb.rng_of(self.seed, "layout")
            self.placed = tidy_layout.move_beyond(self.placed, self.receptacles, harder["layout"], rng)

    def _add_things(self, spec: Any) -> None:
        for receptacle in self.receptacles.values():
            add_receptacle(spec, receptacle)
        for placed in self.placed:
            add_item(spec, placed.item, placed.x, placed.y, placed.yaw, placed.above)
        if "distractors" in self._harder:
            taken, rng = tidy_layout.occupied(self.placed, self.receptacles), perturb.rng_of(self.seed, "distractors")
            add_distractors(spec, self._harder["distractors"], taken, rng)

    def _start_with_something_held(self, rng: np.random.Generator) -> None:
        item = self.placed[int(rng.choice(np.flatnonzero(np.array(self.asked))))].item
        tool = self.tabletop.rotation
        yaw = math.atan2(tool[1, 0], tool[0, 0]) + float(rng.uniform(-0.1, 0.1))
        if item.symmetry != math.pi:
            yaw += float(rng.integers(4)) * math.pi / 2
        along = rng.uniform(-0.3, 0.3) * item.size[0] if item.symmetry == math.pi else 0.0
        offset = along * tool[:, 0] + (0.0, 0.0, rng.uniform(-0.004, 0.004))
        self.tabletop.grasp(item.name, item.size[1], offset, yaw)
        self.tabletop.settle(0.3)

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict]:
        """Gymnasium's step: ``play`` and then the observation."""
        result = self.play(action)
        return self._raw_observation(), result.reward, result.terminated, result.truncated, result.info

    def play(self, action: np.ndarray) -> StepResult:
        """Carry out one absolute action (10,) for 0.1 s. Raises VlaError, and moves nothing, if it is not finite."""
        if not self.placed:
            raise VlaError("tidy_desk: call reset before the first step")
        held = self.held
        self.tabletop.play(action)
        self._steps += 1
        self._look()
        # Out of the grip though the fingers were told to close.
        slipped = held is not None and self.held is None and float(action[-1]) < 0.5
        done = self._everything_placed and not self._disturbed
        self._held_for = self._held_for + 1 if done else 0
        success = self._held_for >= HOLD_STEPS
        terms = self._reward_terms(success)
        info = {
            "success": success,
            "progress": self.progress,
            "reward_terms": terms,
            "disturbed": self._disturbed,
            "safety": {**self.tabletop.safety.reading(), "drops": float(slipped)},
            "items": {p.item.name: resting for p, resting in zip(self.placed, self.resting, strict=True)},
        }
        return StepResult(float(sum(terms.values())), success, not success and self._steps >= self.limit, info)

    def observe(self) -> Observation:
        """Render and read the present observation. Arrays are fresh at each call."""
        images = {camera.name: self.tabletop.render(camera.name) for camera in self.env_spec.cameras}
        return Observation(images, self.tabletop.state(), self.instruction, self._steps * DT)

    def _raw_observation(self) -> dict[str, Any]:
        seen = self.observe()
        return {**seen.images, "state": seen.state, "instruction": seen.instruction}

    # --- what the simulator knows --------------------------------------------------------------------------------

    def _item_positions(self) -> np.ndarray:
        return self.tabletop.data.xpos[self._body_ids].copy()

    def _look(self) -> None:
        """Read from the simulator what rests where, what is held and what is to be moved next."""
        touching = self.tabletop.touching()
        self.positions = self._item_positions()
        data = self.tabletop.data
        # The axes of each item in world coordinates, as columns.
        self.rotations = data.xmat[self._body_ids].reshape(-1, 3, 3).copy()
        self.inside, self.resting = [], []
        self.held: int | None = None
        for index, placed in enumerate(self.placed):
            ends = self.positions[index] + np.outer((-1, 1), self.rotations[index][:, 0] * placed.item.size[0] * 0.9)
            inside = self.receptacles[placed.item.category].contains(ends)
            pads = [(self._body_ids[index], side) in touching for side in (0, 1)]
            if all(pads):
                self.held = index
                self.gripped.add(index)
            if any(pads):
                self.touched.add(index)
            at = self._velocity_at[index]
            slow = float(np.abs(data.qvel[at : at + 3]).max()) < RESTING
            self.inside.append(inside)
            self.resting.append(inside and slow and not any(pads))
        self.moved = np.linalg.norm(self.positions - self._start, axis=1)
        self.disturbed = [i for i, far in enumerate(self.moved) if far > DISTURBED and not self.asked[i]]
        self._disturbed = bool(self.disturbed)
        self._everything_placed = all(r for r, a in zip(self.resting, self.asked, strict=True) if a)
        self._target = self.choose_target(self.asked)

    def choose_target(self, asked: list[bool]) -> int | None:
        """The item in the grip, else the asked-for item out of place that is nearest to the tool over the table.

        The last target stays unless another is nearer by a margin, so that the choice does not flicker.
        """
        if self.held is not None and asked[self.held]:
            return self.held
        away = [i for i, wanted in enumerate(asked) if wanted and not self.inside[i]]
        if not away:
            return None
        tool = self.tabletop.position[:2]
        distance = {i: float(np.linalg.norm(self.positions[i][:2] - tool)) for i in away}
        best = min(away, key=distance.__getitem__)
        if self._target in distance and distance[self._target] < distance[best] + _STICKY:
            return self._target
        return best

    @property
    def target(self) -> int | None:
        """The index of the item to move now; None when everything asked for is in place."""
        return self._target

    @property
    def progress(self) -> float:
        """The share of the asked-for items that rest in their receptacles, 0 to 1."""
        return sum(r for r, a in zip(self.resting, self.asked, strict=True) if a) / sum(self.asked)

    def _reward_terms(self, success: bool) -> dict[str, float]:
        """``reach`` 0 to 0.1 (tool near the target), ``placed`` 0 to 1, ``disturbed`` -1 or 0, ``success`` 0 or 1."""
        reach = 0.1
        if self._target is not None:
            distance = float(np.linalg.norm(self.positions[self._target] - self.tabletop.position))
            reach = 0.1 * math.exp(-((distance / 0.15) ** 2))
        return {
            "reach": reach,
            "placed": self.progress,
            "disturbed": -1.0 if self._disturbed else 0.0,
            "success": float(success),
        }

    def points(self) -> dict[str, np.ndarray]:
        """Camera name to float32 (6,): u, v, visible of the target item, then of its receptacle's floor centre.

        With nothing left to move, all six are 0.
        """
        if self._target is None:
            return {camera.name: np.zeros(6, np.float32) for camera in self.env_spec.cameras}
        return self.points_of(self._target)

    def places_of(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Where an item is and where it belongs, metres, each (3,)."""
        receptacle = self.receptacles[self.placed[index].item.category]
        return self.positions[index], np.array([receptacle.x, receptacle.y, 0.0])

    def points_of(self, index: int) -> dict[str, np.ndarray]:
        """As ``points``, for any item."""
        places = self.places_of(index)
        cameras = [camera.name for camera in self.env_spec.cameras]
        seen = {name: [self.tabletop.project(name, place) for place in places] for name in cameras}
        return {name: np.array(values, np.float32).ravel() for name, values in seen.items()}

    def referring_expressions(self) -> list[ReferringExpression]:
        """Plain sentences for each item on the desk, in place or not, and for each category and the whole desk.

        An item is named, and where no other has its colour asked for by that alone, which leaves it to the eyes where
        it goes. A category and the desk stand for the item to move first; where there is none they are left out.
        """
        return tidy_words.referring_expressions(self)

    # --- the rest ------------------------------------------------------------------------------------------------

    def expert(self, seed: int = 0) -> Any:
        """A fresh scripted expert for this episode; ``seed`` varies its paths."""
        from envs.tidy_desk.expert import TidyExpert

        return TidyExpert(self, seed)

    def sentence_for(self, item: str) -> str:
        """A sentence in this episode's language and split that asks for one item on the desk, by its name."""
        thing = next(placed.item for placed in self.placed if placed.item.name == item)
        goal = Goal("named", item=(thing.color, thing.noun))
        return instructions.write(goal, self.language, self.split, np.random.default_rng(self.seed))

    def frame(self, width: int, height: int, camera: str = "scene", quality: str = "video") -> np.ndarray:
        """A picture, uint8 (height, width, 3), from ``scene``, ``wrist``, ``overview`` or ``film``."""
        return self.tabletop.frame(width, height, camera, quality)

    def film(self, width: int, height: int) -> np.ndarray:
        """See ``vla.contracts.abilities.Films``: the desk from obliquely above."""
        return self.tabletop.frame(width, height, "film", "fast")

    def doing(self) -> str:
        """See ``vla.contracts.abilities.Explains``."""
        return tidy_words.doing(self)

    def shortfall(self) -> Shortfall:
        """See ``vla.contracts.abilities.Explains``."""
        return tidy_words.shortfall(self)

    def render(self) -> np.ndarray | None:  # type: ignore[override]
        """Gymnasium's render: the scene at 480 x 360 where ``render_mode`` is ``rgb_array``."""
        return self.frame(480, 360, quality="fast") if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Free the renderers."""
        self.tabletop.close()
