"""Captioned scenes: pictures of one camera, what is true of each in words and what is not, and how far its episode was.

They come in groups of ``GROUP`` pictures. Every other group is an episode of the expert, with bursts of noise: moments
of it, two of them as late as the thing is about to be let go, its end, and then other outcomes under the same arm. The
rest are scenes as in the middle of an episode, rearranged. So the arm's pose alone tells nothing about success.

They are made once, from a seed, in a folder of their own (``vla.data.rendered``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from vla.contracts import VlaError, episode_seed
from vla.contracts.abilities import Refers
from vla.contracts.captions import Arranges, Captions
from vla.data.rendered import Rendered
from vla.registry import EnvRef

GROUP = 8  # pictures that come of one episode, or of two scenes
_MOMENTS, _LATE = 3, 2  # of an episode, before its end: anywhere, and in its last fifth
_NOISE, _MEMORY = 0.02, 0.8  # metres; of the disturbance of the expert's actions, and how long it lasts
_LONGEST = 400  # steps
_EVERY = 3  # steps between two moments that may be kept


class Captioned(Rendered):
    """N pictures, with sentences and times. ``Captioned.build`` makes them.

    Attributes:
        frames: uint8 (N, H, W, 3), a memory map.
        elapsed: float32 (N,): the share of a successful episode that was over, 0 to 1; NaN out of one.
        texts: for each picture ``captions`` and ``wishes``, of the fields of ``vla.contracts.captions``.
        fingerprint: of all but the pictures, in hexadecimal.
    """

    WHAT, NAME, VERSION, GROUP, COLUMNS = "captioned scenes", "captioned", 2, GROUP, ("elapsed",)
    elapsed: np.ndarray

    @staticmethod
    def photographer(env: EnvRef, split: str) -> _Photographer:
        """See ``Rendered``."""
        return _Photographer(env, split)


def require_captions(env: Any, name: str) -> None:
    """Raise VlaError unless an env can be captioned."""
    for ability, what in ((Captions, "captions"), (Arranges, "outcomes"), (Refers, "referring expressions")):
        if not isinstance(env, ability):
            raise VlaError(f"env {name} has no {what}, which captioned scenes need (vla/contracts/captions.py)")


class _Photographer:
    """Makes groups of one env. Lives in a worker."""

    def __init__(self, env: EnvRef, split: str) -> None:
        self._env, self._split = cast(Any, env.make()), split
        require_captions(self._env, env.name)
        self._camera = self._env.env_spec.cameras[0].name

    def shoot(self, seed: int, groups: Sequence[int]) -> dict[str, Any]:
        """Some groups, as columns."""
        self._frames: list[np.ndarray] = []
        self._texts: list[dict[str, Any]] = []
        self._elapsed: list[float] = []
        for group in groups:
            own = episode_seed("stills" if self._split == "train" else "questions", seed, group)
            (self._episode if group % 2 else self._scenes)(own, np.random.default_rng([own, 1]))
        return {"frames": np.array(self._frames), "texts": self._texts, "elapsed": np.array(self._elapsed, np.float32)}

    def _picture(self) -> np.ndarray:
        return self._env.observe().images[self._camera]

    def _keep(self, rng: np.random.Generator, elapsed: float = np.nan) -> None:
        self._frames.append(self._picture())
        self._texts.append(said(self._env, rng, self._split))
        self._elapsed.append(elapsed)

    def _scenes(self, own: int, rng: np.random.Generator) -> None:
        for half in range(2):
            # The second is one of the same seed's other stage: no other group has it.
            stage = "midway" if half == 0 else "start"
            self._env.reset(seed=own, options={"split": self._split, "stage": stage})
            self._keep(rng)
            for _ in range(GROUP // 2 - 1):
                self._env.arrange("mixed", rng)
                self._keep(rng)

    def _episode(self, own: int, rng: np.random.Generator) -> None:
        self._env.reset(seed=own, options={"split": self._split})
        expert, drift = self._env.expert(), np.zeros(3)
        moments: list[tuple[np.ndarray, dict[str, Any]]] = []
        result = None
        for step in range(_LONGEST):
            if step % _EVERY == 0:
                moments.append((self._picture(), said(self._env, rng, self._split)))
            action = np.array(expert.act().action, dtype=np.float32)
            drift = _MEMORY * drift + _NOISE * np.sqrt(1 - _MEMORY**2) * rng.standard_normal(3) * (rng.random() < 0.5)
            action[:3] += drift.astype(np.float32)
            result = self._env.play(action)
            if result.terminated or result.truncated:
                break
        won, length = result is not None and bool(result.info["success"]), len(moments)
        chosen = [int(i) for i in rng.integers(0, length, _MOMENTS)]
        chosen += [int(i) for i in rng.integers(length - max(1, length // 5), length, _LATE)]
        for index in chosen:
            self._frames.append(moments[index][0])
            self._texts.append(moments[index][1])
            self._elapsed.append(index / length if won else np.nan)
        self._keep(rng, 1.0 if won else np.nan)
        for outcome in ("beside", "mixed"):
            self._env.arrange(outcome, rng)
            self._keep(rng)

    def close(self) -> None:
        """Free the env."""
        self._env.close()


def said(env: Captions, rng: np.random.Generator, split: str) -> dict[str, Any]:
    """Captions and wishes of the present scene, as JSON types."""
    return {
        "captions": [[one.text, one.language, list(one.wrong), list(one.differs)] for one in env.captions(rng, split)],
        "wishes": [[one.text, one.language, one.done] for one in env.wishes(rng, split)],
    }
