"""A trained pair of towers on disk (``vla.nn.model_folder``), and what is asked of it.

Loading builds only what ``vla.nn.clip`` knows.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import vla.nn.model_folder as model_folder
from vla.config import from_dict
from vla.contracts import VlaError
from vla.host.files import read_json, write_atomically
from vla.nn.clip import Clip, make_clip
from vla.nn.config import ClipConfig
from vla.nn.vision import as_input

FORMAT_VERSION = 1
SHIPPED = "tidy_desk_clip"
_ABOUT = "clip.json"
_BATCH = 64  # pictures that are looked at at once


@dataclass
class Scorer:
    """Towers that are ready for use, and what they were trained on.

    Attributes:
        model: the towers.
        config: of them.
        env: the name of the env whose scenes they know.
        camera: which of its cameras.
        pixels: height and width of its pictures; others are refused.
        provenance: how they were trained.
        name: for people.
        threshold: of ``success``, from which on a picture is taken for done, see ``vla align --calibrate``.
    """

    model: Clip
    config: ClipConfig
    env: str
    camera: str
    pixels: tuple[int, int]
    provenance: dict[str, Any] = field(default_factory=dict)
    name: str = SHIPPED
    threshold: float = 0.5

    @torch.no_grad()
    def embed(self, images: np.ndarray) -> Tensor:
        """uint8 (N, H, W, 3) to float (N, D). Raises VlaError for another resolution."""
        images = np.asarray(images)
        if images.ndim != 4 or images.shape[1:] != (*self.pixels, 3) or images.dtype != np.uint8:
            height, width = self.pixels
            raise VlaError(
                f"{self.name} sees uint8 pictures of {width}x{height} pixels, and was given {images.dtype} of the "
                f"shape {list(images.shape[1:])}"
            )
        device = self.model.scale.device
        parts = [
            self.model.embed_images(as_input(torch.from_numpy(images[i : i + _BATCH]).to(device)))
            for i in range(0, len(images), _BATCH)
        ]
        return torch.cat(parts)

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

    def save(self, folder: Path, card: str = "") -> None:
        """Write the folder, whole or not at all."""
        facts = {
            "format_version": FORMAT_VERSION,
            "config": asdict(self.config),
            "env": self.env,
            "camera": self.camera,
            "pixels": list(self.pixels),
            "threshold": self.threshold,
            "provenance": self.provenance,
        }
        model_folder.save(folder, _ABOUT, facts, self.model, card or self.card())

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
    return model_folder.find(name, _ABOUT, "clip", "train one with `vla align`")


def calibrate(name: str, threshold: float) -> None:
    """Write a threshold of ``Scorer.success`` into a folder, see ``find``."""
    file = find(name) / _ABOUT
    about = read_json(file) | {"threshold": round(threshold, 4)}
    write_atomically(file, json.dumps(about, indent=1, ensure_ascii=False) + "\n")


def load(name: str = SHIPPED, device: str = "cpu") -> Scorer:
    """Open towers, see ``find``. Raises VlaError where a file is missing, damaged, or of another program."""
    folder = find(name)
    about = model_folder.read_facts(folder, _ABOUT, FORMAT_VERSION)
    config = from_dict(ClipConfig, about["config"])
    model = make_clip(replace(config, weights=""))
    model_folder.load_weights(folder, _ABOUT, about, model)
    height, width = (int(side) for side in about["pixels"])
    name, threshold = folder.resolve().name, float(about.get("threshold", 0.5))
    rest = (about["env"], about["camera"], (height, width), about["provenance"], name, threshold)
    return Scorer(model.eval().to(device), config, *rest)
