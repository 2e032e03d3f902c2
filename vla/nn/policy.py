"""What training and acting need of a policy, with defaults for what most do not care about."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from vla.contracts import VlaError
from vla.nn.context import Context, Trunk


@dataclass(frozen=True)
class Sampled:
    """What a policy answers to B observations.

    Attributes:
        actions: normalised chunks (B, chunk, A).
        log_probability: of each chunk (B,), where the policy knows it.
        words: what it said of each observation, where it speaks: a plan, a sub-instruction.
        extras: whatever else it has to show by name, B entries each, e.g. imagined frames.
    """

    actions: Tensor
    log_probability: Tensor | None = None
    words: list[str] | None = None
    extras: dict[str, Any] = field(default_factory=dict)


class Policy(nn.Module, ABC):
    """A network that learns from batches and answers with chunks. Sees normalised tensors only; owns no queue.

    Attributes:
        config: its frozen config dataclass, with ``chunk`` and ``execute``. Where that has ``observation_steps``, e.g.
            (-1, 0), batches hold so many observations each, see ``vla.control.history``.
        heeds_pending: whether ``sample`` heeds ``pending`` (B, chunk, A), normalised, by ``pending_weight`` (B, chunk):
            what the robot goes on with meanwhile, see ``vla.control.playback``. With ``pending_given`` those of weight
            1 are the beginning of its answer.
    """

    config: Any
    heeds_pending: bool = False

    @abstractmethod
    def loss(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of each sample (B,), whose mean is trained, and what is to be logged by name: scalar tensors.

        The batch is normalised, and is not changed. Random draws come from torch's global generator. Nothing is made a
        float here: that would wait for the device at each step.
        """

    @abstractmethod
    def sample(self, batch: dict[str, Any], generators: Sequence[torch.Generator]) -> Sampled:
        """Answers to B normalised observations; row i draws from ``generators[i]`` alone, on the CPU, if at all."""

    def plan(self, batch: dict[str, Any]) -> tuple[Tensor, list[str] | None]:
        """Of two systems, what the slow one answers to B normalised observations: latents (B, D), and words.

        ``sample`` takes them as ``latent`` and ``plan_words`` of its batch. Raises VlaError for any other policy.
        """
        raise VlaError(f"policy {type(self).__name__} is not of two systems")

    def prepare(self, batch: dict[str, Any]) -> dict[str, Any]:
        """What needs no network and can be done ahead, e.g. tokenising: a batch in SI units, on the CPU, likewise out.

        In training it runs beside the steps, for demonstrations and stills alike. The batch is not changed.
        """
        return batch

    def fit(self, state: Tensor, actions: Tensor) -> None:
        """Fill persistent buffers (quantiles, a codebook) from the data, before a training that starts from nothing.

        Args:
            state: normalised, (N, S).
            actions: normalised, (N, chunk, A).
        """

    def take_over(self, other: Policy) -> None:
        """Begin with the weights of another kind of policy, as far as the two have parts in common.

        Raises VlaError where they have not, as most.
        """
        raise VlaError(f"policy {type(self).__name__} does not begin from a {type(other).__name__}")

    def bases(self) -> dict[str, dict[str, Any]]:
        """Models of others that it is built on, see ``vla.bundle``; here its trunk's."""
        trunk = getattr(self, "trunk", None)
        return {f"trunk.{prefix}": base for prefix, base in trunk.bases().items()} if isinstance(trunk, Trunk) else {}

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Every parameter once, for the optimiser; here as the function below has it."""
        return parameter_groups(self, weight_decay)


class FollowsNoise(Policy):
    """A policy whose head leads from noise to a chunk: it may learn to do so in fewer calls (``vla.train.distil``)."""

    trunk: Trunk
    head: nn.Module
    action_dim: int

    @abstractmethod
    def follow(self, context: Context, noise: Tensor) -> Tensor:
        """Normalised chunks (B, chunk, A) for standard normal noise (B, chunk, A); consecutive rows share a context."""


def parameter_groups(module: nn.Module, weight_decay: float, free_names: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Every trainable parameter once, for the optimiser: matrices and kernels decay, biases and norms do not.

    Nor do those with one of ``free_names`` in their names: embeddings and learned tokens.
    """
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        is_free = parameter.dim() < 2 or any(one in name for one in free_names)
        if parameter.requires_grad:
            (free if is_free else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]


def standard_normal(generators: Sequence[torch.Generator], shape: Sequence[int], device: torch.device) -> Tensor:
    """Standard normal numbers (B, *shape) on ``device``, a row from each generator, whatever the others are."""
    return torch.stack([torch.randn(*shape, generator=one) for one in generators]).to(device)
