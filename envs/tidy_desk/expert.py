"""A scripted expert for tidy_desk. It looks at the simulator's state and decides anew at every step.

What it does follows from what it sees, so a policy can imitate it from one observation, and so it recovers by itself
when an item slips, is missed or was pushed: an item in the grip is carried; otherwise the target is approached from
above. The one thing that it remembers is for how long it has been closing the gripper.
"""

from __future__ import annotations

import math

import numpy as np

from envs.tabletop.arm import FINGER_TRAVEL, rotation_down
from envs.tabletop.rectangles import Rectangle, clear
from envs.tidy_desk.goals import sub_instruction
from envs.tidy_desk.items import Item, Receptacle
from envs.tidy_desk.scene import Scene
from vla.contracts import ExpertStep

_YAW_LIMIT = math.radians(105)
_LOWEST = 0.011  # metres: the finger tips just clear the table
_CLOSE_FOR = 7  # steps after which a grasp that holds nothing is given up
_ROUND = math.pi / 8  # the step between the yaws that are tried on a round item
_FINGER = (0.0105, 0.013)  # metres: half a finger's length, and its whole thickness
_SPARE = 0.009  # metres between an item and each finger, where there is no room for a wider grip
_REST = np.array([0.42, 0.0, 0.26])


class TidyExpert:
    """Moves one asked-for item after the other.

    Args:
        scene: this episode's.
        seed: varies hover height, speed and the grasp along an item.
    """

    def __init__(self, scene: Scene, seed: int = 0) -> None:
        self._scene = scene
        rng = np.random.default_rng([seed, scene.seed])
        self._hover = rng.uniform(0.085, 0.115)
        self._carry = rng.uniform(0.105, 0.135)
        self._speed = rng.uniform(0.040, 0.050)  # metres a step
        self._along = rng.uniform(-0.10, 0.10)  # where a long item is gripped, in half lengths
        self._bow = rng.uniform(-0.25, 0.25)  # sideways bend of long moves
        self._closing = 0
        self._closing_on: int | None = None
        self._last: int | None = None
        self._last_step: np.ndarray = np.zeros(3)

    def act(self) -> ExpertStep:
        """The action for the scene's present state, and the sub-instruction it serves."""
        scene = self._scene
        position, yaw = scene.tabletop.position, self._yaw()
        target = scene.target
        if target != self._closing_on:  # else the hand would go on closing on its way to the next item, far too low
            self._closing, self._closing_on = 0, target
        if scene.held is not None and scene.held == target and scene.tabletop.gripper < 0.9:
            goal, turn, grip = self._move_held(target, position, yaw)
        elif target is not None:
            goal, turn, grip = self._pick(target, position, yaw)
        else:
            self._closing = 0
            clear = position[2] > 0.12
            goal = _REST if clear else np.array([*position[:2], 0.16])
            turn, grip = (0.0 if clear else yaw), 1.0
        named = target if target is not None else self._last
        if named is None:
            named = scene.asked.index(True)
        self._last = named
        item = scene.placed[named].item
        step = self._limited(goal - position)
        turn = float(np.clip(turn - yaw, -0.22, 0.22))
        action = np.concatenate((position + step, rotation_down(yaw + turn), [grip]))
        words = sub_instruction(item.color, item.noun, scene.language, scene.demand.into[named])
        return ExpertStep(action.astype(np.float32), words)

    # --- the two halves of the task: pick, and place -----------------------------------------------------------------

    def _pick(self, target: int, position: np.ndarray, yaw: float) -> tuple[np.ndarray, float, float]:
        scene = self._scene
        item = scene.placed[target].item
        at, wanted, opening = self._grasp(target, yaw)
        low = max(_LOWEST, float(at[2]))
        away = float(np.linalg.norm(at[:2] - position[:2]))
        off = self._off(item, at[:2] - position[:2], yaw)
        askew = abs(wanted - yaw)
        at_grasp = off < 1.0 and position[2] < low + 0.004 + 0.5 * item.size[2] and askew < 0.17
        is_open = scene.tabletop.gripper > opening - 0.15  # not so where an item has just been let go, and falls
        if self._closing or (at_grasp and is_open):
            self._closing += 1
            if self._closing <= _CLOSE_FOR:
                return np.array([*at[:2], low]), wanted, 0.0
            self._closing = 0
        if not is_open and position[2] < 0.16:  # open first: what is held falls where it is
            return position + (0.0, 0.0, 0.005), yaw, opening
        # A funnel: the further off, the higher.
        height = min(low + max(off - 0.7, 0.0) * 0.025 + max(askew - 0.10, 0.0) * 0.25, self._hover + low)
        if position[2] < self._hover - 0.03 and away > 0.03:  # rise before moving off, lest the fingers sweep
            return np.array([*(position[:2] + 0.15 * (at[:2] - position[:2])), self._hover + low]), yaw, opening
        return np.array([*at[:2], height]), wanted, opening

    def _move_held(self, target: int, position: np.ndarray, yaw: float) -> tuple[np.ndarray, float, float]:
        scene = self._scene
        item = scene.placed[target].item
        receptacle = scene.receptacles[scene.demand.into[target]]
        slot, turned = self._slot(receptacle, target), yaw
        self._closing = min(self._closing + 1, _CLOSE_FOR - 1) if self._closing else 0
        if item.category == "pens":
            long_axis = scene.rotations[target][:, 0]
            lengthwise, same = receptacle.lengthwise
            turn = _wrap(lengthwise - math.atan2(long_axis[1], long_axis[0]), same)
            turned = min(self._allowed(yaw + turn, same, slot), key=lambda c: abs(c - yaw) + 0.3 * abs(c))
        goal = position[:2] + slot - scene.positions[target][:2]  # so that the item, not the tool, comes to the slot
        away = float(np.linalg.norm(goal - position[:2]))
        askew = abs(turned - yaw)
        hangs = position[2] - (scene.positions[target][2] - item.size[2])
        release = receptacle.wall + 0.012 + hangs
        if 0 < self._closing < 4 and position[2] < 0.05:  # let the fingers press before lifting
            return np.array([*position[:2], max(_LOWEST, float(scene.positions[target][2]))]), yaw, 0.0
        self._closing = 0
        near = 0.020 if item.category != "pens" else 0.013 if receptacle.category == "pens" else 0.008
        if away < near and askew < 0.17:
            if position[2] < release + 0.013:
                return np.array([*goal, position[2]]), turned, 1.0
            return np.array([*goal, release]), turned, 0.0
        carry = max(self._carry, release + 0.02)
        if position[2] < carry - 0.03 and away > 0.02:
            return np.array([*(position[:2] + 0.1 * (goal - position[:2])), carry]), yaw, 0.0
        height = min(carry, release + max(away - near, 0.0) * 2.0 + max(askew - 0.15, 0.0) * 0.2 + 0.01)
        return np.array([*goal, max(height, receptacle.wall + hangs + 0.02)]), turned, 0.0

    # --- helpers -------------------------------------------------------------------------------------------------

    def _yaw(self) -> float:
        axis = self._scene.tabletop.rotation[:, 0]
        return math.atan2(axis[1], axis[0])

    def _grasp(self, target: int, yaw: float) -> tuple[np.ndarray, float, float]:
        """Where the tool goes to grasp an item, (3,), its yaw and how far the gripper opens.

        Where the fingers have room, and then with little to turn, wide open and where a long item is to be gripped.
        """
        scene = self._scene
        item, rotation = scene.placed[target].item, scene.rotations[target]
        centre, alongs = scene.positions[target], [0.0]
        if item.symmetry == math.pi:
            alongs = [self._along, self._along + 0.35, self._along - 0.35]
        axis = item.level_axis(rotation)
        wanted = math.atan2(rotation[1, axis], rotation[0, axis]) if item.symmetry else 0.0
        obstacles = self._obstacles(target, float(centre[2]))
        best: tuple[float, np.ndarray, float, float] | None = None
        for along in alongs:
            at = centre + rotation[:, 0] * item.size[0] * along
            for turned in self._allowed(wanted, item.symmetry or _ROUND, at):
                for opening in (1.0, (item.size[1] + _SPARE) / FINGER_TRAVEL):
                    cost = 0.3 * abs(turned) + 2.0 * abs(along - alongs[0]) + 3.0 * (1.0 - opening)
                    cost += abs(turned - yaw) if item.symmetry else 0.0
                    if best is not None and cost >= best[0]:
                        continue
                    paths = _paths(at, turned, opening, item.size[1])
                    blocked = [not clear(p, o, gap) for gap in (0.0, 0.004) for o in obstacles for p in paths]
                    cost += 5.0 * sum(blocked)
                    if best is None or cost < best[0]:
                        best = cost, at, turned, opening
        assert best is not None
        return best[1:]

    def _obstacles(self, target: int, height: float) -> list[Rectangle]:
        """What the fingers must not come down on to grasp an item at this height: walls and other items."""
        scene, tips = self._scene, max(_LOWEST, height) - _LOWEST
        walls = [wall for r in scene.receptacles.values() if r.wall > tips for wall in r.walls]
        return walls + [
            (*scene.positions[i][:2].tolist(), placed.item.lies(scene.rotations[i])[0], *placed.item.size[:2])
            for i, placed in enumerate(scene.placed)
            if i != target and scene.positions[i][2] + placed.item.size[2] > tips
        ]

    def _allowed(self, wanted: float, symmetry: float, at: np.ndarray) -> list[float]:
        """The yaws equivalent to ``wanted`` that joint 7 can reach, at least one."""
        low, high = max(-_YAW_LIMIT, math.atan2(at[1], at[0]) - 1.88), _YAW_LIMIT
        turns = math.ceil(2 * _YAW_LIMIT / symmetry)
        choices = [wanted + k * symmetry for k in range(-turns - 1, turns + 2)]
        return [c for c in choices if low <= c <= high] or [min(choices, key=abs)]

    def _off(self, item: Item, offset: np.ndarray, yaw: float) -> float:
        """How far the tool is from where it may grasp, in tolerances: 1 is just near enough.

        Fingers that close centre an item between them, so they may be further off across it than along it.
        """
        c, s = math.cos(yaw), math.sin(yaw)
        along, across = abs(c * offset[0] + s * offset[1]), abs(c * offset[1] - s * offset[0])
        free = min(0.020, 0.5 * item.size[0]) if item.symmetry == math.pi else 0.010
        return math.hypot(along / free, across / 0.015)

    def _slot(self, receptacle: Receptacle, target: int) -> np.ndarray:
        """A free place in the receptacle, world x, y: the centre, or beside what lies there already."""
        scene = self._scene
        there = [
            scene.positions[i][:2]
            for i in range(len(scene.placed))
            if i != target and receptacle.contains(scene.positions[i][None])
        ]
        if not there:
            return receptacle.world(0.0, 0.0)
        slots = [receptacle.world(*place) for place in receptacle.places]
        return max(slots, key=lambda s: min(float(np.linalg.norm(s - p)) for p in there))

    def _limited(self, move: np.ndarray) -> np.ndarray:
        """The next step towards a goal: a proportional approach with bounded speed and change of speed."""
        distance = float(np.linalg.norm(move))
        if distance < 1e-6:
            self._last_step = np.zeros(3)
            return np.zeros(3)
        length = min(
            max(distance * 0.75, min(distance, 0.012)), self._speed, float(np.linalg.norm(self._last_step)) + 0.018
        )
        step = move / distance * length
        if distance > 0.12:  # a slight bow, which varies the paths
            step[:2] += self._bow * (distance - 0.12) * np.array([-step[1], step[0]]) * 2.0
        self._last_step = step
        return step


def _paths(at: np.ndarray, yaw: float, opening: float, half_width: float) -> list[Rectangle]:
    """The footprints of what two fingers sweep when they close on an item of that half width."""
    outer = opening * FINGER_TRAVEL + _FINGER[1]
    away, half = (outer + half_width) / 2, (outer - half_width) / 2
    x, y = away * -math.sin(yaw), away * math.cos(yaw)
    return [(at[0] + side * x, at[1] + side * y, yaw, _FINGER[0], half) for side in (-1, 1)]


def _wrap(angle: float, period: float) -> float:
    """The angle in (-period/2, period/2]."""
    return -((-angle + period / 2) % period - period / 2)
