"""A training run's folder: one training at a time writes there, and what was begun in it can go on.

``recipe.json`` holds the settings. It is written before the work begins, and ``--resume`` takes them from there.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vla.contracts import VlaError
from vla.host.files import claimed, read_json, write_atomically
from vla.recipe import Recipe, flat, of_today, recipe_to_dict, restored

if TYPE_CHECKING:
    from vla.train.checkpoint import Found  # the command line reads this module, and torch is heavy

RECIPE = "recipe.json"
# Settings that a resumed run may change: what was computed so far stays valid.
MAY_CHANGE = (
    *("optim.steps", "optim.log_every", "optim.checkpoint_every", "optim.lr", "optim.clip_norm"),
    *("validate.", "data.path", "data.record_"),
)


@contextmanager
def writing(out_dir: Path, resume: bool) -> Iterator[None]:
    """Make ``out_dir``, and keep other trainings out of it while the block runs; of several processes, rank 0 does it.

    Raises VlaError where another training is at work there, where it holds a run and ``resume`` is not set, and, out
    of the block, where the disk is full.
    """
    with claimed(out_dir, "vla train") if os.environ.get("RANK", "0") == "0" else nullcontext():
        if not resume and any((out_dir / "checkpoints").glob("step_*[0-9]")):
            raise VlaError(
                f"{out_dir} already holds a run; continue it with --resume, or choose another folder with --out"
            )
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                where = error.filename or out_dir
                raise VlaError(f"no space left on the disk ({where}); free some and --resume") from error
            raise


def begun(out_dir: Path) -> dict[str, Any] | None:
    """The recipe, as a dict, that the run in ``out_dir`` was begun with; None where none was begun."""
    return read_json(out_dir / RECIPE) if (out_dir / RECIPE).exists() else None


def begin(out_dir: Path, recipe: Recipe) -> None:
    """Write down what the run is begun, or goes on, with."""
    write_atomically(out_dir / RECIPE, json.dumps(recipe_to_dict(recipe), indent=1, ensure_ascii=False) + "\n")


def begun_with(base: Recipe, out_dir: Path) -> Recipe:
    """``base`` with the settings of the run in ``out_dir``; as it is where none was begun.

    Outside code that it names runs only if it is typed again, see ``vla.registry``. Raises VlaError where the run is of
    another policy, or its file is damaged.
    """
    before = begun(out_dir)
    if before is None:
        return base
    if before.get("policy") != base.policy:
        raise VlaError(
            f"the run in {out_dir} is of the policy {before.get('policy')}, and {base.name} of {base.policy}"
        )
    try:
        return restored(base, before)
    except VlaError as error:
        raise VlaError(f"{out_dir / RECIPE} does not fit this program: {error}") from error


def changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What a resumed run may and does change, of two recipes as dicts: a line each.

    Raises VlaError naming what differs where ``MAY_CHANGE`` does not allow it.
    """
    old, new = flat(of_today(before)), flat(now)
    tags = [key for key in new if key.endswith(".type")]  # of which the usual one is not written down
    differ = {
        key: f"{key.replace('policy_config', 'policy')} was {old.get(key)} and is {new.get(key)}"
        for key in sorted({*old, *tags})  # and no setting that has come into the world since
        if old.get(key) != new.get(key)
    }
    refused = [text for key, text in differ.items() if not key.startswith(MAY_CHANGE)]
    if refused:
        raise VlaError(
            f"this run was begun with another recipe: {', '.join(refused)}; give the same settings, or another --out"
        )
    return [f"{text} from here on" for key, text in differ.items() if key.startswith("optim.")]


def go_on(out_dir: Path, recipe: Recipe) -> tuple[list[str], Found | None]:
    """What a run goes on from, and what there is to say of it.

    Raises VlaError where ``recipe`` differs from the run's in what may not change, or no checkpoint can be read.
    """
    from vla.train.checkpoint import load_newest

    notes: list[str] = []
    before = begun(out_dir)
    if before is not None:
        notes += changes(before, recipe_to_dict(recipe))
    found = load_newest(out_dir / "checkpoints", notes.append)
    if found is None:
        notes.append(f"no checkpoint in {out_dir / 'checkpoints'} yet; starting from the beginning")
    else:
        notes.append(f"resuming at step {found[1]['step']}")
        if before is None:
            changes(found[1]["recipe"], recipe_to_dict(recipe))
    return notes, found
