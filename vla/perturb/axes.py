"""What can be made harder, in evaluation or for training: names, strengths and seeds, and who can do which.

A perturbation is an axis (``camera``, ``noise``, ...) at a strength. Axes compose, and each draws from a generator of
its own, made from the episode's seed and the axis's name: adding one never changes what another draws, and a greater
strength changes the same draw more. Noise and latency are done here in ``vla`` and so in every env
(``vla.perturb.sensors``, ``vla.perturb.latency``). The rest needs the env: its class lists what it can do in
``PERTURBATIONS``, and its ``reset`` takes the option ``perturb``, axis to strength.
"""

from __future__ import annotations

import difflib
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vla.contracts import VlaError
from vla.contracts.abilities import Perturbs

STRENGTHS = ("mild", "medium", "strong")
AXES: dict[str, str] = {
    "camera": "each camera's pose and field of view",
    "light": "direction, brightness and colour of the light",
    "texture": "table, floor and background",
    "distractors": "things on the table that nobody asks for",
    "layout": "items beyond the range of positions in training",
    "language": "another held-out paraphrase (mild), in the other language (medium), with small talk (strong)",
    "state": "the arm's pose at the start",
    "latency": "delay between a picture and the motion that answers it; also in ms, e.g. latency=150ms",
    "noise": "noise in pixels and state, dropped frames",
}
ANYWHERE = ("latency", "noise")  # what needs nothing from the env
# What demonstrations cannot be recorded under: the words are held out, and an expert's answer is never late.
_EVALUATION_ONLY = ("language", "latency")
_CHANCE = 0.5  # of each axis in a randomised episode
LATENCY_MS: dict[str, float] = {"mild": 50.0, "medium": 100.0, "strong": 200.0}
MOST_LATENCY_MS = 5000.0
_MS = re.compile(r"(\d+(?:\.\d+)?) ?ms")


def parse(text: str) -> dict[str, str]:
    """Axis to strength from what a user types, e.g. ``camera=strong,light``; without a strength it is ``medium``.

    Raises VlaError for an unknown axis or strength (with the nearest known name) and for an axis named twice.
    """
    found: dict[str, str] = {}
    for part in text.split(","):
        axis, equals, strength = (word.strip() for word in part.partition("="))
        _require_axis(axis)
        if axis in found:
            raise VlaError(f"the perturbation '{axis}' is named twice in '{text}'")
        found[axis] = strength if equals else "medium"
        _require_strength(axis, found[axis])
    return found


def require(perturb: Mapping[str, Any], able: Sequence[str], who: str) -> None:
    """Raise VlaError unless every axis and strength of ``perturb`` exists and is among what ``who`` is able to do."""
    for axis, strength in perturb.items():
        _require_axis(axis)
        _require_strength(axis, strength)
        if axis not in able:
            raise VlaError(f"{who} cannot do the perturbation '{axis}'; it can do {', '.join(able) or 'none'}")


def axes_of(env: type) -> tuple[str, ...]:
    """The axes that can be asked of an env class, in the order of ``AXES``."""
    own = env.PERTURBATIONS if isinstance(env, Perturbs) else ()
    return tuple(axis for axis in AXES if axis in own or axis in ANYWHERE)


def for_training(env: type) -> tuple[str, ...]:
    """The axes under which an env class's demonstrations can be recorded, see ``drawn``."""
    return tuple(axis for axis in axes_of(env) if axis not in _EVALUATION_ONLY)


def drawn(axes: Sequence[str], seed: int) -> dict[str, str]:
    """Domain randomisation (Tobin et al., 2017): the perturbations of the episode with this seed.

    Each of the axes is there with a chance of one half, at any of the strengths, whichever others are asked for.
    """
    found = {}
    for axis in axes:
        rng = rng_of(seed, f"randomize {axis}")
        if rng.random() < _CHANCE:
            found[axis] = str(rng.choice(STRENGTHS))
    return found


def for_reset(perturb: Mapping[str, str]) -> dict[str, str]:
    """The part of ``perturb`` that the env's ``reset`` does."""
    return {axis: strength for axis, strength in perturb.items() if axis not in ANYWHERE}


def delay_ms(strength: str) -> float:
    """The mean delay that a strength of ``latency`` stands for, milliseconds."""
    match = _MS.fullmatch(strength)
    return float(match[1]) if match else LATENCY_MS[strength]


def rng_of(seed: int, axis: str) -> np.random.Generator:
    """The axis's own generator in the episode with this seed. No other axis and no env draws from it."""
    return np.random.default_rng((seed, zlib.crc32(f"perturb {axis}".encode())))


def describe(perturb: Mapping[str, str]) -> str:
    """As the user would type it: ``camera=strong,light=medium``; empty for none."""
    return ",".join(f"{axis}={strength}" for axis, strength in perturb.items())


def _require_axis(axis: str) -> None:
    if axis not in AXES:
        near = difflib.get_close_matches(axis, AXES, n=1, cutoff=0.5)
        guess = f"; did you mean '{near[0]}'?" if near else ""
        raise VlaError(f"there is no perturbation '{axis}'; known: {', '.join(AXES)}{guess}")


def _require_strength(axis: str, strength: Any) -> None:
    if strength in STRENGTHS:
        return
    known = ", ".join(STRENGTHS)
    if axis == "latency":
        match = _MS.fullmatch(strength) if isinstance(strength, str) else None
        if match and float(match[1]) <= MOST_LATENCY_MS:
            return
        known += f" or milliseconds up to {MOST_LATENCY_MS:.0f}, e.g. 150ms"
    near = difflib.get_close_matches(str(strength), STRENGTHS, n=1, cutoff=0.5)
    guess = f"; did you mean '{near[0]}'?" if near else ""
    raise VlaError(f"the perturbation '{axis}' has no strength '{strength}'; known: {known}{guess}")
