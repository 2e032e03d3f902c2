"""Meta-World's MT50 as an env: fifty tasks for a Sawyer arm, one camera, actions at 80 Hz.

The protocol is that of LeRobot 0.6.1 (``lerobot/envs/metaworld.py``), so that scores can be compared: the camera
``corner2``, moved and turned upright, the state of four numbers, 500 steps, success at any step. Benchmark:
Meta-World (arXiv 1910.10897), package ``metaworld`` 3.0.0.

The package is imported at the first reset; the tasks' names and sentences are in ``envs/metaworld/tasks.py``.
"""

from __future__ import annotations

import difflib
import importlib.util
import string
import warnings
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

from envs.metaworld.tasks import INSTRUCTIONS, PUBLISHED, TASKS, TIERS, instruction_of, tier_of
from vla.contracts import (
    CameraSpec,
    EnvSpec,
    ExpertStep,
    Group,
    MissingExtraError,
    Observation,
    ReferringExpression,
    StepResult,
    VlaError,
)
from vla.contracts.abilities import Benchmark

DT = 0.0125
CAMERA = "corner2"
CAMERA_POSITION = (0.75, 0.075, 0.7)  # metres; LeRobot moves the camera there
REFERENCE_PX = 480  # what LeRobot renders, whatever size it is asked for
EPISODE_STEPS = {"lerobot": 500, "evo1": 400}
STATE = ("hand_x [m]", "hand_y [m]", "hand_z [m]", "gripper [0..1]")
ACTION = ("dx [cm]", "dy [cm]", "dz [cm]", "grip [-1..1]")
STATE_GROUPS = (Group("hand", 0, 3, "position", "m", "world"), Group("gripper", 3, 4, "gripper", "1"))
ACTION_GROUPS = (Group("hand", 0, 3, "position", "cm", "world", delta=True), Group("grip", 3, 4, "gripper", "1"))
_OPTIONS = ("split", "language", "task", "stage")
_SPLITS, _STAGES = ("train", "heldout"), ("start", "midway")
_WANDER_STEPS = 60  # the most steps that the hand has wandered in a midway scene
_PLAYED_STEPS, _PLAYED_NOISE = 100, 0.5  # the most that the scripted policy has played in one, and its noise in cm
_MISSING = "the env metaworld needs the package metaworld, which is not installed here: uv sync --extra metaworld"


class MetaWorld(gymnasium.Env):
    """Meta-World's tasks, as ``vla.contracts.Env`` describes an env.

    State, float32 (4,): the hand's position in metres, and how far the fingers are apart, 0 closed to 1 open. Action,
    float32 (4,), -1 to 1: the hand's displacement in centimetres, and the gripper, 1 to close and -1 to open. Unlike
    the desk's, actions are displacements: that is the benchmark's own action space. Frame: Meta-World's, z up.

    Args:
        task: a task such as ``reach-v3``, a tier (``easy``, ``medium``, ``hard``, ``very_hard``), ``all``, or several
            of these with commas between them.
        cameras_px: width and height of the image, pixels. LeRobot always renders 480 and leaves scaling to the policy.
        render: ``fast``: at ``cameras_px``, without shadow map, multisampling and reflection. The arm's soft shadow is
            gone, edges are hard, and lit surfaces are darker (8 of 255 on average over the picture): train and measure
            with the same setting. ``reference``: LeRobot's own picture of 480 x 480, scaled to ``cameras_px`` by
            averaging areas (at 480 it is LeRobot's to the byte); more than ten times slower.
        protocol: ``lerobot`` (500 steps) or ``evo1`` (400 steps).
        fresh: LeRobot's first picture shows the scene as it was before the last draw of goal and objects in about half
            of the tasks. False keeps that, and ``reset`` says ``stale``; True draws the true scene, as recordings
            should. Motion and state are the same.
        render_mode: ``rgb_array`` or None, for gymnasium's ``render``.

    ``reset`` options: ``task`` (one task of those above; None lets ``seed % count`` choose, so that consecutive seeds
    go round all tasks in a fixed order), ``split`` (``train`` or ``heldout``: a label only, since every layout is drawn
    from the seed, and the seeds of recording and evaluation never meet), ``language`` (``en``), ``stage`` (``start``,
    or ``midway``: the hand has wandered off in one half of the scenes, and the scripted policy has played some way in
    the other, so that things are held and doors ajar; for scenes to look at and not to play; never stale).

    Raises:
        MissingExtraError: the package metaworld is not installed.
        VlaError: an argument is unknown.
    """

    ARGUMENT = "task"
    tasks: tuple[str, ...] = ()
    benchmark: ClassVar[Benchmark] = Benchmark(tuple(TIERS), len(TASKS), PUBLISHED)
    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": round(1 / DT)}  # type: ignore[misc]

    def __init__(
        self,
        task: str = "all",
        cameras_px: int = 224,
        render: str = "fast",
        protocol: str = "lerobot",
        fresh: bool = False,
        render_mode: str | None = None,
    ) -> None:
        self.tasks = _tasks_of(task)
        _require_one_of("render", render, ("fast", "reference"))
        _require_one_of("protocol", protocol, tuple(EPISODE_STEPS))
        if importlib.util.find_spec("metaworld") is None:
            raise MissingExtraError(_MISSING)
        self.render_mode, self.quality, self.fresh, self.cameras_px = render_mode, render, fresh, cameras_px
        self.env_spec = EnvSpec(
            name="metaworld",
            cameras=(CameraSpec(CAMERA, cameras_px, cameras_px),),
            state=STATE,
            action=ACTION,
            dt=DT,
            episode_steps=EPISODE_STEPS[protocol],
            state_groups=STATE_GROUPS,
            action_groups=ACTION_GROUPS,
        )
        self.observation_space = spaces.Dict(
            {
                CAMERA: spaces.Box(0, 255, (cameras_px, cameras_px, 3), np.uint8),
                "state": spaces.Box(-2.0, 2.0, (4,), np.float32),
                "instruction": spaces.Text(max_length=100, min_length=1, charset=string.printable),
            }
        )
        self.action_space = spaces.Box(-1.0, 1.0, (4,), np.float32)
        self.task: str | None = None
        self._sim: Any = None
        self._renderers: dict[str, Any] = {}

    # --- an episode ----------------------------------------------------------------------------------------------

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[str, Any], dict]:
        """Begin an episode. Raises VlaError where an option is unknown.

        The info has the contract's keys, ``kind`` (the tier), ``category`` (the task) and ``stale`` (see ``fresh``).
        """
        chosen = self._check_options(options or {})
        if seed is None:
            seed = int(self.np_random.integers(2**31))
        super().reset(seed=seed)
        self._load(chosen["task"] or self.tasks[seed % len(self.tasks)])
        from envs.tabletop.physics import mujoco

        mujoco.mj_resetData(self._sim.model, self._sim.data)  # or the last episode shows in the poses, by 0.1 µm
        self._sim.seed(seed)
        self.raw_state, _ = self._sim.reset()
        midway = chosen["stage"] == "midway"
        if midway:
            rng = np.random.default_rng(seed)
            begin = self._play_some_way if rng.random() < 0.5 else self._wander
            begin(rng)
        if self.fresh or midway:
            # Poses alone: the physics goes on from exactly where the benchmark leaves it.
            mujoco.mj_kinematics(self._sim.model, self._sim.data)
            mujoco.mj_camlight(self._sim.model, self._sim.data)
        self._steps, self._succeeded, self._stale = 0, False, not (self.fresh or midway)
        info = {
            "instruction": self.instruction,
            "language": "en",
            "kind": tier_of(self.task or ""),
            "category": self.task,
            "split": chosen["split"] or "train",
            "seed": seed,
            "stale": self._stale,
        }
        return self._raw_observation(), info

    def _wander(self, rng: np.random.Generator) -> None:
        """Let the hand go some way towards a random place in its reach, with the gripper open or shut."""
        steps, grip = int(rng.integers(1, _WANDER_STEPS + 1)), float(rng.choice((-1.0, 1.0)))
        goal = rng.uniform(self._sim.mocap_low, self._sim.mocap_high)
        for _ in range(steps):
            way = np.clip(10.0 * (goal - self.raw_state[:3]), -1.0, 1.0)
            self.raw_state = self._sim.step(np.append(way, grip))[0]

    def _play_some_way(self, rng: np.random.Generator) -> None:
        """Let the scripted policy play, with noise."""
        policy = self.expert()
        for _ in range(int(rng.integers(1, _PLAYED_STEPS + 1))):
            action = policy.act().action
            action[:3] += rng.normal(0.0, _PLAYED_NOISE, 3)
            self.raw_state = self._sim.step(np.clip(action, -1.0, 1.0))[0]

    def _check_options(self, options: dict[str, Any]) -> dict[str, Any]:
        unknown = sorted(set(options) - set(_OPTIONS))
        if unknown:
            raise VlaError(f"metaworld has no reset option '{unknown[0]}'; it has {', '.join(_OPTIONS)}")
        chosen = {name: options.get(name) for name in _OPTIONS}
        _require_one_of("split", chosen["split"] or "train", _SPLITS)
        _require_one_of("language", chosen["language"] or "en", ("en",))
        _require_one_of("stage", chosen["stage"] or "start", _STAGES)
        task = chosen["task"]
        if task is not None and task not in self.tasks:
            if task in TASKS:
                raise VlaError(f"metaworld: the task '{task}' is not one of this env's: {', '.join(self.tasks)}")
            raise _unknown_task(task, self.tasks)
        return chosen

    def _load(self, task: str) -> None:
        """Make the task's simulation, unless it is the one at hand. Set up as LeRobot does."""
        if self.task == task and self._sim is not None:
            return
        import envs.tabletop.physics  # noqa: F401  # before mujoco is imported

        try:
            from metaworld.env_dict import ALL_V3_ENVIRONMENTS
        except ImportError as error:
            raise MissingExtraError(f"{_MISSING} ({error})") from error
        self.close()
        sim = ALL_V3_ENVIRONMENTS[task]()
        # What MT1's set_task does, without drawing fifty layouts first: the goal is part of the raw state, and each
        # reset draws from the seed.
        sim._partially_observable = False
        del sim.sawyer_observation_space  # cached; it depends on the line above
        sim._set_task_called, sim._freeze_rand_vec, sim.seeded_rand_vec = True, False, True
        sim.max_path_length = 10**9  # the length of an episode is counted here
        sim.model.camera(CAMERA).pos = CAMERA_POSITION
        self._sim, self.task, self.instruction = sim, task, instruction_of(task)

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict]:
        """Gymnasium's step: ``play`` and then the observation."""
        result = self.play(action)
        return self._raw_observation(), result.reward, result.terminated, result.truncated, result.info

    def play(self, action: np.ndarray) -> StepResult:
        """Carry out one action (4,) for 0.0125 s. Raises VlaError, and moves nothing, if it is not finite;
        and where the physics diverges.

        The only reward term is Meta-World's own, 0 to 10. ``progress`` is a tenth of it, and 1 after success. Success
        at any step is success: later steps, where there are any, keep it.
        """
        if self._sim is None:
            raise VlaError("metaworld: call reset before the first step")
        action = np.asarray(action, dtype=np.float32)
        if action.shape != (4,) or not np.isfinite(action).all():
            raise VlaError(f"metaworld: an action is 4 finite numbers, and this one was {action.tolist()}")
        from envs.tabletop.physics import require_stable

        self.raw_state, reward, _, _, facts = self._sim.step(action)
        require_stable(self._sim.data, "metaworld")
        self._steps += 1
        self._succeeded = self._succeeded or bool(facts["success"])
        progress = 1.0 if self._succeeded else float(np.clip(reward / 10, 0.0, 1.0))
        info = {"success": self._succeeded, "progress": progress, "reward_terms": {"metaworld": float(reward)}}
        truncated = not self._succeeded and self._steps >= self.env_spec.episode_steps
        return StepResult(float(reward), self._succeeded, truncated, info)

    def observe(self) -> Observation:
        """Render and read the present observation. Arrays are fresh at each call."""
        state = np.array(self.raw_state[:4], dtype=np.float32)
        stale = self._stale and not self._steps
        return Observation({CAMERA: self._image()}, state, self.instruction, self._steps * DT, stale)

    def _raw_observation(self) -> dict[str, Any]:
        seen = self.observe()
        return {**seen.images, "state": seen.state, "instruction": seen.instruction}

    # --- pictures ------------------------------------------------------------------------------------------------

    def _image(self) -> np.ndarray:
        pixels = self.cameras_px
        if self.quality == "fast":
            return self._picture("policy", pixels, pixels, fast=True)
        image = self._picture("policy", REFERENCE_PX, REFERENCE_PX, fast=False)
        if pixels == REFERENCE_PX:
            return image
        from PIL import Image

        return np.array(Image.fromarray(image).resize((pixels, pixels), Image.Resampling.BOX))

    def _picture(self, purpose: str, width: int, height: int, fast: bool) -> np.ndarray:
        from vla.host import gl

        model, renderer = self._sim.model, self._renderers.get(purpose)
        if renderer is None or renderer.width < width or renderer.height < height:
            if renderer is not None:
                renderer.close()
            # The model's own settings, 4096 and 4, are what LeRobot renders with.
            shadows, samples = (0, 0) if fast else (4096, 4)
            renderer = gl.Offscreen(model, width, height, shadows, samples, effects=not fast)
            self._renderers[purpose] = renderer
        image = renderer.render(model, self._sim.data, model.camera(CAMERA).id, width, height)
        return np.ascontiguousarray(image[::-1, ::-1])  # the camera hangs upside down

    def frame(self, width: int, height: int, camera: str = CAMERA, quality: str = "video") -> np.ndarray:
        """A picture for videos, uint8 (height, width, 3), from ``corner2``. ``quality`` is ``video`` or ``fast``."""
        if camera != CAMERA:
            raise VlaError(f"metaworld: no camera '{camera}'; there is {CAMERA}")
        return self._picture(f"frame {quality}", width, height, fast=quality == "fast")

    def film(self, width: int, height: int) -> np.ndarray:
        """See ``vla.contracts.abilities.Films``."""
        return self.frame(width, height, quality="fast")

    def render(self) -> np.ndarray | None:  # type: ignore[override]
        """Gymnasium's render: the camera at 480 x 480 where ``render_mode`` is ``rgb_array``."""
        return self.frame(480, 480, quality="fast") if self.render_mode == "rgb_array" else None

    # --- what the simulator knows --------------------------------------------------------------------------------

    def points(self) -> dict[str, np.ndarray]:
        """Camera name to float32 (6,): u, v, visible of what is to be moved, then of Meta-World's goal position.

        What is to be moved is the task's first object, and the gripper in the two reach tasks.
        """
        return {CAMERA: np.array([self._project(place) for place in self._places()], np.float32).ravel()}

    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        reaches = (self.task or "").startswith("reach")
        item = self._sim.tcp_center if reaches else self._sim._get_pos_objects()[:3]
        return item, self._sim._target_pos

    def referring_expressions(self) -> list[ReferringExpression]:
        """The task's own sentence, and how far off what is to be moved and its goal are from the hand."""
        offsets = np.concatenate([place - self.raw_state[:3] for place in self._places()]).astype(np.float32)
        return [ReferringExpression(self.instruction, self.points(), offsets=offsets)]

    def _project(self, place: np.ndarray) -> tuple[float, float, float]:
        model, data = self._sim.model, self._sim.data
        camera = model.camera(CAMERA).id
        right, up, back = data.cam_xmat[camera].reshape(3, 3).T @ (np.asarray(place) - data.cam_xpos[camera])
        half = max(-back, 1e-3) * np.tan(np.radians(model.cam_fovy[camera]) / 2)
        u, v = -right / half, up / half  # signs for a picture that was turned upright
        visible = back < 0 and abs(u) <= 1 and abs(v) <= 1
        return float(np.clip(u, -1, 1)), float(np.clip(v, -1, 1)), float(visible)

    def expert(self, seed: int = 0) -> ScriptedPolicy:
        """Meta-World's own scripted policy for this episode's task. It is deterministic: ``seed`` is unused."""
        return ScriptedPolicy(self)

    def close(self) -> None:
        """Free the renderers and the simulation; the next reset makes them anew."""
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()
        if self._sim is not None:
            self._sim.close()
        self._sim = self.task = None


class ScriptedPolicy:
    """The scripted policy that comes with Meta-World, its actions clipped to -1..1. It sees objects and goal."""

    def __init__(self, env: MetaWorld) -> None:
        from metaworld.policies import ENV_POLICY_MAP

        self._env, self._policy = env, ENV_POLICY_MAP[env.task]()

    def act(self) -> ExpertStep:
        """The action for the env's present state."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns whenever an action has to be clipped
            action = self._policy.get_action(self._env.raw_state)
        return ExpertStep(np.clip(action, -1, 1).astype(np.float32), self._env.instruction)


def _tasks_of(names: str) -> tuple[str, ...]:
    """The tasks that the names stand for, each once. Raises VlaError, with the nearest names, for an unknown one."""
    groups = {"all": TASKS} | {tier: tuple(tasks) for tier, tasks in INSTRUCTIONS.items()} | {t: (t,) for t in TASKS}
    chosen: dict[str, None] = {}
    for name in names.split(","):
        if name not in groups:
            raise _unknown_task(name, tuple(groups))
        chosen |= dict.fromkeys(groups[name])
    return tuple(chosen)


def _unknown_task(name: str, known: tuple[str, ...]) -> VlaError:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    guess = f"the nearest are {', '.join(near)}" if near else f"a task is written like {TASKS[0]}"
    return VlaError(f"Meta-World has no task '{name}'; {guess}; tiers: {', '.join(TIERS)}; or all")


def _require_one_of(name: str, value: Any, known: tuple[str, ...]) -> None:
    if value not in known:
        raise VlaError(f"metaworld: {name} must be one of {', '.join(known)}, and was '{value}'")
