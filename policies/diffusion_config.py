"""The settings of the diffusion policy, apart from it: recipes are listed and shown without torch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal

from vla.config import Between, require_ranges
from vla.contracts import VlaError
from vla.nn.head import HeadConfig


@dataclass(frozen=True)
class TransformerConfig:
    """Size of the denoising transformer (RDT-1B).

    Attributes:
        depth, heads: of the transformer.
        actions_per_token: consecutive actions that share one token; must divide ``chunk``.
        alternate: whether blocks read pictures and sentence in turn, or everything each.
    """

    type: ClassVar[str] = "transformer"

    depth: Annotated[int, Between(1, 128)] = 4
    heads: Annotated[int, Between(1, 256)] = 4
    actions_per_token: Annotated[int, Between(1, 1024)] = 2
    alternate: bool = True

    def __post_init__(self) -> None:
        require_ranges(self)


@dataclass(frozen=True)
class UNetConfig:
    """Size of the conditional 1-D U-Net (Diffusion Policy).

    Attributes:
        widths: channels at each resolution, the finest first; each is half as long as the former.
        kernel: of the convolutions, odd.
        groups: of the group norms; must divide each width.
        queries: how many learned queries read the context.
    """

    type: Literal["unet"] = "unet"

    widths: Annotated[tuple[int, ...], Between(1, 16_384)] = (128, 256)
    kernel: Annotated[int, Between(1, 31)] = 5
    groups: Annotated[int, Between(1, 256)] = 8
    queries: Annotated[int, Between(1, 64)] = 4

    def __post_init__(self) -> None:
        require_ranges(self)


@dataclass(frozen=True)
class DiffusionConfig(HeadConfig):
    """Size and habits of the diffusion policy.

    Attributes:
        network: which denoiser, and its sizes.
        prediction: what it predicts: the noise, the clean chunk, or v.
        train_steps: noise levels in training.
        draws: noise levels and noises drawn for each observation in training.
        sampler: how a chunk is made from noise; see ``vla.nn.diffusion.make_scheduler``.
        sample_steps: in so many steps, one call of the network each.
        noise_scale: standard deviation of the noise that a chunk begins as; training has 1. Less gives likelier chunks.
        clip: the largest absolute value of a clean action in standard deviations, for the samplers ddpm and ddim; 0
            for none.
        observation_steps: which observations it sees, counted from now, e.g. -1,0 for two; they ascend to 0.
        unified: whether states and actions lie in RDT's common vector, so that one network serves other arms too.
    """

    network: TransformerConfig | UNetConfig = field(default_factory=TransformerConfig)
    prediction: Literal["epsilon", "sample", "v_prediction"] = "sample"
    train_steps: Annotated[int, Between(1, 10_000)] = 100
    draws: Annotated[int, Between(1, 256)] = 2
    sampler: Literal["ddpm", "ddim", "dpm_solver++", "unipc"] = "dpm_solver++"
    sample_steps: Annotated[int, Between(1, 10_000)] = 5
    noise_scale: Annotated[float, Between(0.0, 10.0)] = 1.0
    clip: Annotated[float, Between(0.0, 1e6)] = 6.0
    observation_steps: Annotated[tuple[int, ...], Between(-10_000, 0)] = (0,)
    unified: bool = False

    @classmethod
    def tiny(cls) -> Any:
        """A network for tests, of two cameras."""
        return replace(super().tiny(), network=TransformerConfig(depth=2), train_steps=20, draws=8, sample_steps=3)

    def check(self, prefix: str) -> None:
        """Raise VlaError where settings do not go together. ``prefix`` is what their names begin with."""
        super().check(prefix)
        net, where = self.network, f"--{prefix}network."
        if self.sample_steps > self.train_steps:
            raise VlaError(f"--{prefix}sample_steps {self.sample_steps} must be --{prefix}train_steps at most")
        steps = self.observation_steps
        if not steps or steps[-1] != 0 or list(steps) != sorted(set(steps)):
            raise VlaError(f"--{prefix}observation_steps must ascend to 0, e.g. -1,0, and are {list(steps)}")
        if isinstance(net, TransformerConfig):
            if self.dim % net.heads:
                raise VlaError(f"--{prefix}dim {self.dim} must be a multiple of {where}heads, which is {net.heads}")
            if self.chunk % net.actions_per_token:
                raise VlaError(f"{where}actions_per_token {net.actions_per_token} must divide --{prefix}chunk")
            return
        if not net.widths or self.chunk % 2 ** (len(net.widths) - 1):
            raise VlaError(f"{where}widths halve --{prefix}chunk {self.chunk} once for each but the first")
        if net.kernel % 2 == 0:
            raise VlaError(f"{where}kernel {net.kernel} must be odd")
        for width in net.widths:
            if width % net.groups:
                raise VlaError(f"{where}widths {width} must be a multiple of {where}groups, which is {net.groups}")
