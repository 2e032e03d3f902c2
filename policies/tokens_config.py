"""The settings of the tokens policy, apart from it: recipes are listed and shown without torch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal

from vla.config import Between, require_ranges
from vla.contracts import VlaError
from vla.nn.head import HeadConfig
from vla.settings import require_multiple


@dataclass(frozen=True)
class BinsConfig:
    """A token for each number of each action (RT-2, OpenVLA).

    Attributes:
        bins: of each dimension.
        quantile: the share of the numbers that is clipped at each end.
    """

    type: ClassVar[str] = "bins"

    bins: Annotated[int, Between(2, 65_536)] = 256
    quantile: Annotated[float, Between(0.0, 0.49)] = 0.01

    def __post_init__(self) -> None:
        require_ranges(self)


@dataclass(frozen=True)
class FastConfig:
    """Frequencies, and what of them often stands together (pi0-FAST).

    Attributes:
        vocabulary: tokens; single numbers need 2 * scale * sqrt(chunk) of them.
        scale: how finely frequencies are rounded.
        quantile: the share of the numbers that is clipped at each end.
    """

    type: Literal["fast"] = "fast"

    vocabulary: Annotated[int, Between(2, 65_536)] = 1024
    scale: Annotated[float, Between(0.1, 1000.0)] = 10.0
    quantile: Annotated[float, Between(0.0, 0.49)] = 0.01

    def __post_init__(self) -> None:
        require_ranges(self)


@dataclass(frozen=True)
class BeastConfig:
    """Control points of a B-spline (BEAST).

    Attributes:
        points: control points of a chunk.
        degree: of the spline; a gripper's is 0.
        bins: of each dimension.
        quantile: the share of the control points that is clipped at each end.
    """

    type: Literal["beast"] = "beast"

    points: Annotated[int, Between(1, 1024)] = 8
    degree: Annotated[int, Between(0, 7)] = 3
    bins: Annotated[int, Between(2, 65_536)] = 256
    quantile: Annotated[float, Between(0.0, 0.49)] = 0.01

    def __post_init__(self) -> None:
        require_ranges(self)


@dataclass(frozen=True)
class TokensConfig(HeadConfig):
    """Size and habits of the tokens policy.

    Attributes:
        depth, heads: of the decoder.
        tokeniser: how a chunk becomes tokens; nothing to ``decoding`` l1.
        decoding: one token after the other; all at once (parallel); or numbers at once, with no tokens at all (l1).
        smoothing: standard deviation, in bins, of a target around the true one (HL-Gauss; Imani and White, 2018); 0 for
            targets of one bin. Bins have an order; cross-entropy alone does not know it. Nothing to FAST, whose tokens
            have none, and to l1.
        temperature: of the draws; 0 takes the likeliest token.
    """

    depth: Annotated[int, Between(1, 128)] = 4
    heads: Annotated[int, Between(1, 256)] = 4
    tokeniser: BinsConfig | FastConfig | BeastConfig = field(default_factory=BinsConfig)
    decoding: Literal["autoregressive", "parallel", "l1"] = "autoregressive"
    smoothing: Annotated[float, Between(0.0, 1000.0)] = 0.0
    temperature: Annotated[float, Between(0.0, 100.0)] = 0.0

    @classmethod
    def tiny(cls) -> Any:
        """A network for tests, of two cameras."""
        return replace(super().tiny(), depth=2, temperature=1.0)

    def check(self, prefix: str) -> None:
        """Raise VlaError where settings do not go together. ``prefix`` is what their names begin with."""
        super().check(prefix)
        require_multiple(prefix, self, "dim", "heads")
        if self.decoding == "parallel" and isinstance(self.tokeniser, FastConfig):
            raise VlaError(
                f"--{prefix}decoding parallel needs chunks of equal length: --{prefix}tokeniser.type bins or beast"
            )
        if isinstance(self.tokeniser, BeastConfig) and not self.tokeniser.degree < self.tokeniser.points <= self.chunk:
            raise VlaError(
                f"--{prefix}tokeniser.points {self.tokeniser.points} must be above --{prefix}tokeniser.degree, "
                f"{self.tokeniser.degree}, and --{prefix}chunk, {self.chunk}, at most"
            )
