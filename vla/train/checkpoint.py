"""Training state on disk, for resuming: safetensors and JSON, written whole or not at all.

``checkpoints/step_000500/`` holds one ``NAME.safetensors`` for each set of tensors and ``state.json`` with the
counters and the SHA-256 of every file. A folder is written as ``*.tmp`` and renamed when complete and on the disk.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialised
from torch import Tensor, nn

from vla.contracts import VlaError
from vla.host.files import sync_folder, write_atomically
from vla.host.provenance import file_sha256

FORMAT_VERSION = 2
FORMATS = (1, FORMAT_VERSION)  # 1 lacks ``statistics`` and ``initial``, and in the state ``stills`` and ``init``
Tensors = dict[str, dict[str, Tensor]]
Found = tuple[Tensors, dict[str, Any]]


def save(folder: Path, step: int, tensors: Tensors, state: dict[str, Any], keep: int = 2) -> Path:
    """Write checkpoint ``step`` into ``folder`` and delete all but the newest ``keep``. Returns its path.

    Raises OSError naming the file where the disk is full, say; the checkpoints that were there are then as they were.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob("*.tmp"):
        shutil.rmtree(leftover)
    target = folder / f"step_{step:06d}"
    temporary = target.with_suffix(".tmp")
    hashes = {}
    try:
        temporary.mkdir()
        for name, group in tensors.items():
            path = temporary / f"{name}.safetensors"
            write_atomically(path, serialised({k: v.detach().to("cpu").contiguous() for k, v in group.items()}))
            hashes[path.name] = file_sha256(path)
        text = json.dumps({**state, "step": step, "format_version": FORMAT_VERSION, "sha256": hashes}, indent=1)
        write_atomically(temporary / "state.json", text)
        if target.exists():
            shutil.rmtree(target)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    sync_folder(folder)
    for old in _newest_first(folder)[keep:]:
        shutil.rmtree(old)
    return target


def load_newest(folder: Path, warn: Callable[[str], None]) -> Found | None:
    """The newest checkpoint that can be read, on the CPU; None where ``folder`` holds no checkpoint at all.

    A damaged one is passed over with a line to ``warn``. Raises VlaError if every one is damaged.
    """
    paths = _newest_first(folder)
    for path in paths:
        try:
            return _load(path)
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            warn(f"checkpoint {path} is damaged ({reason}); trying the one before it")
    if paths:
        raise VlaError(f"no readable checkpoint in {folder}: delete that folder, or train anew without --resume")
    return None


def newest_step(folder: Path) -> int | None:
    """The step of the newest checkpoint, readable or not; None where there is none."""
    return next((int(path.name[5:]) for path in _newest_first(folder)), None)


def _newest_first(folder: Path) -> list[Path]:
    found = [path for path in folder.glob("step_*") if path.is_dir() and path.name[5:].isdigit()]
    return sorted(found, key=lambda path: int(path.name[5:]), reverse=True)


def _load(path: Path) -> Found:
    state = json.loads((path / "state.json").read_text(encoding="utf-8"))
    if state["format_version"] not in FORMATS:
        raise ValueError(f"format version {state['format_version']}, and this program reads {FORMATS}")
    tensors = {}
    for name, digest in state["sha256"].items():
        if file_sha256(path / name) != digest:
            raise ValueError(f"{name} does not match its SHA-256")
        tensors[name.removesuffix(".safetensors")] = load_file(path / name)
    return tensors, state


def module_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Every parameter once (tied ones under their first name) and every persistent buffer."""
    persistent = set(module.state_dict(keep_vars=True))
    buffers = {name: buffer for name, buffer in module.named_buffers() if name in persistent}
    return {**dict(module.named_parameters()), **buffers}


@contextmanager
def whole_step(module: nn.Module) -> Iterator[None]:
    """Around a training step: one that fails leaves no trace in what batch norms count and average.

    What is saved after the failure (of another process, say) is then the state after the last whole step.
    """
    norms = [one for one in module.modules() if isinstance(one, nn.modules.batchnorm._NormBase) and one.training]
    before = [(buffer, buffer.clone()) for norm in norms for buffer in norm.buffers()]
    try:
        yield
    except Exception:
        for buffer, value in before:
            buffer.copy_(value)
        raise


@torch.no_grad()
def copy_into(target: dict[str, Tensor], source: dict[str, Tensor], what: str) -> None:
    """Copy ``source`` into the tensors of ``target``. Raises VlaError unless names and shapes agree."""
    odd = sorted(set(target) ^ set(source)) or [k for k in target if target[k].shape != source[k].shape]
    if odd:
        raise VlaError(f"the checkpoint's {what} does not fit this recipe: {', '.join(odd[:3])}, {len(odd)} in all")
    for name, tensor in target.items():
        tensor.copy_(source[name])


def optimizer_tensors(optimizer: torch.optim.Optimizer, module: nn.Module) -> dict[str, Tensor]:
    """The optimiser's state as ``KIND/PARAMETER`` to tensor; parameters without a state are left out."""
    found = {}
    for name, parameter in module.named_parameters():
        for kind, value in optimizer.state.get(parameter, {}).items():
            found[f"{kind}/{name}"] = value if isinstance(value, Tensor) else torch.tensor(value)
    return found


@torch.no_grad()
def restore_optimizer(optimizer: torch.optim.Optimizer, module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Put back what ``optimizer_tensors`` gave. Step counters keep the place that the optimiser wants.

    A file holds contiguous tensors. A moment must lie in memory as its parameter does, channels last say: the fused
    optimisers walk both side by side, and would pair each weight with another's moment.
    """
    parameters = dict(module.named_parameters())
    state: dict[int, dict[str, Tensor]] = {}
    index = {id(p): i for i, p in enumerate(p for group in optimizer.param_groups for p in group["params"])}
    for key, value in tensors.items():
        kind, _, name = key.partition("/")
        if name not in parameters:
            raise VlaError(f"the checkpoint's optimizer does not fit this recipe: it has '{name}'")
        parameter = parameters[name]
        if value.ndim and value.shape == parameter.shape:
            value = torch.empty_like(parameter).copy_(value)
        state.setdefault(index[id(parameter)], {})[kind] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
