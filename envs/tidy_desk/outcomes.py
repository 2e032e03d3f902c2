"""Outcomes of an episode, written into the simulator: what was asked for, and what only looks a little like it.

``done``: all that was asked for lies in its receptacle. ``beside``: it lies up to 4 cm beside it. ``elsewhere``: in
another receptacle. ``held``: the expert has lowered it between the walls, and has not let go. ``mixed``: each thing on
the desk lies where it lay, in any receptacle or beside one. Whatever was in the grip falls out of it, but in ``held``.
"""

from __future__ import annotations

import math

import numpy as np

from envs.tabletop.table import Tabletop
from envs.tidy_desk.expert import TidyExpert
from envs.tidy_desk.goals import CATEGORIES
from envs.tidy_desk.items import Receptacle
from envs.tidy_desk.layout import AREA_HIGH, AREA_LOW
from envs.tidy_desk.scene import Scene
from vla.contracts import VlaError

OUTCOMES = ("done", "beside", "elsewhere", "held", "mixed")
_GAP = (0.004, 0.04)  # metres between a receptacle and what lies beside it
_SETTLE_S = 0.5
_LONGEST = 150  # steps in which the expert must hold the thing over its receptacle
_OVER = 0.02  # metres from the receptacle's middle
_LOWER = 8  # steps


def arrange(scene: Scene, outcome: str, rng: np.random.Generator) -> None:
    """See ``vla.contracts.captions.Arranges``. Raises VlaError for another name."""
    if outcome not in OUTCOMES:
        raise VlaError(f"there is no outcome '{outcome}'; known: {', '.join(OUTCOMES)}")
    if outcome == "held":
        _hold(scene)
        return
    free = {category: list(receptacle.places) for category, receptacle in scene.receptacles.items()}
    for index, asked in enumerate(scene.asked):
        own = scene.demand.into[index]
        others = [category for category in CATEGORIES if category != own]
        what = outcome if asked else "left"
        if outcome == "mixed":
            what = str(rng.choice(["left", "done", "elsewhere", "beside"], p=[0.3, 0.35, 0.15, 0.2]))
        into = own if what != "elsewhere" else str(rng.choice(others))
        if what == "beside":
            _put_beside(scene, index, scene.receptacles[into if rng.random() < 0.8 else str(rng.choice(others))], rng)
        elif what != "left" and free[into]:
            _put_into(scene, index, scene.receptacles[into], free[into].pop(0))
    scene.tabletop.settle(_SETTLE_S)
    scene.look()


def _put(scene: Scene, index: int, at: tuple[float, float, float], yaw: float) -> None:
    tabletop: Tabletop = scene.tabletop
    joint = tabletop.model.joint(scene.placed[index].item.name)
    half = yaw / 2
    tabletop.data.qpos[joint.qposadr[0] : joint.qposadr[0] + 7] = (*at, math.cos(half), 0.0, 0.0, math.sin(half))
    tabletop.data.qvel[joint.dofadr[0] : joint.dofadr[0] + 6] = 0.0


def _put_into(scene: Scene, index: int, receptacle: Receptacle, place: tuple[float, float]) -> None:
    x, y = receptacle.world(*place).tolist()
    _put(scene, index, (x, y, scene.placed[index].item.size[2] + 0.012), receptacle.lengthwise[0])


def _put_beside(scene: Scene, index: int, receptacle: Receptacle, rng: np.random.Generator) -> None:
    """Along one of its walls, where there is room; it stays where it is if there is none."""
    item = scene.placed[index].item
    for _ in range(30):
        axis, sign = int(rng.integers(2)), float(rng.choice([-1.0, 1.0]))
        away = receptacle.outside[axis] + item.size[1] + float(rng.uniform(*_GAP))
        along = float(rng.uniform(-1.0, 1.0)) * receptacle.half[1 - axis]
        x, y = receptacle.world(*((sign * away, along) if axis == 0 else (along, sign * away))).tolist()
        yaw = receptacle.yaw + (math.pi / 2 if axis == 0 else 0.0)
        reach = np.array([[math.cos(yaw)], [math.sin(yaw)]]) * item.size[0] * np.array([-1.0, 0.0, 1.0])
        ends = np.vstack((np.array([[x], [y]]) + reach, np.zeros((1, 3)))).T
        if not all((end[:2] >= AREA_LOW).all() and (end[:2] <= AREA_HIGH).all() for end in ends):
            continue
        spare = item.size[1] + 0.003
        near = [np.abs(r.local(ends)[:, :2]) < np.array(r.outside) + spare for r in scene.receptacles.values()]
        apart = np.linalg.norm(np.delete(scene.positions[:, :2], index, axis=0) - (x, y), axis=1)
        if not any(one.all(axis=1).any() for one in near) and (apart > 0.05).all():
            _put(scene, index, (x, y, item.size[2] + 0.004), yaw)
            return


def _hold(scene: Scene) -> None:
    """As far as the expert comes within ``_LONGEST`` steps."""
    expert = TidyExpert(scene)
    for _ in range(_LONGEST):
        held = scene.held
        if held is not None and held == scene.target:
            place = scene.receptacles[scene.demand.into[held]]
            if math.dist(scene.positions[held][:2], (place.x, place.y)) < _OVER:
                break
        action = expert.act().action
        scene.tabletop.play(action)
        scene.look()
    action = np.asarray(action, dtype=np.float32).copy()
    action[2], action[-1] = 0.03, 0.0
    for _ in range(_LOWER):
        scene.tabletop.play(action)
        scene.look()
