"""Goal pictures: the desk as it is, what is asked for, and the desk as it is to be, under the same arm.

From each scene come two pairs. In the first nothing has been done yet, or half of it; for the second, things were put
anywhere, into the wrong places too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from vla.contracts import VlaError, episode_seed
from vla.contracts.captions import Arranges, Foresees
from vla.data.rendered import Rendered
from vla.registry import EnvRef

PAIRS = 2  # of each scene


class GoalPictures(Rendered):
    """N pairs of pictures of an env's first camera. ``GoalPictures.build`` makes them.

    Attributes:
        frames: uint8 (N, 2, H, W, 3), the present one and the goal, a memory map.
        texts: for each pair some sentences that ask for the goal, or to see it.
        fingerprint: of all but the pictures, in hexadecimal.
    """

    WHAT, NAME, VERSION, GROUP = "goal pictures", "goals", 1, PAIRS

    @staticmethod
    def photographer(env: EnvRef, split: str) -> _Photographer:
        """See ``Rendered``."""
        return _Photographer(env, split)


def require_goals(env: Any, name: str) -> None:
    """Raise VlaError unless an env can show what its goals look like."""
    for ability, what in ((Arranges, "outcomes"), (Foresees, "words for what is to be seen")):
        if not isinstance(env, ability):
            raise VlaError(f"env {name} has no {what}, which goal pictures need (vla/contracts/captions.py)")


class _Photographer:
    """Makes pairs of one env. Lives in a worker."""

    def __init__(self, env: EnvRef, split: str) -> None:
        self._env, self._split = cast(Any, env.make()), split
        require_goals(self._env, env.name)
        self._camera = self._env.env_spec.cameras[0].name

    def shoot(self, seed: int, groups: Sequence[int]) -> dict[str, Any]:
        """The pairs of some scenes, as columns."""
        frames, texts = list[np.ndarray](), list[list[str]]()
        for scene in groups:
            own = episode_seed("stills" if self._split == "train" else "questions", seed, scene)
            for pair in pairs(self._env, own, self._split, self._camera):
                frames.append(np.stack(pair[:2]))
                texts.append(pair[2])
        return {"frames": np.array(frames), "texts": texts}

    def close(self) -> None:
        """Free the env."""
        self._env.close()


def pairs(env: Any, seed: int, split: str, camera: str) -> list[tuple[np.ndarray, np.ndarray, list[str]]]:
    """The ``PAIRS`` pairs of a seed's scene: the present picture, the goal and the sentences."""
    rng = np.random.default_rng([seed, 1])
    options: dict[str, Any] = {"split": split, "stage": "midway" if rng.random() < 0.5 else "start"}
    env.reset(seed=seed, options=options)
    found = []
    for index in range(PAIRS):
        if index:
            env.arrange("mixed", rng)
        present, said = env.observe().images[camera], env.foreseen(rng, split)
        env.arrange("done", rng)
        found.append((present, env.observe().images[camera], said))
    return found
