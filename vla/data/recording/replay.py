"""Replaying recorded actions: the proof that a dataset's actions and its outcomes belong together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vla.contracts import VlaError
from vla.data.dataset import VLA_JSON
from vla.data.open import open_dataset
from vla.registry import EnvRef, make_env_of_file

TOLERANCE = 1e-4  # in the units of the state: metres and radians


def replay(folder: Path, episodes: int | None = None, env_name: str | None = None) -> Iterator[dict[str, Any]]:
    """Play recorded actions again from the recorded seeds.

    Args:
        folder: a dataset by ``record``.
        episodes: how many, from the first; all if None.
        env_name: the env's name, which must be the recorded one; needed where that is from outside ``envs/``.

    Yields:
        a dict for each episode: episode, seed, instruction, recorded (bool), replayed (bool), gap (the largest
        difference in the final state), same (bool: success is equal and the gap is below TOLERANCE).

    Raises:
        SpecMismatchError: if the env is not as it was. VlaError: if the dataset is damaged or another's.
    """
    recorded = open_dataset(folder)
    if not recorded.facts.get("env"):  # another's, or one of a robot's bags
        raise VlaError(f"{folder} was not recorded by vla record, so there are no seeds to replay it from")
    columns, _ = recorded.columns()
    bounds = np.searchsorted(columns["episode"], np.arange(len(recorded.episodes) + 1))
    name, about = recorded.facts["env"], folder / VLA_JSON
    if env_name not in (None, name):
        raise VlaError(f"{folder} was recorded in the env '{name}', and not in '{env_name}'")
    ref = EnvRef(name, recorded.facts["recording"].get("env_options") or {})
    env = make_env_of_file(ref, about, env_name)
    try:
        recorded.spec.require(env.env_spec, f"dataset {folder}", f"env {name}")
        for facts in recorded.episodes[:episodes]:
            number = facts["episode_index"]
            success = False
            try:
                env.reset(seed=facts["seed"], options=facts["options"])
                for action in columns["executed"][bounds[number] : bounds[number + 1]]:
                    success |= bool(env.play(action).info["success"])
                final = env.observe().state
            except (Exception, SystemExit) as error:  # whatever an env makes of options and actions that a file gives
                raise VlaError(f"{folder}: episode {number} cannot be played again: {error}") from error
            gap = _gap(final, facts["final_state"])
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


def _gap(state: np.ndarray, recorded: list[float]) -> float:
    """The largest difference; infinite where the recorded state is of another length, or not finite."""
    then = np.array(recorded, dtype=np.float32)
    gap = float(np.abs(state - then).max(initial=0.0)) if then.shape == state.shape else np.inf
    return gap if np.isfinite(gap) else np.inf
