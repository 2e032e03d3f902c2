"""Actions as tokens, and back: bins, FAST and BEAST.

A tokeniser sees normalised chunks (B, T, A): B chunks of T actions, A numbers each. Its quantiles and its codebook come
from ``fit``, and are buffers, so that they are saved with the weights.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vla.contracts import VlaError

_LEAST_SPAN = 1e-3  # of the quantiles, in standard deviations: a dimension that never moves has no bins else
_FIRST_LETTER = 0x4E00  # FAST writes its numbers as letters, from here on: none of them means anything to the library
_LEARNT = 10_000  # chunks that a codebook is learnt from


class Tokeniser(nn.Module, ABC):
    """Chunks to tokens, and back.

    Attributes:
        vocabulary: tokens are from 0 to below this.
        grid: (slots, tokens in each) where every chunk has so many tokens, slot after slot; None where lengths differ.
        symbols: how many symbols each token stands for, int64 (vocabulary,), more than ``total`` for one without a
            meaning.
        total: symbols of a whole chunk.
    """

    vocabulary: int
    grid: tuple[int, int] | None = None
    total: int

    @property
    def symbols(self) -> Tensor:
        """See the class."""
        return torch.ones(self.vocabulary, dtype=torch.long)

    @abstractmethod
    def fit(self, actions: Tensor) -> None:
        """Take quantiles and codebook from chunks (N, T, A)."""

    @abstractmethod
    def encode(self, actions: Tensor) -> Tensor:
        """Chunks (B, T, A) as int64 (B, N), -1 after the end of the shorter ones. Outside the quantiles is clipped."""

    @abstractmethod
    def decode(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Chunks (B, T, A) of int64 (B, N), and which were malformed, bool (B,).

        What is too short is filled up, what is too long cut off, and what is no token left out.
        """

    @abstractmethod
    def outside(self, actions: Tensor) -> Tensor:
        """The share of the numbers that ``encode`` clips, a scalar."""


class Quantiles(nn.Module):
    """The range between two quantiles of each dimension.

    Args:
        dims: A.
        share: below the lower one, and above the upper one; RT-2 and OpenVLA have 0.01.
    """

    low: Tensor
    high: Tensor

    def __init__(self, dims: int, share: float) -> None:
        super().__init__()
        self.share = share
        self.register_buffer("low", torch.full((dims,), -3.0))
        self.register_buffer("high", torch.full((dims,), 3.0))

    def fit(self, values: Tensor) -> None:
        """Of values (…, A)."""
        flat = values.detach().flatten(0, -2).double().cpu().numpy()
        low, high = np.quantile(flat, (self.share, 1.0 - self.share), axis=0)
        grown = np.maximum(_LEAST_SPAN - (high - low), 0.0) / 2
        self.low.copy_(torch.from_numpy(low - grown))
        self.high.copy_(torch.from_numpy(high + grown))

    def scale(self, values: Tensor) -> Tensor:
        """To 0..1 between the quantiles, and clipped."""
        return ((values - self.low) / (self.high - self.low)).clamp(0.0, 1.0)

    def unscale(self, scaled: Tensor) -> Tensor:
        """Back."""
        return self.low + scaled * (self.high - self.low)

    def outside(self, values: Tensor) -> Tensor:
        """The share of values (…, A) that lie outside."""
        return ((values < self.low) | (values > self.high)).float().mean()


class Bins(Tokeniser):
    """A token for each number: the bin that it falls into, between two quantiles of its dimension.

    RT-2 (Brohan et al., 2023), OpenVLA (Kim et al., 2024, section 3.2).

    Args:
        chunk, dims: T and A.
        bins: of each dimension.
        share: of the numbers beyond each quantile.
    """

    def __init__(self, chunk: int, dims: int, bins: int = 256, share: float = 0.01) -> None:
        super().__init__()
        self.vocabulary, self.grid, self.total = bins, (chunk, dims), chunk * dims
        self.quantiles = Quantiles(dims, share)

    def fit(self, actions: Tensor) -> None:
        """See ``Tokeniser``."""
        self.quantiles.fit(actions)

    def encode(self, actions: Tensor) -> Tensor:
        """See ``Tokeniser``."""
        places = (self.quantiles.scale(actions) * self.vocabulary).long().clamp(max=self.vocabulary - 1)
        return places.flatten(1)

    def decode(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """See ``Tokeniser``. A chunk too short goes on with the middle of the range."""
        tokens, malformed = _mended(tokens, self.total, self.vocabulary)
        assert self.grid is not None
        scaled = (tokens.view(-1, *self.grid) + 0.5) / self.vocabulary
        return self.quantiles.unscale(scaled), malformed

    def outside(self, actions: Tensor) -> Tensor:
        """See ``Tokeniser``."""
        return self.quantiles.outside(actions)


class Beast(Tokeniser):
    """A chunk as the control points of a B-spline, each number of them a bin.

    BEAST (Zhou et al., 2025): so many control points fit the chunk best in the sense of least squares; smooth, of a
    fixed length, and nothing to learn but quantiles. A gripper opens and closes at once: its spline is of degree 0.

    Args:
        chunk: T.
        degrees: of the spline of each dimension.
        points: control points, from the largest degree + 1 to T.
        bins, share: as ``Bins`` has them, of the control points.
    """

    basis: Tensor
    inverse: Tensor

    def __init__(
        self, chunk: int, degrees: Sequence[int], points: int = 8, bins: int = 256, share: float = 0.01
    ) -> None:
        super().__init__()
        if not max(degrees) < points <= chunk:
            raise VlaError(f"{points} control points: there must be more than {max(degrees)}, and {chunk} at most")
        basis = np.stack([b_spline_basis(chunk, points, degree) for degree in degrees])
        self.register_buffer("basis", torch.from_numpy(basis).float(), persistent=False)
        self.register_buffer("inverse", torch.from_numpy(np.linalg.pinv(basis)).float(), persistent=False)
        self.bins = Bins(points, len(degrees), bins, share)
        self.vocabulary, self.grid, self.total = bins, self.bins.grid, self.bins.total

    def control_points(self, actions: Tensor) -> Tensor:
        """Those that fit chunks (B, T, A) best, (B, points, A)."""
        return torch.einsum("apt,bta->bpa", self.inverse, actions)

    def fit(self, actions: Tensor) -> None:
        """See ``Tokeniser``."""
        self.bins.fit(self.control_points(actions))

    def encode(self, actions: Tensor) -> Tensor:
        """See ``Tokeniser``."""
        return self.bins.encode(self.control_points(actions))

    def decode(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """See ``Tokeniser``."""
        points, malformed = self.bins.decode(tokens)
        return torch.einsum("atp,bpa->bta", self.basis, points), malformed

    def outside(self, actions: Tensor) -> Tensor:
        """See ``Tokeniser``."""
        return self.bins.outside(self.control_points(actions))


def b_spline_basis(chunk: int, points: int, degree: int) -> np.ndarray:
    """What each control point gives to each of T actions, evenly spread from end to end: (T, points), rows of sum 1.

    Knots are uniform, and at both ends so many that the curve begins and ends in a control point.
    """
    from scipy.interpolate import BSpline

    if degree == 0:
        return np.eye(points)[np.arange(chunk) * points // chunk]
    inner = np.linspace(0.0, 1.0, points - degree + 1)
    knots = np.concatenate((np.zeros(degree), inner, np.ones(degree)))
    return BSpline.design_matrix(np.linspace(0.0, 1.0, chunk), knots, degree).toarray()


class Fast(Tokeniser):
    """The frequencies of a chunk, rounded, and what of them often stands together joined to one token.

    FAST (Pertsch et al., 2025): scaled to -1..1 between quantiles, a cosine transform over time for each dimension,
    times ``scale``, rounded, low frequencies first, then byte-pair encoding. Needs the tokenizers library.

    Args:
        chunk, dims: T and A.
        vocabulary: tokens, those of single numbers included.
        scale: how finely the frequencies are rounded.
        share: of the numbers beyond each quantile.

    Raises VlaError where ``vocabulary`` is smaller than what single numbers need.
    """

    merges: Tensor
    transform: Tensor

    def __init__(self, chunk: int, dims: int, vocabulary: int = 1024, scale: float = 10.0, share: float = 0.01) -> None:
        super().__init__()
        self.limit = math.ceil(scale * math.sqrt(chunk))  # of a frequency, by Parseval's theorem
        self.letters, self.vocabulary, self.scale = 2 * self.limit + 1, vocabulary, scale
        if vocabulary <= self.letters:
            raise VlaError(f"a FAST vocabulary of {vocabulary} must be larger than {self.letters}, its single numbers")
        self.shape, self.total = (chunk, dims), chunk * dims
        self.quantiles = Quantiles(dims, share)
        frequency, time = torch.arange(chunk, dtype=torch.float64)[:, None], torch.arange(chunk) + 0.5
        transform = torch.cos(math.pi / chunk * frequency * time) * math.sqrt(2.0 / chunk)
        transform[0] /= math.sqrt(2.0)
        self.register_buffer("transform", transform.float(), persistent=False)
        self.register_buffer("merges", torch.full((vocabulary - self.letters, 2), -1))
        self._made: tuple[bytes, list[str], Any] = (b"", [], None)

    @property
    def symbols(self) -> Tensor:
        """See ``Tokeniser``."""
        lengths = [len(piece) for piece in self._codebook()[0]]
        return torch.tensor(lengths + [self.total + 1] * (self.vocabulary - len(lengths)))

    def fit(self, actions: Tensor) -> None:
        """See ``Tokeniser``."""
        tokenizers = _library()
        self.quantiles.fit(actions)
        chosen = actions[:: max(1, len(actions) // _LEARNT)]
        learner = tokenizers.Tokenizer(tokenizers.models.BPE())
        alphabet = [chr(_FIRST_LETTER + letter) for letter in range(self.letters)]
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=self.vocabulary, initial_alphabet=alphabet, show_progress=False, min_frequency=2
        )
        learner.train_from_iterator(self._written(chosen), trainer)
        merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
        numbers = {letter: place for place, letter in enumerate(alphabet)}
        self.merges.fill_(-1)
        for place, (left, right) in enumerate(merges[: len(self.merges)]):
            self.merges[place] = torch.tensor((numbers[left], numbers[right]))
            numbers.setdefault(left + right, len(numbers))

    def encode(self, actions: Tensor) -> Tensor:
        """See ``Tokeniser``."""
        rows = [one.ids for one in self._codebook()[1].encode_batch(self._written(actions))]
        tokens = torch.full((len(rows), max(map(len, rows))), -1)
        for row, ids in zip(tokens, rows, strict=True):
            row[: len(ids)] = torch.tensor(ids)
        return tokens.to(actions.device)

    def decode(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """See ``Tokeniser``. A chunk too short goes on without higher frequencies."""
        pieces, found, malformed = self._codebook()[0], [], []
        for row in tokens.tolist():
            known = [token for token in row if 0 <= token < len(pieces)]
            text = "".join(pieces[token] for token in known)
            malformed.append(len(text) != self.total or any(token >= len(pieces) for token in row))
            numbers = [ord(letter) - _FIRST_LETTER - self.limit for letter in text[: self.total]]
            found.append(numbers + [0] * (self.total - len(numbers)))
        frequencies = torch.tensor(found, device=tokens.device).view(-1, *self.shape) / self.scale
        scaled = torch.einsum("ft,bfa->bta", self.transform, frequencies)
        return self.quantiles.unscale((scaled + 1.0) / 2.0), torch.tensor(malformed, device=tokens.device)

    def outside(self, actions: Tensor) -> Tensor:
        """See ``Tokeniser``."""
        return self.quantiles.outside(actions)

    def frequencies(self, actions: Tensor) -> Tensor:
        """Of chunks (B, T, A), times ``scale``, not yet rounded: (B, T, A), the lowest first."""
        scaled = 2.0 * self.quantiles.scale(actions) - 1.0
        return self.scale * torch.einsum("ft,bta->bfa", self.transform, scaled)

    def _written(self, actions: Tensor) -> list[str]:
        letters = self.frequencies(actions).round().long() + (_FIRST_LETTER + self.limit)
        return ["".join(map(chr, row)) for row in letters.flatten(1).tolist()]

    def _codebook(self) -> tuple[list[str], Any]:
        """The text of each token, and the library's tokenizer; made anew where the merges have changed."""
        merges = self.merges.cpu().numpy()
        if self._made[0] != merges.tobytes() or self._made[2] is None:
            tokenizers = _library()
            pieces = [chr(_FIRST_LETTER + letter) for letter in range(self.letters)]
            numbers, pairs = {piece: place for place, piece in enumerate(pieces)}, []
            for left, right in merges[merges[:, 0] >= 0]:
                if max(left, right) >= len(pieces) or right < 0:
                    raise VlaError(f"a FAST codebook joins token {max(left, right)} before there is one")
                pairs.append((pieces[left], pieces[right]))
                joined = pieces[left] + pieces[right]
                if joined not in numbers:
                    numbers[joined] = len(pieces)
                    pieces.append(joined)
            made = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=numbers, merges=pairs))
            self._made = merges.tobytes(), pieces, made
        return self._made[1], self._made[2]


def _library() -> Any:
    try:
        import tokenizers
        import tokenizers.models
        import tokenizers.trainers
    except ImportError as error:
        raise VlaError("FAST needs the tokenizers library: uv sync --extra tokens") from error
    return tokenizers


def _mended(tokens: Tensor, count: int, vocabulary: int) -> tuple[Tensor, Tensor]:
    """Tokens (B, N) as (B, count), what is missing or no token being the middle one; and which had that, bool (B,)."""
    wrong = (tokens < 0) | (tokens >= vocabulary)
    mended = torch.where(wrong, vocabulary // 2, tokens)[:, :count]
    missing = count - mended.shape[1]
    malformed = wrong.any(dim=1) | (tokens.shape[1] != count)
    return nn.functional.pad(mended, (0, missing), value=vocabulary // 2), malformed
