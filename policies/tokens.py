"""Actions as tokens of a decoder that goes on from the context.

Lineage: RT-2 (Brohan et al., 2023) and OpenVLA (2024) for bins, pi0-FAST (2025) and BEAST (2025) for fewer tokens, all
one after the other; OpenVLA-OFT (2025) for all at once, and for numbers in one pass. The decoder is a small
transformer, made so that a causal language model can take its place, see ``vla.nn.decoder``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from policies.tokens_config import BeastConfig, FastConfig, TokensConfig
from vla.contracts import EnvSpec, VlaError
from vla.nn.action_tokens import Beast, Bins, Fast, Tokeniser
from vla.nn.context import Context, look
from vla.nn.decoder import Decoder
from vla.nn.head import taught
from vla.nn.policy import Policy, Sampled, parameter_groups
from vla.nn.trunk import make_trunk


class TokensPolicy(Policy):
    """A trunk, a tokeniser and a decoder.

    Args:
        config: sizes.
        spec: the env that it acts in.

    Attributes:
        counts: how many ``chunks`` were decoded since it was made, and how many tokens' sequences were ``malformed``.
    """

    def __init__(self, config: TokensConfig, spec: EnvSpec) -> None:
        super().__init__()
        config.check("policy.")
        self.config, self.action_dim, dim = config, len(spec.action), config.dim
        self.trunk = make_trunk(config.trunk, dim, spec)
        self.tokeniser = None if config.decoding == "l1" else make_tokeniser(config, spec)
        self.decoder = Decoder(dim, config.depth, config.heads)
        self.counts = {"chunks": 0, "malformed": 0}
        if self.tokeniser is None:
            slots, outputs = config.chunk, self.action_dim
        elif config.decoding == "parallel":
            if self.tokeniser.grid is None:
                raise VlaError("parallel decoding needs a tokeniser whose chunks are all of one length")
            slots, outputs = self.tokeniser.grid[0], self.tokeniser.grid[1] * self.tokeniser.vocabulary
        else:
            slots, outputs = self.tokeniser.total, self.tokeniser.vocabulary
            self.embed = nn.Embedding(outputs + 1, dim)  # the last one begins a sequence
            nn.init.normal_(self.embed.weight, std=0.02)
        self.slot_positions = nn.Parameter(0.02 * torch.randn(slots, dim))
        self.out = nn.Linear(dim, outputs)
        nn.init.zeros_(self.out.bias)

    def fit(self, state: Tensor, actions: Tensor) -> None:
        """Quantiles and codebook."""
        if self.tokeniser is not None:
            self.tokeniser.fit(actions)

    def loss(self, batch: dict) -> tuple[Tensor, dict[str, Tensor]]:
        """The training loss of each sample of a normalised batch (B,), and the batch's parts by name.

        ``clipped`` is the share of the numbers outside the quantiles. Draws nothing.

        Args:
            batch: as ``Normaliser.encode`` gives it, with ``actions`` (B, chunk, A), ``valid`` (B, chunk) and what the
                trunk learns from (see ``vla.nn.head.taught``). Not changed.
        """
        context, actions = look(self.trunk, batch), batch["actions"]
        weight = batch["valid"].to(actions)[..., None].expand_as(actions)
        parts: dict[str, Tensor] = {}
        if self.tokeniser is None:
            error = (self._at_once(context) - actions).abs()
        else:
            parts["clipped"] = self.tokeniser.outside(actions)
            tokens = self.tokeniser.encode(actions)
            logits = self._at_once(context) if self.config.decoding == "parallel" else self._taught(context, tokens)
            error = self._cross_entropy(logits, tokens)
            if not isinstance(self.tokeniser, Bins):  # whose tokens are not of single actions
                weight = (tokens >= 0).to(actions)
        weight = weight.reshape(error.shape)
        loss = (error * weight).flatten(1).sum(dim=1) * (len(actions) / weight.sum().clamp(min=1.0))
        more, of_trunk = taught(self.trunk, context, batch, self.config)
        return loss + more, {"tokens": loss.detach().mean(), **parts, **of_trunk}

    @torch.no_grad()
    def sample(self, batch: dict, generators: Sequence[torch.Generator]) -> Sampled:
        """Normalised chunks for a normalised batch of observations, and their log-probability where they have tokens.

        The extra ``malformed`` says which sequences were mended to make a chunk.

        Args:
            batch: ``images.{camera}``, ``state`` and ``instruction``.
            generators: each draws a number in 0..1 for each token, unless the temperature is 0.
        """
        context = look(self.trunk, batch)
        self.counts["chunks"] += len(context.tokens)
        if self.tokeniser is None:
            return Sampled(self._at_once(context))
        if self.config.decoding == "parallel":
            logits = self._at_once(context)
            uniform = self._uniform(generators, logits.shape[1], logits.device)
            tokens, likely = choose(logits, uniform, self.config.temperature)
            likely = likely.sum(dim=1)
        else:
            tokens, likely = self._one_by_one(context, generators)
        actions, malformed = self.tokeniser.decode(tokens)
        self.counts["malformed"] += int(malformed.sum())
        return Sampled(actions, likely, extras={"malformed": malformed})

    def _at_once(self, context: Context) -> Tensor:
        """All slots in one pass, seeing each other: logits (B, N, V), or actions (B, chunk, A) without a tokeniser."""
        slots = self.slot_positions.expand(len(context.tokens), -1, -1)
        seen, _ = self.decoder(slots, self.decoder.remember(context), context.mask, causal=False)
        given = self.out(seen)
        return given if self.tokeniser is None else given.view(len(given), -1, self.tokeniser.vocabulary)

    def _taught(self, context: Context, tokens: Tensor) -> Tensor:
        """Logits (B, N, V) of each token (B, N) after the true ones before it."""
        begun = F.pad(tokens[:, :-1].clamp(min=0), (1, 0), value=self.out.out_features)
        x = self.embed(begun) + self.slot_positions[: begun.shape[1]]
        seen, _ = self.decoder(x, self.decoder.remember(context), context.mask, causal=True)
        return self.out(seen)

    def _one_by_one(self, context: Context, generators: Sequence[torch.Generator]) -> tuple[Tensor, Tensor]:
        """Tokens (B, N), -1 after the end, and their log-probability (B,). Only tokens that still fit are chosen."""
        assert self.tokeniser is not None
        cache, count, device = self.decoder.remember(context), len(context.tokens), context.tokens.device
        symbols, total = self.tokeniser.symbols.to(device), self.tokeniser.total
        uniform = self._uniform(generators, total, device)
        left = torch.full((count,), total, device=device)
        last = torch.full((count,), self.out.out_features, device=device)
        likelihood, found = torch.zeros(count, device=device), list[Tensor]()
        while len(found) < total and bool((left > 0).any()):
            x = (self.embed(last) + self.slot_positions[len(found)])[:, None]
            seen, cache = self.decoder(x, cache, context.mask, causal=True)
            logits = self.out(seen[:, 0]).masked_fill(symbols > left[:, None], -torch.inf)
            done = left == 0
            logits[done] = 0.0  # of which nothing is kept
            drawn = None if uniform is None else uniform[:, len(found)]
            last, likely = choose(logits, drawn, self.config.temperature)
            likelihood += likely.masked_fill(done, 0.0)
            found.append(last.masked_fill(done, -1))
            left = torch.where(done, 0, left - symbols[last])
        return torch.stack(found, dim=1), likelihood

    def _uniform(self, generators: Sequence[torch.Generator], count: int, device: torch.device) -> Tensor | None:
        if self.config.temperature == 0.0:
            return None
        return torch.stack([torch.rand(count, generator=one) for one in generators]).to(device)

    def _cross_entropy(self, logits: Tensor, tokens: Tensor) -> Tensor:
        """Of logits (B, N, V) with tokens (B, N), or with a bump around them: (B, N)."""
        logs, smoothing = logits.log_softmax(dim=-1), self.config.smoothing
        if smoothing == 0.0 or isinstance(self.tokeniser, Fast):
            return -logs.gather(-1, tokens.clamp(min=0)[..., None])[..., 0]
        bins = torch.arange(logits.shape[-1], device=logits.device)
        bump = (-0.5 * ((bins - tokens[..., None]) / smoothing).square()).softmax(dim=-1)
        return -(bump * logs).sum(dim=-1)

    def parameter_groups(self, weight_decay: float) -> list[dict]:
        """Matrices and kernels decay; biases, norms, embeddings and tokens do not."""
        return parameter_groups(self, weight_decay, ("grams", "position", "slots", "embed."))


def make_tokeniser(config: TokensConfig, spec: EnvSpec) -> Tokeniser:
    """The tokeniser of a config, not yet fitted."""
    one, dims = config.tokeniser, len(spec.action)
    if isinstance(one, FastConfig):
        return Fast(config.chunk, dims, one.vocabulary, one.scale, one.quantile)
    if isinstance(one, BeastConfig):
        degrees = [0 if group.kind == "gripper" else one.degree for group in spec.groups("action") for _ in group.dims]
        return Beast(config.chunk, degrees, one.points, one.bins, one.quantile)
    return Bins(config.chunk, dims, one.bins, one.quantile)


def choose(logits: Tensor, uniform: Tensor | None, temperature: float) -> tuple[Tensor, Tensor]:
    """A token of each row of logits (…, V), and its log-probability at temperature 1: both (…).

    The likeliest one, or without a temperature of 0 the one at which the cumulative probability passes ``uniform`` (…).
    """
    logs = logits.log_softmax(dim=-1)
    if uniform is None:
        tokens = logits.argmax(dim=-1)
    else:
        reached = (logits / temperature).softmax(dim=-1).cumsum(dim=-1)
        tokens = (reached <= uniform[..., None] * reached[..., -1:]).sum(dim=-1).clamp(max=logits.shape[-1] - 1)
    return tokens, logs.gather(-1, tokens[..., None])[..., 0]


POLICY = TokensPolicy
CONFIG = TokensConfig
