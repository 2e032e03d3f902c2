"""Which processor a training runs on."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING

from vla.contracts import VlaError

if TYPE_CHECKING:
    from accelerate import Accelerator


def choose(name: str) -> None:
    """Let ``make_accelerator`` take ``cpu``, ``cuda`` or ``cuda:1``, say. Raises VlaError where there is none such."""
    import torch

    if "RANK" in os.environ:
        raise VlaError("--device is for one process; of several, each has a device of its own")
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or not (number or "0").isdigit():
        raise VlaError(f"--device {name} is none that is known; write cpu, cuda, cuda:1 or mps")
    count = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}[kind]
    if int(number or 0) >= count:
        raise VlaError(f"--device {name} is not there: this machine has {count} of the kind {kind}")
    os.environ["ACCELERATE_TORCH_DEVICE"] = name


def make_accelerator() -> Accelerator:
    """What shares a training out among processes and devices."""
    import accelerate
    from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs

    # Rank 0 alone validates in closed loop, so the others may have to wait for long.
    waiting = InitProcessGroupKwargs(timeout=timedelta(hours=4))
    # A part whose loss is turned off, an ablation, must not stop the others.
    idle = DistributedDataParallelKwargs(find_unused_parameters=True)
    return accelerate.Accelerator(mixed_precision="no", kwargs_handlers=[waiting, idle])  # LossModule casts
