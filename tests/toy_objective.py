"""An objective that is no behaviour cloning: an image and its sentence find each other (CLIP; Radford et al., 2021)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vla.data.frames import FrameCache
from vla.recipe import DataConfig, OptimConfig, Recipe, ValidateConfig
from vla.train.checkpoint import Found, Tensors
from vla.train.objectives import Batch, Losses, Objective, TriedOut
from vla.train.sampling import SampleOrder, batch_rng, to_device


@dataclass(frozen=True)
class ClipConfig:
    dim: int = 8


class Clip(nn.Module):
    """Colours of an image, and letters of a sentence, in one space; dropout, so that it draws while it trains."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.image, self.text, self.dropout = nn.Linear(3, dim), nn.EmbeddingBag(256, dim), nn.Dropout(0.1)

    def forward(self, batch: Batch) -> Tensor:
        """How alike each image (B, 3, H, W) and each sentence (B, letters) are: (B, B)."""
        image, text = self.image(batch["image"].mean(dim=(2, 3))), self.text(batch["letters"])
        return self.dropout(nn.functional.normalize(image, dim=1)) @ nn.functional.normalize(text, dim=1).T


class Contrast(Objective):
    """Frames of a cache and their instructions; the mean colour is kept as behaviour cloning keeps its statistics."""

    model: Clip
    folder = "encoder"

    def __init__(self, recipe: Recipe, data_dir: Path, device: torch.device, rank: int, world: int) -> None:
        super().__init__(recipe, data_dir, device, rank, world)
        self.cache = FrameCache.build(data_dir)
        self.sources = {"frames": len(self.cache.columns["frame"])}
        self.order = SampleOrder(self.sources["frames"], recipe.seed)
        self.fitted = 0

    def fingerprint(self, version: int) -> str:
        return self.cache.fingerprint

    def make(self, found: Found | None) -> None:
        self.model = Clip(self.recipe.policy_config.dim).to(self.device)
        if found is None:
            self.mean, self.fitted = torch.from_numpy(self.cache.frames["scene"][:].mean(axis=(0, 1, 2)) / 255), 1
        else:
            self.mean, self.fitted = found[0]["colours"]["mean"], found[1]["fitted"]

    def step(self, step: int) -> list[Batch]:
        size, rng = self.recipe.optim.batch_size // self.world, batch_rng(self.recipe.seed, step, self.rank)
        rows = self.order.take((step * self.world + self.rank) * size, size)
        return [self.batch(np.roll(rows, rng.integers(size)))]

    def batch(self, rows: np.ndarray) -> Batch:
        image = torch.from_numpy(np.asarray(self.cache.frames["scene"])[rows]).permute(0, 3, 1, 2)
        texts = [self.cache.instructions[i].encode()[:7].ljust(7) for i in self.cache.columns["instruction"][rows]]
        return {"image": image, "letters": torch.tensor([list(text) for text in texts])}

    def ready(self, batch: Batch) -> Batch:
        image = batch["image"] / 255 - self.mean[:, None, None]
        return to_device({**batch, "image": image.float()}, self.device)

    def loss(self, batch: Batch) -> Losses:
        alike = self.model(batch)
        right = alike.argmax(dim=1) == torch.arange(len(alike), device=alike.device)
        losses = nn.functional.cross_entropy(alike, torch.arange(len(alike), device=alike.device), reduction="none")
        return losses, {"found": right.float().mean()}

    def validate(self, loss: Callable[[Batch], Losses]) -> dict[str, float]:
        losses, metrics = loss(self.ready(self.batch(np.arange(8))))
        return {"validation_loss": float(losses.mean()), "validation_found": float(metrics["found"])}

    def try_out(self, artefact: dict[str, Tensor], stopped: Callable[[], bool]) -> TriedOut | None:
        size = float(artefact["image.weight"].norm())
        return TriedOut({"size": size}, {"size": size}, f"weights of size {size:.2f}")

    def tensors(self) -> Tensors:
        return {"colours": {"mean": self.mean}}

    def state(self) -> dict[str, Any]:
        return {"fitted": self.fitted}

    def artefact(self, model: nn.Module, provenance: dict[str, Any]) -> dict[str, Tensor]:
        self.provenance = provenance
        return {**model.state_dict(), "mean": self.mean}

    def save(self, artefact: dict[str, Tensor], folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        save_file(artefact, folder / "clip.safetensors")
        (folder / "provenance.json").write_text(json.dumps(self.provenance), encoding="utf-8")

    def advice(self, folder: Path) -> str:
        return f"look at it in {folder}"


def load(folder: Path) -> Clip:
    """The artefact, ready for use."""
    tensors = load_file(folder / "clip.safetensors")
    tensors.pop("mean")
    model = Clip(tensors["image.weight"].shape[0])
    model.load_state_dict(tensors)
    return model.eval()


def recipe() -> Recipe:
    """For the command line: ``tests.toy_objective:recipe``."""
    optim = OptimConfig(steps=6, batch_size=8, warmup_steps=2, log_every=2, checkpoint_every=2, lr=1e-2, ema_decay=0.9)
    rest = (DataConfig("data/dot"), optim, ValidateConfig(-1))
    return Recipe("toy", "", "", ClipConfig(), *rest, objective="tests.toy_objective:Contrast")
