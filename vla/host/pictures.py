"""Pictures as files' contents."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np


def png(image: np.ndarray, compress_level: int = 6) -> bytes:
    """A picture, uint8 (H, W, 3), as a PNG file's content; ``compress_level`` 1 is quickest, 9 smallest."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG", compress_level=compress_level)
    return out.getvalue()


def sheet(rows: Sequence[tuple[Sequence[np.ndarray], Sequence[str]]], titles: Sequence[str], side: int = 256) -> bytes:
    """Rows of pictures with lines of text below each row, and a title above each column, as a PNG file's content.

    Args:
        rows: pictures uint8 (H, W, 3), as many as there are titles, and the lines.
        titles: of the columns.
        side: how wide each picture is drawn, pixels.
    """
    from PIL import Image, ImageDraw

    from vla.host import lettering

    size, edge, ink = 15, 10, (34, 34, 34)
    width = len(titles) * (side + edge) + edge
    wrapped = [[one for line in lines for one in lettering.wrap(line, width - 2 * edge, size, 3)] for _, lines in rows]
    tall = [round(pictures[0].shape[0] * side / pictures[0].shape[1]) for pictures, _ in rows]
    below = [len(lines) * (size + 6) + 2 * edge for lines in wrapped]
    page = Image.new("RGB", (width, size + 2 * edge + sum(tall) + sum(below)), "white")
    pen: Any = ImageDraw.Draw(page)
    for column, title in enumerate(titles):
        lettering.draw(pen, edge + column * (side + edge), edge, title, size, ink)
    y = size + 2 * edge
    for (pictures, _), lines, high, room in zip(rows, wrapped, tall, below, strict=True):
        for column, picture in enumerate(pictures):
            drawn = Image.fromarray(picture).resize((side, high), Image.Resampling.NEAREST)
            page.paste(drawn, (edge + column * (side + edge), y))
        for number, line in enumerate(lines):
            lettering.draw(pen, edge, y + high + 6 + number * (size + 6), line, size, ink)
        y += high + room
    return png(np.asarray(page))
