"""The perturbation ``noise``: what a cheap camera and a cheap encoder do to an observation.

Modelled: independent Gaussian noise on every pixel and channel, rounded and clipped to 0..255; Gaussian noise on every
state entry; and dropped frames: at each look, each camera on its own may deliver nothing, and the policy sees that
camera's last delivered picture instead. Cameras deliver only when the policy looks, so a dropped frame is as old as the
last decision. Not modelled: compression, motion blur, hot pixels, drift. Time stamps and instruction stay true.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from vla.contracts import PER_METRE, EnvSpec, Observation
from vla.perturb.axes import rng_of


@dataclass(frozen=True)
class NoiseLevel:
    """How much noise a strength means.

    Attributes:
        pixels: standard deviation, of 255.
        metres: standard deviation of state entries in metres.
        others: standard deviation of other state entries: radians, entries of a rotation, a gripper's 0..1.
        dropped: the share of frames that a camera does not deliver, 0 to 1.
    """

    pixels: float
    metres: float
    others: float
    dropped: float


LEVELS = {
    "mild": NoiseLevel(4.0, 0.001, 0.003, 0.05),
    "medium": NoiseLevel(10.0, 0.003, 0.010, 0.15),
    "strong": NoiseLevel(22.0, 0.008, 0.025, 0.35),
}


class NoisySensors:
    """The cameras and the state readings of one episode. It remembers the last frame of each camera.

    Args:
        spec: names the state entries with their units.
        strength: of ``LEVELS``.
        seed: the episode's.
    """

    def __init__(self, spec: EnvSpec, strength: str, seed: int) -> None:
        self._level, self._rng = LEVELS[strength], rng_of(seed, "noise")
        level = self._level
        self._spread = np.full(len(spec.state), level.others)
        for group in spec.groups("state"):
            if group.kind == "position":
                self._spread[group.start : group.stop] = level.metres * PER_METRE.get(group.unit, 1.0)
        self._last: dict[str, np.ndarray] = {}

    def __call__(self, observation: Observation) -> Observation:
        """What the policy gets in place of the true observation, in fresh arrays. Call it once for each look."""
        rng, images = self._rng, {}
        for name, image in observation.images.items():
            noisy = image + rng.normal(0.0, self._level.pixels, image.shape)
            lost = rng.random() < self._level.dropped and name in self._last
            if not lost:
                self._last[name] = np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
            images[name] = self._last[name].copy()
        state = observation.state + rng.normal(0.0, self._spread)
        return replace(observation, images=images, state=state.astype(np.float32))
