"""Observations to a batch in SI units: what ``Normaliser.encode`` takes when an agent acts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from vla.contracts import EnvSpec, Observation, Pending, Plan
from vla.control.playback import weights


def batch_of(observations: Sequence[Observation], spec: EnvSpec, looks: int = 1) -> dict[str, Any]:
    """B observations, that were checked, as tensors on the CPU.

    Args:
        observations: in the env's own units.
        spec: says which cameras.
        looks: how many observations the policy sees of each: with K > 1 from its past.

    Returns:
        ``images.{camera}`` uint8 (B, H, W, 3), ``state`` float32 (B, S), both (B, K, …) with K > 1; ``instruction``, a
        list. Where any of them tells what goes on meanwhile, ``pending`` (B, chunk, A), ``pending_weight`` (B, chunk),
        0 where nothing is known, and ``pending_given``. Where all hold a plan, ``latent`` (B, D) and ``plan_words``.
    """
    seen = [[*one.past, one] for one in observations]
    batch: dict[str, Any] = {
        f"images.{camera.name}": _gathered([[o.images[camera.name] for o in one] for one in seen], looks)
        for camera in spec.cameras
    }
    batch["state"] = _gathered([[o.state for o in one] for one in seen], looks).float()
    batch["instruction"] = [o.instruction for o in observations]
    return batch | _pending([o.pending for o in observations]) | _planned([o.plan for o in observations])


def _gathered(parts: list[list[np.ndarray]], looks: int) -> torch.Tensor:
    """A part of each observation and of its past, as (B, …); of a policy that looks back, as (B, K, …)."""
    if looks == 1:
        return torch.from_numpy(np.stack([one[-1] for one in parts]))
    # The oldest stands in for what is older.
    whole = [[one[0]] * (looks - len(one)) + one[-looks:] for one in parts]
    return torch.from_numpy(np.stack([np.stack(one) for one in whole]))


def _pending(parts: list[Pending | None]) -> dict[str, Any]:
    known = next((one for one in parts if one is not None), None)
    if known is None:
        return {}
    nothing = replace(known, actions=0.0 * known.actions, sure=0, planned=0)
    rows = [one or nothing for one in parts]
    return {
        "pending": torch.from_numpy(np.stack([one.actions for one in rows])),
        "pending_weight": torch.from_numpy(np.stack([weights(one) for one in rows])),
        "pending_given": known.given,
    }


def _planned(plans: list[Plan | None]) -> dict[str, Any]:
    known = [one for one in plans if one is not None]
    if not known or len(known) < len(plans):
        return {}
    words, latents = [one.words for one in known], np.stack([one.latent for one in known])
    return {"latent": torch.from_numpy(latents), "plan_words": words if all(words) else None}
