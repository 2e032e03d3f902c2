"""The perturbation ``distractors``: things that lie about on a table and that nobody asks for.

They are solid, stand fixed, and differ in shape, size and colour from whatever a task asks for: greys, browns and
dull greens. None is higher than 6 cm, so that an arm that carries something passes over it. Lengths are metres.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from envs.tabletop.physics import mujoco
from envs.tabletop.rectangles import Rectangle, clear

COUNTS = {"mild": 1, "medium": 3, "strong": 5}
FAR, NEAR = 0.30, 0.72  # x of their centres
_GAP = 0.012  # metres to whatever else needs room
_TRIES = 400

_BOX, _CYLINDER, _ELLIPSOID = (getattr(mujoco.mjtGeom, f"mjGEOM_{name}") for name in ("BOX", "CYLINDER", "ELLIPSOID"))
_GREY, _DARK, _LIGHT = (0.46, 0.47, 0.49), (0.24, 0.25, 0.27), (0.72, 0.73, 0.72)
_BROWN, _BEIGE, _TEAL, _OLIVE = (0.42, 0.29, 0.20), (0.74, 0.66, 0.52), (0.24, 0.42, 0.42), (0.36, 0.40, 0.20)
PALETTE = (_GREY, _DARK, _LIGHT, _BROWN, _BEIGE, _TEAL, _OLIVE)

# kind: half length and half width of the footprint, the colours that it comes in, and its parts: shape, half size,
# centre, and a colour (None: the one that it comes in).
_Part = tuple[Any, tuple[float, ...], tuple[float, float, float], tuple[float, float, float] | None]
_KINDS: dict[str, tuple[tuple[float, float], tuple, list[_Part]]] = {
    "mug": ((0.056, 0.036), (_TEAL, _BROWN, _LIGHT), [
        (_CYLINDER, (0.036, 0.028), (-0.010, 0, 0.028), None),
        (_CYLINDER, (0.031, 0.001), (-0.010, 0, 0.0565), (0.20, 0.13, 0.09)),
        (_BOX, (0.010, 0.005, 0.004), (0.034, 0, 0.044), None),
        (_BOX, (0.010, 0.005, 0.004), (0.034, 0, 0.014), None),
        (_BOX, (0.004, 0.005, 0.019), (0.044, 0, 0.029), None),
    ]),
    "book": ((0.085, 0.060), (_TEAL, _BROWN, _GREY), [
        (_BOX, (0.083, 0.058, 0.009), (0.001, 0, 0.010), (0.86, 0.84, 0.78)),
        (_BOX, (0.085, 0.060, 0.0012), (0, 0, 0.0200), None),
        (_BOX, (0.002, 0.060, 0.010), (-0.083, 0, 0.010), None),
        (_BOX, (0.045, 0.022, 0.0002), (0.005, 0, 0.0214), _BEIGE),
    ]),
    "phone": ((0.072, 0.036), (_DARK, _GREY), [
        (_BOX, (0.072, 0.036, 0.004), (0, 0, 0.004), None),
        (_BOX, (0.064, 0.032, 0.0003), (0, 0, 0.0082), (0.10, 0.13, 0.16)),
    ]),
    "stapler": ((0.066, 0.017), (_DARK, _TEAL), [
        (_BOX, (0.066, 0.017, 0.004), (0, 0, 0.004), None),
        (_BOX, (0.056, 0.007, 0.005), (-0.004, 0, 0.017), _LIGHT),
        (_BOX, (0.060, 0.014, 0.007), (-0.006, 0, 0.029), None),
        (_BOX, (0.010, 0.012, 0.010), (-0.054, 0, 0.014), None),
    ]),
    "tape roll": ((0.034, 0.034), (_BEIGE, _BROWN), [
        (_CYLINDER, (0.034, 0.011), (0, 0, 0.011), None),
        (_CYLINDER, (0.019, 0.0002), (0, 0, 0.0222), _DARK),
    ]),
    "calculator": ((0.060, 0.038), (_GREY, _DARK), [
        (_BOX, (0.060, 0.038, 0.006), (0, 0, 0.006), None),
        (_BOX, (0.012, 0.032, 0.0006), (-0.040, 0, 0.0122), (0.56, 0.62, 0.52)),
        *((_BOX, (0.006, 0.006, 0.0010), (x, y, 0.0124), _LIGHT)
          for x in (-0.014, 0.005, 0.024, 0.043) for y in (-0.025, -0.008, 0.008, 0.025)),
    ]),
    "computer mouse": ((0.050, 0.031), (_GREY, _DARK), [
        (_ELLIPSOID, (0.050, 0.031, 0.030), (0, 0, 0.003), None),
        (_BOX, (0.008, 0.002, 0.001), (0.026, 0, 0.029), _LIGHT),
    ]),
    "plant": ((0.040, 0.040), (_BROWN, _BEIGE), [
        (_CYLINDER, (0.030, 0.020), (0, 0, 0.020), None),
        *((_ELLIPSOID, (0.020, 0.010, 0.006), (0.020 * math.cos(a), 0.020 * math.sin(a), 0.046), _OLIVE)
          for a in (0.0, 2.1, 4.2)),
        (_ELLIPSOID, (0.014, 0.014, 0.010), (0, 0, 0.048), _OLIVE),
    ]),
}  # fmt: skip
KINDS = tuple(_KINDS)


def add_distractors(
    spec: mujoco.MjSpec, strength: str, taken: Sequence[Rectangle], rng: np.random.Generator
) -> list[str]:
    """Put distractors on the table, clear of what is there. Bodies are named ``distractor KIND``.

    What is drawn does not depend on what is taken: candidates for each place are drawn first, and the first that is
    free counts. Where none is, the next kind is tried.

    Args:
        spec: the scene; its table's surface is z = 0.
        strength: of ``COUNTS``: how many, all of different kinds; on a full desk the last may find no room.
        taken: what must stay free, the room that a gripper needs included.
        rng: the source of randomness.

    Returns:
        the kinds that found a place.
    """
    order = [KINDS[i] for i in rng.permutation(len(KINDS))]
    shades = rng.random(len(KINDS))
    spots = rng.uniform((FAR, -1.0, -math.pi), (NEAR, 1.0, math.pi), (len(KINDS), _TRIES, 3))
    spots[..., 1] *= 0.265 + 0.107 * (0.70 - spots[..., 0])  # within the sides of the scene camera's picture
    occupied = list(taken)
    added: list[str] = []
    for kind, shade, candidates in zip(order, shades, spots, strict=True):
        if len(added) == COUNTS[strength]:
            break
        half, colours, _ = _KINDS[kind]
        for x, y, yaw in candidates.tolist():
            footprint = (x, y, yaw, *half)
            if all(clear(footprint, other, _GAP) for other in occupied):
                _add(spec, kind, x, y, yaw, colours[int(shade * len(colours))])
                occupied.append(footprint)
                added.append(kind)
                break
    return added


def _add(spec: mujoco.MjSpec, kind: str, x: float, y: float, yaw: float, colour: tuple[float, ...]) -> None:
    quat = [math.cos(yaw / 2), 0, 0, math.sin(yaw / 2)]
    body = spec.worldbody.add_body(name=f"distractor {kind}", pos=[x, y, 0], quat=quat)
    for shape, size, centre, own in _KINDS[kind][2]:
        body.add_geom(type=shape, size=[*size, 0, 0][:3], pos=centre, rgba=[*(own or colour), 1.0])
