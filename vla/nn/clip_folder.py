"""A trained pair of towers on disk (``vla.nn.model_folder``), and what is asked of it.

Loading builds only what ``vla.nn.clip`` knows.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import vla.nn.model_folder as model_folder
from vla.contracts import VlaError
from vla.host.files import read_json, write_atomically
from vla.nn.clip import Clip, make_clip
from vla.nn.config import ClipConfig

SHIPPED = "tidy_desk_clip"
_BATCH = 64  # pictures that are looked at at once


@dataclass
class Scorer(model_folder.PictureModel[Clip, ClipConfig]):
    """Towers that are ready for use, and what they were trained on.

    Attributes:
        threshold: of ``success``, from which on a picture is taken for done, see ``vla align --calibrate``.
    """

    ABOUT = "clip.json"

    name: str = SHIPPED
    threshold: float = 0.5

    @torch.no_grad()
    def embed(self, images: np.ndarray) -> Tensor:
        """uint8 (N, H, W, 3) to float (N, D). Raises VlaError for another resolution."""
        return torch.cat([self.model.embed_images(part) for part in self.inputs(images, _BATCH)])

    @torch.no_grad()
    def match(self, images: Tensor, texts: Sequence[str]) -> Tensor:
        """Logits (N, T) of embedded pictures with texts. Raises VlaError for an empty text."""
        return self.model.logits(images, self.model.embed_texts(_checked(texts)))

    @torch.no_grad()
    def success(self, images: Tensor, texts: Sequence[str]) -> Tensor:
        """The probability (N,) that each picture shows its own instruction done. Raises VlaError for an empty text."""
        return self.model.ask(images, _checked(texts))

    @torch.no_grad()
    def progress(self, images: Tensor, texts: Sequence[str]) -> Tensor:
        """How much of an episode with this instruction is over, (N,), 0 to 1. Raises VlaError for an empty text."""
        return self.model.ask(images, _checked(texts), ("over", "begun"))

    def facts(self) -> dict[str, Any]:
        """See ``PictureModel``."""
        return super().facts() | {"threshold": self.threshold}

    @classmethod
    def further(cls, about: dict[str, Any]) -> dict[str, Any]:
        """See ``PictureModel``."""
        return {"threshold": float(about.get("threshold", cls.threshold))}

    def card(self) -> str:
        """What these towers are, for people."""
        made, count = self.provenance, sum(p.numel() for p in self.model.parameters())
        how = f"{made.get('steps')} steps, commit {made.get('commit')}, `{made.get('command')}`"
        return (
            f"# {self.name}\n\nScores how well a picture of the camera `{self.camera}` of `{self.env}` "
            f"({self.pixels[1]}x{self.pixels[0]} pixels) fits a sentence in English or Chinese, and whether an "
            f"instruction is done in it. {count / 1e6:.1f} M parameters, {how}.\n\n"
            "It knows this simulated desk alone. `vla align --measure` measures it; the figures are in "
            "docs/lab_notebook.md.\n"
        )


def _checked(texts: Sequence[str]) -> list[str]:
    for text in texts:
        if not text.strip():
            raise VlaError("a text is empty; write what the picture should show, or an instruction")
    return list(texts)


def find(name: str) -> Path:
    """The folder of towers: itself, a training run's, or a name under ``assets/models``. Raises VlaError for none."""
    return model_folder.find(name, Scorer.ABOUT, "clip", "train one with `vla align`")


def calibrate(name: str, threshold: float) -> None:
    """Write a threshold of ``Scorer.success`` into a folder, see ``find``."""
    file = find(name) / Scorer.ABOUT
    about = read_json(file) | {"threshold": round(threshold, 4)}
    write_atomically(file, json.dumps(about, indent=1, ensure_ascii=False) + "\n")


def load(name: str = SHIPPED, device: str = "cpu") -> Scorer:
    """Open towers, see ``find``. Raises VlaError where a file is missing, damaged, or of another program."""
    return Scorer.opened(find(name), ClipConfig, lambda config, _: make_clip(replace(config, weights="")), device)
