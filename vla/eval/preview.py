"""A picture sheet of perturbations: what the policy sees under each of them, in one PNG file."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vla.contracts import Chunk, Env
from vla.control.timeline import Timeline
from vla.eval.config import EvalConfig
from vla.host.files import write_atomically
from vla.perturb import axes as perturb
from vla.perturb.latency import Delays
from vla.perturb.sensors import LEVELS, NoisySensors
from vla.rollout.player import EpisodeRequest

EPISODES = 4  # columns of a sheet of chosen perturbations
_CHINESE_FONTS = ("Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Micro Hei", "Microsoft YaHei",
                  "PingFang SC", "SimHei", "Arial Unicode MS")  # fmt: skip
_ASKED_EVERY, _CHUNK, _DECISIONS = 4, 16, 5  # of the latency strip


@dataclass(frozen=True)
class Tile:
    """One picture of the sheet.

    Attributes:
        picture: the cameras side by side, uint8 (height, width, 3).
        sentence: what the policy is told.
        caption: figures that the picture can't show.
        played: for latency alone, which chunk is played at each step, -1 for none yet; else empty.
    """

    picture: np.ndarray
    sentence: str
    caption: str = ""
    played: tuple[int, ...] = ()


def write_sheet(config: EvalConfig, path: Path) -> list[tuple[str, str]]:
    """Write the sheet, and return what the policy is told in the tiles: (tile, sentence), each sentence once.

    Without ``config.perturb``: a row for each axis that the env can do, a column for each strength, all of the first
    episode, which is drawn once as it is. With it: a row for each of its axes and one for all together, a column for
    each of the first episodes.

    Raises:
        VlaError: the env is unknown, can't do an axis, or refuses an option.
    """
    config.check_env()
    able = perturb.axes_of(config.env_ref.env_class)
    requests = config.requests()
    rows: list[tuple[str, list[tuple[dict[str, str] | None, EpisodeRequest]]]]
    if config.perturb:
        harder: list[dict[str, str]] = [{}, *({axis: strength} for axis, strength in config.perturb.items())]
        harder += [config.perturb] if len(config.perturb) > 1 else []
        columns = [f"episode {request.index}" for request in requests[:EPISODES]]
        names = ["unperturbed", *(perturb.describe(one) for one in harder[1:])]
        names[len(config.perturb) + 1 :] = ["all together"] * (len(config.perturb) > 1)
        rows = [(name, [(one, r) for r in requests[:EPISODES]]) for name, one in zip(names, harder, strict=True)]
    else:
        columns = ["unperturbed", *perturb.STRENGTHS]
        calm: list[dict[str, str] | None] = [{}, *[None] * (len(able) - 1)]  # the same for all: once is enough
        rows = [
            (axis, [(first, requests[0]), *(({axis: s}, requests[0]) for s in perturb.STRENGTHS)])
            for axis, first in zip(able, calm, strict=True)
        ]
    with config.env_ref.opened() as env:
        tiles = [(name, [None if h is None else _tile(env, h, request) for h, request in row]) for name, row in rows]
    write_atomically(path, _draw(config.env, columns, tiles))
    told: dict[str, str] = {}
    for name, row in tiles:
        for column, tile in zip(columns, row, strict=True):
            if tile is not None:
                told.setdefault(tile.sentence, column if column == "unperturbed" else f"{name}, {column}")
    return [(where, sentence) for sentence, where in told.items()]


def _tile(env: Env, harder: dict[str, str], request: EpisodeRequest) -> Tile:
    options: dict[str, Any] = dict(request.options)
    if perturb.for_reset(harder):
        options["perturb"] = perturb.for_reset(harder)
    env.reset(seed=request.seed, options=options or None)
    seen, captions, played = env.observe(), [], list[int]()
    if "noise" in harder:
        seen = NoisySensors(env.env_spec, harder["noise"], request.seed)(seen)
        level = LEVELS[harder["noise"]]
        captions.append(f"{level.dropped * 100:.0f} % of frames dropped, state off by {level.metres * 1000:.0f} mm")
    if "latency" in harder:
        if len(harder) == 1:  # the strip hides a part of the picture
            played = _played(harder["latency"], env.env_spec.dt, request.seed)
        captions.append(f"{perturb.delay_ms(harder['latency']):.0f} ms")
    high = max(image.shape[0] for image in seen.images.values())
    images = [np.pad(image, ((0, high - len(image)), (0, 0), (0, 0))) for image in seen.images.values()]
    return Tile(np.concatenate(images, axis=1), seen.instruction, ", ".join(captions), tuple(played))


def _played(strength: str, dt: float, seed: int) -> list[int]:
    """Which chunk is played at each step, by a policy that is asked every four steps."""
    timeline, delays, found = Timeline(hold=np.array([-1.0], np.float32)), Delays(strength, dt, seed), list[int]()
    for decision in range(_DECISIONS):
        now = decision * _ASKED_EVERY * dt
        timeline.push(Chunk(np.full((_CHUNK, 1), decision, np.float32), dt, now), now + delays.next())
        found += timeline.actions(now, _ASKED_EVERY, dt)[:, 0].astype(int).tolist()
    return found


def _draw(env: str, columns: Sequence[str], rows: Sequence[tuple[str, list[Tile | None]]]) -> bytes:
    from matplotlib.figure import Figure

    # Columns are strengths of one episode, or episodes; a sentence is shown where the perturbation has changed it.
    first = [tile for tile in rows[0][1] if tile is not None]
    known = [first[0 if columns[0] == "unperturbed" else at].sentence for at in range(len(columns))]
    shapes = [tile.picture.shape for _, row in rows for tile in row if tile is not None]
    wide = max(shape[1] / shape[0] for shape in shapes)
    captions = [
        ["" if tile is None else _caption(tile, told) for tile, told in zip(row, known, strict=True)] for _, row in rows
    ]
    lines = max(caption.count("\n") + bool(caption) for row in captions for caption in row)
    gap = 0.12 + 0.12 * lines  # inches
    size = (1.1 + 1.75 * wide * len(columns), 0.7 + (1.75 + gap) * len(rows))
    figure = Figure(figsize=size, dpi=110, facecolor="#fafaf8")
    axes = figure.subplots(len(rows), len(columns), squeeze=False)
    figure.subplots_adjust(
        left=1.0 / size[0], right=1 - 0.05 / size[0], top=1 - 0.62 / size[1], bottom=gap / size[1],
        wspace=0.03, hspace=gap / 1.75,
    )  # fmt: skip
    figure.suptitle(f"{env}: what the policy sees", x=0.01, ha="left", y=1 - 0.12 / size[1], va="top", fontsize=11)
    for (name, row), line, written in zip(rows, axes, captions, strict=True):
        line[0].set_ylabel(name.replace("=", "\n"), fontsize=9, rotation=0, ha="right", va="center", labelpad=6)
        for tile, plot, caption in zip(row, line, written, strict=True):
            plot.set_xticks([])
            plot.set_yticks([])
            if tile is None:
                plot.spines[:].set_visible(False)
                plot.set_facecolor("none")
                continue
            plot.imshow(tile.picture, interpolation="nearest")
            plot.set_xlabel(caption, fontsize=6.5, **_font(caption))
            if tile.played:
                _draw_strip(plot, tile)
    for name, plot in zip(columns, axes[0], strict=True):
        plot.set_title(name, fontsize=9)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def _caption(tile: Tile, told: str) -> str:
    """What stands below a tile: its figures, and the sentence where it is not the one that was ``told``."""
    return "\n".join(filter(None, (tile.caption, "" if tile.sentence == told else _printable(tile.sentence))))


def _draw_strip(plot: Any, tile: Tile) -> None:
    """Below the picture's middle: a line of steps coloured by the chunk that is due, and by the one that is played."""
    high, wide = tile.picture.shape[:2]
    colours = ("#9aa3ab", "#3a7d6b", "#d9923b", "#4a6fb5", "#b4483c", "#7c5aa6")
    cell = wide * 0.84 / len(tile.played)
    due = [step // _ASKED_EVERY for step in range(len(tile.played))]
    plot.add_patch(_box(0.02 * wide, 0.50 * high, 0.96 * wide, 0.46 * high, "#fafaf8"))
    for row, (name, chunks) in enumerate((("due", due), ("played", tile.played))):
        top = (0.55 + 0.20 * row) * high
        plot.text(0.035 * wide, top + 0.08 * high, name, fontsize=5.5, va="center")
        for step, chunk in enumerate(chunks):
            left = 0.13 * wide + step * cell
            plot.add_patch(_box(left, top, cell * 0.9, 0.16 * high, colours[chunk + 1]))


def _box(left: float, top: float, wide: float, high: float, colour: str) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((left, top), wide, high, facecolor=colour, edgecolor="none")


def _printable(sentence: str) -> str:
    """The sentence in short lines; a note in its place where no font here has its characters."""
    if sentence.isascii():
        return "\n".join(textwrap.wrap(sentence, 72))
    if not _font(sentence):
        return "(a sentence in another script: see the terminal)"
    return "\n".join(textwrap.wrap(sentence, 36))


def _font(text: str) -> dict[str, str]:
    from matplotlib import font_manager

    if text.isascii():
        return {}
    here = {font.name for font in font_manager.fontManager.ttflist}
    return next(({"family": name} for name in _CHINESE_FONTS if name in here), {})
