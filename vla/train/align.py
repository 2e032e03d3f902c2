"""Alignment: pictures of an env and sentences about them find each other (CLIP), and say what is done and how far.

Its data are captioned scenes (``vla.train.pictures``). A step sees ``optim.batch_size`` of them, each with one caption
and with ``wishes`` instructions.
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
from vla.nn.clip import clip_loss, make_clip, pair_loss, prompted
from vla.nn.clip_folder import Scorer
from vla.nn.config import ClipConfig
from vla.nn.vision import as_input
from vla.recipe import Recipe
from vla.train.checkpoint import Found
from vla.train.objectives import Batch, Losses
from vla.train.pictures import CaptionedObjective
from vla.train.sampling import batch_rng, colour_jitter, to_device

_OWN = 0.5  # how often a wish is the episode's own; of the others every second is one that is done, where there is one


class Alignment(CaptionedObjective):
    """See the module. The artefact is a ``vla.nn.clip_folder.Scorer``."""

    folder = "clip"

    LEAST = 2  # a contrast is between two

    @staticmethod
    def require(recipe: Recipe, data_dir: Path) -> None:
        """Raise VlaError where the recipe's parts are not those of an alignment."""
        if not isinstance(recipe.policy_config, ClipConfig):
            raise VlaError(f"recipe {recipe.name} has no ClipConfig for its policy_config, which alignment trains")
        if not recipe.data.stills or not recipe.env:
            raise VlaError("alignment renders its own scenes: it needs --data.stills above 0, and an --env")

    def make(self, found: Found | None) -> None:
        """See ``Objective``. The image tower may start from an agent's eyes."""
        config: ClipConfig = self.recipe.policy_config
        self.model: Any = make_clip(config, "" if found else config.weights)
        if config.eyes and not config.open_clip and found is None:
            _take_eyes(self.model, config.eyes)
        self.model.to(self.device)

    def batch(self, scenes: Captioned, rows: np.ndarray, rng: np.random.Generator) -> Batch:
        """Pictures (B, H, W, 3), B captions, wrong ones, B * R wishes with ``done``, and ``elapsed`` of their own.

        A picture of which nothing can be said has the caption of another, and is one with ``said`` false.
        """
        config: ClipConfig = self.recipe.policy_config
        captions, wrong, wishes, done, own, said = list[str](), list[str](), list[str](), list[float](), list[str](), []
        for row in rows:
            texts = scenes.texts[row]
            said.append(bool(texts["captions"]))
            text, _, others, _ = _pick(texts["captions"], rng) if said[-1] else ("", "", [], [])
            captions.append(text)
            chosen = rng.permutation(len(others))[: config.wrong]
            wrong += [others[i] for i in chosen]
            own.append(texts["wishes"][0][0])
            rest = texts["wishes"][1:]
            for _ in range(config.wishes):
                right = [one for one in rest if one[2]]
                among = texts["wishes"][:1] if rng.random() < _OWN or not rest else rest
                if among is rest and right and rng.random() < 0.5:
                    among = right
                wish, _, is_done = _pick(among, rng)
                wishes.append(wish)
                done.append(float(is_done))
        return {
            "images": scenes.images(rows),
            "captions": captions,
            "wrong": wrong,
            "said": torch.tensor(said),
            "wishes": wishes,
            "done": torch.tensor(done),
            "own": own,
            "elapsed": torch.from_numpy(scenes.elapsed[rows]),
        }

    def ready(self, batch: Batch) -> Batch:
        """The pictures as the towers see them, with other colours."""
        there = to_device(batch, self.device)
        jittered = colour_jitter({"images.seen": as_input(there["images"])}, self.recipe.data.colour_jitter)
        return {**there, "images": jittered["images.seen"]}

    def loss(self, batch: Batch) -> Losses:
        """Captions as in NegCLIP, and done or not, begun or over, as contrasts of two: three losses, (B,), added up."""
        config, model = self.recipe.policy_config, self.model
        images = model.embed_images(batch["images"])
        said = batch["said"].nonzero()[:, 0]
        captions = model.embed_texts([batch["captions"][i] for i in said.tolist()] + batch["wrong"])
        to_texts = model.logits(images[said], captions)
        found = torch.zeros(len(images), device=images.device)
        found[said] = clip_loss(to_texts, to_texts[:, : len(said)].T)

        seen = images.repeat_interleave(config.wishes, dim=0)
        asked = self._between(seen, batch["wishes"], ("done", "undone"))
        done = pair_loss(asked, batch["done"]).view(len(images), -1).mean(dim=1)
        timed = (~batch["elapsed"].isnan()).nonzero()[:, 0]
        progress = torch.zeros_like(found)
        if len(timed):
            own = [batch["own"][i] for i in timed.tolist()]
            progress[timed] = pair_loss(self._between(images[timed], own, ("over", "begun")), batch["elapsed"][timed])
        right = (to_texts.argmax(dim=1) == torch.arange(len(said), device=images.device)).float().mean()
        scores = {
            "found": right,
            "done_right": ((asked > 0) == (batch["done"] > 0.5)).float().mean(),
            "caption_loss": found.detach().mean(),
            "done_loss": done.detach().mean(),
            "progress_loss": progress.detach().sum() / max(1, len(timed)),
        }
        return found + done + progress, scores

    def _between(self, images: torch.Tensor, texts: list[str], pair: tuple[str, str]) -> torch.Tensor:
        both = self.model.embed_texts([prompted(text, name) for name in pair for text in texts])
        return self.model.between(images, *both.chunk(2))

    def validate(self, loss: Callable[[Batch], Losses]) -> dict[str, float]:
        """On scenes and words that training does not have: the loss, what is found among 64, what is rightly done."""
        totals: dict[str, float] = {}
        size = min(64, len(self.held))
        starts = range(0, len(self.held) - size + 1, size)
        for start in starts:
            # Pictures of one scene lie side by side: take them from all over.
            rows = np.arange(start // size, len(self.held), len(self.held) // size)[:size]
            batch = self.batch(self.held, rows, batch_rng(self.recipe.seed, start, 1 << 20))
            there = to_device(batch, self.device)
            losses, scores = loss({**there, "images": as_input(there["images"])})
            values = {"validation_loss": float(losses.mean())}
            values |= {f"validation_{name}": float(value) for name, value in scores.items()}
            totals = {name: totals.get(name, 0.0) + value / len(starts) for name, value in values.items()}
        return totals

    def artefact(self, model: nn.Module, provenance: dict[str, Any]) -> Scorer:
        """The towers as they would ship now."""
        shape = (self.camera.height, self.camera.width)
        config = self.recipe.policy_config
        assert isinstance(config, ClipConfig)
        return Scorer(model, config, self.recipe.env, self.camera.name, shape, provenance, self.recipe.name)  # type: ignore[arg-type]

    def save(self, artefact: Scorer, folder: Path) -> None:
        """See ``Scorer.save``."""
        artefact.save(folder)

    def advice(self, folder: Path) -> str:
        """How to measure it."""
        return f"measure it on scenes that it has not seen: vla align --measure --model {folder}"


def _pick(among: list[Any], rng: np.random.Generator) -> Any:
    return among[int(rng.integers(len(among)))]


def _take_eyes(model: Any, agent: str) -> None:
    """Start an image tower from an agent's first camera's network. Raises VlaError where they are not alike."""
    from vla.agent import load

    eyes = getattr(getattr(load(agent, "cpu").policy, "trunk", None), "vision", None)
    if eyes is None:
        raise VlaError(f"--policy.eyes {agent}: that agent's trunk has no eyes that could be taken")
    try:
        model.eye.load_state_dict(eyes[0].state_dict())
    except RuntimeError as error:
        raise VlaError(f"--policy.eyes {agent} has other eyes than this recipe: {str(error)[:200]}") from error
