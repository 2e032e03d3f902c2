"""The perturbations of a tabletop that are the same for every task on it: cameras, light and surfaces.

``perturb_model`` changes a compiled scene. Each change draws unit numbers first and scales them by the strength, so
that mild, medium and strong go the same way in one episode, each further than the last.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from envs.tabletop.physics import mujoco
from vla.control.rotation import matrix_from_vector
from vla.perturb.axes import rng_of

AXES = ("camera", "light", "texture")
_WIDEST = 60.0  # degrees

# strength: azimuth, elevation and roll (degrees), distance and field of view (shares), aim (metres)
_SCENE_CAMERA = {
    "mild": (4.0, 2.5, 1.5, 0.02, 0.02, 0.008),
    "medium": (11.0, 6.0, 4.0, 0.06, 0.06, 0.020),
    "strong": (24.0, 12.0, 9.0, 0.12, 0.10, 0.035),
}
# strength: place (metres), turn (degrees), field of view (share)
_WRIST_CAMERA = {"mild": (0.002, 2.0, 0.02), "medium": (0.006, 5.0, 0.06), "strong": (0.009, 9.0, 0.12)}
# strength: azimuth and height of the key light (degrees), brightness (log), warmth (share of red against blue)
_LIGHT = {"mild": (20.0, 6.0, 0.15, 0.07), "medium": (60.0, 15.0, 0.40, 0.18), "strong": (140.0, 28.0, 0.65, 0.32)}


def perturb_model(model: Any, perturb: Mapping[str, str], seed: int, keep_in_view: np.ndarray) -> None:
    """Change a compiled tabletop scene in place.

    Args:
        model: an ``mjModel`` that was built by ``envs.tabletop.table.Tabletop``, before its first frame.
        perturb: axis to strength; those of ``AXES`` are done here, others are left alone.
        seed: the episode's.
        keep_in_view: points (n, 3), metres, that the scene camera must go on seeing: it zooms out as far as it takes.
    """
    changes: dict[str, Callable[[str, np.random.Generator], None]] = {
        "camera": lambda strength, rng: _move_cameras(model, strength, rng, keep_in_view),
        "light": lambda strength, rng: _change_light(model, strength, rng),
        "texture": lambda strength, rng: _change_surfaces(model, strength, rng),
    }
    for axis, change in changes.items():
        if axis in perturb:
            change(perturb[axis], rng_of(seed, axis))


def _either_way(rng: np.random.Generator, count: int) -> np.ndarray:
    """Numbers (count,) from -1 to 1, none of them small: a perturbation should be one in every episode."""
    return rng.choice((-1.0, 1.0), count) * rng.uniform(0.6, 1.0, count)


# --- cameras ---------------------------------------------------------------------------------------------------------


def _move_cameras(model: Any, strength: str, rng: np.random.Generator, keep_in_view: np.ndarray) -> None:
    unit, aim_way, place, axis, zoom = (
        _either_way(rng, 5), rng.normal(size=2), rng.normal(size=3), rng.normal(size=3), _either_way(rng, 1),
    )  # fmt: skip
    azimuth, elevation, roll, distance, view, aim = _SCENE_CAMERA[strength]
    camera = model.camera("scene").id
    axes = _matrix(model.cam_quat[camera])
    eye = model.cam_pos[camera].copy()
    target = eye - axes[:, 2] * (eye[2] / axes[2, 2])  # where it looks at the table
    back = eye - target
    length, flat = float(np.linalg.norm(back)), math.hypot(back[0], back[1])
    turn = math.atan2(back[1], back[0]) + math.radians(azimuth * unit[0])
    rise = math.atan2(back[2], flat) + math.radians(elevation * unit[1])
    rise = min(max(rise, math.radians(35)), math.radians(85))
    back = np.array([math.cos(turn) * math.cos(rise), math.sin(turn) * math.cos(rise), math.sin(rise)])
    target[:2] += aim * aim_way / np.linalg.norm(aim_way)
    eye = target + back * length * (1 + distance * unit[2])
    right = np.cross((0, 0, 1), back)
    right /= np.linalg.norm(right)
    axes = np.stack((right, np.cross(back, right), back), axis=1)
    axes = axes @ matrix_from_vector(np.array([0, 0, math.radians(roll * unit[3])]))
    model.cam_pos[camera], model.cam_quat[camera] = eye, _quaternion(axes)
    seen = (keep_in_view - eye) @ axes
    needed = 2 * math.degrees(math.atan(float((np.abs(seen[:, :2]) / -seen[:, 2:]).max()) * 1.02))
    model.cam_fovy[camera] = min(_WIDEST, max(model.cam_fovy[camera] * (1 + view * unit[4]), needed))

    shift, tilt, view = _WRIST_CAMERA[strength]
    camera = model.camera("wrist").id
    model.cam_pos[camera] += shift * place / np.linalg.norm(place)
    turned = _matrix(model.cam_quat[camera]) @ matrix_from_vector(math.radians(tilt) * axis / np.linalg.norm(axis))
    model.cam_quat[camera] = _quaternion(turned)
    model.cam_fovy[camera] *= 1 + view * zoom[0]


def _matrix(quat: np.ndarray) -> np.ndarray:
    matrix = np.zeros(9)
    mujoco.mju_quat2Mat(matrix, quat)
    return matrix.reshape(3, 3)


def _quaternion(matrix: np.ndarray) -> np.ndarray:
    quat = np.zeros(4)
    mujoco.mju_mat2Quat(quat, matrix.ravel())
    return quat


# --- light -----------------------------------------------------------------------------------------------------------


def _change_light(model: Any, strength: str, rng: np.random.Generator) -> None:
    azimuth, height, brightness, warmth = _LIGHT[strength]
    unit = _either_way(rng, 4)
    key = model.light("key").id
    x, y, z = model.light_dir[key]
    turn = math.atan2(y, x) + math.radians(azimuth * unit[0])
    rise = math.atan2(-z, math.hypot(x, y)) - math.radians(height * abs(unit[1]))
    model.light_dir[key] = math.cos(turn) * math.cos(rise), math.sin(turn) * math.cos(rise), -math.sin(rise)
    # The scene is bright already: darker by more than brighter, or most of it would be white.
    bright = math.exp(brightness * unit[2] * (1.0 if unit[2] < 0 else 0.4))
    colour = bright * np.array([1 + warmth * unit[3], 1.0, 1 - warmth * unit[3]])
    model.light_diffuse[:] *= colour
    headlight = model.vis.headlight
    headlight.ambient[:] = np.asarray(headlight.ambient) * colour
    headlight.diffuse[:] = np.asarray(headlight.diffuse) * colour


# --- surfaces --------------------------------------------------------------------------------------------------------


def _change_surfaces(model: Any, strength: str, rng: np.random.Generator) -> None:
    """Mild: other wood and other walls. Medium: a plain, speckled table top. Strong: a bold pattern in two colours."""
    hues, tones = rng.random(4), rng.uniform(-1, 1, 4)
    pattern, repeat = int(rng.integers(len(_PATTERNS))), int(rng.integers(3, 7))
    speckle = rng.normal(size=(256, 256))
    wood = _texture(model, "wood")
    if strength == "mild":
        tint = 1 + 0.10 * np.array([tones[0], 0.5 * tones[0], tones[1]]) - 0.12 * abs(tones[2])
        wood[:] = np.clip(wood * tint, 0, 255)
    elif strength == "medium":
        base = _colour(hues[0], 0.18, 0.58 + 0.14 * tones[0])
        wood[:] = _bytes(base * (1 + 0.05 * speckle[..., None]))
    else:
        first, second = _colour(hues[0], 0.35, 0.62), _colour(hues[0] + 0.5, 0.30, 0.36)
        y, x = np.mgrid[0:256, 0:256] / 256.0 * repeat
        wood[:] = _bytes(np.where(_PATTERNS[pattern](x, y)[..., None], first, second) * (1 + 0.03 * speckle[..., None]))
    amount = {"mild": 0.12, "medium": 0.35, "strong": 0.75}[strength]
    walls, floor = _colour(hues[1], amount, 0.75 - 0.3 * amount), _colour(hues[2], amount, 0.72 - 0.4 * amount)
    sky = _texture(model, "sky")
    sky[:] = _bytes((1 - amount) * sky / 255.0 + amount * walls)
    model.geom("floor").rgba[:3] = (1 - amount) * model.geom("floor").rgba[:3] + amount * floor


_PATTERNS: tuple[Callable[[np.ndarray, np.ndarray], np.ndarray], ...] = (
    lambda x, y: (np.floor(2 * x) + np.floor(2 * y)) % 2 == 0,  # checks
    lambda x, y: (x + y) % 1.0 < 0.5,  # slanting stripes
    lambda x, y: (x % 1.0 - 0.5) ** 2 + (y % 1.0 - 0.5) ** 2 < 0.09,  # dots
)


def _texture(model: Any, name: str) -> np.ndarray:
    """A texture's pixels (height, width, 3), uint8; what is written to them is written to the model."""
    texture = model.texture(name)
    at, high, wide = int(texture.adr[0]), int(texture.height[0]), int(texture.width[0])
    return model.tex_data[at : at + high * wide * 3].reshape(high, wide, 3)


def _colour(hue: float, saturation: float, value: float) -> np.ndarray:
    import colorsys

    return np.array(colorsys.hsv_to_rgb(hue % 1.0, saturation, value))


def _bytes(colours: np.ndarray) -> np.ndarray:
    return (np.clip(colours, 0, 1) * 255).astype(np.uint8)
