"""Pictures as files' contents."""

from __future__ import annotations

import io

import numpy as np


def png(image: np.ndarray, compress_level: int = 6) -> bytes:
    """A picture, uint8 (H, W, 3), as a PNG file's content; ``compress_level`` 1 is quickest, 9 smallest."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG", compress_level=compress_level)
    return out.getvalue()
