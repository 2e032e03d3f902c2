"""Outcomes of an episode, written into the simulator: what was asked for, and what only looks a little like it.

``done``: as much as was asked for lies in its receptacle. ``beside``: it lies up to 4 cm beside it. ``elsewhere``: in
another receptacle. ``held``: the expert has lowered it between the walls, and has not let go. ``mixed``: each thing on
the desk lies where it lay, in any receptacle or beside one. Whatever was in the grip falls out of it, but in ``held``.
"""

from __future__ import annotations

import math

import numpy as np

from envs.tidy_desk.expert import TidyExpert
from envs.tidy_desk.goals import CATEGORIES
from envs.tidy_desk.items import Receptacle
from envs.tidy_desk.layout import AREA_HIGH, AREA_LOW
from envs.tidy_desk.scene import Scene
from vla.contracts import VlaError

OUTCOMES = ("done", "beside", "elsewhere", "held", "mixed")
_APART = 0.018  # metres between the middles of two things in a receptacle
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
    left_to_do = scene.demand.count - sum(i for i, asked in zip(scene.inside, scene.asked, strict=True) if asked)
    for index, asked in enumerate(scene.asked):
        own = scene.demand.into[index]
        others = [category for category in CATEGORIES if category != own]
        what = outcome if asked else "left"
        if outcome == "mixed":
            what = str(rng.choice(["left", "done", "elsewhere", "beside"], p=[0.3, 0.35, 0.15, 0.2]))
        into = own if what != "elsewhere" else str(rng.choice(others))
        if what == "beside":
            _put_beside(scene, index, scene.receptacles[into if rng.random() < 0.8 else str(rng.choice(others))], rng)
        elif what != "left" and not (into == own and scene.inside[index]) and (outcome != "done" or left_to_do > 0):
            waiting = [i for i in range(index, len(scene.asked)) if scene.asked[i] and not scene.inside[i]]
            _put_into(scene, index, scene.receptacles[into], waiting if outcome == "done" else [index])
            left_to_do -= 1
    scene.tabletop.settle(_SETTLE_S)
    scene.look()


def _put(scene: Scene, index: int, at: tuple[float, float, float], yaw: float) -> None:
    data, (place, speed) = scene.tabletop.data, _addresses(scene, index)
    half = yaw / 2
    data.qpos[place : place + 7] = (*at, math.cos(half), 0.0, 0.0, math.sin(half))
    data.qvel[speed : speed + 6] = 0.0


def _addresses(scene: Scene, index: int) -> tuple[int, int]:
    """Where an item's pose begins in ``qpos``, and its velocity in ``qvel``."""
    joint = scene.tabletop.model.joint(scene.placed[index].item.name)
    return int(joint.qposadr[0]), int(joint.dofadr[0])


def _put_into(scene: Scene, index: int, receptacle: Receptacle, leaving: list[int]) -> None:
    """At the first place where nothing lies but what is ``leaving``; it stays where it is if there is none."""
    starts = [_addresses(scene, other)[0] for other in range(len(scene.placed)) if other not in leaving]
    others = [scene.tabletop.data.qpos[start : start + 2] for start in starts]
    for place in receptacle.places:
        x, y = receptacle.world(*place).tolist()
        if all(math.dist(other, (x, y)) > _APART for other in others):
            _put(scene, index, (x, y, scene.placed[index].item.size[2] + 0.012), receptacle.lengthwise[0])
            return


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
