"""``make_trunk``, which makes a trunk of its config, and the trunks that there are."""

from __future__ import annotations

from functools import singledispatch
from typing import Any

from vla.contracts import EnvSpec, VlaError
from vla.nn.compact_trunk import CompactTrunk, PooledTrunk
from vla.nn.config import LanguageModelTrunkConfig, PooledTrunkConfig, TrunkConfig
from vla.nn.context import Trunk
from vla.nn.language_trunk import LanguageModelTrunk


@singledispatch
def make_trunk(config: Any, dim: int, spec: EnvSpec) -> Trunk:
    """A trunk with fresh weights. Others are added with ``@make_trunk.register(ItsConfig)``.

    Args:
        config: its config dataclass, one of those that the policy's config may hold.
        dim: width of the context tokens.
        spec: cameras and state.
    """
    raise VlaError(f"nobody has said with make_trunk.register how a trunk is made of a {type(config).__name__}")


make_trunk.register(TrunkConfig, CompactTrunk)
make_trunk.register(PooledTrunkConfig, PooledTrunk)
make_trunk.register(LanguageModelTrunkConfig, LanguageModelTrunk)
