"""The settings of the hierarchical policy, apart from it: recipes are listed and shown without torch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar

from vla.config import Between
from vla.contracts import VlaError
from vla.nn.config import PooledTrunkConfig, TrunkConfig
from vla.nn.head import HeadConfig
from vla.settings import require_multiple


@dataclass(frozen=True)
class HierarchicalConfig(HeadConfig):
    """Size and habits of the hierarchical policy; ``trunk`` is System 2's.

    Attributes:
        fast: System 1's own eyes, smaller or as large, whose sentence the latent changes.
        depth, heads: of System 1's head, a transformer.
        actions_per_token: consecutive actions that share one token; must divide ``chunk``.
        plan_steps: how old, in steps of the env, what System 2 has answered is at most when System 1 acts on its
            latent. Training draws the age from 0 to this; acting, it is what System 2's delay makes it.
        plan_rate_hz: how often System 2 begins a plan, at most.
        follow_words: whether System 1 is told System 2's words, the present sub-instruction, in place of the sentence.
        word_layers: blocks of the decoder of the words; 0 for a System 2 that says nothing.
        words_weight: weight of the loss that teaches the words; of the actions' it is 1.
        frozen: whether System 2's trunk stays as the run found it, and only what reads it learns.
    """

    execute: Annotated[int, Between(1, 1024)] = 1
    fast: TrunkConfig | PooledTrunkConfig = field(default_factory=TrunkConfig)
    depth: Annotated[int, Between(1, 128)] = 4
    heads: Annotated[int, Between(1, 256)] = 4
    actions_per_token: Annotated[int, Between(1, 1024)] = 2
    plan_steps: Annotated[int, Between(0, 1000)] = 12
    plan_rate_hz: Annotated[float, Between(0.01, 1000.0)] = 8.0
    follow_words: bool = False
    word_layers: Annotated[int, Between(0, 64)] = 2
    words_weight: Annotated[float, Between(0.0, 1e6)] = 0.1
    frozen: bool = False

    observation_steps: ClassVar[tuple[int, ...]] = (-1, 0)  # what System 2 has answered, and the present

    @classmethod
    def tiny(cls) -> Any:
        """A network for tests, of two cameras."""
        trunk = replace(TrunkConfig(), vision="tiny", pixels=(64, 32), map_dim=16, glimpse=8)
        return replace(cls(), trunk=trunk, fast=trunk, dim=32, depth=2, word_layers=1)

    def check(self, prefix: str) -> None:
        """Raise VlaError where settings do not go together. ``prefix`` is what their names begin with."""
        super().check(prefix)
        require_multiple(prefix, self, "dim", "heads")
        require_multiple(prefix, self, "chunk", "actions_per_token")
        self.fast.check(f"{prefix}fast.")
        if self.follow_words and not self.word_layers:
            raise VlaError(f"--{prefix}follow_words needs words: --{prefix}word_layers is 0")
