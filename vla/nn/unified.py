"""One action vector for every arm, so that one network serves them all.

RDT-1B (Liu et al., 2024), section 4.2: each physical quantity has its fixed places in a long vector; an arm fills those
that it has, and a mask says which. Which places a dimension gets follows from its group's kind (``EnvSpec.groups``).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vla.contracts import VlaError
from vla.contracts.spec import Group

# How many places there are of each kind: two arms of up to ten joints, and some that nobody has told apart.
_SIZES = {"position": 6, "rotation": 12, "joint": 20, "gripper": 4, "other": 22}
WIDTH = 2 * sum(_SIZES.values())  # absolute targets, then displacements


class Unified:
    """The places of one arm's dimensions in the common vector.

    Args:
        groups: of its actions, or of its state.

    Attributes:
        places: int64 (A,), each below WIDTH, no two alike.
        mask: 1.0 at those places, (WIDTH,).

    Raises VlaError where the arm has more of a kind than there are places.
    """

    def __init__(self, groups: Sequence[Group]) -> None:
        begins, free = {}, 0
        for delta in (False, True):
            for kind, size in _SIZES.items():
                begins[kind, delta] = free
                free += size
        places, used = list[int](), dict.fromkeys(begins, 0)
        for group in groups:
            key, count = (group.kind, group.delta), len(group.dims)
            if used[key] + count > _SIZES[group.kind]:
                raise VlaError(f"the unified vector has {_SIZES[group.kind]} places for {group.kind}, and the arm more")
            places += range(begins[key] + used[key], begins[key] + used[key] + count)
            used[key] += count
        self.places = torch.tensor(places, dtype=torch.long)
        self.mask = torch.zeros(WIDTH).index_fill(0, self.places, 1.0)

    def spread(self, x: Tensor) -> Tensor:
        """An arm's (…, A) in the common vector: (…, WIDTH), zeros elsewhere."""
        return x.new_zeros(*x.shape[:-1], WIDTH).index_copy(-1, self.places.to(x.device), x)

    def gather(self, x: Tensor) -> Tensor:
        """The arm's own (…, A) of (…, WIDTH)."""
        return x.index_select(-1, self.places.to(x.device))
