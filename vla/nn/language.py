"""A compact sentence encoder, trained with the policy. No vocabulary file, no unknown words.

Tokens are words of any script that puts spaces between them, and single characters of those that don't (Chinese, kana,
Thai). A token's embedding is the mean of the embeddings of its character n-grams, hashed into a fixed table (Bojanowski
et al., "Enriching Word Vectors with Subword Information", 2017), so a word that was never seen still resembles its
relatives. Where it has none, it must not mislead: in training, words that mean nothing are mixed in.
"""

from __future__ import annotations

import random
import re
import unicodedata
import zlib
from collections.abc import Iterable
from functools import lru_cache

import torch
from torch import Tensor, nn

from vla.host.files import printable
from vla.nn.transformer import Block

_ASCII = re.compile(r"[a-z0-9]+")
# Scripts without spaces: Chinese with its signs and compatibility forms, kana, Thai, Lao, Burmese, Khmer.
_SINGLE = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff]"
)
_STOPS = re.compile(r"[\s.,;:!?'\"。，、！？；：]+")  # what may differ between sentences that say the same
BUCKETS = 4096  # rows of the n-gram table
_GRAMS = 10  # the most n-grams of one token
_LENGTH = 28  # the most tokens of one sentence
_CACHED = 1024  # sentences whose features are kept while the weights stand still
_UNKNOWN_RATE, _UNKNOWN_RUN = 0.12, 4  # in training: the chance that unknown words precede a token, and how many may


@lru_cache(maxsize=65536)
def _gram_ids(token: str, buckets: int) -> tuple[int, ...]:
    padded = f"<{token}>"
    grams = [padded] + [padded[i : i + 3] for i in range(len(padded) - 2) if len(padded) > 3]
    return tuple(1 + zlib.crc32(gram.encode()) % (buckets - 1) for gram in grams[:_GRAMS])


def split_words(sentence: str) -> list[str]:
    """The sentence's tokens in lower case: all letters and digits of all scripts, none cut off."""
    if sentence.isascii():
        return _ASCII.findall(sentence.lower())
    found: list[str] = []
    in_word, after_letter = False, False  # whether a letter would go on with the last token, and whether a mark would
    for letter in unicodedata.normalize("NFKC", sentence).lower():
        kind = unicodedata.category(letter)
        if kind == "Cf":  # joiners and soft hyphens are not seen
            continue
        if kind[0] in "LN" or "\u3400" <= letter <= "\u9fff":
            alone = bool(_SINGLE.match(letter))
            if in_word and not alone:
                found[-1] += letter
            else:
                found.append(letter)
            in_word, after_letter = not alone, True
        elif kind[0] == "M" and after_letter:
            found[-1] += letter  # an accent or a vowel sign belongs to what it follows
        else:
            in_word = after_letter = False
    return found


def _short(sentence: str) -> str:
    return printable(sentence if len(sentence) <= 80 else f"{sentence[:25]} … {sentence[-50:]}")


def tokenize(sentence: str, buckets: int, length: int = _LENGTH) -> list[tuple[int, ...]]:
    """The sentence's first tokens, each as the bucket numbers (1 to buckets - 1) of its n-grams. Bucket 0 pads."""
    return [_gram_ids(token, buckets) for token in split_words(sentence)[:length]] or [(0,)]


def losses(sentences: Iterable[str]) -> list[str]:
    """What the encoder cannot tell of these sentences, as lines for whoever trains on them; none if it sees all.

    That is: sentences without a letter, sentences that are cut, and different ones that become the same.
    """
    distinct = sorted({" ".join(sentence.split()) for sentence in sentences})
    seen = {sentence: split_words(sentence) for sentence in distinct}
    lines = []
    silent = [sentence for sentence in distinct if not seen[sentence]]
    if silent:
        lines.append(
            f"{len(silent)} of {len(distinct)} instructions say nothing that is read, e.g. '{_short(silent[0])}'"
        )
    groups: dict[tuple[tuple[int, ...], ...], list[str]] = {}
    for sentence in distinct:
        groups.setdefault(tuple(tokenize(sentence, BUCKETS)), []).append(sentence)
    alike = [group for group in groups.values() if len({_STOPS.sub(" ", s.lower()).strip() for s in group}) > 1]
    cut = sum(len(tokens) > _LENGTH for tokens in seen.values())
    if cut:
        same = sum(any(len(seen[sentence]) > _LENGTH for sentence in group) * len(group) for group in alike)
        lines.append(
            f"{cut} of {len(distinct)} instructions are longer than {_LENGTH} words (or characters, where a script has "
            f"no spaces) and are cut; {same or 'none'} of them {'is' if same == 1 else 'are'} the same after that"
        )
    for group in alike[:3]:
        lines.append(
            f"{len(group)} instructions are read as the same: " + ", ".join(f"'{_short(s)}'" for s in group[:2])
        )
    return [f"warning: {line}" for line in lines]


def with_unknown_words(
    tokens: list[tuple[int, ...]], buckets: int, rng: random.Random, length: int = _LENGTH
) -> list[tuple[int, ...]]:
    """The same tokens in the same order, and in every other sentence some random ones between them."""
    if rng.random() < 0.5:
        return tokens
    mixed: list[tuple[int, ...]] = []
    for token in [*tokens, None]:
        for _ in range(rng.randint(1, _UNKNOWN_RUN) if rng.random() < _UNKNOWN_RATE else 0):
            mixed.append(tuple(rng.randrange(1, buckets) for _ in range(rng.randint(1, _GRAMS // 2))))
        if token is not None:
            mixed.append(token)
    return mixed if len(mixed) <= length else tokens


class LanguageEncoder(nn.Module):
    """Sentences to token features, with a cache while the weights stand still.

    Args:
        dim: width of the features.
        depth, heads: of the transformer over the tokens.
        buckets: rows of the n-gram table.
        dropout: share of the tokens that are hidden in training, so that no single word is relied on. 0 also leaves
            out the words that mean nothing (``with_unknown_words``).
        length: the most tokens of one sentence.
    """

    def __init__(
        self,
        dim: int,
        depth: int = 2,
        heads: int = 4,
        buckets: int = BUCKETS,
        dropout: float = 0.1,
        length: int = _LENGTH,
    ) -> None:
        super().__init__()
        self.buckets, self.dropout, self.length = buckets, dropout, length
        self.grams = nn.EmbeddingBag(buckets, dim, mode="mean", padding_idx=0)
        nn.init.normal_(self.grams.weight, std=0.5)
        self.position = nn.Parameter(0.02 * torch.randn(length + 1, dim))
        self.blocks = nn.ModuleList(Block(dim, heads, ratio=2) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self._cache: dict[str, Tensor] = {}

    def train(self, mode: bool = True) -> LanguageEncoder:
        """Switching modes empties the cache: the weights may have changed in between."""
        self._cache.clear()
        return super().train(mode)

    def forward(self, sentences: list[str]) -> tuple[Tensor, Tensor]:
        """Token features (B, N, D) and a mask (B, N) that is True on real tokens. Token 0 stands for the sentence."""
        if not self.training and not torch.is_grad_enabled():
            new = [s for s in dict.fromkeys(sentences) if s not in self._cache]
            if new:
                for sentence, features, mask in zip(new, *self._encode(new), strict=True):
                    self._cache[sentence] = features[mask]
            rows = [self._cache[s] for s in sentences]
            for sentence in dict.fromkeys(sentences):  # those asked for last are kept longest
                self._cache[sentence] = self._cache.pop(sentence)
            while len(self._cache) > _CACHED:
                del self._cache[next(iter(self._cache))]
            mask = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.bool, device=rows[0].device)
            for i, row in enumerate(rows):
                mask[i, : len(row)] = True
            return nn.utils.rnn.pad_sequence(rows, batch_first=True), mask
        unique = list(dict.fromkeys(sentences))
        features, mask = self._encode(unique)
        rows_of = {sentence: i for i, sentence in enumerate(unique)}
        pick = torch.tensor([rows_of[s] for s in sentences], device=features.device)
        return features[pick], mask[pick]

    def _encode(self, sentences: list[str]) -> tuple[Tensor, Tensor]:
        tokens = [tokenize(sentence, self.buckets, self.length) for sentence in sentences]
        if self.training and self.dropout:
            rng = random.Random(int(torch.randint(2**31, ())))
            tokens = [with_unknown_words(sentence, self.buckets, rng, self.length) for sentence in tokens]
        longest = max(map(len, tokens))
        device = self.position.device
        ids = torch.zeros(len(tokens), longest, _GRAMS, dtype=torch.long)
        for i, sentence in enumerate(tokens):
            for j, grams in enumerate(sentence):
                ids[i, j, : len(grams)] = torch.tensor(grams)
        ids = ids.to(device)
        mask = torch.ones(len(tokens), longest + 1, dtype=torch.bool, device=device)
        mask[:, 1:] = ids[..., 0] > 0
        if self.training and self.dropout:
            mask[:, 1:] &= torch.rand(mask[:, 1:].shape, device=device) >= self.dropout
        words = self.grams(ids.flatten(0, 1)).view(len(tokens), longest, -1)
        x = torch.cat((torch.zeros_like(words[:, :1]), words), dim=1) + self.position[: longest + 1]
        for block in self.blocks:
            x = block(x, mask=mask)
        return self.norm(x), mask
