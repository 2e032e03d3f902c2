"""Attention blocks. Shapes: B batch, N tokens, M context tokens, D width."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla.contracts import VlaError


class Attention(nn.Module):
    """Multi-head attention of ``x`` (B, N, D) over ``context`` (B, M, D); without a context, over itself.

    Queries and keys are RMS-normalised per head (Henry et al., 2020), which keeps small models stable at high rates.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        if dim % heads:
            raise VlaError(f"width {dim} is not a multiple of {heads} heads")
        self.heads = heads
        self.query = nn.Linear(dim, dim, bias=False)
        self.key_value = nn.Linear(dim, 2 * dim, bias=False)
        self.out = nn.Linear(dim, dim)
        self.query_norm = nn.RMSNorm(dim // heads, eps=1e-6)
        self.key_norm = nn.RMSNorm(dim // heads, eps=1e-6)

    def forward(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Attend. ``mask`` (B, M) is True where a context token may be looked at."""
        return self.ask(x, self.remember(x if context is None else context), mask)

    def remember(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, heads, M, D / heads) of a context, for questions to come."""
        k, v = self.key_value(context).chunk(2, dim=-1)
        return self.key_norm(self._split(k)).transpose(1, 2), self._split(v).transpose(1, 2)

    def ask(self, x: Tensor, memory: tuple[Tensor, Tensor], mask: Tensor | None = None) -> Tensor:
        """Attend to what ``remember`` gave. ``mask`` (B, M), or (B, N, M) where each token has its own."""
        q = self.query_norm(self._split(self.query(x))).transpose(1, 2)
        allowed = None if mask is None else mask[:, None] if mask.dim() == 3 else mask[:, None, None, :]
        y = F.scaled_dot_product_attention(q, *memory, attn_mask=allowed)
        return self.out(y.transpose(1, 2).reshape(x.shape))

    def _split(self, x: Tensor) -> Tensor:
        return x.view(len(x), -1, self.heads, x.shape[-1] // self.heads)


def feed_forward(dim: int, ratio: int = 4) -> nn.Sequential:
    """The block's two-layer perceptron."""
    return nn.Sequential(nn.Linear(dim, ratio * dim), nn.GELU(), nn.Linear(ratio * dim, dim))


class Block(nn.Module):
    """A pre-norm transformer block: self-attention, then (if asked for) cross-attention, then the perceptron."""

    def __init__(self, dim: int, heads: int, cross: bool = False, ratio: int = 4) -> None:
        super().__init__()
        self.norm_self, self.attend_self = nn.LayerNorm(dim), Attention(dim, heads)
        self.norm_cross = nn.LayerNorm(dim) if cross else None
        self.attend_cross = Attention(dim, heads) if cross else None
        self.norm_mlp, self.mlp = nn.LayerNorm(dim), feed_forward(dim, ratio)

    def forward(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """``mask`` belongs to the context where there is cross-attention, else to ``x`` itself."""
        if self.attend_cross is None or self.norm_cross is None:
            x = x + self.attend_self(self.norm_self(x), mask=mask)
        else:
            x = x + self.attend_self(self.norm_self(x))
            x = x + self.attend_cross(self.norm_cross(x), context, mask)
        return x + self.mlp(self.norm_mlp(x))


class ModulatedBlock(nn.Module):
    """A transformer block with cross-attention whose norms are steered by a condition vector: AdaLN-Zero.

    Peebles and Xie, "Scalable Diffusion Models with Transformers", 2023, section 3.2: the condition gives a scale, a
    shift and a gate for each branch, and the gates start at zero, so that the block starts as the identity.
    """

    def __init__(self, dim: int, heads: int, ratio: int = 4) -> None:
        super().__init__()
        self.norm_self = nn.LayerNorm(dim, elementwise_affine=False)
        self.norm_cross = nn.LayerNorm(dim, elementwise_affine=False)
        self.norm_mlp = nn.LayerNorm(dim, elementwise_affine=False)
        self.attend_self, self.attend_cross = Attention(dim, heads), Attention(dim, heads)
        self.mlp = feed_forward(dim, ratio)
        self.modulation = nn.Linear(dim, 9 * dim)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def steer(self, condition: Tensor) -> Tensor:
        """Scales, shifts and gates (…, 9 D) that a condition (…, D) gives."""
        return self.modulation(F.silu(condition))

    def forward(self, x: Tensor, steering: Tensor, memory: tuple[Tensor, Tensor], mask: Tensor | None = None) -> Tensor:
        """Tokens ``x`` (B, N, D) and ``steering`` (B, 9 D) over ``memory``, ``attend_cross.remember`` of C contexts.

        A ``steering`` of (B, N, 9 D) steers each token by itself.

        ``mask`` (C, M) is True where a context's token may be looked at. B may be a multiple of C: then consecutive
        rows of ``x`` share a context.
        """
        parts = (steering if steering.dim() == 3 else steering[:, None]).chunk(9, dim=-1)
        scale, shift, gate = parts[0::3], parts[1::3], parts[2::3]
        x = x + gate[0] * self.attend_self(self.norm_self(x) * (1 + scale[0]) + shift[0])
        asking = (self.norm_cross(x) * (1 + scale[1]) + shift[1]).reshape(len(memory[0]), -1, x.shape[-1])
        x = x + gate[1] * self.attend_cross.ask(asking, memory, mask).reshape(x.shape)
        return x + gate[2] * self.mlp(self.norm_mlp(x) * (1 + scale[2]) + shift[2])


def fourier(x: Tensor, frequencies: int) -> Tensor:
    """``x`` (..., C) itself and its sines and cosines at pi, 2 pi, 4 pi, …: (..., C * (1 + 2 * frequencies))."""
    scaled = x[..., None] * (torch.pi * 2.0 ** torch.arange(frequencies, device=x.device, dtype=x.dtype))
    return torch.cat((x, scaled.sin().flatten(-2), scaled.cos().flatten(-2)), dim=-1)


def time_embedding(t: Tensor, dim: int) -> Tensor:
    """Sinusoids of a time in 0..1, (…) to (…, dim): Vaswani et al., 2017, with t scaled to 0..1000."""
    half = dim // 2
    rates = torch.exp(-torch.arange(half, device=t.device, dtype=t.dtype) * (9.21034 / half))
    angles = 1000.0 * t[..., None] * rates
    return torch.cat((angles.sin(), angles.cos()), dim=-1)
