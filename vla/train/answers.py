"""Answers: a trunk with a language model learns to tell what it sees, from questions that the env asks and answers.

Visual instruction tuning (Liu et al., "Visual Instruction Tuning", 2023), with the simulator in place of a writer: an
answer's tokens are likely, and the first two slots point at what the question is about. A question about what is not
there has an answer too. The artefact is an agent that speaks; behaviour cloning may go on from it (``Recipe.init``).
"""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from vla.contracts import VlaError
from vla.contracts.questions import ABSENT, UNSEEN
from vla.data.stills import Stills
from vla.nn.context import Speaks
from vla.recipe import Recipe
from vla.train.checkpoint import Found
from vla.train.cloning import BehaviourCloning
from vla.train.objectives import Batch, Losses
from vla.train.sampling import to_device

_SCENES, _EACH, _TOGETHER = 48, 6, 12  # that are held out, questions about each, scenes at once


class Answers(BehaviourCloning):
    """What is asked about ``data.stills_batch`` stills a step, ``data.stills_sentences`` questions about each.

    The demonstrations give the statistics, and the observation of the golden trace.
    """

    speaker: Speaks
    asks = True

    @staticmethod
    def require(recipe: Recipe, data_dir: Path) -> None:
        """Raise VlaError where there are no stills to ask about, or no dataset."""
        BehaviourCloning.require(recipe, data_dir)
        if not recipe.data.stills:
            raise VlaError("--data.stills must be above 0: answers are learnt from them alone")

    def make(self, found: Found | None) -> None:
        """See ``Objective``. Raises VlaError for a policy whose trunk does not speak."""
        super().make(found)
        trunk = getattr(self.model, "trunk", None)
        if not isinstance(trunk, Speaks):
            raise VlaError("answers need a trunk that speaks: --policy.trunk.type language_model")
        self.speaker = trunk

    def step(self, step: int) -> list[Batch]:
        """The questions of each micro-batch."""
        return self.feed.stills_alone(step)

    def loss(self, batch: Batch) -> Losses:
        """The negative log-likelihood of each answer, and what pointing teaches on top of each."""
        told, more = self.speaker.answer_losses(batch, batch["answer"])
        weight = getattr(self.recipe.policy_config, "pointing_weight", 1.0)
        parts = {"answer": told.detach().mean(), **{name: value.detach() for name, value in more.items()}}
        return told + sum((weight * value for value in more.values()), torch.zeros(())), parts

    def validate(self, loss: Callable[[Batch], Losses]) -> dict[str, float]:
        """The share of right answers about scenes that are held out, letter by letter: of all, by kind and by words.

        ``invented`` is the share of questions about absent things that got an answer, ``refused`` that of the others
        that got none.
        """
        stills = self.feed.held_questions(_SCENES)
        right: dict[str, list[bool]] = defaultdict(list)
        for first in range(0, len(stills), _TOGETHER):
            rows = np.arange(first, min(first + _TOGETHER, len(stills)))
            picked = np.concatenate([_spread(stills, int(row)) for row in rows])
            batch = to_device(self.feed.prepare(stills.asked_rows(rows, picked)), self.device)
            said = self.speaker.answer(self.normaliser.encode(batch))
            for number, words, truth in zip(picked, said, batch["answer"], strict=True):
                kind, language, split = (stills.questions[name][number] for name in ("kind", "language", "split"))
                for name in ("accuracy", f"accuracy_{kind}", f"accuracy_{language}", f"accuracy_{split}_words"):
                    right[name].append(words == truth)
                unseen = words == UNSEEN[language]
                right["invented" if kind == ABSENT else "refused"].append(unseen != (kind == ABSENT))
        return {name: float(np.mean(found)) for name, found in sorted(right.items())}

    def advice(self, folder: Path) -> str:
        """How to ask it."""
        words = ["vla", "ask", *self.feed.env.words(), "--agent", str(folder), "what is on the desk?"]
        return f"ask it: {shlex.join(words)}"


def _spread(stills: Stills, row: int) -> np.ndarray:
    """A few of a scene's questions, which begin elsewhere from scene to scene: of all kinds in the end."""
    first, last = (int(one) for one in stills.asked[row : row + 2])
    return first + (row + np.arange(_EACH) * 7) % (last - first)
