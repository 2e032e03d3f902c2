"""A trained network that sees one camera's pictures and is no agent, in use and on disk.

On disk it is a JSON file about it, ``model.safetensors`` and a card for people. Weights are float16. Loading checks
their hash; no pickle is read.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from vla.config import from_dict
from vla.contracts import VlaError
from vla.host.files import read_json, regular, require_keys, whole_folder
from vla.nn.vision import as_input
from vla.paths import assets_dir

_WEIGHTS, _CARD = "model.safetensors", "README.md"


@dataclass
class PictureModel[M: nn.Module, C](ABC):
    """A network that is ready for use, and what it was trained on.

    Attributes:
        model: the network.
        config: of it, a dataclass.
        env: the name of the env whose scenes it knows.
        camera: which of its cameras.
        pixels: height and width of its pictures; others are refused.
        provenance: how it was trained.
        name: for people.
    """

    ABOUT: ClassVar[str]  # the JSON file
    FORMAT_VERSION: ClassVar[int] = 1

    model: M
    config: C
    env: str
    camera: str
    pixels: tuple[int, int]
    provenance: dict[str, Any] = field(default_factory=dict)
    name: str = ""

    @abstractmethod
    def card(self) -> str:
        """What it is, for people."""

    def inputs(self, images: np.ndarray, count: int) -> Iterator[Tensor]:
        """uint8 (N, H, W, 3) as the network sees them, up to ``count`` at a time, on its device.

        Raises VlaError for another resolution.
        """
        images = np.asarray(images)
        if images.ndim != 4 or images.shape[1:] != (*self.pixels, 3) or images.dtype != np.uint8:
            height, width = self.pixels
            raise VlaError(
                f"{self.name} sees uint8 pictures of {width}x{height} pixels, and was given {images.dtype} of the "
                f"shape {list(images.shape[1:])}"
            )
        device = next(self.model.parameters()).device
        for start in range(0, len(images), count):
            yield as_input(torch.from_numpy(images[start : start + count]).to(device))

    def facts(self) -> dict[str, Any]:
        """What the JSON file says, but for the hash of the weights."""
        return {
            "format_version": self.FORMAT_VERSION,
            "config": asdict(self.config),  # type: ignore[call-overload]  # a dataclass
            "env": self.env,
            "camera": self.camera,
            "pixels": list(self.pixels),
            "provenance": self.provenance,
        }

    def save(self, folder: Path, card: str = "") -> None:
        """Write the folder, whole or not at all."""
        tensors = {
            name: (tensor.half() if tensor.is_floating_point() else tensor).cpu().contiguous()
            for name, tensor in self.model.state_dict().items()
        }
        weights = save_tensors(tensors)
        about = {**self.facts(), "sha256": hashlib.sha256(weights).hexdigest()}
        with whole_folder(folder) as build:
            (build / _WEIGHTS).write_bytes(weights)
            (build / self.ABOUT).write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            (build / _CARD).write_text(card or self.card(), encoding="utf-8")

    @classmethod
    def opened(cls, folder: Path, config_type: type[C], make: Callable[[C, tuple[int, int]], M], device: str) -> Self:
        """What ``save`` wrote, its network made by ``make`` of its config and its pictures' height and width.

        Raises VlaError where a file is missing, damaged, or of another program.
        """
        file, weights = folder / cls.ABOUT, folder / _WEIGHTS
        about = read_json(file)
        kinds = {"format_version": int, "config": dict, "env": str, "camera": str, "pixels": list, "sha256": str}
        require_keys(about, kinds | {"provenance": dict}, str(file))
        if about["format_version"] != cls.FORMAT_VERSION:
            raise VlaError(
                f"{file} has the format {about['format_version']}, and this program reads {cls.FORMAT_VERSION}"
            )
        config = from_dict(config_type, about["config"])
        try:
            data = regular(weights).read_bytes()
        except OSError as error:
            raise VlaError(f"the weights {weights} cannot be read: {error.strerror or error}") from error
        if hashlib.sha256(data).hexdigest() != about["sha256"]:
            raise VlaError(f"the weights {weights} are not those that {cls.ABOUT} was written with: the hashes differ")
        height, width = (int(side) for side in about["pixels"])
        model = make(config, (height, width))
        try:
            tensors = load_tensors(data)
            model.load_state_dict(
                {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
            )
        except (RuntimeError, SafetensorError) as error:
            raise VlaError(f"the weights {weights} do not fit their config: {str(error)[:200]}") from error
        rest = (about["env"], about["camera"], (height, width), about["provenance"], folder.resolve().name)
        return cls(model.eval().to(device), config, *rest, **cls.further(about))

    @classmethod
    def further(cls, about: dict[str, Any]) -> dict[str, Any]:
        """Fields that a kind of its own has beside these, out of its JSON file."""
        return {}


def find(name: str, about: str, run_folder: str, advice: str) -> Path:
    """The folder that holds the file ``about``: ``name`` itself, a training run's, or one under ``assets/models``.

    Raises VlaError for none, with ``advice`` on how to get one.
    """
    for folder in (Path(name), Path(name) / run_folder, assets_dir() / "models" / name):
        if (folder / about).is_file():
            return folder
    shipped = ", ".join(sorted(one.parent.name for one in (assets_dir() / "models").glob(f"*/{about}"))) or "none"
    raise VlaError(f"there is no {about} in {name}; {advice}, or name one that ships: {shipped}")
