"""Conditional flow matching on a straight path: Lipman et al., 2023; Liu et al. ("Rectified Flow"), 2023.

Time runs from 0 (noise) to 1 (data): x_t = (1 - t) noise + t data, and the velocity is data - noise.
"""

from __future__ import annotations

import math
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
    """The times at which ``integrate`` asks for the velocity, (2 * steps,); of no steps, the begin alone."""
    calls = max(2 * steps, 1)
    return torch.arange(calls, device=device) / calls


def integrate(velocity: Callable[[Tensor, int], Tensor], noise: Tensor, steps: int) -> Tensor:
    """Follow the velocity from noise (B, …) at time 0 to data at time 1 in ``steps`` midpoint steps; 0: in one leap.

    ``velocity(x, i)`` is that of ``x`` at the time ``midpoint_times(steps)[i]``.
    """
    if not steps:
        return noise + velocity(noise, 0)
    x, h = noise, 1.0 / steps
    for i in range(0, 2 * steps, 2):
        middle = x + 0.5 * h * velocity(x, i)
        x = x + h * velocity(middle, i + 1)
    return x


def integrate_guided(
    velocity: Callable[[Tensor, int], Tensor], noise: Tensor, steps: int, wanted: Tensor, weight: Tensor
) -> Tensor:
    """``integrate``, drawn towards chunks that agree with ``wanted`` (B, N, A), by ``weight`` (B, N), 0 to 1.

    Guidance of real-time chunking (Black et al., arXiv 2506.07339, equations 2 to 4; Pokle et al., 2024): the error of
    the end that the present velocity points to goes back through the network by its vector-Jacobian product. The
    guidance is at most ``steps``, so that no step goes farther than the error.
    """

    def guided(x: Tensor, i: int) -> Tensor:
        t = i / (2 * steps)
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            speed = velocity(x, i)
            end = x + (1.0 - t) * speed
            error = (wanted - end).detach() * weight[..., None]
            # As the gradient of a sum: given a vector, torch first imports sympy, for seconds.
            (pull,) = torch.autograd.grad((end * error).sum(), x)
        strength = float(steps) if t == 0.0 else min(float(steps), (t * t + (1.0 - t) ** 2) / (t * (1.0 - t)))
        return (speed + strength * pull).detach()

    return integrate(guided, noise, steps)


def ddim(estimate: Callable[[Tensor, int], Tensor], noise: Tensor, steps: int) -> Tensor:
    """From noise (B, …) to data by a network that guesses the data, in ``steps`` equal steps.

    "Denoising Diffusion Implicit Models" (Song et al., 2021), equation 12 without noise; on the straight path that is
    Euler's method. ``estimate(x, i)`` is the guess for ``x`` at the time i / steps.
    """
    x = noise
    for i in range(steps):
        x = x + (estimate(x, i) - x) / (steps - i)
    return x


def dpm_solver(estimate: Callable[[Tensor, int], Tensor], noise: Tensor, steps: int) -> Tensor:
    """``ddim`` with what the former guess tells of the next: DPM-Solver++(2M), Lu et al., 2022, algorithm 2.

    The first step and the last, where the logarithm of the ratio of data to noise is infinite, are those of ``ddim``.
    """
    x, before = noise, noise
    ratio = [math.log(i / (steps - i)) if 0 < i < steps else math.inf * (2 * i - steps) for i in range(steps + 1)]
    for i in range(steps):
        guess = estimate(x, i)
        ahead, behind = ratio[i + 1] - ratio[i], ratio[i] - ratio[i - 1] if i else math.inf
        step = 0.0 if math.isinf(ahead) or math.isinf(behind) else ahead / (2 * behind)
        towards = guess + step * (guess - before)
        x = x + (towards - x) / (steps - i)
        before = guess
    return x
