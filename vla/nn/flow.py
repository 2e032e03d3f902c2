"""Conditional flow matching on a straight path: Lipman et al., 2023; Liu et al. ("Rectified Flow"), 2023.

Time runs from 0 (noise) to 1 (data): x_t = (1 - t) noise + t data, and the velocity is data - noise.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def sample_times(n: int, alpha: float, beta: float, device: torch.device) -> Tensor:
    """``n`` times in (0, 1) from Beta(alpha, beta), drawn with torch's global generator, (n,)."""
    return torch.distributions.Beta(alpha, beta).sample((n,)).to(device)


def interpolate(noise: Tensor, data: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """The point at time ``t`` (B,) on the path from ``noise`` to ``data`` (B, …), and the velocity there."""
    share = t.view(-1, *[1] * (data.dim() - 1))
    return (1.0 - share) * noise + share * data, data - noise


def midpoint_times(steps: int, device: torch.device) -> Tensor:
    """The times at which ``integrate`` asks for the velocity, (2 * steps,)."""
    return torch.arange(2 * steps, device=device) / (2 * steps)


def integrate(velocity: Callable[[Tensor, int], Tensor], noise: Tensor, steps: int) -> Tensor:
    """Follow the velocity from noise (B, …) at time 0 to data at time 1 in ``steps`` midpoint steps.

    ``velocity(x, i)`` is that of ``x`` at the time ``midpoint_times(steps)[i]``.
    """
    x, h = noise, 1.0 / steps
    for i in range(0, 2 * steps, 2):
        middle = x + 0.5 * h * velocity(x, i)
        x = x + h * velocity(middle, i + 1)
    return x
