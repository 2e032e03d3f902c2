"""tidy_desk: put what an instruction asks for from a desk into a pen tray, a block box and a waste bin.

Two to five items lie among three receptacles. The instruction asks for everything, for one category or for one named
item, in English or Chinese, or is composed: several items, all but some, one after the other, the one nearest to
something, two of a kind, another place than a thing's own, or a question that ends in an act. Success is physical: each
asked-for item rests released inside its receptacle for HOLD_STEPS control steps, nothing else was disturbed, no more
were moved than asked for, and none before its turn.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

import envs.tidy_desk.captions as captioning
import envs.tidy_desk.descriptions as descriptions
import envs.tidy_desk.instructions as instructions
import envs.tidy_desk.questions as asking
from envs.tabletop import arm
from envs.tabletop.distractors import add_distractors
from envs.tabletop.perturb import perturb_model
from envs.tabletop.safety import LIMITS
from envs.tabletop.table import DT, TICKS, Tabletop, camera_specs
from envs.tidy_desk.composed import STAYING, random_composed, sample_composed
from envs.tidy_desk.demand import Demand, demand_of
from envs.tidy_desk.expert import TidyExpert
from envs.tidy_desk.foreseen import foreseen
from envs.tidy_desk.goals import KINDS, LANGUAGES, Goal
from envs.tidy_desk.items import Receptacle, add_item, add_receptacle
from envs.tidy_desk.layout import (
    CORNERS,
    Placed,
    choose_things,
    half_tidied,
    move_beyond,
    occupied,
    random_goal,
    sample_layout,
)
from envs.tidy_desk.options import LONGEST, check_options
from envs.tidy_desk.outcomes import OUTCOMES, arrange
from envs.tidy_desk.rewording import reword
from envs.tidy_desk.scene import Scene
from vla.contracts import EnvSpec, Observation, ReferringExpression, StepResult, VlaError
from vla.contracts.abilities import Shortfall
from vla.contracts.captions import Caption, Wish
from vla.contracts.questions import Question
from vla.perturb import axes as perturb

EPISODE_STEPS = 400
HOLD_STEPS = 3  # success must last 0.3 s
_FALLEN_FOR = 0.8  # seconds after which what falls at the start has come to rest
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
    ``zh`` or None for either), ``items`` (2 to 5, or None for 3, of ``composed`` 4), ``kind`` (``all``, ``category``,
    ``named``, ``composed``, or None for one of the first three), ``category`` (``pens``, ``blocks``, ``waste``, or of
    ``composed`` what sort of it, see ``envs.tidy_desk.goals.COMPOSED``), ``instruction`` (a sentence of one's own: it
    decides language, kind and category), ``stage`` (``start``, or ``midway``: mostly the arm is anywhere above the
    desk, often close to an item, and holds one now and then, some items are in place, and some have fallen into or
    onto receptacles where they don't belong; 2 to 5 items if ``items`` is None), ``perturb`` (axis of
    ``PERTURBATIONS`` to strength; see ``vla.perturb``).
    """

    safety_limits: ClassVar[dict[str, float]] = LIMITS
    outcomes = OUTCOMES
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
            state=arm.STATE,
            action=arm.ACTION,
            dt=DT,
            episode_steps=EPISODE_STEPS,
            languages=LANGUAGES,
            relative=arm.RELATIVE,
            state_groups=arm.STATE_GROUPS,
            action_groups=arm.ACTION_GROUPS,
        )
        image = spaces.Box(0, 255, (cameras_px, cameras_px, 3), np.uint8)
        self.observation_space = spaces.Dict(
            {camera.name: image for camera in self.env_spec.cameras}
            | {
                "state": spaces.Box(arm.STATE_LOW, arm.STATE_HIGH, dtype=np.float32),
                "instruction": spaces.Text(max_length=LONGEST, min_length=1, charset=_CHARSET),
            }
        )
        self.action_space = spaces.Box(arm.ACTION_LOW, arm.ACTION_HIGH, dtype=np.float32)
        self.limit = 0  # steps of the present episode; none has begun
        self.scene: Scene

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
        count = chosen["items"] or (int(rng.integers(2, 6)) if midway else 0)
        self.language = chosen["language"] or str(rng.choice(LANGUAGES))
        if goal is None:
            kind = chosen["kind"] or ("named" if chosen["category"] else str(rng.choice(KINDS)))
            goal = (random_composed if kind == "composed" else random_goal)(kind, chosen["category"], rng)
        self.goal: Goal = goal
        self.instruction = chosen["instruction"] or instructions.write(goal, self.language, self.split, rng)

        harder = chosen["perturb"]
        if goal.kind == "composed":
            receptacles, placed = sample_composed(goal, count or 4, self.split, rng)
        else:
            receptacles, placed = sample_layout(choose_things(goal, count or 3, rng), self.split, rng)
        if "language" in harder:
            words = perturb.rng_of(seed, "language")
            self.instruction, self.language = reword(goal, self.instruction, self.language, harder["language"], words)
        if "layout" in harder and not goal.relation:  # which has to stay true
            placed = move_beyond(placed, receptacles, harder["layout"], perturb.rng_of(seed, "layout"))
        demand = demand_of(goal, placed, receptacles)

        home = self.tabletop.controller.home
        start = home + rng.uniform(-0.06, 0.06, len(home))
        # What is told by where it lies, or may be any of several, lies where it lay.
        if midway and rng.random() < 0.7 and goal.category not in STAYING:
            placed = half_tidied(placed, receptacles, rng)
        if midway and rng.random() < 0.7:
            lying = [(p.x, p.y) for p in placed if p.above == 0.0]
            close = bool(lying) and rng.random() < 0.6
            start = self.tabletop.pose_above_table(rng, lying[int(rng.integers(len(lying)))] if close else None)
        if "state" in harder:
            start = self.tabletop.pose_off_home(harder["state"], perturb.rng_of(seed, "state"))
        add_things = partial(self._add_things, receptacles, placed, harder.get("distractors"))
        change = partial(perturb_model, perturb=harder, seed=seed, keep_in_view=CORNERS)
        self.tabletop.build(add_things, start, change)
        if midway and rng.random() < 0.3:
            self._start_with_something_held(placed, demand, rng)
        if any(one.above for one in placed):
            self.tabletop.settle(_FALLEN_FOR)
        self.scene = Scene(self.tabletop, receptacles, placed, demand, self.language, seed)
        self._steps = self._ticks = self._held_for = 0
        self.limit = min(EPISODE_STEPS, 120 * demand.count + 40)
        info = {
            "instruction": self.instruction,
            "language": self.language,
            "kind": goal.kind,
            "category": goal.category,
            "split": self.split,
            "seed": self.seed,
            "items": [
                {"name": one.item.name, "category": one.item.category, "asked": wanted}
                for one, wanted in zip(placed, demand.asked, strict=True)
            ],
        }
        return self._raw_observation(), info

    def _add_things(
        self, receptacles: dict[str, Receptacle], placed: list[Placed], distractors: str | None, spec: Any
    ) -> None:
        for receptacle in receptacles.values():
            add_receptacle(spec, receptacle)
        for one in placed:
            add_item(spec, one.item, one.x, one.y, one.yaw, one.above)
        if distractors:
            rng = perturb.rng_of(self.seed, "distractors")
            add_distractors(spec, distractors, occupied(placed, receptacles), rng)

    def _start_with_something_held(self, placed: list[Placed], demand: Demand, rng: np.random.Generator) -> None:
        first = np.array(demand.asked) & (np.array(demand.turns) == 0)
        item = placed[int(rng.choice(np.flatnonzero(first)))].item
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
        if not self.limit:
            raise VlaError("tidy_desk: call reset before the first step")
        self.tabletop.play(action)
        return self._judge(float(action[-1]))

    def drive(self, q: np.ndarray, opening: float) -> StepResult | None:
        """See ``vla.contracts.abilities.DrivesJoints``."""
        if not self.limit:
            raise VlaError("tidy_desk: call reset before the first tick")
        self.tabletop.drive(q, opening)
        self._ticks += 1
        if self._ticks % TICKS:
            return None
        self.tabletop.see()
        return self._judge(opening)

    def measured(self) -> tuple[np.ndarray, np.ndarray, float]:
        """See ``vla.contracts.abilities.DrivesJoints``."""
        return self.tabletop.measured()

    def _judge(self, opening: float) -> StepResult:
        """What became of the ``dt`` seconds that have passed, in which the gripper was last told this opening."""
        scene = self.scene
        held = scene.held
        self._steps += 1
        scene.look()
        # Out of the grip though the fingers were told to close.
        slipped = held is not None and scene.held is None and opening < 0.5
        self._held_for = self._held_for + 1 if scene.done else 0
        success = self._held_for >= HOLD_STEPS
        terms = self._reward_terms(success)
        info = {
            "success": success,
            "progress": scene.progress,
            "reward_terms": terms,
            "disturbed": bool(scene.disturbed),
            "safety": {**self.tabletop.safety.reading(), "drops": float(slipped)},
            "items": {one.item.name: resting for one, resting in zip(scene.placed, scene.resting, strict=True)},
        }
        return StepResult(float(sum(terms.values())), success, not success and self._steps >= self.limit, info)

    def observe(self) -> Observation:
        """Render and read the present observation. Arrays are fresh at each call."""
        images = {camera.name: self.tabletop.render(camera.name) for camera in self.env_spec.cameras}
        return Observation(images, self.tabletop.state(), self.instruction, self._steps * DT)

    def _raw_observation(self) -> dict[str, Any]:
        seen = self.observe()
        return {**seen.images, "state": seen.state, "instruction": seen.instruction}

    def _reward_terms(self, success: bool) -> dict[str, float]:
        """``reach`` 0 to 0.1 (tool near the target), ``placed`` 0 to 1, ``disturbed`` -1 or 0, ``success`` 0 or 1."""
        scene, reach = self.scene, 0.1
        if scene.target is not None:
            distance = float(np.linalg.norm(scene.positions[scene.target] - self.tabletop.position))
            reach = 0.1 * math.exp(-((distance / 0.15) ** 2))
        return {
            "reach": reach,
            "placed": scene.progress,
            "disturbed": -1.0 if scene.disturbed else 0.0,
            "success": float(success),
        }

    # --- what the simulator knows --------------------------------------------------------------------------------

    def points(self) -> dict[str, np.ndarray]:
        """Camera name to float32 (6,): u, v, visible of the target item, then of its receptacle's floor centre.

        With nothing left to move, all six are 0.
        """
        return self.scene.points_of(self.scene.target)

    def referring_expressions(self) -> list[ReferringExpression]:
        """See ``envs.tidy_desk.descriptions.referring_expressions``."""
        return descriptions.referring_expressions(self.scene)

    def questions(self, rng: np.random.Generator, split: str = "train") -> list[Question]:
        """See ``envs.tidy_desk.questions``."""
        return asking.questions(self.scene, self.instruction, rng, split)

    def captions(self, rng: np.random.Generator, split: str = "train") -> list[Caption]:
        """See ``envs.tidy_desk.captions``. Both splits word them alike."""
        return captioning.captions(self.scene, rng)

    def wishes(self, rng: np.random.Generator, split: str = "train") -> list[Wish]:
        """See ``envs.tidy_desk.captions``."""
        return captioning.wishes(self.scene, self.goal, rng, split)

    def foreseen(self, rng: np.random.Generator, split: str = "train") -> list[str]:
        """See ``envs.tidy_desk.foreseen``."""
        return foreseen(self.goal, split, rng)

    def arrange(self, outcome: str, rng: np.random.Generator) -> None:
        """See ``envs.tidy_desk.outcomes``."""
        arrange(self.scene, outcome, rng)

    def doing(self) -> str:
        """See ``vla.contracts.abilities.Explains``."""
        return descriptions.doing(self.scene)

    def shortfall(self) -> Shortfall:
        """See ``vla.contracts.abilities.Explains``."""
        return descriptions.shortfall(self.scene)

    def expert(self, seed: int = 0) -> TidyExpert:
        """A fresh scripted expert for this episode; ``seed`` varies its paths."""
        return TidyExpert(self.scene, seed)

    def sentence_for(self, item: str) -> str:
        """A sentence in this episode's language and split that asks for one item on the desk, by its name."""
        thing = next(placed.item for placed in self.scene.placed if placed.item.name == item)
        goal = Goal("named", item=(thing.color, thing.noun))
        return instructions.write(goal, self.language, self.split, np.random.default_rng(self.seed))

    # --- pictures ------------------------------------------------------------------------------------------------

    def frame(self, width: int, height: int, camera: str = "scene", quality: str = "video") -> np.ndarray:
        """A picture, uint8 (height, width, 3), from ``scene``, ``wrist``, ``overview`` or ``film``."""
        return self.tabletop.frame(width, height, camera, quality)

    def film(self, width: int, height: int) -> np.ndarray:
        """See ``vla.contracts.abilities.Films``: the desk from obliquely above."""
        return self.tabletop.frame(width, height, "film", "fast")

    def render(self) -> np.ndarray | None:  # type: ignore[override]
        """Gymnasium's render: the scene at 480 x 360 where ``render_mode`` is ``rgb_array``."""
        return self.frame(480, 360, quality="fast") if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Free the renderers."""
        self.tabletop.close()
