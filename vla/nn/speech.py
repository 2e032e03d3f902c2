"""Words from a context, letter by letter: short sentences in any language, without a vocabulary file.

A sentence is its UTF-8 bytes, which one transformer writes after a context as a language model goes on from a prompt
(ByT5, Xue et al., 2022, reads and writes bytes likewise).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla.contracts.spec import language_of
from vla.nn.context import Context
from vla.nn.decoder import Decoder

LONGEST = 96  # bytes of a sentence; longer ones are cut
_END = 256
_BEGIN = {"en": 256, "zh": 255}  # by the sentence's language; a byte 255 is in no UTF-8


class Speech(nn.Module):
    """A decoder of bytes over a context.

    Args:
        dim, depth, heads: of its transformer; ``dim`` is the context's width.
    """

    def __init__(self, dim: int, depth: int, heads: int) -> None:
        super().__init__()
        self.letters = nn.Embedding(_END + 1, dim)
        self.position = nn.Parameter(0.02 * torch.randn(LONGEST + 1, dim))
        self.decoder, self.out = Decoder(dim, depth, heads), nn.Linear(dim, _END + 1)

    def loss(self, context: Context, sentences: list[str], rows: int) -> Tensor:
        """The mean negative log-likelihood of a byte of the first ``rows`` of B ``sentences``, nats; a scalar."""
        heard = context.each(lambda one: one[:rows])
        coded = [[*text.encode()[:LONGEST], _END] for text in sentences[:rows]]
        longest = max(map(len, coded))
        target = torch.tensor([one + [-100] * (longest - len(one)) for one in coded], device=heard.tokens.device)
        given = torch.cat((_begin(sentences[:rows], target), target[:, :-1].clamp(min=0)), dim=1)
        said, _ = self.decoder(self._embed(given, 0), self.decoder.remember(heard), heard.mask, causal=True)
        return F.cross_entropy(self.out(said).flatten(0, 1), target.flatten(), ignore_index=-100)

    @torch.no_grad()
    def say(self, context: Context, asked: list[str]) -> list[str]:
        """The likeliest sentence for each of B contexts, byte after byte; at most ``LONGEST`` bytes.

        It is in the language of what was ``asked``, B sentences: a context may hold the meaning alone.
        """
        cache = self.decoder.remember(context)
        last = _begin(asked, torch.empty(0, dtype=torch.long, device=context.tokens.device))
        found = []
        for place in range(LONGEST):
            said, cache = self.decoder(self._embed(last, place), cache, context.mask, causal=True)
            last = self.out(said).argmax(dim=-1)
            found.append(last)
            if bool((torch.cat(found, dim=1) == _END).any(dim=1).all()):
                break
        rows = torch.cat(found, dim=1).tolist()
        ends = [row.index(_END) if _END in row else len(row) for row in rows]
        return [bytes(row[:end]).decode(errors="ignore") for row, end in zip(rows, ends, strict=True)]

    def _embed(self, letters: Tensor, begin: int) -> Tensor:
        return self.letters(letters) + self.position[begin : begin + letters.shape[1]]


def _begin(sentences: list[str], like: Tensor) -> Tensor:
    """What each of B sentences begins after, (B, 1)."""
    return like.new_tensor([[_BEGIN[language_of(text)]] for text in sentences])
