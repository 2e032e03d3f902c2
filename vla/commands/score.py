"""``vla score``: how well a picture fits some sentences, and whether it shows them done."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

EPILOG = """\
examples:
  vla score --image desk.png --text "the red pen in the pen tray" --text "the red pen on the left"
  vla score --image desk.png --text "put the red pen in the tray" --text "把红笔放进笔盘"
  vla score --image desk.png --text "tidy the desk" --json

Of each text: how well it fits, as a probability among those given (fit), the probability that it is done (done), and
how much of an episode that it asks for is over (over). The picture is one of the camera that the model was trained on,
in its resolution; of tidy_desk the scene camera's, 128x128 pixels. --resize fits another picture to it.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.epilog = EPILOG
    parser.add_argument("--image", type=Path, required=True, metavar="FILE", help="the picture")
    parser.add_argument("--text", action="append", required=True, metavar="TEXT", help="a sentence; may be repeated")
    parser.add_argument("--model", metavar="NAME", help="a folder of vla align, or what ships (tidy_desk_clip)")
    parser.add_argument("--resize", action="store_true", help="fit a picture of another size")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace, extra: list[str]) -> int:
    """Score. Returns 0."""
    import json

    from vla.contracts import VlaError
    from vla.nn.clip_folder import SHIPPED, load

    if not all(text.strip() for text in args.text):
        raise VlaError("--text is empty; write what the picture should show, or an instruction")
    scorer = load(args.model or SHIPPED)
    image = scorer.embed(read_picture(args.image, scorer.pixels, args.resize)[None])
    fit = scorer.match(image, args.text)[0]
    each = image.expand(len(args.text), -1)
    columns = (fit.softmax(dim=0), scorer.success(each, args.text), scorer.progress(each, args.text))
    rows = [
        {"text": text, "fit": round(f, 4), "done": round(d, 4), "over": round(o, 4)}
        for text, f, d, o in zip(args.text, *(column.tolist() for column in columns), strict=True)
    ]
    if args.json:
        print(json.dumps(rows, ensure_ascii=False, indent=1))
        return 0
    print("   fit   done   over")
    for row in rows:
        print(f"{row['fit']:6.1%} {row['done']:6.1%} {row['over']:6.1%}  {row['text']}")
    return 0


def read_picture(file: Path, pixels: tuple[int, int], resize: bool) -> Any:
    """A picture file as uint8 (H, W, 3). Raises VlaError where it can't be read, or is of another size."""
    import numpy as np
    from PIL import Image, ImageOps, UnidentifiedImageError

    from vla.contracts import VlaError

    height, width = pixels
    try:
        with Image.open(file) as opened:
            image = opened.convert("RGB")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise VlaError(f"{file} is no picture that can be read: {error}") from error
    if image.size != (width, height):
        if not resize:
            raise VlaError(
                f"{file} has {image.size[0]}x{image.size[1]} pixels, and the model sees {width}x{height}: give it a "
                "picture of its own camera, or --resize"
            )
        image = ImageOps.fit(image, (width, height))
    return np.array(image)
