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


def integrate(velocity: Callable[[Tensor, Tensor], Tensor], noise: Tensor, steps: int) -> Tensor:
    """Follow ``velocity(x, t)`` from noise (B, …) at time 0 to data at time 1 in ``steps`` midpoint steps."""
    x, h = noise, 1.0 / steps
    for i in range(steps):
        t = torch.full((len(x),), i * h, device=x.device, dtype=x.dtype)
        middle = x + 0.5 * h * velocity(x, t)
        x = x + h * velocity(middle, t + 0.5 * h)
    return x
