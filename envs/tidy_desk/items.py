"""What lies on the desk: items of six kinds and the three receptacles, as primitive geometry.

Lengths are metres, masses kilograms, colours RGB from 0 to 1. Every item's own x axis is its long one.
"""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from envs.tabletop.physics import mujoco
from envs.tabletop.rectangles import Rectangle
from envs.tidy_desk.goals import NOUNS

_GEOM = mujoco.mjtGeom
_GHOST = {"contype": 0, "conaffinity": 0, "mass": 0.0}
# Rolling friction keeps round things where they are put; the third number has the unit metre.
_SURFACE = {"condim": 6, "friction": [0.9, 0.005, 0.0015], "solref": [0.008, 1.0]}

# Hue ranges (0 to 1) of each named colour: what training shows, and the shades kept for evaluation.
_HUES: dict[str, tuple[tuple[float, float], tuple[float, float]]] = {
    "red": ((-0.020, 0.006), (0.009, 0.018)),
    "orange": ((0.062, 0.078), (0.081, 0.088)),
    "yellow": ((0.140, 0.158), (0.130, 0.137)),
    "green": ((0.290, 0.365), (0.370, 0.400)),
    "blue": ((0.565, 0.625), (0.630, 0.650)),
    "purple": ((0.760, 0.805), (0.810, 0.830)),
    "pink": ((0.900, 0.925), (0.928, 0.940)),
}


def shade(color: str, split: str, rng: np.random.Generator) -> tuple[float, float, float]:
    """A random shade of a named colour, RGB. The splits ``train`` and ``heldout`` share none."""
    held = split == "heldout"
    if color == "white":
        value = rng.uniform(0.90, 0.93) if held else rng.uniform(0.94, 1.0)
        return (value, value, value * rng.uniform(0.96, 1.0))
    if color == "black":
        value = rng.uniform(0.12, 0.14) if held else rng.uniform(0.06, 0.11)
        return (value, value, value)
    low, high = _HUES[color][held]
    saturation = rng.uniform(0.42, 0.52) if color == "pink" else rng.uniform(0.78, 0.95)
    value = rng.uniform(0.68, 0.86) if color in ("green", "blue", "purple") else rng.uniform(0.84, 0.98)
    return colorsys.hsv_to_rgb(rng.uniform(low, high) % 1.0, saturation, value)


@dataclass(frozen=True)
class Item:
    """One thing to tidy.

    Attributes:
        noun, color: as in ``envs.tidy_desk.goals``.
        size: half length, half width and half height.
        rgb: its shade.
        variant: 0 to 1, steers small differences in shape.
    """

    noun: str
    color: str
    size: tuple[float, float, float]
    rgb: tuple[float, float, float]
    variant: float

    @property
    def name(self) -> str:
        """Unique in an episode, e.g. ``red pen``."""
        return f"{self.color} {self.noun.replace('_', ' ')}"

    @property
    def category(self) -> str:
        """``pens``, ``blocks`` or ``waste``."""
        return NOUNS[self.noun]

    @property
    def symmetry(self) -> float:
        """The yaw, rad, after which a grasp of this item is the same again; 0 where every yaw will do."""
        return {"block": math.pi / 2, "paper_ball": 0.0, "bottle_cap": 0.0}.get(self.noun, math.pi)

    def level_axis(self, rotation: np.ndarray) -> int:
        """Which of its axes, the columns of ``rotation``, tells a yaw: the long one, else the flattest."""
        return 0 if self.symmetry == math.pi else int(np.argmin(np.abs(rotation[2])))

    def lies(self, rotation: np.ndarray) -> tuple[float, float]:
        """The yaw of an item with these axes (3, 3), as columns, and its symmetry; (0, 0) where no yaw can be told.

        That is so for round things, and for a long one that stands upright. A cube's yaw is that of its flattest axis.
        """
        axis = self.level_axis(rotation)
        if self.symmetry == 0.0 or abs(rotation[2, axis]) > 0.85:
            return 0.0, 0.0
        return math.atan2(rotation[1, axis], rotation[0, axis]), self.symmetry


def make_item(noun: str, color: str, split: str, rng: np.random.Generator) -> Item:
    """An item of random size and shade."""
    u, w = rng.uniform(size=2)
    sizes = {
        "pen": (0.056 + 0.008 * u, 0.0055 + 0.0008 * w, 0.0055 + 0.0008 * w),
        "marker": (0.050 + 0.008 * u, 0.0085 + 0.0012 * w, 0.0085 + 0.0012 * w),
        "eraser": (0.023 + 0.005 * u, 0.0115 + 0.0015 * w, 0.0075 + 0.001 * w),
        "block": (0.013 + 0.004 * u,) * 3,
        "paper_ball": (0.0165 + 0.003 * u,) * 3,
        "bottle_cap": (0.0155 + 0.002 * u, 0.0155 + 0.002 * u, 0.0068 + 0.001 * w),
    }
    return Item(noun, color, sizes[noun], shade(color, split, rng), float(rng.uniform()))


def add_item(spec: mujoco.MjSpec, item: Item, x: float, y: float, yaw: float, above: float = 0.0) -> None:
    """Put an item ``above`` metres over the table at (x, y), its long axis turned by ``yaw``. It names its body."""
    half = [math.cos(yaw / 2), 0, 0, math.sin(yaw / 2)]
    body = spec.worldbody.add_body(name=item.name, pos=[x, y, item.size[2] + 0.0005 + above], quat=half)
    body.add_freejoint(name=item.name)
    _SHAPES[item.noun](body, item)


def _rgba(rgb: Any, light: float = 1.0) -> list[float]:
    return [*(min(1.0, channel * light) for channel in rgb), 1.0]


def _along_x(length: float, offset: float = 0.0) -> list[float]:
    return [offset - length, 0, 0, offset + length, 0, 0]


def _pen(body: Any, item: Item) -> None:
    length, radius, _ = item.size
    body.add_geom(type=_GEOM.mjGEOM_CAPSULE, fromto=_along_x(length - radius), size=[radius, 0, 0], mass=0.015,
                  rgba=_rgba(item.rgb), **_SURFACE)  # fmt: skip
    tip, dark = length + 0.001, [0.15, 0.15, 0.17, 1]
    body.add_geom(
        type=_GEOM.mjGEOM_ELLIPSOID, pos=[tip, 0, 0], size=[0.009, radius * 0.7, radius * 0.7], rgba=dark, **_GHOST
    )
    body.add_geom(type=_GEOM.mjGEOM_CYLINDER, fromto=_along_x(0.006, -length * 0.55), size=[radius * 1.06, 0, 0],
                  rgba=[0.93, 0.93, 0.93, 1], **_GHOST)  # fmt: skip


def _marker(body: Any, item: Item) -> None:
    length, radius, _ = item.size
    body.add_geom(type=_GEOM.mjGEOM_CAPSULE, fromto=_along_x(length - radius), size=[radius, 0, 0], mass=0.025,
                  rgba=_rgba(item.rgb), group=4, **_SURFACE)  # fmt: skip
    body.add_geom(type=_GEOM.mjGEOM_CYLINDER, fromto=_along_x(length * 0.66, -length * 0.34), size=[radius, 0, 0],
                  rgba=_rgba(item.rgb), **_GHOST)  # fmt: skip
    body.add_geom(type=_GEOM.mjGEOM_CYLINDER, fromto=_along_x(length * 0.34, length * 0.66), size=[radius * 1.05, 0, 0],
                  rgba=[0.13, 0.13, 0.15, 1], **_GHOST)  # fmt: skip


def _eraser(body: Any, item: Item) -> None:
    length, width, height = item.size
    body.add_geom(
        type=_GEOM.mjGEOM_BOX, size=[length, width, height], mass=0.02, rgba=[0.95, 0.94, 0.92, 1], **_SURFACE
    )
    sleeve = 0.66 + 0.1 * item.variant
    body.add_geom(type=_GEOM.mjGEOM_BOX, size=[length * sleeve, width + 0.0006, height + 0.0006],
                  pos=[-length * (1 - sleeve) - 0.0006, 0, 0], rgba=_rgba(item.rgb), **_GHOST)  # fmt: skip


def _block(body: Any, item: Item) -> None:
    body.add_geom(type=_GEOM.mjGEOM_BOX, size=list(item.size), mass=0.03, rgba=_rgba(item.rgb), **_SURFACE)


def _paper_ball(body: Any, item: Item) -> None:
    radius = item.size[0]
    surface = {**_SURFACE, "friction": [0.9, 0.01, 0.006]}
    body.add_geom(type=_GEOM.mjGEOM_SPHERE, size=[radius, 0, 0], mass=0.01, rgba=_rgba(item.rgb), **surface)
    rng = np.random.default_rng(int(item.variant * 1e9))
    for _ in range(3):
        direction = rng.normal(size=3)
        at = direction / np.linalg.norm(direction) * radius * 0.4
        lump = radius * rng.uniform([0.55, 0.65, 0.7], [0.7, 0.8, 0.95])
        quat = rng.normal(size=4)
        body.add_geom(type=_GEOM.mjGEOM_ELLIPSOID, pos=at, size=lump, quat=quat / np.linalg.norm(quat),
                      rgba=_rgba(item.rgb, rng.uniform(0.86, 1.04)), **_GHOST)  # fmt: skip


def _bottle_cap(body: Any, item: Item) -> None:
    radius, _, height = item.size
    body.add_geom(type=_GEOM.mjGEOM_CYLINDER, size=[radius, height, 0], mass=0.012, rgba=_rgba(item.rgb), **_SURFACE)
    body.add_geom(
        type=_GEOM.mjGEOM_CYLINDER, size=[radius * 0.78, height + 0.0005, 0], rgba=_rgba(item.rgb, 0.8), **_GHOST
    )


_SHAPES = {
    "pen": _pen,
    "marker": _marker,
    "eraser": _eraser,
    "block": _block,
    "paper_ball": _paper_ball,
    "bottle_cap": _bottle_cap,
}

_WALL = 0.004  # half thickness of a receptacle's wall
_FORMS: dict[str, tuple[str, tuple[float, float], float, tuple[float, float, float]]] = {
    # category: name, half inside length and width, wall height, hue, saturation and value
    "pens": ("pen_tray", (0.090, 0.042), 0.020, (0.58, 0.28, 0.52)),
    "blocks": ("block_box", (0.060, 0.060), 0.036, (0.46, 0.38, 0.50)),
    "waste": ("waste_bin", (0.059, 0.059), 0.046, (0.64, 0.08, 0.30)),
}


@dataclass(frozen=True)
class Receptacle:
    """One of the three places where items go.

    Attributes:
        category: what goes in.
        x, y, yaw: its pose on the table.
        rgb: its shade.
    """

    category: str
    x: float
    y: float
    yaw: float
    rgb: tuple[float, float, float]

    @property
    def name(self) -> str:
        """``pen_tray``, ``block_box`` or ``waste_bin``."""
        return _FORMS[self.category][0]

    @property
    def half(self) -> tuple[float, float]:
        """Half the inside length and width."""
        return _FORMS[self.category][1]

    @property
    def wall(self) -> float:
        """The walls' height."""
        return _FORMS[self.category][2]

    @property
    def symmetry(self) -> float:
        """The turn, rad, after which it looks the same."""
        return {"pens": math.pi, "blocks": math.pi / 2, "waste": math.pi / 3}[self.category]

    @property
    def lengthwise(self) -> tuple[float, float]:
        """The yaw, rad, at which a long item fits best, from corner to corner but in the tray, and when it is again."""
        turn = {"pens": 0.0, "blocks": math.pi / 4, "waste": math.pi / 6}[self.category]
        return self.yaw + turn, self.symmetry

    @property
    def outside(self) -> tuple[float, float]:
        """Half the outside length and width."""
        if self.category == "waste":
            return (self.half[0] + 2 * _WALL, (self.half[0] + 2 * _WALL) / math.cos(math.pi / 6))
        return (self.half[0] + 2 * _WALL, self.half[1] + 2 * _WALL)

    @property
    def sides(self) -> list[tuple[float, float]]:
        """Each wall's outward angle in the receptacle's frame and the distance of its inner face."""
        if self.category == "waste":  # a hexagon
            return [(k * math.pi / 3, self.half[0]) for k in range(6)]
        return [(k * math.pi / 2, self.half[k % 2]) for k in range(4)]

    @property
    def walls(self) -> list[Rectangle]:
        """The walls' footprints on the table."""
        found = []
        for index, (angle, reach) in enumerate(self.sides):
            x, y = self.world((reach + _WALL) * math.cos(angle), (reach + _WALL) * math.sin(angle))
            found.append((float(x), float(y), self.yaw + angle, _WALL, self._breadth(index)))
        return found

    def _breadth(self, index: int) -> float:
        """Half the width of a wall."""
        if self.category == "waste":
            return self.half[0] * math.tan(math.pi / 6) + 1.4 * _WALL
        return self.half[(index + 1) % 2] + 2 * _WALL

    @property
    def places(self) -> list[tuple[float, float]]:
        """Where items are put down, metres in the receptacle's frame: the centre first, then beside it."""
        if self.category == "pens":
            return [(0.0, 0.0), (0.0, 0.022), (0.0, -0.022)]
        return [(0.0, 0.0), (0.026, 0.026), (-0.026, -0.026), (0.026, -0.026), (-0.026, 0.026)]

    def local(self, points: np.ndarray) -> np.ndarray:
        """World points (..., 3) in the receptacle's frame: x along its length, z up from the table."""
        c, s = math.cos(self.yaw), math.sin(self.yaw)
        moved = np.asarray(points) - (self.x, self.y, 0.0)
        return moved @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])

    def world(self, along: float, across: float) -> np.ndarray:
        """The world x, y of a place in the receptacle's frame, (2,)."""
        c, s = math.cos(self.yaw), math.sin(self.yaw)
        return np.array([self.x + c * along - s * across, self.y + s * along + c * across])

    def contains(self, points: np.ndarray) -> bool:
        """Whether all world points (n, 3) lie within the walls and no higher than they reach."""
        local = self.local(points)
        inside = all(
            (local[:, 0] * math.cos(a) + local[:, 1] * math.sin(a) <= reach + 0.002).all() for a, reach in self.sides
        )
        return bool(inside and (local[:, 2] <= self.wall + 0.012).all())


def make_receptacle(category: str, x: float, y: float, yaw: float, rng: np.random.Generator) -> Receptacle:
    """A receptacle with a slightly varied shade."""
    hue, saturation, value = _FORMS[category][3]
    rgb = colorsys.hsv_to_rgb(
        hue + rng.uniform(-0.02, 0.02), saturation * rng.uniform(0.85, 1.15), value * rng.uniform(0.9, 1.1)
    )
    return Receptacle(category, x, y, yaw, rgb)


def add_receptacle(spec: mujoco.MjSpec, receptacle: Receptacle) -> None:
    """Put a receptacle on the table: a thin floor that is only seen, and walls."""
    yaw = receptacle.yaw
    body = spec.worldbody.add_body(
        name=receptacle.name, pos=[receptacle.x, receptacle.y, 0], quat=[math.cos(yaw / 2), 0, 0, math.sin(yaw / 2)]
    )
    dark = 0.45 if receptacle.category == "waste" else 0.78
    half, wall = receptacle.half, receptacle.wall / 2
    hexagon = receptacle.category == "waste"
    floor = _rgba(receptacle.rgb, dark)
    if hexagon:
        body.add_geom(
            type=_GEOM.mjGEOM_CYLINDER, size=[half[0] * 1.14, 0.0004, 0], pos=[0, 0, 0.0004], rgba=floor, **_GHOST
        )
    else:
        body.add_geom(type=_GEOM.mjGEOM_BOX, size=[*half, 0.0004], pos=[0, 0, 0.0004], rgba=floor, **_GHOST)
    for index, (angle, reach) in enumerate(receptacle.sides):
        quat = [math.cos(angle / 2), 0, 0, math.sin(angle / 2)]
        at = reach + _WALL
        body.add_geom(type=_GEOM.mjGEOM_BOX, size=[_WALL, receptacle._breadth(index), wall], quat=quat,
                      pos=[at * math.cos(angle), at * math.sin(angle), wall],
                      rgba=_rgba(receptacle.rgb), friction=[0.4, 0.005, 0.0002])  # fmt: skip
