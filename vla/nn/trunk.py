"""The trunk that every head shares: images, a sentence and the state in; a few context tokens out."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from vla.contracts import EnvSpec, VlaError
from vla.nn.config import TrunkConfig
from vla.nn.language import LanguageEncoder
from vla.nn.resampler import Resampler, offset_loss, pointing_accuracy, pointing_loss, yaw_loss
from vla.nn.transformer import feed_forward, fourier
from vla.nn.vision import VisionEncoder


class Trunk(nn.Module):
    """Encodes a batch once; heads may then read the context as often as they like.

    Args:
        config: sizes.
        dim: width of the context tokens.
        spec: cameras and state.
    """

    def __init__(self, config: TrunkConfig, dim: int, spec: EnvSpec) -> None:
        super().__init__()
        self.cameras = [camera.name for camera in spec.cameras]
        pixels = config.pixels * len(self.cameras) if len(config.pixels) == 1 else config.pixels
        if len(pixels) != len(self.cameras):
            names = ", ".join(self.cameras)
            raise VlaError(f"--policy.trunk.pixels {list(config.pixels)} must be one size, or one for each of: {names}")
        eyes = [VisionEncoder(config.vision, px, config.map_dim, pretrained=config.pretrained) for px in pixels]
        grids = [eye.grid for eye in eyes]
        self.vision = nn.ModuleList(eyes)
        self.language = LanguageEncoder(dim, config.language_depth)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Initializing zero-element tensors")  # some envs show pictures alone
            self.state = nn.Sequential(nn.Linear(5 * len(spec.state), dim), feed_forward(dim, 2))
        self.resampler = Resampler(dim, config.map_dim, grids, config.slots, config.hops, config.glimpse)
        self.norm = nn.LayerNorm(dim)

    def forward(self, batch: dict) -> tuple[Tensor, list[list[Tensor]]]:
        """Context tokens (B, slots + 2, D), and where the slots pointed (see Resampler).

        Args:
            batch: what ``Normaliser.encode`` gives: ``images.{camera}`` (B, 3, h, w), ``state`` (B, S),
                ``instruction`` (a list of B sentences).
        """
        slots, words, state, pointing = self._look(batch)
        return self.norm(torch.cat((slots, words[:, :1], state[:, None]), dim=1)), pointing

    def _look(self, batch: dict) -> tuple[Tensor, Tensor, Tensor, list[list[Tensor]]]:
        """Slots (B, K, D), words (B, N, D), the embedded state (B, D), and where the slots pointed.

        B counts the sentences; where there are fewer images and states, each serves as many consecutive sentences.
        """
        words, mask = self.language(batch["instruction"])
        images = [batch[f"images.{name}"] for name in self.cameras]
        maps = [encode(image) for image, encode in zip(images, self.vision, strict=True)]
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
        tokens = self.norm(slots)
        grounding = self.pointing_loss(pointing, stills)
        assert grounding is not None
        accuracy = pointing_accuracy(pointing[-1][0].detach(), stills[f"points.{self.cameras[0]}"])
        yaw, yaw_error = yaw_loss(tokens, stills["yaws"])
        offset, offset_error = offset_loss(tokens, stills["offsets"])
        scores = {"grounding_accuracy": accuracy, "yaw_error_deg": yaw_error, "offset_error_mm": offset_error}
        return {"grounding": grounding, "yaw": yaw, "offset": offset}, scores

    def pointing_loss(self, pointing: list[list[Tensor]], batch: dict) -> Tensor | None:
        """The mean over hops and cameras of ``resampler.pointing_loss``; None where the data has no points."""
        losses = [
            pointing_loss(logits, batch[f"points.{name}"])
            for hop in pointing
            for name, logits in zip(self.cameras, hop, strict=True)
            if f"points.{name}" in batch
        ]
        return torch.stack(losses).mean() if losses else None
