"""The settings of the flow policy, apart from it: recipes are listed and shown without torch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated

from vla.config import Between, Later, require_ranges
from vla.contracts import VlaError
from vla.nn.config import LanguageModelTrunkConfig, PooledTrunkConfig, TrunkConfig
from vla.settings import require_multiple


@dataclass(frozen=True)
class FlowConfig:
    """Size and habits of the flow policy.

    Attributes:
        chunk: actions predicted at once.
        execute: how many of them are played before the policy looks again.
        trunk: which trunk, and its sizes.
        dim, depth, heads: of the head's transformer; ``dim`` is the context's width too.
        actions_per_token: consecutive actions that share one token; must divide ``chunk``.
        draws: flow times and noises drawn for each observation in training.
        time_alpha, time_beta: the Beta distribution of the flow time.
        sample_steps: midpoint steps from noise to chunk (two calls of the head each); four give no better success. 0 is
            one call in all, for a head that has learnt to be asked once (``vla.train.distil``).
        noise_scale: standard deviation of the noise that a chunk begins as; training has 1. Less of it gives likelier
            chunks and steadier grasps, 0 always the same chunk.
        insulated: whether the flow loss leaves the trunk alone, so that it learns from points and stills only and
            cannot learn the demonstrations by heart ("Knowledge insulating VLAs", Driess et al., 2025).
        prefix: the most actions that a chunk is trained to go on from, being given them, for ``--playback prefix``
            (training-time action conditioning: Black et al., arXiv 2512.05964); 0 for none.
        pointing_weight: weight of the loss that teaches the first two slots where to look; this and the next two ask
            nothing of a trunk that does not point.
        yaw_weight: weight of the loss that teaches them how things lie; stills alone know that.
        offset_weight: weight of the loss that teaches them how far off things are, likewise.
    """

    chunk: Annotated[int, Between(1, 1024)] = 16
    execute: Annotated[int, Between(1, 1024)] = 4
    trunk: TrunkConfig | PooledTrunkConfig | LanguageModelTrunkConfig = field(default_factory=TrunkConfig)
    dim: Annotated[int, Between(1, 16_384)] = 192
    depth: Annotated[int, Between(1, 128)] = 4
    heads: Annotated[int, Between(1, 256)] = 4
    actions_per_token: Annotated[int, Between(1, 1024)] = 2
    draws: Annotated[int, Between(1, 256)] = 2
    time_alpha: Annotated[float, Between(1e-3, 1e3)] = 2.0
    time_beta: Annotated[float, Between(1e-3, 1e3)] = 2.0
    sample_steps: Annotated[int, Between(0, 200)] = 2
    noise_scale: Annotated[float, Between(0.0, 10.0)] = 0.5
    insulated: bool = False
    prefix: Annotated[int, Between(0, 1024), Later] = 0
    pointing_weight: Annotated[float, Between(0.0, 1e6)] = 1.0
    yaw_weight: Annotated[float, Between(0.0, 1e6)] = 1.0
    offset_weight: Annotated[float, Between(0.0, 1e6)] = 1.0

    def __post_init__(self) -> None:
        require_ranges(self)

    @classmethod
    def tiny(cls) -> FlowConfig:
        """A network for tests, of two cameras."""
        config, trunk = cls(), TrunkConfig()
        trunk = replace(trunk, vision="tiny", pixels=(64, 32), map_dim=16, glimpse=8)
        return replace(config, trunk=trunk, dim=32, depth=2)

    @property
    def learns_from_stills(self) -> bool:
        """Whether stills teach it anything."""
        return self.trunk.points

    def check(self, prefix: str) -> None:
        """Raise VlaError where settings do not go together. ``prefix`` is what their names begin with."""
        require_multiple(prefix, self, "dim", "heads")
        require_multiple(prefix, self, "chunk", "actions_per_token")
        if self.dim % 4:
            raise VlaError(f"--{prefix}dim {self.dim} must be a multiple of 4, the heads of the trunk's attention")
        if self.execute > self.chunk:
            raise VlaError(f"--{prefix}execute {self.execute} must be --{prefix}chunk, {self.chunk}, at most")
        if self.prefix >= self.chunk:
            raise VlaError(f"--{prefix}prefix {self.prefix} must be below --{prefix}chunk, {self.chunk}")
        if self.insulated and not self.learns_from_stills:
            raise VlaError(
                f"--{prefix}insulated would leave nothing to learn for --{prefix}trunk.type {self.trunk.type}"
            )
        self.trunk.check(f"{prefix}trunk.")
