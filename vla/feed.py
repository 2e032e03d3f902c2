"""What each training step sees: windows of demonstrations and stills, shared out among the processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from vla.contracts import VlaError
from vla.frames import FrameCache, Windows
from vla.recipe import Recipe
from vla.sampling import SampleOrder, batch_rng, pinned
from vla.stills import Stills
from vla.validate import split_episodes, usable_episodes


class Feed:
    """One process's share of the data of every step. A step's data depend on (seed, step, process) alone.

    Args:
        recipe: says what is drawn, and how much.
        data_dir: a LeRobot v3 dataset; its caches are made if they are not there.
        rank, world: which of how many processes this is.
        device: where the data will go.

    Attributes:
        cache: all frames.
        windows: what is trained on.
        held: windows of the episodes that are held out, or None.
        fingerprint: of all datasets.
        share: windows of a micro-batch that this process sees.

    Raises VlaError where a batch cannot be shared out, or the data are missing or damaged.
    """

    def __init__(self, recipe: Recipe, data_dir: Path, rank: int, world: int, device: torch.device) -> None:
        from vla.registry import load_function

        data, optim = recipe.data, recipe.optim
        batches = {"optim.batch_size": optim.batch_size, "data.stills_batch": data.stills_batch}
        for name, batch in batches.items():
            if (batch < 1 or batch % world) and (data.stills or name != "data.stills_batch"):
                raise VlaError(f"--{name} {batch} cannot be shared by {world} processes")
        self._recipe, self._rank, self._world, self._device = recipe, rank, world, device
        self.share, self._stills_share = optim.batch_size // world, data.stills_batch // world
        self.cache = FrameCache.build(data_dir)
        chunk = recipe.policy_config.chunk
        kept, held = split_episodes(usable_episodes(self.cache, data.only_success), data.holdout)
        self._paraphrase = load_function(data.paraphrase) if data.paraphrase else None
        drawn = (data.sub_instruction_probability, kept, self._paraphrase, data.decision_steps, data.decision_repeat)
        self.windows = Windows(self.cache, chunk, *drawn)
        self.held = Windows(self.cache, chunk, 0.0, held) if held else None
        self._order = SampleOrder(len(self.windows), recipe.seed)
        self.fingerprint = self.cache.fingerprint
        self._corrections: Windows | None = None
        if data.corrections:
            self._add_corrections(chunk)
        self._stills: Stills | None = None
        if data.stills:
            folder = data_dir / ".cache" / "stills"
            self._stills = Stills.build(recipe.env, self.cache.spec, data.stills, recipe.seed, folder)
            self._stills_order = SampleOrder(len(self._stills), recipe.seed)

    def _add_corrections(self, chunk: int) -> None:
        data = self._recipe.data
        if not Path(data.corrections, "meta", "info.json").is_file():
            raise VlaError(f"there are no corrections in {data.corrections}; record them with vla record --agent")
        self._corrections_share = round(self.share * data.corrections_share)
        if not 0 < self._corrections_share < self.share:
            raise VlaError(f"--data.corrections_share {data.corrections_share} leaves a batch without one of its parts")
        cache = FrameCache.build(data.corrections)
        self.cache.spec.require(cache.spec, "the dataset", data.corrections)
        drawn = (data.sub_instruction_probability, None, self._paraphrase, data.decision_steps, data.decision_repeat)
        self._corrections = Windows(cache, chunk, *drawn)  # of failures too: the expert's turns in them are right
        self._corrections_order = SampleOrder(len(self._corrections), self._recipe.seed)
        self.fingerprint += f"+{cache.fingerprint}"

    def _windows(self, count: int, rng: np.random.Generator) -> dict[str, Any]:
        """This process's share of micro-batch number ``count``."""
        if self._corrections is None:
            begin = (count * self._world + self._rank) * self.share
            return self.windows.batch(self._order.take(begin, self.share), rng)
        second = self._corrections_share
        first = self.share - second
        begin = count * self._world + self._rank
        batch = self.windows.batch(self._order.take(begin * first, first), rng)
        more = self._corrections.batch(self._corrections_order.take(begin * second, second), rng)
        return {k: v + more[k] if isinstance(v, list) else torch.cat((v, more[k])) for k, v in batch.items()}

    def part(self, part: int) -> int:
        """A number for a micro-batch of a step that no other process uses."""
        return part * self._world + self._rank

    def step(self, step: int) -> list[dict[str, Any]]:
        """The micro-batches of one step, in SI units, on the CPU: what ``Windows.batch`` gives, and ``stills``."""
        recipe, parts = self._recipe, []
        for part in range(recipe.optim.accumulate):
            count = step * recipe.optim.accumulate + part
            rng = batch_rng(recipe.seed, step, self.part(part))
            batch = pinned(self._windows(count, rng), self._device)
            if self._stills is not None:
                begin = count * recipe.data.stills_batch + self._rank * self._stills_share
                chosen = self._stills_order.take(begin, self._stills_share)
                stills = self._stills.batch(chosen, recipe.data.stills_sentences, rng, self._paraphrase)
                batch["stills"] = pinned(stills, self._device)
            parts.append(batch)
        return parts
