"""The trunks without a language model: slots that look for what the sentence asks for, and the plain mean of it all."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from vla.contracts import EnvSpec, VlaError
from vla.nn.config import PooledTrunkConfig, TrunkConfig
from vla.nn.context import Context, Trunk
from vla.nn.language import LanguageEncoder
from vla.nn.resampler import Resampler, offset_loss, peaks, pointing_accuracy, pointing_loss, yaw_loss
from vla.nn.transformer import feed_forward, fourier
from vla.nn.vision import VisionEncoder


class _Senses(Trunk):
    """A network for each camera, one for the sentence and one for the state."""

    def __init__(self, config: TrunkConfig | PooledTrunkConfig, dim: int, spec: EnvSpec) -> None:
        super().__init__()
        self.cameras = [camera.name for camera in spec.cameras]
        pixels = config.pixels * len(self.cameras) if len(config.pixels) == 1 else config.pixels
        if len(pixels) != len(self.cameras):
            names = ", ".join(self.cameras)
            raise VlaError(f"--policy.trunk.pixels {list(config.pixels)} must be one size, or one for each of: {names}")
        eyes = [VisionEncoder(config.vision, px, config.map_dim, pretrained=config.pretrained) for px in pixels]
        self.grids = [eye.grid for eye in eyes]
        self.vision = nn.ModuleList(eyes)
        self.language = LanguageEncoder(dim, config.language_depth)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Initializing zero-element tensors")  # some envs show pictures alone
            self.state = nn.Sequential(nn.Linear(5 * len(spec.state), dim), feed_forward(dim, 2))

    def read(self, sentences: list[str]) -> dict[str, Tensor]:
        """``words`` (B, N, D) and ``words.mask`` (B, N), True on real ones."""
        words, mask = self.language(sentences)
        return {"words": words, "words.mask": mask}

    def _words(self, batch: dict) -> tuple[Tensor, Tensor]:
        return (batch["words"], batch["words.mask"]) if "words" in batch else self.language(batch["instruction"])

    def _maps(self, images: list[Tensor]) -> list[Tensor]:
        """Each camera's map (B, grid * grid, map_dim)."""
        return [encode(image) for image, encode in zip(images, self.vision, strict=True)]


class CompactTrunk(_Senses):
    """Slots that read the sentence point into each camera's map: they, the sentence and the state are the context."""

    shares_images = True

    def __init__(self, config: TrunkConfig, dim: int, spec: EnvSpec) -> None:
        super().__init__(config, dim, spec)
        self.resampler = Resampler(dim, config.map_dim, self.grids, config.slots, config.hops, config.glimpse)
        self.norm = nn.LayerNorm(dim)

    def encode(self, batch: dict) -> Context:
        """Context tokens (B, slots + 2, D); its extra ``pointing`` is where the slots pointed (see Resampler)."""
        slots, words, state, pointing = self._look(batch)
        tokens = self.norm(torch.cat((slots, words[:, :1], state[:, None]), dim=1))
        return Context(tokens, None, {"pointing": pointing}, _text(tokens))

    def _look(self, batch: dict) -> tuple[Tensor, Tensor, Tensor, list[list[Tensor]]]:
        """Slots (B, K, D), words (B, N, D), the embedded state (B, D), and where the slots pointed.

        B counts the sentences; where there are fewer images and states, each serves as many consecutive sentences.
        """
        words, mask = self._words(batch)
        images = [batch[f"images.{name}"] for name in self.cameras]
        maps = self._maps(images)
        state = self.state(fourier(batch["state"], 2))
        state = state.repeat_interleave(len(words) // len(state), dim=0)
        slots, pointing = self.resampler(maps, images, words, mask, state)
        return slots, words, state, pointing

    def grounding_losses(self, stills: dict) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What stills teach, each seen once and spoken of R times: three losses by name, and three scores.

        Args:
            stills: what ``Normaliser.encode`` makes of ``vla.data.stills.Stills.batch``: B images and states, and B * R
                sentences, points, yaws and offsets.

        Returns:
            the losses ``grounding`` (pointing), ``yaw`` and ``offset``; and ``grounding_accuracy``, the share that
            points at the item (the first camera's peak is within 1/16 of its image), ``yaw_error_deg`` and
            ``offset_error_mm`` (see ``resampler.yaw_loss`` and ``offset_loss``).
        """
        slots, _, _, pointing = self._look(stills)
        return self._taught(slots, pointing, stills)

    def _taught(
        self, slots: Tensor, pointing: list[list[Tensor]], stills: dict
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        tokens = self.norm(slots)
        grounding = self._pointing_loss(pointing, stills)
        assert grounding is not None
        accuracy = pointing_accuracy(pointing[-1][0].detach(), stills[f"points.{self.cameras[0]}"])
        yaw, yaw_error = yaw_loss(tokens, stills["yaws"])
        offset, offset_error = offset_loss(tokens, stills["offsets"])
        scores = {"grounding_accuracy": accuracy, "yaw_error_deg": yaw_error, "offset_error_mm": offset_error}
        return {"grounding": grounding, "yaw": yaw, "offset": offset}, scores

    @torch.no_grad()
    def points(self, batch: dict) -> dict[str, Tensor]:
        """See ``vla.nn.context.Pointing``: where the first slot looks last."""
        _, _, _, pointing = self._look(batch)
        return {name: peaks(logits[:, :1])[:, 0] for name, logits in zip(self.cameras, pointing[-1], strict=True)}

    def losses(self, context: Context, batch: dict) -> dict[str, Tensor]:
        """The loss ``pointing``, where the batch has ``points.{camera}``."""
        loss = self._pointing_loss(context.extras["pointing"], batch)
        return {} if loss is None else {"pointing": loss}

    def _pointing_loss(self, pointing: list[list[Tensor]], batch: dict) -> Tensor | None:
        """The mean over hops and cameras of ``resampler.pointing_loss``; None where the data has no points."""
        losses = [
            pointing_loss(logits, batch[f"points.{name}"])
            for hop in pointing
            for name, logits in zip(self.cameras, hop, strict=True)
            if f"points.{name}" in batch
        ]
        return torch.stack(losses).mean() if losses else None


class PooledTrunk(_Senses):
    """The mean of each camera's map, the sentence and the state: nothing is looked for, and nothing is pointed at."""

    def __init__(self, config: PooledTrunkConfig, dim: int, spec: EnvSpec) -> None:
        super().__init__(config, dim, spec)
        self.pooled = nn.ModuleList(nn.Linear(config.map_dim, dim) for _ in self.cameras)
        self.norm = nn.LayerNorm(dim)

    def encode(self, batch: dict) -> Context:
        """Context tokens (B, cameras + 2, D)."""
        words, _ = self._words(batch)
        maps = self._maps([batch[f"images.{name}"] for name in self.cameras])
        seen = [embed(one.mean(dim=1)) for one, embed in zip(maps, self.pooled, strict=True)]
        tokens = self.norm(torch.stack((*seen, words[:, 0], self.state(fourier(batch["state"], 2))), dim=1))
        return Context(tokens, text=_text(tokens))


def _text(tokens: Tensor) -> Tensor:
    """Which of M tokens (B, M, D) is of the sentence, (M,): the last but one."""
    return torch.arange(tokens.shape[1], device=tokens.device) == tokens.shape[1] - 2
