"""Imagining: from the present picture of an env's first camera and a sentence to the picture of what is wanted.

Its data are goal pictures (``vla.data.goal_pictures``). They are taken to latents once, by an autoencoder that is
trained already (``vla.train.autoencode``) and becomes part of the artefact.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vla.contracts import VlaError
from vla.data.caches import gather, mapped
from vla.data.goal_pictures import GoalPictures, require_goals
from vla.host.progress import Progress
from vla.nn import clip_folder, latent_folder
from vla.nn.clip import SmallClip
from vla.nn.config import ImaginationConfig
from vla.nn.imagination import Imagination
from vla.nn.imagination_folder import GUIDANCE, SAMPLER, STEPS, Imaginer
from vla.nn.latent import changed, psnr_db
from vla.nn.vision import as_input
from vla.recipe import Recipe
from vla.registry import EnvRef
from vla.train.checkpoint import Found
from vla.train.objectives import Batch, Losses
from vla.train.pictures import PictureObjective

_PART = 256  # pictures that are taken to latents between two moves of the progress bar


class Imagining(PictureObjective[GoalPictures]):
    """See the module. The artefact is a ``vla.nn.imagination_folder.Imaginer``."""

    folder = "imagination"

    @staticmethod
    def require(recipe: Recipe, data_dir: Path) -> None:
        """Raise VlaError where the recipe's parts are not those of an imagination, or there is no autoencoder."""
        config = recipe.policy_config
        if not isinstance(config, ImaginationConfig):
            raise VlaError(f"recipe {recipe.name} has no ImaginationConfig for its policy_config")
        if not recipe.data.stills or not recipe.env:
            raise VlaError("imagining renders its own scenes: it needs --data.stills above 0, and an --env")
        latent_folder.load(config.autoencoder)
        if config.words:
            clip_folder.find(config.words)

    def check_env(self, env: Any) -> None:
        """See ``PictureObjective``."""
        require_goals(env, self.recipe.env)

    def check_camera(self) -> None:
        """It is the autoencoder's."""
        self.autoencoder = latent_folder.load(self.recipe.policy_config.autoencoder, str(self.device))
        shape = (self.camera.height, self.camera.width)
        if shape != self.autoencoder.pixels:
            height, width = self.autoencoder.pixels
            raise VlaError(
                f"--policy.autoencoder {self.recipe.policy_config.autoencoder} sees {width}x{height} pixels, and the "
                f"camera {self.camera.name} gives {shape[1]}x{shape[0]}"
            )
        self.config = replace(self.recipe.policy_config, latent=self.autoencoder.config)
        Imagination(self.config, shape)

    def render(self, env: EnvRef, count: int, seed: int, home: Path, split: str) -> GoalPictures:
        """See ``PictureObjective``."""
        return GoalPictures.build(env, count, seed, home, split)

    def make(self, found: Found | None) -> None:
        """See ``Objective``. The words may start from a scorer's."""
        self.model: Any = Imagination(self.config, (self.camera.height, self.camera.width)).to(self.device)
        self.model.autoencoder.load_state_dict(self.autoencoder.model.state_dict())
        if self.config.words and found is None:
            _take_words(self.model, self.config.words)

    def prepare(self) -> None:
        """Take all pictures to latents, or open those that a former run made."""
        self.latents = {"train": self._latents_of(self.scenes), "heldout": self._latents_of(self.held)}

    def _latents_of(self, pictures: GoalPictures) -> np.ndarray:
        """Float16 (N, 2, C, h, w), a memory map."""
        known = hashlib.sha256(pictures.fingerprint.encode())
        for tensor in self.autoencoder.model.state_dict().values():
            known.update(tensor.cpu().numpy().tobytes())
        file = self.data_dir / f"latents-{known.hexdigest()[:12]}.npy"
        if not file.is_file():
            frames, parts = pictures.frames.reshape(-1, *pictures.frames.shape[2:]), list[np.ndarray]()
            with Progress() as bar:
                task = bar.add_task("latents", total=-(-len(frames) // _PART))
                for start in range(0, len(frames), _PART):
                    parts.append(self.autoencoder.encode(np.array(frames[start : start + _PART])).half().cpu().numpy())
                    bar.advance(task)
            found, whole = np.concatenate(parts), file.with_name(f"{file.stem}.part.npy")
            np.save(whole, found.reshape(len(pictures), 2, *found.shape[1:]))
            whole.rename(file)
        return mapped(file)

    def batch(self, scenes: GoalPictures, rows: np.ndarray, rng: np.random.Generator) -> Batch:
        """Latents ``present`` and ``goal``, float16 (B, C, h, w), and a sentence for each."""
        pairs = gather(self.latents["train" if scenes is self.scenes else "heldout"], rows)
        texts = [scenes.texts[row] for row in rows]
        said = [some[int(rng.integers(len(some)))] for some in texts]
        return {"present": pairs[:, 0], "goal": pairs[:, 1], "texts": said}

    def loss(self, batch: Batch) -> Losses:
        """See ``Imagination.loss``."""
        return self.model.loss(batch["present"].float(), batch["goal"].float(), batch["texts"])

    def validate(self, loss: Callable[[Batch], Losses]) -> dict[str, float]:
        """On scenes and words that training does not have: decibels of all, and of the pixels that are to change.

        Beside them those of a picture in which nothing changes, and of the goal as the autoencoder gives it.
        """
        model, found = self.model, list[list[torch.Tensor]]()
        with torch.no_grad():
            for start in range(0, len(self.held), self.share):
                rows = np.arange(start, min(start + self.share, len(self.held)))
                batch = self.batch(self.held, rows, np.random.default_rng([self.recipe.seed, start]))
                now, then = (as_input(one.to(self.device)) for one in self.held.images(rows).unbind(1))
                noise = torch.randn((len(rows), *model.shape), generator=torch.Generator().manual_seed(start)).to(now)
                made = model.show(now, batch["texts"], noise, STEPS, GUIDANCE, SAMPLER)
                best = model.autoencoder.decode(batch["goal"].float().to(self.device))
                moved = changed(now, then)
                scores = [psnr_db(made, then)]
                scores += [psnr_db(one, then, moved) for one in (made, now, best)]
                found.append(scores)
        names = ("psnr_db", "changed_psnr_db", "unchanged_present_psnr_db", "best_possible_psnr_db")
        columns = [torch.cat(one) for one in zip(*found, strict=True)]
        return {f"validation_{name}": float(one.nanmean()) for name, one in zip(names, columns, strict=True)}

    def artefact(self, model: nn.Module, provenance: dict[str, Any]) -> Imaginer:
        """The imagination as it would ship now."""
        assert isinstance(model, Imagination)
        shape = (self.camera.height, self.camera.width)
        made = provenance | {"autoencoder": self.autoencoder.provenance}
        return Imaginer(model, self.config, self.recipe.env, self.camera.name, shape, made, self.recipe.name)

    def save(self, artefact: Imaginer, folder: Path) -> None:
        """See ``Imaginer.save``."""
        artefact.save(folder)

    def advice(self, folder: Path) -> str:
        """How to look at it."""
        return f'look at what it imagines: vla imagine "tidy the desk" --model {folder}'


def _take_words(model: Imagination, name: str) -> None:
    """Start from a scorer's encoder of sentences. Raises VlaError where they are not alike."""
    towers = clip_folder.load(name).model
    if not isinstance(towers, SmallClip):
        raise VlaError(f"--policy.words {name}: those are towers of open_clip, whose words cannot be taken")
    try:
        model.language.load_state_dict(towers.language.state_dict())
    except RuntimeError as error:
        raise VlaError(f"--policy.words {name} has another encoder than this recipe: {str(error)[:200]}") from error
