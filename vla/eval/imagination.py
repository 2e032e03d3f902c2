"""What an imagination (``vla.nn.imagination``) is worth on scenes that no training saw.

Scenes are those of evaluation's seeds, with held-out shades, layouts and words. Of each there are the present picture,
what is asked for, and the goal as the simulator shows it; the imagined picture is held against that, by its pixels, by
a scorer (``vla align``) and by an agent that points at things. What the same measures say of the real goal, and of the
present picture in its place, stands beside: the one is the most that can be had, the other what comes of no imagining.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from vla.agent import Agent
from vla.contracts import Observation, VlaError, episode_seed
from vla.contracts.abilities import Refers
from vla.data.goal_pictures import require_goals
from vla.eval.statistics import mean_of, rate_of
from vla.nn.clip_folder import Scorer
from vla.nn.imagination_folder import Imaginer
from vla.nn.latent import changed, psnr_db
from vla.nn.vision import as_input

_NEAR = 0.125  # halves of an image within which something is found; what goes farther was moved
_BOX = 8  # pixels to each side of a thing's middle
_WORST = 8  # scenes that are shown


@dataclass
class Scene:
    """One of the measured scenes.

    Attributes:
        now, goal: what is observed before and after, under the same arm.
        text: what is asked for.
        things: for each thing that is in view in both: what names it, and u, v before and after, (2, 2).
    """

    now: Observation
    goal: Observation
    text: str
    things: list[tuple[str, np.ndarray]]


def scenes_of(env: Any, count: int, seed: int, camera: str, on_part: Callable[[], None] = lambda: None) -> list[Scene]:
    """``count`` scenes. Raises VlaError where the env cannot show its goals, or tell where things are."""
    _require(env)
    found = []
    for index in range(count):
        own = episode_seed("evaluate", seed, index)
        rng = np.random.default_rng([own, 1])
        env.reset(seed=own, options={"split": "heldout"})
        texts, now, before = env.foreseen(rng, "heldout"), env.observe(), _places(env, camera)
        env.arrange("done", rng)
        goal, after = env.observe(), _places(env, camera)
        things = [(text, np.stack((before[text], after[text]))) for text in before if text in after]
        found.append(Scene(now, goal, texts[index % len(texts)], things))
        on_part()
    return found


def _require(env: object) -> None:
    require_goals(env, type(env).__name__)
    if not isinstance(env, Refers):
        raise VlaError(f"env {type(env).__name__} does not tell where its things are (vla/contracts/abilities.py)")


def _places(env: Any, camera: str) -> dict[str, np.ndarray]:
    """U and v of each thing in view, by what asks for it."""
    seen = {one.text: one.points[camera] for one in env.referring_expressions()}
    return {text: points[:2] for text, points in seen.items() if points[2]}


def measure(
    imaginer: Imaginer,
    scorer: Scorer,
    pointer: Agent,
    env: Any,
    count: int,
    seed: int,
    on_part: Callable[[], None] = lambda: None,
    **how: Any,
) -> tuple[dict[str, Any], list[tuple[list[np.ndarray], list[str]]]]:
    """All measures, as JSON types, and the rows of a picture sheet with the worst cases (now, imagined, real).

    Args:
        imaginer: whom to measure.
        scorer, pointer: who look at the pictures, of the same camera.
        env: it can show its goals, and tell where things are.
        count: scenes, at least 8; as many others give the pictures that the Fréchet distance is from.
        seed: chooses them.
        on_part: called after each scene, ``3 * count`` times.
        how: for ``Imaginer.imagine``.
    """
    if count < _WORST:
        raise VlaError(f"at least {_WORST} scenes are needed, and {count} are asked for")
    camera = imaginer.camera
    every = scenes_of(env, 2 * count, seed, camera, on_part)
    scenes, others = every[:count], every[count:]
    now, goal = (np.stack([getattr(one, name).images[camera] for one in scenes]) for name in ("now", "goal"))
    texts = [one.text for one in scenes]
    made = imaginer.imagine(now, texts, seed, **how)
    best = imaginer.latents.decode(imaginer.latents.encode(goal))
    seen = {"imagined": made, "real": goal, "present": now, "autoencoded": best}

    moved = changed(*(as_input(torch.from_numpy(one)) for one in (now, goal)))
    moving = {name: _psnr(images, goal, moved) for name, images in seen.items()}
    found: dict[str, Any] = {"scenes": count, "seed": seed}
    found["changed_psnr_db"] = {name: mean_of(values, seed) for name, values in moving.items() if name != "real"}
    boxes = _boxes(scenes, imaginer.pixels)
    found["item_psnr_db"] = {
        name: mean_of(_psnr(seen[name], goal, boxes), seed) for name in ("imagined", "autoencoded")
    }
    found["psnr_db"] = {name: mean_of(_psnr(seen[name], goal), seed) for name in ("imagined", "autoencoded", "present")}
    embedded = {name: scorer.embed(images) for name, images in seen.items()}
    elsewhere = scorer.embed(np.stack([one.goal.images[camera] for one in others])).double().numpy()
    found["frechet"] = {name: frechet(one.double().numpy(), elsewhere) for name, one in embedded.items()}
    asked = {name: scorer.success(one, texts).numpy() for name, one in embedded.items()}
    found["done"] = {name: rate_of((one >= scorer.threshold).tolist()).to_dict() for name, one in asked.items()}
    found["pointed"] = _pointed(pointer, scenes, seen, camera, on_part)
    worst = np.argsort(np.nan_to_num(moving["imagined"] - moving["autoencoded"], nan=np.inf))[:_WORST]
    rows = [
        (
            [now[i], made[i], goal[i]],
            [texts[i], f"{moving['imagined'][i]:.1f} dB where it changes, done {asked['imagined'][i]:.0%}"],
        )
        for i in worst
    ]
    return found, rows


def _psnr(images: np.ndarray, goal: np.ndarray, where: torch.Tensor | None = None) -> np.ndarray:
    """See ``vla.nn.latent.psnr_db``, (N,)."""
    return psnr_db(as_input(torch.from_numpy(images)), as_input(torch.from_numpy(goal)), where).numpy()


def _boxes(scenes: Sequence[Scene], pixels: tuple[int, int]) -> torch.Tensor:
    """Which pixels lie within ``_BOX`` of a thing's middle in the goal, bool (N, 1, H, W)."""
    height, width = pixels
    found = torch.zeros(len(scenes), 1, height, width, dtype=torch.bool)
    for one, scene in zip(found, scenes, strict=True):
        for _, places in scene.things:
            u, v = ((places[1] + 1.0) / 2.0).tolist()
            x, y = round(u * width), round(v * height)
            one[0, max(0, y - _BOX) : y + _BOX, max(0, x - _BOX) : x + _BOX] = True
    return found


def _pointed(
    pointer: Agent, scenes: Sequence[Scene], seen: dict[str, np.ndarray], camera: str, on_part: Callable[[], None]
) -> dict[str, dict[str, Any]]:
    """How often a thing is found where it is in the real goal: of things that were to be moved, and of the others."""
    right: dict[str, dict[str, list[bool]]] = {kind: {name: [] for name in seen} for kind in ("moved", "left")}
    for index, scene in enumerate(scenes):
        texts = [text for text, _ in scene.things]
        for name, images in seen.items() if texts else ():
            shown = replace(scene.goal, images=scene.goal.images | {camera: images[index]})
            peaks = pointer.point(shown, texts)[camera][:, :2]
            for peak, (_, places) in zip(peaks, scene.things, strict=True):
                kind = "moved" if np.linalg.norm(places[1] - places[0]) > 2 * _NEAR else "left"
                right[kind][name].append(bool(np.linalg.norm(peak - places[1]) < _NEAR))
        on_part()
    return {kind: {name: rate_of(hits).to_dict() for name, hits in one.items()} for kind, one in right.items()}


def frechet(one: np.ndarray, other: np.ndarray) -> float:
    """Fréchet distance of normal distributions with the means and covariances of (N, D) and (M, D).

    Heusel et al., "GANs Trained by a Two Time-Scale Update Rule", 2017, equation 6. It falls as N and M grow: compare
    figures of equal N and M alone.
    """
    apart = one.mean(axis=0) - other.mean(axis=0)
    first, second = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(values.clip(min=0.0))) @ vectors.T
    shared = np.sqrt(np.linalg.eigvalsh(root @ second @ root).clip(min=0.0)).sum()
    return float(apart @ apart + np.trace(first) + np.trace(second) - 2.0 * shared)
