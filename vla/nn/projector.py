"""From a camera's feature map to a few tokens of a language model's width."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla.nn.transformer import Attention, fourier
from vla.nn.vision import cell_centres

_FREQUENCIES = 4


class Projector(nn.Module):
    """A map (C, grid * grid, map_dim) to (B, tokens, width); B is a multiple of C, consecutive rows share a map.

    ``linear`` and ``shuffle`` keep the places: a token for each patch of a coarser grid, of its mean or of all its
    cells (pixel shuffle, Shi et al., 2016, as in Idefics3). ``perceiver`` and ``queries`` look for themselves, the
    latter with queries that the sentence scales and shifts (FiLM, Perez et al., 2018).

    Args:
        kind: one of the four.
        map_dim, grid: of the map.
        tokens: a square number.
        width: of the tokens.
        words: width of the sentence's summary, which ``queries`` reads.
    """

    def __init__(
        self,
        kind: Literal["linear", "shuffle", "perceiver", "queries"],
        map_dim: int,
        grid: int,
        tokens: int,
        width: int,
        words: int,
    ) -> None:
        super().__init__()
        self.centres: Tensor
        self.kind, self.side = kind, round(tokens**0.5)
        self.patch = -(-grid // self.side)
        self.register_buffer("centres", cell_centres(grid), persistent=False)
        self.place = nn.Linear(2 + 4 * _FREQUENCIES, map_dim)
        self.norm = nn.LayerNorm(map_dim)
        if kind in ("perceiver", "queries"):
            self.queries = nn.Parameter(0.5 * torch.randn(tokens, map_dim))
            self.attend = Attention(map_dim, 4 if map_dim % 4 == 0 else 1)
            self.steer = nn.Linear(words, 2 * map_dim) if kind == "queries" else None
        size = map_dim * self.patch**2 if kind == "shuffle" else map_dim
        self.out = nn.Sequential(nn.Linear(size, width), nn.GELU(), nn.Linear(width, width))
        if kind == "linear":
            self.out = nn.Sequential(nn.Linear(size, width))

    def forward(self, features: Tensor, words: Tensor) -> Tensor:
        """``words`` (B, D) is the sentence's summary."""
        seen = self.norm(features) + self.place(fourier(self.centres, _FREQUENCIES))
        times = len(words) // len(seen)
        if self.kind in ("perceiver", "queries"):
            queries = self.queries.expand(len(words), -1, -1)
            if self.steer is not None:
                scale, shift = self.steer(words)[:, None].chunk(2, dim=-1)
                queries = queries * (1 + scale) + shift
            memory = [part.repeat_interleave(times, 0) for part in self.attend.remember(seen)]
            return self.out(queries + self.attend.ask(queries, (memory[0], memory[1])))
        square = seen.transpose(1, 2).unflatten(-1, (round(seen.shape[1] ** 0.5), -1))
        square = F.interpolate(square, (self.side * self.patch,) * 2, mode="nearest")
        if self.kind == "linear":
            patches = F.avg_pool2d(square, self.patch)
        else:
            patches = F.pixel_unshuffle(square, self.patch)
        return self.out(patches.flatten(2).transpose(1, 2)).repeat_interleave(times, 0)
