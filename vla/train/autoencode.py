"""Autoencoding: the pictures of an env's first camera become latents, and pictures again (``vla.nn.latent``).

Its data are the pictures of captioned scenes (``vla.train.pictures``); another training on the same ones finds them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vla.contracts import VlaError
from vla.data.captioned import Captioned
from vla.nn.config import AutoencoderConfig
from vla.nn.latent import FACTOR, Autoencoder, detail, psnr_db
from vla.nn.latent_folder import PictureLatents
from vla.nn.vision import as_input
from vla.recipe import Recipe
from vla.train.checkpoint import Found
from vla.train.objectives import Batch, Losses
from vla.train.pictures import CaptionedObjective

_SCALED_BY = 128  # pictures whose latents set the scale
_DETAILED = 0.2  # of ``vla.nn.latent.detail``, from which on a pixel belongs to an edge or to something small


class Autoencoding(CaptionedObjective):
    """See the module. The artefact is a ``vla.nn.latent_folder.PictureLatents``."""

    folder = "autoencoder"

    def check_camera(self) -> None:
        """Its sides are multiples of a latent cell's."""
        if self.camera.height % FACTOR or self.camera.width % FACTOR:
            seen = f"{self.camera.width}x{self.camera.height}"
            raise VlaError(f"latents need pictures whose sides are multiples of {FACTOR} pixels, and not {seen}")

    @staticmethod
    def require(recipe: Recipe, data_dir: Path) -> None:
        """Raise VlaError where the recipe's parts are not those of an autoencoder."""
        if not isinstance(recipe.policy_config, AutoencoderConfig):
            raise VlaError(f"recipe {recipe.name} has no AutoencoderConfig for its policy_config")
        if not recipe.data.stills or not recipe.env:
            raise VlaError("autoencoding renders its own scenes: it needs --data.stills above 0, and an --env")

    def make(self, found: Found | None) -> None:
        """See ``Objective``."""
        self.model: Any = Autoencoder(self.recipe.policy_config).to(self.device)

    def batch(self, scenes: Captioned, rows: np.ndarray, rng: np.random.Generator) -> Batch:
        """Pictures (B, H, W, 3), or a part of each that is drawn."""
        images, crop = scenes.images(rows), self.recipe.policy_config.crop
        height, width = (min(crop or side, side) for side in images.shape[1:3])
        spare = (images.shape[1] - height, images.shape[2] - width)
        corners = [rng.integers(0, side, len(rows), endpoint=True) for side in spare]
        parts = [one[y : y + height, x : x + width] for one, y, x in zip(images, *corners, strict=True)]
        return {"images": torch.stack(parts)}

    def loss(self, batch: Batch) -> Losses:
        """The squared error, more where there is detail, and the divergence, (B,)."""
        config: AutoencoderConfig = self.recipe.policy_config
        images = as_input(batch["images"])
        again, divergence = self.model.reconstruct(images)
        weight = 1.0 + config.detail_weight * detail(images)
        errors = (weight * (again.float() - images).square()).flatten(1).mean(dim=1)
        with torch.no_grad():
            scores = {"psnr_db": psnr_db(again.float(), images).mean(), "divergence": divergence.mean()}
        return errors + config.kl_weight * divergence, scores

    def validate(self, loss: Callable[[Batch], Losses]) -> dict[str, float]:
        """On scenes that training does not have, by the likeliest latents: decibels of all pixels, and of details."""
        found: list[tuple[torch.Tensor, torch.Tensor]] = []
        with torch.no_grad():
            for start in range(0, len(self.held), self.share):
                rows = np.arange(start, min(start + self.share, len(self.held)))
                images = as_input(self.held.images(rows).to(self.device))
                again = self.model.decode(self.model.encode(images))
                found.append((psnr_db(again, images), psnr_db(again, images, detail(images) > _DETAILED)))
        whole, parts = (torch.cat(one) for one in zip(*found, strict=True))
        return {
            "validation_psnr_db": float(whole.mean()),
            "validation_worst_psnr_db": float(whole.min()),
            "validation_detail_psnr_db": float(parts.nanmean()),
        }

    def artefact(self, model: nn.Module, provenance: dict[str, Any]) -> PictureLatents:
        """The autoencoder as it would ship now, its latents scaled by some of the pictures."""
        assert isinstance(model, Autoencoder)
        images = as_input(self.scenes.images(np.arange(min(_SCALED_BY, len(self.scenes)))).to(self.device))
        model.fit_scale(images)
        shape = (self.camera.height, self.camera.width)
        config = self.recipe.policy_config
        return PictureLatents(model, config, self.recipe.env, self.camera.name, shape, provenance, self.recipe.name)

    def save(self, artefact: PictureLatents, folder: Path) -> None:
        """See ``PictureLatents.save``."""
        artefact.save(folder)
