"""A trained pair of towers on disk: ``clip.json`` and ``model.safetensors``, with a card for people.

Weights are float16. Loading checks their hash, and builds only what ``vla.nn.clip`` knows; no pickle is read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from vla.config import from_dict
from vla.contracts import VlaError
from vla.host.files import read_json, regular, require_keys, whole_folder, write_atomically
from vla.nn.clip import Clip, make_clip
from vla.nn.config import ClipConfig
from vla.nn.vision import as_input
from vla.paths import assets_dir

FORMAT_VERSION = 1
SHIPPED = "tidy_desk_clip"
_ABOUT, _WEIGHTS, _CARD = "clip.json", "model.safetensors", "README.md"
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
        tensors = {
            name: (tensor.half() if tensor.is_floating_point() else tensor).cpu().contiguous()
            for name, tensor in self.model.state_dict().items()
        }
        weights = save_tensors(tensors)
        about = {
            "format_version": FORMAT_VERSION,
            "config": asdict(self.config),
            "env": self.env,
            "camera": self.camera,
            "pixels": list(self.pixels),
            "threshold": self.threshold,
            "sha256": hashlib.sha256(weights).hexdigest(),
            "provenance": self.provenance,
        }
        with whole_folder(folder) as build:
            (build / _WEIGHTS).write_bytes(weights)
            (build / _ABOUT).write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            (build / _CARD).write_text(card or self.card(), encoding="utf-8")

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
    for folder in (Path(name), Path(name) / "clip", assets_dir() / "models" / name):
        if (folder / _ABOUT).is_file():
            return folder
    shipped = ", ".join(sorted(one.parent.name for one in (assets_dir() / "models").glob(f"*/{_ABOUT}"))) or "none"
    raise VlaError(f"there is no {_ABOUT} in {name}; train one with `vla align`, or name one that ships: {shipped}")


def calibrate(name: str, threshold: float) -> None:
    """Write a threshold of ``Scorer.success`` into a folder, see ``find``."""
    file = find(name) / _ABOUT
    about = read_json(file) | {"threshold": round(threshold, 4)}
    write_atomically(file, json.dumps(about, indent=1, ensure_ascii=False) + "\n")


def load(name: str = SHIPPED, device: str = "cpu") -> Scorer:
    """Open towers, see ``find``. Raises VlaError where a file is missing, damaged, or of another program."""
    folder = find(name)
    about = read_json(folder / _ABOUT)
    kinds = {"format_version": int, "config": dict, "env": str, "camera": str, "pixels": list, "sha256": str}
    require_keys(about, kinds | {"provenance": dict}, str(folder / _ABOUT))
    if about["format_version"] != FORMAT_VERSION:
        raise VlaError(
            f"{folder / _ABOUT} has the format {about['format_version']}, and this program reads {FORMAT_VERSION}"
        )
    try:
        data = regular(folder / _WEIGHTS).read_bytes()
    except OSError as error:
        raise VlaError(f"the weights {folder / _WEIGHTS} cannot be read: {error.strerror or error}") from error
    if hashlib.sha256(data).hexdigest() != about["sha256"]:
        raise VlaError(
            f"the weights {folder / _WEIGHTS} are not those that {_ABOUT} was written with: the hashes differ"
        )
    config = from_dict(ClipConfig, about["config"])
    model = make_clip(replace(config, weights=""))
    try:
        tensors = load_tensors(data)
        model.load_state_dict(
            {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
        )
    except (RuntimeError, SafetensorError) as error:
        raise VlaError(f"the weights {folder / _WEIGHTS} do not fit their config: {str(error)[:200]}") from error
    height, width = (int(side) for side in about["pixels"])
    name, threshold = folder.resolve().name, float(about.get("threshold", 0.5))
    rest = (about["env"], about["camera"], (height, width), about["provenance"], name, threshold)
    return Scorer(model.eval().to(device), config, *rest)
