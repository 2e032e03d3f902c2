"""From feature maps to a few slots: each slot asks the language what to look for, then points at it in every camera.

The idea is a perceiver resampler (Alayrac et al., "Flamingo", 2022) whose attention over a camera's map is kept as a
place in the image: a slot reads the features it looks at and also where it looks, as a spatial softmax does
(Levine et al., 2016). Where the data says what the robot is after, the first two slots are taught to point at the item
to move and at the place where it goes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla.nn.transformer import Block, feed_forward, fourier
from vla.nn.vision import Glimpse, cell_centres

POINTS = 2  # the item to move now, and the place where it goes
_HARMONICS = (2.0, 4.0)  # of a yaw: what has two like ends shows the first, a square the second alone
_FREQUENCIES = 4
_NEAR = 0.02  # metres; offsets are told apart by a share of themselves beyond, and evenly within
# Reading is sharper than pointing: between two candidates a plain softmax would read a place where nothing lies.
_SHARPNESS = 3.0


class Hop(nn.Module):
    """One look: the slots confer, read the sentence, point into each camera's map, and read what stands there."""

    def __init__(self, dim: int, map_dim: int, heads: int, cameras: int) -> None:
        super().__init__()
        self.confer = Block(dim, heads, cross=True, ratio=2)
        self.query = nn.ModuleList(nn.Linear(dim, map_dim) for _ in range(cameras))
        self.read = nn.Linear(cameras * (map_dim + 2 + 4 * _FREQUENCIES), dim)
        self.norm, self.mlp = nn.LayerNorm(dim), feed_forward(dim, 2)

    def forward(
        self, slots: Tensor, words: Tensor, mask: Tensor, keys: list[Tensor], maps: list[Tensor], places: list[Tensor]
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """New slots (B, K, D), and for each camera the logits of where each slot points, (B, K, cells), and the place
        that it reads, (B, K, 2)."""
        slots = self.confer(slots, words, mask)
        seen, logits, looked = [], [], []
        for query, key, features, place in zip(self.query, keys, maps, places, strict=True):
            # All slots that look at one image do so together, whichever sentence they serve.
            asked = query(slots).reshape(len(key), -1, key.shape[-1])
            score = asked @ key.transpose(1, 2) * key.shape[-1] ** -0.5
            weight = (_SHARPNESS * score).softmax(dim=-1)
            looked.append(weight @ place)
            seen.append(torch.cat((weight @ features, fourier(looked[-1], _FREQUENCIES)), dim=-1))
            logits.append(score.reshape(*slots.shape[:2], -1))
        slots = slots + self.read(torch.cat(seen, dim=-1).reshape(*slots.shape[:2], -1))
        places_read = [place.reshape(*slots.shape[:2], 2) for place in looked]
        return slots + self.mlp(self.norm(slots)), logits, places_read


class Resampler(nn.Module):
    """Feature maps, a sentence and the state to ``slots`` tokens of width ``dim``.

    Args:
        dim: width of the slots and of the words.
        map_dim: channels of the maps.
        grids: cells a side of each camera's map.
        slots: how many, at least two.
        hops: how often the slots look.
        glimpse: side of the window that the first two slots see at the camera's own resolution around where they have
            pointed last, pixels; 0 for none.
    """

    def __init__(
        self, dim: int, map_dim: int, grids: list[int], slots: int, hops: int, glimpse: int = 0, heads: int = 4
    ) -> None:
        super().__init__()
        self.slots = nn.Parameter(torch.randn(slots, dim))
        self.where = nn.ModuleList(nn.Linear(2 + 4 * _FREQUENCIES, map_dim) for _ in grids)
        self.norms = nn.ModuleList(nn.LayerNorm(map_dim) for _ in grids)
        self.hops = nn.ModuleList(Hop(dim, map_dim, heads, len(grids)) for _ in range(hops))
        if glimpse:
            self.glimpses = nn.ModuleList(Glimpse(glimpse, dim) for _ in grids)
            self.norm, self.mlp = nn.LayerNorm(dim), feed_forward(dim, 2)
        for i, grid in enumerate(grids):
            self.register_buffer(f"centres{i}", cell_centres(grid), persistent=False)

    def forward(
        self, maps: list[Tensor], images: list[Tensor], words: Tensor, mask: Tensor, state: Tensor
    ) -> tuple[Tensor, list[list[Tensor]]]:
        """Slots (B, K, D), and each hop's logits for each camera (B, K, cells).

        Args:
            maps: for each camera (C, cells, map_dim); B is a multiple of C, and consecutive sentences share a map.
            images: for each camera (C, 3, height, width) in [-1, 1], what the maps were made of.
            words, mask: (B, N, D) and (B, N), from the language encoder.
            state: the embedded state, (B, D).
        """
        features = [norm(m) for norm, m in zip(self.norms, maps, strict=True)]
        places = [getattr(self, f"centres{i}") for i in range(len(maps))]
        keys = [f + where(fourier(p, _FREQUENCIES)) for f, p, where in zip(features, places, self.where, strict=True)]
        slots = self.slots + state[:, None] + words[:, :1]
        every_hop = []
        for hop in self.hops:
            slots, logits, looked = hop(slots, words, mask, keys, features, places)
            every_hop.append(logits)
        if hasattr(self, "glimpses"):
            first, others = slots[:, :POINTS], slots[:, POINTS:]
            for glimpse, image, place in zip(self.glimpses, images, looked, strict=True):
                first = first + glimpse(image, place[:, :POINTS])
            slots = torch.cat((first + self.mlp(self.norm(first)), others), dim=1)
        return slots, every_hop


def peaks(logits: Tensor, within: float = 0.125) -> Tensor:
    """Where each of (B, K, cells) points most, (B, K, 3): u, v and the share of its attention ``within`` of there.

    ``within`` is in units of half an image.
    """
    centres = cell_centres(round(logits.shape[-1] ** 0.5)).to(logits)
    peak = centres[logits.argmax(dim=-1)]
    near = (peak[..., None, :] - centres).norm(dim=-1) < within
    return torch.cat((peak, (logits.softmax(dim=-1) * near).sum(dim=-1, keepdim=True)), dim=-1)


def pointing_accuracy(logits: Tensor, points: Tensor, within: float = 0.125) -> Tensor:
    """The share of visible items (the first labelled point) that the first slot's peak lies ``within`` of.

    Arguments as for ``pointing_loss``; ``within`` is in units of half an image.
    """
    right = (peaks(logits[:, :1])[:, 0, :2] - points[:, :2]).norm(dim=-1) < within
    return (right * points[:, 2]).sum() / points[:, 2].sum().clamp(min=1.0)


def pointing_loss(logits: Tensor, points: Tensor, spread: float = 1.0) -> Tensor:
    """Cross-entropy between where the first two slots point and where the two labelled points are.

    The target is a Gaussian around the true point, ``spread`` cells wide, so that the expected place under the
    attention is the point itself, finer than the cells. Points that are not visible count nothing.

    Args:
        logits: (B, K, cells), K >= 2.
        points: (B, 6): u, v, visible of the item, then of the place; see ``vla.contracts.abilities.Points``.
    """
    grid = round(logits.shape[-1] ** 0.5)
    points = points.view(-1, POINTS, 3)
    centres = cell_centres(grid).to(logits)
    distance = ((points[..., None, :2] - centres) ** 2).sum(dim=-1) * (grid / 2 / spread) ** 2
    target = (-0.5 * distance).softmax(dim=-1)
    loss = -(target * F.log_softmax(logits[:, :POINTS], dim=-1)).sum(dim=-1)
    visible = points[..., 2]
    return (loss * visible).sum() / visible.sum().clamp(min=1.0)


def yaw_loss(tokens: Tensor, yaws: Tensor) -> tuple[Tensor, Tensor]:
    """How well the first two tokens say how the item and its place lie, and the item's mean error in degrees.

    The first four channels of a token are read as they are, as the cosine and sine of twice and of four times the yaw.
    A yaw counts in the harmonics that its symmetry leaves alone; see ``vla.contracts.ReferringExpression``.

    Args:
        tokens: (B, K, D), K >= 2, D >= 4.
        yaws: (B, 4), rad.
    """
    yaw, period = yaws.view(-1, POINTS, 2).unbind(dim=-1)
    harmonics = torch.tensor(_HARMONICS).to(yaws)
    angle = yaw[..., None] * harmonics
    code = tokens[:, :POINTS, : 2 * len(_HARMONICS)].unflatten(-1, (-1, 2))
    target = torch.stack((angle.cos(), angle.sin()), dim=-1)
    turns = period[..., None] * harmonics / (2 * torch.pi)
    known = ((turns > 0.5) & ((turns - turns.round()).abs() < 1e-3)).to(code)
    loss = ((code - target).square().sum(dim=-1) * known).sum() / known.sum().clamp(min=1.0)

    said = torch.atan2(code[..., 1], code[..., 0]).detach()
    error = torch.rad2deg(((said - angle + torch.pi) % (2 * torch.pi) - torch.pi).abs() / harmonics)[:, 0]
    first = known[:, 0] * torch.stack((torch.ones_like(yaw[:, 0]), 1 - known[:, 0, 0]), dim=-1)  # the lowest one known
    return loss, (error * first).sum() / first.sum().clamp(min=1.0)


def offset_loss(tokens: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """How well the first two tokens say how far off the item and its place are; the item's error where it is near.

    The three channels after those of the yaw are read as asinh(offset / 2 cm), which minds each millimetre where
    the end effector is about to grasp. Offsets that are NaN count nothing.

    Args:
        tokens: (B, K, D), K >= 2, D >= 7.
        offsets: (B, 6), metres; see ``vla.contracts.ReferringExpression``.

    Returns:
        the loss, and the median horizontal error in millimetres among items less than 5 cm off to the side, or 0.
        (The mean would tell of the few sentences that were taken to be about another item.)
    """
    offsets = offsets.view(-1, POINTS, 3)
    known = ~offsets.isnan()
    target = torch.asinh(offsets.nan_to_num() / _NEAR)
    first = 2 * len(_HARMONICS)
    code = tokens[:, :POINTS, first : first + 3]
    loss = (F.smooth_l1_loss(code, target, reduction="none", beta=0.1) * known).sum() / known.sum().clamp(min=1)

    missed = (_NEAR * torch.sinh(code.detach().clamp(-5, 5)) - offsets)[:, 0, :2].norm(dim=-1)
    near = offsets[:, 0, :2].norm(dim=-1) < 0.05  # never so where it is NaN
    return loss, 1000 * torch.where(near, missed, torch.nan).nanmedian().nan_to_num()
