"""A small transformer that goes on from a context, as a causal language model goes on from its prompt.

What a policy asks of it is what a causal language model can do too: ``remember`` is the prompt's pass, which fills the
cache of keys and values, ``forward`` a pass of further embeddings over that cache.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from vla.nn.context import Context
from vla.nn.transformer import Block

Cache = list[tuple[Tensor, Tensor]]  # of each block: keys and values (B, heads, N, D / heads)


class Decoder(nn.Module):
    """Pre-norm blocks over context and tokens: the context sees itself, tokens see it and, as asked, each other.

    Args:
        dim, depth, heads: of the transformer.
    """

    def __init__(self, dim: int, depth: int, heads: int) -> None:
        super().__init__()
        blocks = nn.ModuleList(Block(dim, heads) for _ in range(depth))
        self.blocks: Iterable[Block] = blocks  # type: ignore[assignment]
        self.norm = nn.LayerNorm(dim)

    def remember(self, context: Context) -> Cache:
        """The cache after the context (B, M, D)."""
        x, cache = context.tokens, Cache()
        for block in self.blocks:
            seen = block.norm_self(x)
            memory = block.attend_self.remember(seen)
            x = x + block.attend_self.ask(seen, memory, context.mask)
            x = x + block.mlp(block.norm_mlp(x))
            cache.append(memory)
        return cache

    def forward(self, x: Tensor, cache: Cache, mask: Tensor | None, causal: bool) -> tuple[Tensor, Cache]:
        """Outputs (B, N, D) for further embeddings ``x`` (B, N, D), and the cache that holds them too.

        Args:
            x: with their positions in them.
            cache: of the P tokens before.
            mask: the context's (B, M), M the first of those P; None where all may be looked at.
            causal: whether each sees only those before it and itself; else all of ``x`` see each other.
        """
        before, count = cache[0][0].shape[2], x.shape[1]
        allowed = None
        if mask is not None or (causal and count > 1):
            allowed = torch.ones(len(x), count, before + count, dtype=torch.bool, device=x.device)
            if causal:
                allowed[:, :, before:] = allowed[:, :, before:].tril()
            if mask is not None:
                allowed[:, :, : mask.shape[1]] &= mask[:, None]
        grown = Cache()
        for block, (keys, values) in zip(self.blocks, cache, strict=True):
            asked = block.norm_self(x)
            key, value = block.attend_self.remember(asked)
            memory = torch.cat((keys, key), dim=2), torch.cat((values, value), dim=2)
            x = x + block.attend_self.ask(asked, memory, allowed)
            x = x + block.mlp(block.norm_mlp(x))
            grown.append(memory)
        return self.norm(x), grown
