"""What a trunk is: it encodes a batch once, and heads may then read the context as often as they like."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from vla.contracts import VlaError


@dataclass(frozen=True)
class Context:
    """What heads read of B observations.

    Attributes:
        tokens: (B, M, D).
        mask: True where a token may be looked at, (B, M), one of each row at least; None where all may.
        extras: whatever else the trunk found, by name, e.g. ``pointing``; its own ``losses`` read them.
        text: True where a token is of the sentence, (M,); None where the trunk does not tell.
    """

    tokens: Tensor
    mask: Tensor | None = None
    extras: dict[str, Any] = field(default_factory=dict)
    text: Tensor | None = None

    def to(self, device: torch.device) -> Context:
        """The tokens on another device, without the extras."""
        mask, text = (None if one is None else one.to(device) for one in (self.mask, self.text))
        return Context(self.tokens.to(device), mask, text=text)

    def each(self, change: Callable[[Tensor], Tensor]) -> Context:
        """The same with each tensor that heads read changed: tokens, mask and ``layers``; without the other extras."""
        mask = None if self.mask is None else change(self.mask)
        layers = [change(one) for one in self.extras.get("layers", [])]
        return Context(change(self.tokens), mask, {"layers": layers} if layers else {}, self.text)

    def mean(self) -> Tensor:
        """The mean of the tokens that may be looked at, (B, D)."""
        if self.mask is None:
            return self.tokens.mean(dim=1)
        weight = self.mask[..., None].to(self.tokens)
        return (self.tokens * weight).sum(dim=1) / weight.sum(dim=1)


class Trunk(nn.Module, ABC):
    """Images, a sentence and the state in; context tokens out. Made of its config by ``vla.nn.trunk.make_trunk``.

    Attributes:
        shares_images: whether ``encode`` takes R times as many sentences as images, R consecutive ones about each.
    """

    shares_images: ClassVar[bool] = False

    @abstractmethod
    def encode(self, batch: dict[str, Any]) -> Context:
        """The context of a batch of ``Normaliser.encode``, which is not changed.

        Args:
            batch: ``images.{camera}`` (B, 3, h, w), ``state`` (B, S), ``instruction`` (a list of B sentences) or
                what ``read`` makes of them.
        """

    def bases(self) -> dict[str, dict[str, Any]]:
        """Models of others that it is built on, by the prefix of their tensors' names, see ``vla.bundle``."""
        return {}

    def read(self, sentences: list[str]) -> dict[str, Tensor]:
        """What the sentences come to without images: entries of a batch, which ``encode`` takes in place of them.

        Raises VlaError where the trunk does not read them apart.
        """
        raise VlaError(f"{type(self).__name__} does not read sentences apart from images")

    def losses(self, context: Context, batch: dict[str, Any]) -> dict[str, Tensor]:
        """What the batch teaches the trunk beside the head's loss, by name: scalars. ``context`` is the batch's own."""
        return {}

    def grounding_losses(self, stills: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What stills (see ``vla.data.stills.Stills.batch``) teach it: losses and scores by name, scalars.

        Of a trunk that ``Speaks`` also ``answer``, the mean negative log-likelihood of an answer's tokens, nats.
        """
        return {}, {}


@runtime_checkable
class Pointing(Protocol):
    """A trunk that looks for what a sentence speaks of, and tells where."""

    def points(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Where it looks for what each sentence speaks of first: camera name to (B, 3), u to the right and v down, from
        -1 to 1, and the share of the attention around that place. Sentences may share an observation: B counts them."""
        ...


@runtime_checkable
class Speaks(Pointing, Protocol):
    """A trunk that answers questions in words; the questions stand where the instruction does."""

    def answer(self, batch: dict[str, Any], most: int = 48) -> list[str]:
        """The likeliest answer to each question, of at most so many tokens."""
        ...


def moment(batch: dict[str, Any], which: int) -> dict[str, Any]:
    """A batch of K observations each (states (B, K, S)) with one of them alone; all else stays."""
    return {**batch, **{key: batch[key][:, which] for key in _seen(batch)}}


def _seen(batch: dict[str, Any]) -> list[str]:
    return [key for key in batch if key == "state" or key.startswith("images.")]


def look(trunk: Trunk, batch: dict[str, Any]) -> Context:
    """The context of a batch: what it brings along as ``context``, or what the trunk makes of it.

    Of K observations each (states (B, K, S), see ``vla.control.history``) the tokens stand in a row, the oldest first:
    (B, K * M, D). The extras are the present's.
    """
    if "context" in batch:
        return batch["context"]
    if batch["state"].dim() == 2:
        return trunk.encode(batch)
    now = trunk.encode(moment(batch, -1))
    count = batch["state"].shape[1] - 1
    past = {key: batch[key][:, :-1].flatten(0, 1) for key in _seen(batch)}
    earlier = trunk.encode(past | {"instruction": [text for text in batch["instruction"] for _ in range(count)]})

    def row(present: Tensor, before: Tensor) -> Tensor:
        return torch.cat((before.view(len(present), -1, *present.shape[2:]), present), dim=1)

    mask = None if now.mask is None or earlier.mask is None else row(now.mask, earlier.mask)
    text = None if now.text is None else now.text.repeat(count + 1)
    return replace(now, tokens=row(now.tokens, earlier.tokens), mask=mask, text=text)
