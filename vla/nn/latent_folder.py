"""A trained latent autoencoder on disk (``vla.nn.model_folder``): uint8 pictures of one camera to latents and back."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import vla.nn.model_folder as model_folder
from vla.config import from_dict
from vla.contracts import VlaError
from vla.nn.config import AutoencoderConfig
from vla.nn.latent import FACTOR, Autoencoder
from vla.nn.vision import as_input

FORMAT_VERSION = 1
_ABOUT = "autoencoder.json"
_BATCH = 32  # pictures that are looked at at once


@dataclass
class PictureLatents:
    """An autoencoder that is ready for use, and what it was trained on.

    Attributes:
        model: the network.
        config: of it.
        env: the name of the env whose scenes it knows.
        camera: which of its cameras.
        pixels: height and width of its pictures; others are refused.
        provenance: how it was trained.
        name: for people.
    """

    model: Autoencoder
    config: AutoencoderConfig
    env: str
    camera: str
    pixels: tuple[int, int]
    provenance: dict[str, Any] = field(default_factory=dict)
    name: str = "autoencoder"

    @torch.no_grad()
    def encode(self, images: np.ndarray) -> Tensor:
        """uint8 (N, H, W, 3) to float (N, C, H / 8, W / 8). Raises VlaError for another resolution."""
        images = np.asarray(images)
        if images.ndim != 4 or images.shape[1:] != (*self.pixels, 3) or images.dtype != np.uint8:
            height, width = self.pixels
            raise VlaError(
                f"{self.name} sees uint8 pictures of {width}x{height} pixels, and was given {images.dtype} of the "
                f"shape {list(images.shape[1:])}"
            )
        device = self.model.scale.device
        parts = [torch.from_numpy(images[i : i + _BATCH]).to(device) for i in range(0, len(images), _BATCH)]
        return torch.cat([self.model.encode(as_input(part)) for part in parts])

    @torch.no_grad()
    def decode(self, latents: Tensor) -> np.ndarray:
        """Float (N, C, H / 8, W / 8) to uint8 (N, H, W, 3). Raises VlaError for another shape."""
        shape = (self.config.latent_channels, self.pixels[0] // FACTOR, self.pixels[1] // FACTOR)
        if latents.shape[1:] != shape:
            raise VlaError(f"{self.name} has latents of the shape {list(shape)}, and not {list(latents.shape[1:])}")
        parts = [self.model.decode(part) for part in latents.split(_BATCH)]
        return ((torch.cat(parts) + 1.0) * 127.5).round().to(torch.uint8).movedim(1, -1).cpu().numpy()

    def save(self, folder: Path) -> None:
        """Write the folder, whole or not at all."""
        facts = {
            "format_version": FORMAT_VERSION,
            "config": asdict(self.config),
            "env": self.env,
            "camera": self.camera,
            "pixels": list(self.pixels),
            "provenance": self.provenance,
        }
        model_folder.save(folder, _ABOUT, facts, self.model, self.card())

    def card(self) -> str:
        """What this autoencoder is, for people."""
        made, count = self.provenance, sum(p.numel() for p in self.model.parameters())
        (height, width), channels = self.pixels, self.config.latent_channels
        return (
            f"# {self.name}\n\nTakes pictures of the camera `{self.camera}` of `{self.env}` ({width}x{height} pixels) "
            f"to {channels} x {height // FACTOR} x {width // FACTOR} latents and back. {count / 1e6:.1f} M parameters, "
            f"{made.get('steps')} steps, commit {made.get('commit')}, `{made.get('command')}`.\n\n"
            "It knows this simulated scene alone; docs/lab_notebook.md has its figures.\n"
        )


def load(name: str, device: str = "cpu") -> PictureLatents:
    """Open one: a folder, a training run's, or a name under ``assets/models``.

    Raises VlaError where a file is missing, damaged, or of another program.
    """
    folder = model_folder.find(name, _ABOUT, "autoencoder", "train one with `vla train tidy_desk_autoencoder`")
    about = model_folder.read_facts(folder, _ABOUT, FORMAT_VERSION)
    config = from_dict(AutoencoderConfig, about["config"])
    config.check("")
    model = Autoencoder(config)
    model_folder.load_weights(folder, _ABOUT, about, model)
    height, width = (int(side) for side in about["pixels"])
    rest = (about["env"], about["camera"], (height, width), about["provenance"], folder.resolve().name)
    return PictureLatents(model.eval().to(device), config, *rest)
