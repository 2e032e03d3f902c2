"""What the configs of action heads on a trunk have in common, and what a batch teaches the trunk beside the actions.

No torch is imported here: a recipe is read without it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any

from vla.config import Between, require_ranges
from vla.contracts import VlaError
from vla.nn.config import LanguageModelTrunkConfig, PooledTrunkConfig, TrunkConfig

if TYPE_CHECKING:
    from torch import Tensor

    from vla.nn.context import Context, Trunk


@dataclass(frozen=True)
class HeadConfig:
    """What every policy of a trunk and a head says.

    Attributes:
        chunk: actions predicted at once.
        execute: how many of them are played before the policy looks again.
        trunk: which trunk, and its sizes.
        dim: the context's width, and the head's.
        pointing_weight: weight of the loss that teaches the first two slots where to look; this and the next two ask
            nothing of a trunk that does not point.
        yaw_weight: weight of the loss that teaches them how things lie; stills alone know that.
        offset_weight: weight of the loss that teaches them how far off things are, likewise.
    """

    chunk: Annotated[int, Between(1, 1024)] = 16
    execute: Annotated[int, Between(1, 1024)] = 4
    trunk: TrunkConfig | PooledTrunkConfig | LanguageModelTrunkConfig = field(default_factory=TrunkConfig)
    dim: Annotated[int, Between(1, 16_384)] = 192
    pointing_weight: Annotated[float, Between(0.0, 1e6)] = 1.0
    yaw_weight: Annotated[float, Between(0.0, 1e6)] = 1.0
    offset_weight: Annotated[float, Between(0.0, 1e6)] = 1.0

    def __post_init__(self) -> None:
        require_ranges(self)

    @classmethod
    def tiny(cls) -> Any:
        """A network for tests, of two cameras."""
        trunk = replace(TrunkConfig(), vision="tiny", pixels=(64, 32), map_dim=16, glimpse=8)
        return replace(cls(), trunk=trunk, dim=32)

    @property
    def learns_from_stills(self) -> bool:
        """Whether stills teach it anything."""
        return self.trunk.points

    def check(self, prefix: str) -> None:
        """Raise VlaError where settings do not go together. ``prefix`` is what their names begin with."""
        if self.dim % 4:
            raise VlaError(f"--{prefix}dim {self.dim} must be a multiple of 4, the heads of the trunk's attention")
        if self.execute > self.chunk:
            raise VlaError(f"--{prefix}execute {self.execute} must be --{prefix}chunk, {self.chunk}, at most")
        self.trunk.check(f"{prefix}trunk.")


def taught(trunk: Trunk, context: Context, batch: dict[str, Any], config: Any) -> tuple[Any, dict[str, Tensor]]:
    """What a batch teaches the trunk beside the head's loss: the weighted sum, and losses and scores for the log.

    Nothing where the context came with the batch, and the trunk stays as it is. ``config`` has the three weights of
    ``HeadConfig``.
    """
    weights = {"grounding": config.pointing_weight, "yaw": config.yaw_weight, "offset": config.offset_weight}
    losses: dict[str, Tensor] = {}
    scores: dict[str, Tensor] = {}
    if config.pointing_weight > 0.0 and "context" not in batch:
        losses = trunk.losses(context, batch)
    if "stills" in batch and any(weights.values()):
        of_stills, scores = trunk.grounding_losses(batch["stills"])
        losses = losses | of_stills
    counted = {name: weights.get(name, config.pointing_weight) for name in losses}
    total = sum(counted[name] * value for name, value in losses.items() if counted[name] > 0.0)
    return total, {name: value.detach() for name, value in losses.items()} | scores
