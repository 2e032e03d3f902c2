"""A trained latent autoencoder on disk (``vla.nn.model_folder``): uint8 pictures of one camera to latents and back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vla.contracts import VlaError
from vla.nn.config import AutoencoderConfig
from vla.nn.latent import FACTOR, Autoencoder
from vla.nn.model_folder import PictureModel, find
from vla.nn.vision import as_pictures

_BATCH = 32  # pictures that are looked at at once


@dataclass
class PictureLatents(PictureModel[Autoencoder, AutoencoderConfig]):
    """An autoencoder that is ready for use, and what it was trained on."""

    ABOUT = "autoencoder.json"

    @torch.no_grad()
    def encode(self, images: np.ndarray) -> Tensor:
        """uint8 (N, H, W, 3) to float (N, C, H / 8, W / 8). Raises VlaError for another resolution."""
        return torch.cat([self.model.encode(part) for part in self.inputs(images, _BATCH)])

    @torch.no_grad()
    def decode(self, latents: Tensor) -> np.ndarray:
        """Float (N, C, H / 8, W / 8) to uint8 (N, H, W, 3). Raises VlaError for another shape."""
        shape = (self.config.latent_channels, self.pixels[0] // FACTOR, self.pixels[1] // FACTOR)
        if latents.shape[1:] != shape:
            raise VlaError(f"{self.name} has latents of the shape {list(shape)}, and not {list(latents.shape[1:])}")
        parts = [self.model.decode(part) for part in latents.split(_BATCH)]
        return as_pictures(torch.cat(parts))

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
    advice = "train one with `vla train tidy_desk_autoencoder`"
    folder = find(name, PictureLatents.ABOUT, "autoencoder", advice)
    return PictureLatents.opened(folder, AutoencoderConfig, _made, device)


def _made(config: AutoencoderConfig, pixels: tuple[int, int]) -> Autoencoder:
    config.check("")
    return Autoencoder(config)
