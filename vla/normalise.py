"""The one place where SI units become normalised tensors, and back. Training and acting call the same ``encode``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vla.contracts import EnvSpec, VlaError
from vla.contracts.spec import PER_METRE, Group
from vla.nn.vision import as_input

# A dimension that hardly varies is scaled by a floor and never by its tiny spread, or noise would be blown up: of a
# position in metres, of a displacement in metres, and of all else in its own unit.
FLOOR, FLOOR_DELTA = 1e-2, 1e-4


@dataclass(frozen=True)
class Normaliser:
    """Statistics, and the two directions.

    Actions listed in ``relative`` are predicted as an offset from the present state. Each step of the chunk has its
    own statistics: an offset grows with the horizon, and the first steps, which are played, must not drown.

    Attributes:
        state_mean, state_std: (S,).
        action_mean, action_std: (chunk, A), of actions after the relative ones were made relative.
        relative: pairs (action index, state index), from the EnvSpec.
    """

    state_mean: Tensor
    state_std: Tensor
    action_mean: Tensor
    action_std: Tensor
    relative: tuple[tuple[int, int], ...] = ()

    @classmethod
    def fit(cls, state: np.ndarray, actions: np.ndarray, spec: EnvSpec) -> Normaliser:
        """Statistics of a data set.

        Args:
            state: (N, S), SI units.
            actions: (N, chunk, A), absolute, SI units: the chunk that follows each state.
            spec: says which action dimensions are relative.

        Raises:
            VlaError: the data is empty, holds NaN or infinity, or does not have the spec's dimensions.
        """
        for name, values, width in (("state", state, len(spec.state)), ("actions", actions, len(spec.action))):
            if len(values) == 0 or values.shape[-1] != width:
                raise VlaError(f"cannot fit statistics: {name} has shape {values.shape}, and needs (>0, …, {width})")
            if not np.isfinite(values).all():
                raise VlaError(f"cannot fit statistics: {name} holds NaN or infinity")
        unit = cls(torch.zeros(0), torch.ones(0), torch.zeros(0), torch.ones(0), spec.relative)
        offsets = unit._relative(torch.as_tensor(actions).double(), torch.as_tensor(state).double(), -1.0)
        states = torch.as_tensor(state).double()
        return cls(
            states.mean(0).float(),
            _spread(states, floors(spec.groups("state"))),
            offsets.mean(0).float(),
            _spread(offsets, floors(spec.groups("action"))),
            spec.relative,
        )

    def to(self, device: torch.device | str) -> Normaliser:
        """The same statistics on another device."""
        moved: dict[str, Any] = {name: value.to(device) for name, value in self.tensors().items()}
        return replace(self, **moved)

    def tensors(self) -> dict[str, Tensor]:
        """The statistics by name, for a safetensors file."""
        return {name: getattr(self, name) for name in ("state_mean", "state_std", "action_mean", "action_std")}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], spec: EnvSpec) -> Normaliser:
        """Read what ``tensors`` wrote. Raises VlaError naming the statistic that is missing."""
        names = ("state_mean", "state_std", "action_mean", "action_std")
        missing = [name for name in names if name not in tensors]
        if missing:
            raise VlaError(
                f"statistics are missing: {', '.join(missing)}; present: {', '.join(sorted(tensors)) or 'none'}"
            )
        return cls(**{name: tensors[name].float() for name in names}, relative=spec.relative)

    def encode(self, batch: dict[str, Any]) -> dict[str, Any]:
        """A batch in SI units to normalised tensors. The input is not changed.

        ``images.*`` uint8 (B, h, w, 3) become float (B, 3, h, w) in [-1, 1]; ``state`` (B, S) and, where present,
        ``actions`` and ``pending`` (B, chunk, A) are made relative and scaled; everything else is passed on. With K
        observations of history, images and states are (B, K, …), the present last, and actions are relative to that.
        """
        encoded = dict(batch)
        for key, value in batch.items():
            if key.startswith("images."):
                encoded[key] = as_input(value)
        state = batch["state"].float()
        encoded["state"] = (state - self.state_mean) / self.state_std
        for key in ("actions", "pending"):
            if key in batch:
                offsets = self._relative(batch[key].float(), present(state), -1.0)
                encoded[key] = (offsets - self.action_mean) / self.action_std
        return encoded

    def decode(self, actions: Tensor, state: Tensor) -> Tensor:
        """Normalised actions (B, chunk, A) and the SI state (B, S) they answer, to absolute actions in SI units."""
        return self._relative(actions * self.action_std + self.action_mean, state, 1.0)

    def _relative(self, actions: Tensor, state: Tensor, sign: float) -> Tensor:
        shifted = actions.clone()
        for a, s in self.relative:
            shifted[..., a] += sign * state[..., None, s]
        return shifted


def present(state: Tensor) -> Tensor:
    """The present one of states (B, S), or of states with their history (B, K, S): (B, S)."""
    return state[:, -1] if state.dim() == 3 else state


def floors(groups: Sequence[Group]) -> Tensor:
    """The smallest scale of each dimension, in its own unit: (D,)."""
    found: list[float] = []
    for group in groups:
        metres = PER_METRE.get(group.unit) if group.kind == "position" else None
        floor = FLOOR if metres is None else (FLOOR_DELTA if group.delta else FLOOR) * metres
        found += [floor] * len(group.dims)
    return torch.tensor(found, dtype=torch.float64)


def _spread(values: Tensor, least: Tensor) -> Tensor:
    """The standard deviation over the first dimension, not below ``least``; an env may have no state at all."""
    if not values.numel():
        return torch.ones(values.shape[1:])
    return values.std(0, correction=0).maximum(least.to(values)).float()
