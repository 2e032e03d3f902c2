"""A trunk with a causal language model: it reads the sentence, then sees what the slots found and a picture of it all.

The order is sentence, cameras, slots, state, and, where the agent speaks, its answer. The sentence is causal, so that
its keys and values depend on nothing that changes within an episode and are worked out once for it; cameras, slots and
state see the sentence and each other both ways; an answer is causal again.
"""

from __future__ import annotations

import inspect
import itertools
import unicodedata
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla.contracts import EnvSpec
from vla.nn.compact_trunk import CompactTrunk
from vla.nn.config import LanguageModelTrunkConfig, TrunkConfig
from vla.nn.context import Context
from vla.nn.language_model import LanguageModel, load_language_model
from vla.nn.projector import Projector
from vla.nn.transformer import fourier

_FIRST, _LAST = 0x3000, 0xA000  # Chinese characters with their signs, and kana: tokens of their own
_RANK = 32  # of their rows
_LONGEST = 96  # the most tokens of a sentence
_CACHED = 256  # sentences whose keys and values are kept while the weights stand still


@dataclass
class Memory:
    """Keys and values of earlier tokens, (B, heads, N, D) for each layer, and which of them count, (B, N).

    Answers transformers' attention layers as its caches do, and changes nothing in place.
    """

    layers: list[tuple[Tensor, Tensor]]
    mask: Tensor

    def __post_init__(self) -> None:
        self.new: list[tuple[Tensor, Tensor]] = []

    def rows(self, which: Tensor) -> Memory:
        """That of some of the B."""
        return Memory([(keys[which], values[which]) for keys, values in self.layers], self.mask[which])

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """What a layer attends to: its earlier keys and values, and these."""
        if self.layers:
            keys, values = (torch.cat(pair, dim=2) for pair in zip(self.layers[layer], (keys, values), strict=True))
        self.new.append((keys, values))
        return keys, values


class Reader(nn.Module):
    """The language model as the trunk uses it: token rows, blocks with a memory, adapters."""

    def __init__(self, config: LanguageModelTrunkConfig, found: LanguageModel) -> None:
        super().__init__()
        self.tokenizer, self.end, self.width = found.tokenizer, found.end, found.width
        self.base = {"source": found.source, "version": found.version}
        model = found.model
        if config.tune == "lora":
            from peft import LoraConfig, inject_adapter_in_model

            wanted = LoraConfig(
                r=config.lora_rank,
                lora_alpha=2 * config.lora_rank,
                target_modules=["q_proj", "k_proj", "v_proj", "o_proj"],
            )
            model = inject_adapter_in_model(wanted, model)
        elif config.tune == "full":
            model.requires_grad_(True)
        self.model: Any = model
        # transformers renamed it on the way.
        names = inspect.signature(type(model.layers[0]).forward).parameters
        self._cache_name = "cache" if "cache" in names else "past_key_values"
        # Its tokenizer splits a Chinese character into bytes that it has hardly seen. Each gets a row of its own, which
        # is trained: a few numbers, spread to the model's width. Those never trained on are unlikely to be said.
        self.letters = nn.Embedding(_LAST - _FIRST, _RANK)
        self.spread = nn.Linear(_RANK, self.width, bias=False)
        self.rarity = nn.Parameter(torch.full((_LAST - _FIRST,), -6.0))
        nn.init.normal_(self.letters.weight)
        nn.init.normal_(self.spread.weight, std=float(model.embed_tokens.weight[:1000].detach().std()) * _RANK**-0.5)

    def ids(self, text: str) -> list[int]:
        """The tokens of a text: those of the model, and for Chinese characters the vocabulary's size and more."""
        found = list[int]()
        for chinese, part in itertools.groupby(unicodedata.normalize("NFKC", text), lambda c: _FIRST <= ord(c) < _LAST):
            if chinese:
                found += [self.model.config.vocab_size + ord(letter) - _FIRST for letter in part]
            else:
                found += self.tokenizer.encode("".join(part), add_special_tokens=False).ids
        return found

    def text(self, ids: list[int]) -> str:
        """What gave such tokens."""
        size = self.model.config.vocab_size
        parts = itertools.groupby(ids, lambda one: one >= size)
        return "".join(
            "".join(chr(one - size + _FIRST) for one in part) if chinese else self.tokenizer.decode(list(part))
            for chinese, part in parts
        )

    def embed(self, ids: Tensor) -> Tensor:
        """(…) to (…, width)."""
        size = self.model.config.vocab_size
        theirs = self.model.embed_tokens(ids.clamp(max=size - 1))
        if not bool((ids >= size).any()):
            return theirs
        return torch.where((ids < size)[..., None], theirs, self.spread(self.letters((ids - size).clamp(min=0))))

    def logits(self, states: Tensor) -> Tensor:
        """Of the next token, (…, width) to (…, vocabulary and characters), by the rows that embed them."""
        chinese = F.linear(states @ self.spread.weight, self.letters.weight, self.rarity)
        return torch.cat((F.linear(states, self.model.embed_tokens.weight), chinese), dim=-1)

    def run(self, x: Tensor, seen: Tensor, memory: Memory, read: tuple[int, ...]) -> tuple[list[Tensor], Memory]:
        """Tokens through the blocks.

        Args:
            x: (B, N, width), after what is in ``memory``.
            seen: (B, N, M + N), True where a token may look, M being the memory's length.
            memory: of M earlier tokens.
            read: after which blocks, from 1 on.

        Returns:
            hidden states (B, N, width) after those blocks, normalised as the last is; and the longer memory, whose new
            tokens all count.
        """
        count = x.shape[1]
        now = torch.cat((memory.mask, memory.mask.new_ones(len(x), count)), dim=1)
        positions = (now.long().cumsum(1) - 1).clamp(min=0)[:, -count:]
        turned = self.model.rotary_emb(x, position_ids=positions)
        found, where = {}, {"position_embeddings": turned, "position_ids": positions}
        for index, layer in enumerate(self.model.layers, start=1):
            x = layer(x, attention_mask=seen[:, None], **where, **{self._cache_name: memory})
            if index in read:
                found[index] = self.model.norm(x)
        return [found[index] for index in read], Memory(memory.new, now)


@dataclass(frozen=True)
class Perceived:
    """What the trunk has before the model looks at it, for B sentences.

    Attributes:
        slots, words, state: (B, K, D), (B, N + 1, D) with the sentence's summary first, (B, D).
        pointing: where the slots pointed, see ``Resampler``.
        maps: of each camera (C, cells, map_dim).
        summary: the model's state at the sentence's end, (B, width).
        memory: of the sentence.
    """

    slots: Tensor
    words: Tensor
    state: Tensor
    pointing: list[list[Tensor]]
    maps: list[Tensor]
    summary: Tensor
    memory: Memory

    def rows(self, which: Tensor) -> Perceived:
        """Some of the sentences, as many consecutive ones for each image; where their slots pointed is left out."""
        of = [one[which] for one in (self.slots, self.words, self.state, self.summary)]
        return Perceived(of[0], of[1], of[2], [], self.maps, of[3], self.memory.rows(which))


class LanguageModelTrunk(CompactTrunk):
    """The compact trunk with a language model that reads the sentence for the slots, and then what they found.

    Starts as the compact trunk: what the model adds to the slots and the state passes a gate that is 0 at first
    (Flamingo, Alayrac et al., 2022).
    """

    def __init__(self, config: LanguageModelTrunkConfig, dim: int, spec: EnvSpec) -> None:
        shared = {
            name: getattr(config, name) for name in ("vision", "pretrained", "pixels", "map_dim", "slots", "hops")
        }
        super().__init__(TrunkConfig(**shared, glimpse=config.glimpse, language_depth=0), dim, spec)
        del self.language
        self.reader = Reader(config, load_language_model(config.model, config.layers))
        width, deep = self.reader.width, len(self.reader.model.layers)
        self.reads = config.read or (deep,)
        self.projectors = nn.ModuleList(
            Projector(config.projector, config.map_dim, grid, config.tokens, width, width) for grid in self.grids
        )
        self.words = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, dim))
        self.lift = nn.Linear(dim, width)
        self.lower = nn.ModuleList(nn.Linear(width, dim) for _ in self.reads)
        self.gate = nn.Parameter(torch.zeros(len(self.reads)))
        self._sentences: dict[str, tuple[Tensor, list[tuple[Tensor, Tensor]]]] = {}

    def bases(self) -> dict[str, dict[str, Any]]:
        """Where the frozen tensors come from, see ``vla.bundle``."""
        return {"reader.model": self.reader.base}

    def train(self, mode: bool = True) -> LanguageModelTrunk:
        """Switching modes empties the cache: the weights may have changed in between."""
        self._sentences.clear()
        return super().train(mode)

    def encode(self, batch: dict) -> Context:
        """Context tokens (B, slots + 2, D); extras: ``pointing``, and ``layers``, such tokens for each that is read."""
        seen = self.perceive(batch)
        hidden, _ = self.understand(seen)
        found = torch.cat((seen.slots, seen.state[:, None]), dim=1)
        layers = []
        for gate, lower, states in zip(self.gate, self.lower, hidden, strict=True):
            told = found + gate.tanh() * lower(states[:, -found.shape[1] :])
            layers.append(self.norm(torch.cat((told[:, :-1], seen.words[:, :1], told[:, -1:]), dim=1)))
        return Context(layers[-1], None, {"pointing": seen.pointing, "layers": layers})

    def _look(self, batch: dict) -> tuple[Tensor, Tensor, Tensor, list[list[Tensor]]]:
        seen = self.perceive(batch)
        return seen.slots, seen.words, seen.state, seen.pointing

    def perceive(self, batch: dict) -> Perceived:
        """What is there before the model looks; B counts the sentences, see ``CompactTrunk``."""
        states, memory = self._hear(batch["instruction"])
        last = states[torch.arange(len(states)), memory.mask.sum(1) - 1]
        words = self.words(torch.cat((last[:, None], states), dim=1))
        images = [batch[f"images.{name}"] for name in self.cameras]
        maps = self._maps(images)
        state = self.state(fourier(batch["state"], 2)).repeat_interleave(len(words) // len(batch["state"]), dim=0)
        mask = torch.cat((memory.mask[:, :1], memory.mask), dim=1)
        slots, pointing = self.resampler(maps, images, words, mask, state)
        return Perceived(slots, words, state, pointing, maps, last, memory)

    def understand(self, seen: Perceived) -> tuple[list[Tensor], Memory]:
        """The model's states of cameras, slots and state (B, N, width) in each layer that is read, and the memory that
        an answer goes on from."""
        cameras = [project(one, seen.summary) for project, one in zip(self.projectors, seen.maps, strict=True)]
        x = torch.cat((*cameras, self.lift(seen.slots), self.lift(seen.state)[:, None]), dim=1)
        mask = torch.cat((seen.memory.mask, seen.memory.mask.new_ones(x.shape[:2])), dim=1)
        return self.reader.run(x, mask[:, None].expand(-1, x.shape[1], -1), seen.memory, self.reads)

    def _hear(self, sentences: list[str]) -> tuple[Tensor, Memory]:
        """The model's last states of each sentence (B, N, width), and its keys and values."""
        unique = {one: row for row, one in enumerate(dict.fromkeys(sentences))}
        if self.training or torch.is_grad_enabled():
            states, memory = self._read(list(unique))
        else:
            states, memory = self._recall(list(unique))
        rows = torch.tensor([unique[one] for one in sentences], device=states.device)
        return states[rows], memory.rows(rows)

    def _read(self, sentences: list[str]) -> tuple[Tensor, Memory]:
        """The same for sentences that differ."""
        tokens = [self.reader.ids(one)[:_LONGEST] or [self.reader.end] for one in sentences]
        device, longest = self.gate.device, max(map(len, tokens))
        ids = torch.tensor([one + [self.reader.end] * (longest - len(one)) for one in tokens], device=device)
        seen = torch.ones(longest, longest, dtype=torch.bool, device=device).tril().expand(len(ids), -1, -1)
        nothing = Memory([], torch.ones(len(ids), 0, dtype=torch.bool, device=device))
        deepest = len(self.reader.model.layers)
        (states,), memory = self.reader.run(self.reader.embed(ids), seen, nothing, (deepest,))
        lengths = torch.tensor([len(one) for one in tokens], device=device)
        return states, Memory(memory.layers, torch.arange(longest, device=device) < lengths[:, None])

    def _recall(self, sentences: list[str]) -> tuple[Tensor, Memory]:
        """The same, from what was read before where that is kept."""
        new = [one for one in sentences if one not in self._sentences]
        if new:
            states, memory = self._read(new)
            for row, sentence in enumerate(new):
                count = int(memory.mask[row].sum())
                layers = [(keys[row, :, :count], values[row, :, :count]) for keys, values in memory.layers]
                self._sentences[sentence] = states[row, :count], layers
        heard = [self._sentences.pop(one) for one in sentences]
        self._sentences |= dict(zip(sentences, heard, strict=True))  # those asked for last are kept longest
        while len(self._sentences) > _CACHED:
            del self._sentences[next(iter(self._sentences))]
        lengths = torch.tensor([len(states) for states, _ in heard], device=self.gate.device)
        longest = int(lengths.max())

        def joined(tensors: list[Tensor]) -> Tensor:
            """Padded at the end of their next to last dimension, and a row for each sentence."""
            return torch.stack([F.pad(one, (0, 0, 0, longest - one.shape[-2])) for one in tensors])

        layers = [
            (joined([layers[index][0] for _, layers in heard]), joined([layers[index][1] for _, layers in heard]))
            for index in range(len(self.reader.model.layers))
        ]
        mask = torch.arange(longest, device=lengths.device) < lengths[:, None]
        return joined([states for states, _ in heard]), Memory(layers, mask)

    def likelihood(self, batch: dict, answers: list[str]) -> Tensor:
        """The mean negative log-likelihood of the tokens of each answer to ``batch["instruction"]``, (B,), nats."""
        return self._likelihood(self.perceive(batch), answers)

    def grounding_losses(self, stills: dict) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """See ``CompactTrunk``; where the stills come with questions also the loss ``answer``."""
        if "answer" not in stills:
            return super().grounding_losses(stills)
        seen, scenes = self.perceive(stills), len(stills["state"])
        rows = torch.arange(len(seen.slots), device=seen.slots.device).view(scenes, -1)
        sentences = rows.shape[1] - len(stills["answer"]) // scenes
        said, asked = rows[:, :sentences].flatten(), rows[:, sentences:].flatten()
        of_said = {f"points.{name}": stills[f"points.{name}"][said] for name in self.cameras}
        pointing = [[logits[said] for logits in hop] for hop in seen.pointing]
        losses, scores = self._taught(seen.slots[said], pointing, stills | of_said)
        everywhere = self._pointing_loss(seen.pointing, stills)  # for what a question is about, too
        assert everywhere is not None
        told = self._likelihood(seen.rows(asked), stills["answer"]).mean()
        return losses | {"grounding": everywhere, "answer": told}, scores

    def _likelihood(self, perceived: Perceived, answers: list[str]) -> Tensor:
        tokens = [[*self.reader.ids(one)[:_LONGEST], self.reader.end] for one in answers]
        _, memory = self.understand(perceived)
        longest, device = max(map(len, tokens)), self.gate.device
        ids = torch.tensor([one + [self.reader.end] * (longest - len(one)) for one in tokens], device=device)
        counts = (
            torch.arange(longest, device=device) < torch.tensor([len(one) for one in tokens], device=device)[:, None]
        )
        begin = torch.full_like(ids[:, :1], self.reader.end)  # where an answer begins
        x = self.reader.embed(torch.cat((begin, ids[:, :-1]), dim=1))
        causal = torch.ones(longest, longest, dtype=torch.bool, device=device).tril().expand(len(ids), -1, -1)
        seen = torch.cat((memory.mask[:, None].expand(-1, longest, -1), causal), dim=2)
        (states,), _ = self.reader.run(x, seen, memory, (len(self.reader.model.layers),))
        losses = F.cross_entropy(self.reader.logits(states).transpose(1, 2), ids, reduction="none")
        return (losses * counts).sum(1) / counts.sum(1)

    @torch.no_grad()
    def answer(self, batch: dict, most: int = 48) -> list[str]:
        """See ``vla.nn.context.Speaks``; token by token."""
        _, memory = self.understand(self.perceive(batch))
        deepest = (len(self.reader.model.layers),)
        ids = torch.full((len(memory.mask), 1), self.reader.end, device=self.gate.device)
        said: list[list[int]] = [[] for _ in ids]
        done = [False] * len(said)
        for _ in range(most):
            seen = torch.cat((memory.mask, memory.mask.new_ones(len(ids), 1)), dim=1)[:, None]
            (states,), memory = self.reader.run(self.reader.embed(ids), seen, memory, deepest)
            ids = self.reader.logits(states).argmax(-1)
            for row, token in enumerate(ids[:, 0].tolist()):
                done[row] = done[row] or token == self.reader.end
                if not done[row]:
                    said[row].append(token)
            if all(done):
                break
        return [self.reader.text(one) for one in said]
