"""Answers: a trunk with a language model learns what words mean, and to tell what it sees.

Visual instruction tuning (Liu et al., "Visual Instruction Tuning", 2023), with the simulator in place of a writer: an
answer's tokens are likely, and the first two slots point at what the question is about. A question about what is not
there has an answer too. Behaviour cloning goes on from there (``Recipe.init``), and keeps asking.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

from vla.contracts import VlaError
from vla.recipe import Recipe
from vla.train.grounding import Grounding
from vla.train.objectives import Batch, Losses


class Answers(Grounding):
    """Grounding, with ``data.stills_questions`` questions about each still beside the sentences."""

    @staticmethod
    def require(recipe: Recipe, data_dir: Path) -> None:
        """Raise VlaError where there are no stills to ask about, nothing is asked, or there is no dataset."""
        Grounding.require(recipe, data_dir)
        if not recipe.data.stills_questions:
            raise VlaError("--data.stills_questions must be above 0: answers are learnt from them alone")

    def validate(self, loss: Callable[[Batch], Losses]) -> dict[str, float]:
        """See ``vla.train.validate.answer_scores``."""
        return self._answer_scores()

    def advice(self, folder: Path) -> str:
        """How to ask it."""
        words = ["vla", "ask", *self.feed.env.words(), "--agent", str(folder), "what is on the desk?"]
        return f"ask it: {shlex.join(words)}"
