"""Which of a policy's tensors its bundle stores, and which are another's: a base model, named by its hash.

A policy that is built on a model of others, frozen or with adapters (Hu et al., "LoRA", 2021), has a method
``bases() -> {prefix: {"source": …, "version": …}}``: where the tensors whose names begin with ``prefix.`` come from.
Its constructor loads them itself. Of those, only the parameters that are trained are stored.
"""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor, nn

from vla.contracts import VlaError


def own_tensors(policy: nn.Module) -> dict[str, Tensor]:
    """The tensors that a bundle stores, by name, on the CPU: all but those that are of a base and not trained."""
    theirs = {name for tensors in _of_bases(policy).values() for name in tensors}
    return {name: value.detach().cpu().clone() for name, value in policy.state_dict().items() if name not in theirs}


@torch.no_grad()
def put(policy: nn.Module, tensors: dict[str, Tensor], rounded: bool = True) -> None:
    """Fill a policy with what ``own_tensors`` gave. It takes their types, but no float16 of what was ``rounded``."""
    for name, tensor in policy.state_dict(keep_vars=True).items():
        if name in tensors:
            if not (rounded and tensors[name].dtype == torch.float16):
                tensor.data = tensor.data.to(tensors[name].dtype)
            tensor.data.copy_(tensors[name])
    policy.train().eval()  # empties caches that were filled with the former weights


def bases(policy: nn.Module) -> dict[str, dict[str, Any]]:
    """A policy's bases, by prefix: ``source``, ``version``, ``parameters`` (how many) and ``sha256``."""
    declared = policy.bases() if hasattr(policy, "bases") else {}  # type: ignore[operator]
    found = {}
    for prefix, tensors in _of_bases(policy).items():
        digest = hashlib.sha256()
        for name, value in sorted(tensors.items()):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        count = sum(value.numel() for value in tensors.values())
        found[prefix] = {**declared[prefix], "parameters": count, "sha256": digest.hexdigest()}
    return found


def parameters_of(named: dict[str, Any]) -> int:
    """How many parameters the bases have that a bundle names. Raises VlaError where it does not say."""
    try:
        return sum(int(one["parameters"]) for one in named.values())
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise VlaError(f"'base' does not say how many parameters it has: {error!r}") from error


def require_base(policy: nn.Module, named: dict[str, Any]) -> None:
    """Raise VlaError, naming the base, unless the policy stands on those that its bundle ``named``."""
    here = bases(policy)
    for prefix in sorted({*here, *named}):
        then, now = named.get(prefix, {}), here.get(prefix, {})
        if then.get("sha256") != now.get("sha256"):
            what = {**now, **then}
            raise VlaError(
                f"its base '{prefix}' is {what.get('source')} {what.get('version')} with the hash "
                f"{str(then.get('sha256'))[:16]}, and the one here has {str(now.get('sha256'))[:16]}"
            )


def _of_bases(policy: nn.Module) -> dict[str, dict[str, Tensor]]:
    prefixes = list(policy.bases()) if hasattr(policy, "bases") else []  # type: ignore[operator]
    tensors = policy.state_dict(keep_vars=True)
    return {
        prefix: {name: t for name, t in tensors.items() if name.startswith(f"{prefix}.") and not t.requires_grad}
        for prefix in prefixes
    }
