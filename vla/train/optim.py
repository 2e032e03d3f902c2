"""What every training step needs beside the objective: parameter groups, learning rate, precision, the wrapped loss."""

from __future__ import annotations

import inspect
import math
from collections import Counter
from contextlib import nullcontext
from typing import Any
from warnings import catch_warnings, filterwarnings

import torch
from torch import Tensor, nn

from vla.contracts import VlaError
from vla.recipe import OptimConfig
from vla.train.objectives import Objective

FINAL_SHARE = 0.01  # of the peak learning rate, at the last step


def learning_rate(optim: OptimConfig, step: int) -> float:
    """Linear warm-up over ``warmup_steps``, then a cosine down to 1 % of the peak at the last step.

    With ``decay`` below 1 the peak is held, and the cosine fills the last share of the steps alone: warm-up, stable,
    decay (Hu et al., "MiniCPM", 2024). A training that goes on from another's weights then needs no second summit.
    """
    if step < optim.warmup_steps:
        return optim.lr * (step + 1) / optim.warmup_steps
    begin = max(optim.warmup_steps, optim.steps - round(optim.decay * optim.steps))
    share = min(1.0, max(0, step - begin) / max(1, optim.steps - 1 - begin))
    return optim.lr * (FINAL_SHARE + (1 - FINAL_SHARE) * (1 + math.cos(math.pi * share)) / 2)


def pick_precision(precision: str, device: torch.device) -> str:
    """``fp32`` or ``bf16``; ``auto`` takes bf16 where the machine is fast at it: CUDA with bf16, a CPU with AMX."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device)[0] >= 8 else "fp32"
    amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    return "bf16" if device.type == "cpu" and amx() else "fp32"


class LossModule(nn.Module):
    """Puts an objective's loss behind ``forward``, where DDP, ``torch.compile`` and autocast can wrap it.

    Args:
        objective: it has made its model.
        device: where that lives.
        precision: ``fp32`` or ``bf16``.
    """

    def __init__(self, objective: Objective, device: torch.device, precision: str) -> None:
        super().__init__()
        self.model, self._loss = objective.model, objective.loss
        self._device_type, self._bf16 = device.type, precision == "bf16"

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of each sample (B,), and the objective's metrics, for a batch that is ready."""
        with torch.autocast(self._device_type, torch.bfloat16) if self._bf16 else nullcontext(), catch_warnings():
            filterwarnings("ignore", "Mismatch dtype between input and weight")  # layer norms keep float32 weights
            return self._loss(batch)


def checked_groups(model: nn.Module, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The parameter groups; raises VlaError unless they hold every trainable parameter exactly once."""
    count = Counter(id(p) for group in groups for p in group["params"])
    names = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
    missing = [name for key, name in names.items() if key not in count]
    wrong = [names.get(key, "a frozen or foreign tensor") for key, n in count.items() if n > 1 or key not in names]
    if missing or wrong:
        raise VlaError(
            f"{type(model).__name__}.parameter_groups must hold every trainable parameter once; "
            f"missing: {', '.join(missing) or 'none'}; repeated or not trainable: {', '.join(wrong) or 'none'}"
        )
    return groups


class AdamW(torch.optim.AdamW):
    """torch's own. What torch wraps around these methods, for those who compile them, imports its compiler: 3 s."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))
    zero_grad = inspect.unwrap(torch.optim.AdamW.zero_grad)
    add_param_group = inspect.unwrap(torch.optim.AdamW.add_param_group)
    state_dict = inspect.unwrap(torch.optim.AdamW.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.AdamW.load_state_dict)


def make_optimizer(objective: Objective, optim: OptimConfig, device: torch.device) -> torch.optim.AdamW:
    """AdamW over ``checked_groups``. A group may carry ``lr_scale``, which multiplies its learning rate."""
    groups = checked_groups(objective.model, objective.parameter_groups(optim.weight_decay))
    return AdamW(groups, lr=optim.lr, betas=optim.betas, fused=device.type in ("cpu", "cuda"))


def idle_parameters(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[str]:
    """A note for the user, if the first step left parameters untouched: often a mistake, sometimes an ablation."""
    idle = [name for name, p in model.named_parameters() if p.requires_grad and p not in optimizer.state]
    return [f"{len(idle)} parameters take no part in the loss and stay as they are, e.g. {idle[0]}"] if idle else []
