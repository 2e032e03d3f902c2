"""A trained imagination on disk (``vla.nn.model_folder``): uint8 pictures of one camera to pictures of what will be."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vla.contracts import VlaError
from vla.contracts.spec import language_of
from vla.nn.config import ImaginationConfig
from vla.nn.imagination import SAMPLERS, Imagination
from vla.nn.latent import FACTOR
from vla.nn.latent_folder import PictureLatents
from vla.nn.model_folder import PictureModel, find
from vla.nn.vision import as_pictures

SHIPPED = "tidy_desk_imagination"
STEPS, GUIDANCE, SAMPLER = 8, 1.5, "dpm_solver++"
_BATCH = 32  # pictures that are imagined at once


@dataclass
class Imaginer(PictureModel[Imagination, ImaginationConfig]):
    """An imagination that is ready for use, and what it was trained on."""

    ABOUT = "imagination.json"

    @property
    def latents(self) -> PictureLatents:
        """Its autoencoder."""
        rest = (self.env, self.camera, self.pixels, self.provenance, self.name)
        return PictureLatents(self.model.autoencoder, self.config.latent, *rest)

    def imagine(
        self,
        images: np.ndarray,
        texts: Sequence[str],
        seed: int = 0,
        steps: int = STEPS,
        guidance: float = GUIDANCE,
        sampler: str = SAMPLER,
    ) -> np.ndarray:
        """How each scene will look.

        Args:
            images: uint8 (N, H, W, 3), the scenes as they are.
            texts: N sentences, what is wanted of each.
            seed: of the noise; picture i of a call has noise of its own.
            steps, guidance, sampler: see ``Imagination.imagine``.

        Returns uint8 (N, H, W, 3). Raises VlaError for another resolution, an empty text or an unknown sampler.
        """
        if sampler not in SAMPLERS:
            raise VlaError(f"there is no sampler '{sampler}'; known: {', '.join(SAMPLERS)}")
        if steps < 1 or not guidance >= 0.0:
            raise VlaError(f"at least one step and a guidance of at least 0 are needed, not {steps} and {guidance:g}")
        if len(texts) != len(images):
            raise VlaError(f"{len(images)} pictures need as many texts, and {len(texts)} are given")
        texts, found = checked(texts), list[Tensor]()
        for number, seen in enumerate(self.inputs(images, _BATCH)):
            first = number * _BATCH
            noise = _noise(first, len(seen), self.model.shape, seed).to(seen)
            asked = texts[first : first + len(seen)]
            found.append(self.model.show(seen, asked, noise, steps, guidance, sampler))
        return as_pictures(torch.cat(found))

    def card(self) -> str:
        """What this model is, for people."""
        made, count = self.provenance, sum(p.numel() for p in self.model.parameters())
        (height, width), channels = self.pixels, self.config.latent.latent_channels
        return (
            f"# {self.name}\n\nImagines how the camera `{self.camera}` of `{self.env}` ({width}x{height} pixels) will "
            f"see the scene once an instruction in English or Chinese is done: latent diffusion over "
            f"{channels} x {height // FACTOR} x {width // FACTOR} latents. {count / 1e6:.1f} M parameters with its "
            f"autoencoder, {made.get('steps')} steps, commit {made.get('commit')}, `{made.get('command')}`.\n\n"
            "It knows this simulated scene alone. `vla imagine --measure` measures it; the figures are in "
            "docs/lab_notebook.md.\n"
        )


def checked(texts: Sequence[str]) -> list[str]:
    """The texts. Raises VlaError for an empty one, or one that is in none of the languages."""
    for text in texts:
        if not text.strip():
            raise VlaError("the text is empty; write what the picture should show, or an instruction")
        letters = [char for char in text if char.isalpha() and "LATIN" not in unicodedata.name(char, "")]
        foreign = [char for char in letters if language_of(char) != "zh"]
        if foreign:
            raise VlaError(f"'{text}' is neither English nor Chinese ('{foreign[0]}'), and no other language is known")
    return list(texts)


def _noise(first: int, count: int, shape: Sequence[int], seed: int) -> Tensor:
    """Rows ``first`` to ``first + count``, each from a generator of its own, however many others there are."""
    rows = [torch.Generator().manual_seed((seed * 1_000_003 + row) % 2**63) for row in range(first, first + count)]
    return torch.stack([torch.randn(tuple(shape), generator=one) for one in rows])


def load(name: str = SHIPPED, device: str = "cpu") -> Imaginer:
    """Open one: a folder, a training run's, or a name under ``assets/models``.

    Raises VlaError where a file is missing, damaged, or of another program.
    """
    folder = find(name, Imaginer.ABOUT, "imagination", "train one with `vla train tidy_desk_imagination`")
    return Imaginer.opened(folder, ImaginationConfig, Imagination, device)
