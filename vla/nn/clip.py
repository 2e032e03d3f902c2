"""Pictures and sentences in one space, so that their product says how well they fit.

"Learning Transferable Visual Models From Natural Language Supervision" (CLIP; Radford et al., 2021): within a batch
each picture is to find its caption, and each caption its picture. "When and Why Vision-Language Models Behave like
Bags-Of-Words" (NegCLIP; Yuksekgonul et al., 2023): captions that differ from the right ones in a word join the columns
among which a picture finds its own.

Success and progress are contrasts too, each between two sentences around the same instruction. A picture of an
episode's start is nearer to "not done: put the red pen in the tray", one of its end to "done: …"; the share of the
second in the softmax of the two is the probability that it is done. As both name the same things, nothing but the state
tells them apart, and the score is comparable across pictures and instructions. The product with a bare instruction is
not: it says above all whether the things are on the desk. How far an episode has come lies between "just begun: …" and
"nearly over: …" in the same way, learnt from the share of its time that has passed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla.contracts import VlaError
from vla.contracts.errors import MissingExtraError
from vla.contracts.spec import language_of
from vla.nn.config import ClipConfig
from vla.nn.language import LanguageEncoder
from vla.nn.transformer import Attention, Block, fourier
from vla.nn.vision import VisionEncoder, cell_centres

PROMPTS = {
    "en": {"done": "done: {}", "undone": "not done: {}", "over": "nearly over: {}", "begun": "just begun: {}"},
    "zh": {"done": "已完成：{}", "undone": "未完成：{}", "over": "快结束：{}", "begun": "刚开始：{}"},
}
_LENGTH = 56  # tokens of a caption
_FREQUENCIES = 4
_COLDEST, _FIRST = math.log(100.0), math.log(1 / 0.07)  # of the logits' scale: its bound, and its start


class Clip(nn.Module):
    """What both kinds of towers share. Embeddings are float (N, D) of length 1."""

    scale: nn.Parameter  # the logarithm of what cosines are multiplied by

    def embed_images(self, images: Tensor) -> Tensor:
        """Float (B, 3, height, width), -1 to 1."""
        raise NotImplementedError

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Any sentences, at least one."""
        raise NotImplementedError

    def logits(self, images: Tensor, texts: Tensor) -> Tensor:
        """Of embeddings (B, D) and (T, D): (B, T)."""
        return self.scale.clamp(max=_COLDEST).exp() * images @ texts.T

    def between(self, images: Tensor, yes: Tensor, no: Tensor) -> Tensor:
        """The logit of the first of two texts for each image; all embeddings, (B, D). Gives (B,)."""
        return self.scale.clamp(max=_COLDEST).exp() * (images * (yes - no)).sum(dim=-1)

    def ask(self, images: Tensor, texts: Sequence[str], pair: tuple[str, str] = ("done", "undone")) -> Tensor:
        """The probability, (B,), of the first prompt of the pair around each image's own text."""
        yes, no = (self.embed_texts([prompted(text, name) for text in texts]) for name in pair)
        return self.between(images, yes, no).sigmoid()


class SmallClip(Clip):
    """Our towers: a camera's network whose map a few queries read, and the policies' encoder of sentences."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        width, heads = config.width, 4
        self.eye = VisionEncoder(config.vision, config.pixels, config.map_dim)
        self.reduce = nn.Conv2d(config.map_dim, width, 3, stride=2, padding=1)
        self.where = nn.Linear(2 + 4 * _FREQUENCIES, width)
        self.norm = nn.LayerNorm(width)
        self.queries = nn.Parameter(torch.randn(config.queries, width))
        self.read, self.confer = Attention(width, heads), Block(width, heads, ratio=2)
        self.image_out = nn.Linear(config.queries * width, config.dim)
        self.language = LanguageEncoder(width, config.language_depth, heads, length=_LENGTH)
        self.text_out = nn.Linear(width, config.dim)
        self.scale = nn.Parameter(torch.tensor(_FIRST))

    def embed_images(self, images: Tensor) -> Tensor:
        """See ``Clip``."""
        cells = self.eye(images).transpose(1, 2).unflatten(2, (self.eye.grid, self.eye.grid))
        cells = F.gelu(self.reduce(cells))
        grid = cells.shape[-1]
        places = fourier(cell_centres(grid).to(cells), _FREQUENCIES)
        tokens = self.norm(cells.flatten(2).transpose(1, 2) + self.where(places))
        queries = self.queries.expand(len(images), -1, -1)
        read = self.confer(queries + self.read(queries, tokens))
        return F.normalize(self.image_out(read.flatten(1)).float(), dim=-1)

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """See ``Clip``."""
        words, _ = self.language(list(texts))
        return F.normalize(self.text_out(words[:, 0]).float(), dim=-1)


class OpenClip(Clip):
    """Towers of open_clip, with its tokenizer.

    Raises MissingExtraError without the extra ``generation``; VlaError for an unknown name, or weights that do not fit.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: ClipConfig, weights: str = "") -> None:
        super().__init__()
        try:
            import open_clip
        except ImportError as error:
            raise MissingExtraError("open_clip is not installed: pip install 'vla[generation]'") from error
        name = config.open_clip
        if name.endswith(".json"):
            if not Path(name).is_file():
                raise VlaError(f"there is no architecture of open_clip in {name}")
            open_clip.add_model_config(name)
            name = Path(name).stem
        if name not in open_clip.list_models():
            raise VlaError(f"open_clip has no architecture '{name}', see open_clip.list_models(), or name a JSON file")
        if weights and not Path(weights).is_file() and weights not in open_clip.list_pretrained_tags_by_model(name):
            known = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "none"
            raise VlaError(f"there are no weights {weights} for {name}: no such file, and the tags are {known}")
        try:
            self.towers: Any = open_clip.create_model(name, pretrained=weights or None)
        except RuntimeError as error:
            raise VlaError(f"the weights {weights} do not fit {name}: {str(error)[:200]}") from error
        self.tokenizer = open_clip.get_tokenizer(name)
        self.scale = self.towers.logit_scale
        seen = self.towers.visual.preprocess_cfg
        size = self.towers.visual.image_size
        self.size = tuple(size) if isinstance(size, (tuple, list)) else (size, size)
        self.register_buffer("mean", torch.tensor(seen["mean"])[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(seen["std"])[:, None, None], persistent=False)

    def embed_images(self, images: Tensor) -> Tensor:
        """See ``Clip``."""
        if images.shape[-2:] != self.size:
            images = F.interpolate(images, self.size, mode="bicubic", antialias=True)
        return self.towers.encode_image(((images + 1) / 2 - self.mean) / self.std, normalize=True)

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """See ``Clip``."""
        return self.towers.encode_text(self.tokenizer(list(texts)).to(self.scale.device), normalize=True)


def make_clip(config: ClipConfig, weights: str = "") -> Clip:
    """The towers that a config means, ours or open_clip's; ``weights`` are for the latter alone."""
    return OpenClip(config, weights) if config.open_clip else SmallClip(config)


def prompted(text: str, prompt: str) -> str:
    """An instruction with ``done``, ``undone``, ``over`` or ``begun`` said of it, in its own language."""
    return PROMPTS[language_of(text)][prompt].format(text)


def clip_loss(to_texts: Tensor, to_images: Tensor) -> Tensor:
    """Radford et al., figure 3: the mean of both cross-entropies, for each of B pairs, (B,).

    Args:
        to_texts: logits (B, B + W) of each image with all captions, its own in column i; the last W columns are
            captions that are true of none (NegCLIP).
        to_images: logits (B, B) of each caption with all images.
    """
    own = torch.arange(len(to_texts), device=to_texts.device)
    return (F.cross_entropy(to_texts, own, reduction="none") + F.cross_entropy(to_images, own, reduction="none")) / 2


def pair_loss(logits: Tensor, share: Tensor) -> Tensor:
    """The cross-entropy between two texts, (N,), of which the first is right to a share from 0 to 1; NaN counts 0."""
    losses = F.binary_cross_entropy_with_logits(logits, share.nan_to_num(), reduction="none")
    return torch.where(share.isnan(), torch.zeros_like(losses), losses)
