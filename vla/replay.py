"""Replaying recorded actions: the proof that a dataset's actions and its outcomes belong together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vla.contracts import VlaError
from vla.dataset import Recorded

TOLERANCE = 1e-4  # in the units of the state: metres and radians


def replay(folder: Path, episodes: int | None = None) -> Iterator[dict[str, Any]]:
    """Play recorded actions again from the recorded seeds.

    Args:
        folder: a dataset by ``record``.
        episodes: how many, from the first; all if None.

    Yields:
        a dict for each episode: episode, seed, instruction, recorded (bool), replayed (bool), gap (the largest
        difference in the final state), same (bool: success is equal and the gap is below TOLERANCE).

    Raises:
        SpecMismatchError: if the env is not as it was. VlaError: if the dataset is damaged or another's.
    """
    from vla.registry import make_env

    recorded = Recorded.open(folder)
    if "env" not in recorded.facts:
        raise VlaError(f"{folder} was not recorded by vla record, so there are no seeds to replay it from")
    columns, _ = recorded.columns()
    bounds = np.searchsorted(columns["episode"], np.arange(len(recorded.episodes) + 1))
    env = make_env(recorded.facts["env"], **recorded.facts["recording"].get("env_options", {}))
    try:
        recorded.spec.require(env.env_spec, f"dataset {folder}", f"env {recorded.facts['env']}")
        for facts in recorded.episodes[:episodes]:
            number = facts["episode_index"]
            env.reset(seed=facts["seed"], options=facts["options"])
            success = False
            for action in columns["executed"][bounds[number] : bounds[number + 1]]:
                success |= bool(env.play(action).info["success"])
            gap = float(np.abs(env.observe().state - np.array(facts["final_state"], dtype=np.float32)).max())
            yield {
                "episode": number,
                "seed": facts["seed"],
                "instruction": facts["instruction"],
                "recorded": facts["success"],
                "replayed": success,
                "gap": gap,
                "same": success == facts["success"] and gap < TOLERANCE,
            }
    finally:
        env.close()
