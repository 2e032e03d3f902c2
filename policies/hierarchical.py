"""Two systems: a slow one that sees, reads and plans, and a fast one that sees and moves.

Lineage: Helix (Figure, 2025), Psi R0.5, FiS-VLA. System 2 is the trunk. It answers 7 to 9 times a second with one
latent and, in words, what is to be done now. System 1 has small eyes of its own: it takes the newest latent, the newest
images and the newest joints, and its head gives a chunk in one pass, by plain regression, as Helix' does. Both learn
end to end through the latent, from observations of different moments: System 2's is older by what its thinking takes,
drawn anew for each sample (FiS-VLA's asynchronous sampling).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from policies.flow import FlowHead, FlowPolicy
from policies.hierarchical_config import HierarchicalConfig
from vla.contracts import EnvSpec, VlaError
from vla.nn.context import Context, moment
from vla.nn.head import taught
from vla.nn.policy import Policy, Sampled, parameter_groups
from vla.nn.speech import Speech
from vla.nn.transformer import Attention, feed_forward, fourier
from vla.nn.trunk import make_trunk

_SHARED = ("chunk", "dim", "depth", "heads", "actions_per_token", "trunk")  # settings of the flow policy's parts
_SPOKEN = 0.25  # of a batch's samples, those that teach the words: they say much the same


class Latent(nn.Module):
    """System 2's context to one vector (B, D); it begins as zero, which leaves System 1 with the sentence alone."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(1, dim))
        self.attend, self.norm, self.mlp = Attention(dim, heads), nn.LayerNorm(dim), feed_forward(dim, 2)
        self.out = nn.Linear(dim, dim)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, context: Context) -> Tensor:
        """See the class."""
        asked = self.query.expand(len(context.tokens), 1, -1)
        found = self.attend(asked, context.tokens, context.mask)
        return self.out(found + self.mlp(self.norm(found)))[:, 0]


class HierarchicalPolicy(Policy):
    """System 2 (``trunk``, ``latent``, ``speech``) over System 1 (``fast``, ``head``).

    Args:
        config: sizes.
        spec: the env that it acts in.
    """

    def __init__(self, config: HierarchicalConfig, spec: EnvSpec) -> None:
        super().__init__()
        self.config, self.action_dim = config, len(spec.action)
        self.trunk = make_trunk(config.trunk, config.dim, spec)
        self.latent = Latent(config.dim, config.heads)
        self.speech = Speech(config.dim, config.word_layers, config.heads) if config.word_layers else None
        self.fast = make_trunk(config.fast, config.dim, spec)
        self.head = FlowHead(config, self.action_dim)
        self.start = nn.Parameter(torch.zeros(config.chunk, self.action_dim))  # what the head changes into a chunk
        if config.frozen:
            self.trunk.requires_grad_(False)

    def take_over(self, other: Policy) -> None:
        """Begin from a flow policy: both systems get its trunk, and the head its own, as far as their settings agree.

        Raises VlaError for another policy, or another trunk or head.
        """
        mine = self.config
        if not isinstance(other, FlowPolicy):
            raise VlaError("a hierarchical policy begins from one of its own or from a flow policy")
        wanted = [(name, getattr(mine, name)) for name in _SHARED] + [("trunk", mine.fast)]
        for name, value in wanted:
            theirs = getattr(other.config, name)
            if value != theirs:
                raise VlaError(f"it has the {name} {theirs}, and both systems here need {value}")
        self.trunk.load_state_dict(other.trunk.state_dict())
        self.fast.load_state_dict(other.trunk.state_dict())
        self.head.load_state_dict(other.head.state_dict())

    def loss(self, batch: dict) -> tuple[Tensor, dict[str, Tensor]]:
        """The training loss of each sample of a normalised batch (B,), and the batch's parts by name.

        Args:
            batch: as ``Normaliser.encode`` gives it, of two observations each: the one that System 2 has answered, and
                the present. With ``actions`` (B, chunk, A), ``valid`` (B, chunk) and, where known, ``doing`` (a list of
                B sub-instructions at the first), ``points.{camera}`` (at the present) and ``stills``. Not changed.
        """
        before, now = _apart(batch)
        planned = self._plan(before)
        context = self.perceive(now, self.latent(planned), self._told(batch))
        error = F.smooth_l1_loss(self.decide(context), batch["actions"], reduction="none", beta=0.1).mean(dim=-1)
        valid = batch["valid"].to(error)
        loss = (error * valid).sum(dim=1) * (len(valid) / valid.sum().clamp(min=1.0))
        more, parts = self._taught(context, now)
        if self.speech is not None and self.config.words_weight and "doing" in batch:
            words = self.speech.loss(planned, batch["doing"], max(1, round(_SPOKEN * len(valid))))
            more, parts = more + self.config.words_weight * words, parts | {"words": words.detach()}
        return loss + more, {"actions": loss.detach().mean(), **parts}

    def _taught(self, context: Context, batch: dict) -> tuple[Any, dict[str, Tensor]]:
        """What points and stills teach both trunks' eyes: the mean of the two, or System 1's if the other is frozen."""
        more, parts = taught(self.fast, context, batch, self.config)
        if self.config.frozen or "stills" not in batch:
            return more, parts
        # Of stills alone: the points are of another moment than the one that System 2 has answered.
        slow = {"stills": batch["stills"], "context": context}
        also, theirs = taught(self.trunk, context, slow, self.config)
        both = {name: 0.5 * (value + theirs[name]) if name in theirs else value for name, value in parts.items()}
        pointing = self.config.pointing_weight * parts.get("pointing", 0.0)
        return 0.5 * (more + also + pointing), both

    def _told(self, batch: dict) -> list[str]:
        """What System 1 is told in training: the sentence, or every other time what is being done."""
        doing = batch.get("doing")
        if doing is None or self.speech is None:
            return batch["instruction"]
        use = (torch.rand(len(doing)) < 0.5).tolist()
        return [sub if which else whole for which, sub, whole in zip(use, doing, batch["instruction"], strict=True)]

    def _plan(self, before: dict) -> Context:
        if not self.config.frozen:
            return self.trunk.encode(before)
        with torch.no_grad():
            return self.trunk.encode(before)

    def perceive(self, now: dict, latent: Tensor, sentences: list[str]) -> Context:
        """System 1's context of the newest images, on which ``decide`` may act more than once.

        Args:
            now: a normalised batch of B observations.
            latent: (B, D), System 2's.
            sentences: what is to be done, B of them.
        """
        read = self.fast.read(sentences)
        words = read["words"]
        words = torch.cat((words[:, :1] + latent[:, None], words[:, 1:]), dim=1)
        return self.fast.encode({**now, **read, "words": words})

    def decide(self, context: Context) -> Tensor:
        """Normalised chunks (B, chunk, A) in one pass of the head."""
        return self._answer(*self.features(context), context.mask)

    def features(self, context: Context) -> tuple[list[Tensor], list[tuple[Tensor, Tensor]]]:
        """What the head makes of a context and may use again and again: its steering, and keys and values."""
        start = context.tokens.new_zeros(len(context.tokens))
        return self.head.steer(start, context), self.head.remember(context)

    def tick(
        self, context: Context, features: tuple[list[Tensor], list[tuple[Tensor, Tensor]]], state: Tensor
    ) -> Tensor:
        """``decide`` again, for newer joints than the images': a normalised state (B, S).

        Its token alone is new, the context's last one; what the images and the former state came to stays.
        """
        trunk, (steering, memory) = self.fast, features
        token = trunk.norm(trunk.state(fourier(state, 2)))[:, None]  # type: ignore[operator]
        newer = []
        for block, (keys, values) in zip(self.head.blocks, memory, strict=True):
            key, value = block.attend_cross.remember(token)
            newer.append((torch.cat((keys[:, :, :-1], key), dim=2), torch.cat((values[:, :, :-1], value), dim=2)))
        return self._answer(steering, newer, context.mask)

    def _answer(self, steering: list[Tensor], memory: list[tuple[Tensor, Tensor]], mask: Tensor | None) -> Tensor:
        begin = self.start.expand(len(memory[0][0]), -1, -1)
        return begin + self.head.velocity(begin, steering, memory, mask)

    @torch.no_grad()
    def sample(self, batch: dict, generators: Sequence[torch.Generator]) -> Sampled:
        """Normalised chunks for a normalised batch of observations, two each as in ``loss``; nothing is drawn.

        Its ``words`` are System 2's, where ``follow_words`` has them said. Of a batch with a ``latent`` System 2 has
        been asked before.
        """
        before, now = _apart(batch)
        latent, words = (batch["latent"], batch["plan_words"]) if "latent" in batch else self.plan(before)
        context = self.perceive(now, latent, words or batch["instruction"])
        return Sampled(self.decide(context), words=words)

    @torch.no_grad()
    def plan(self, batch: dict) -> tuple[Tensor, list[str] | None]:
        """System 2's latents (B, D) for B normalised observations, and its words where System 1 follows them."""
        planned = self._plan(_apart(batch)[1])
        speech = self.speech if self.config.follow_words else None
        words = None if speech is None else speech.say(planned, batch["instruction"])
        return self.latent(planned), words

    def parameter_groups(self, weight_decay: float) -> list[dict]:
        """Matrices and kernels decay; biases, norms, embeddings and tokens do not."""
        return parameter_groups(self, weight_decay, ("grams", "position", "slots", "latent.query", "letters", "start"))


def _apart(batch: dict) -> tuple[dict, dict]:
    """The observations that System 2 has answered, and the present ones, which points and stills are of.

    Of a batch with one observation each both are that one.
    """
    if batch["state"].dim() == 2:
        return batch, batch
    return moment(batch, 0), moment(batch, -1)


POLICY = HierarchicalPolicy
CONFIG = HierarchicalConfig
