"""What a trunk is: it encodes a batch once, and heads may then read the context as often as they like."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class Context:
    """What heads read of B observations.

    Attributes:
        tokens: (B, M, D).
        mask: True where a token may be looked at, (B, M), one of each row at least; None where all may.
        extras: whatever else the trunk found, by name, e.g. ``pointing``; its own ``losses`` read them.
    """

    tokens: Tensor
    mask: Tensor | None = None
    extras: dict[str, Any] = field(default_factory=dict)

    def mean(self) -> Tensor:
        """The mean of the tokens that may be looked at, (B, D)."""
        if self.mask is None:
            return self.tokens.mean(dim=1)
        weight = self.mask[..., None].to(self.tokens)
        return (self.tokens * weight).sum(dim=1) / weight.sum(dim=1)


class Trunk(nn.Module, ABC):
    """Images, a sentence and the state in; context tokens out. Made of its config by ``vla.nn.trunk.make_trunk``."""

    @abstractmethod
    def encode(self, batch: dict[str, Any]) -> Context:
        """The context of a batch of ``Normaliser.encode``, which is not changed.

        Args:
            batch: ``images.{camera}`` (B, 3, h, w), ``state`` (B, S), ``instruction`` (a list of B sentences).
        """

    def bases(self) -> dict[str, dict[str, Any]]:
        """Models of others that it is built on, by the prefix of their tensors' names, see ``vla.bundle``."""
        return {}

    def losses(self, context: Context, batch: dict[str, Any]) -> dict[str, Tensor]:
        """What the batch teaches the trunk beside the head's loss, by name: scalars. ``context`` is the batch's own."""
        return {}

    def grounding_losses(self, stills: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What stills (see ``vla.data.stills.Stills.batch``) teach it: losses and scores by name, scalars."""
        return {}, {}
