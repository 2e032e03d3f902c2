"""An exponential moving average of a module's weights: what is validated and shipped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Ema:
    """Averages a module's trainable parameters and its floating-point buffers (batch norm's running statistics).

    The decay warms up, ``min(decay, (1 + n) / (10 + n))`` after n updates, so that the random initial
    weights are forgotten soon.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self._module = module
        kept = set(module.state_dict())
        named: list[tuple[str, Tensor]] = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
        named += [(name, b) for name, b in module.named_buffers() if b.is_floating_point() and name in kept]
        self.names = [name for name, _ in named]
        self.shadow = [tensor.detach().clone() for _, tensor in named]

    def _live(self) -> list[Tensor]:
        """The module's tensors as they are now: wrapping it for several processes may give it new storage."""
        tensors: dict[str, Tensor] = {**dict(self._module.named_parameters()), **dict(self._module.named_buffers())}
        return [tensors[name].detach() for name in self.names]

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the present weights; call once after each optimiser step."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(self.shadow, self._live(), 1 - decay)
        self.updates += 1

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within this block the module holds the averaged weights; afterwards its own again."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        live = self._live()
        kept = [tensor.clone() for tensor in live]
        torch._foreach_copy_(live, self.shadow)
        torch._foreach_copy_(self.shadow, kept)

    def state(self) -> dict[str, Tensor]:
        """Tensor name to averaged tensor (the tensors themselves, not copies)."""
        return dict(zip(self.names, self.shadow, strict=True))
