"""Videos of episodes, for people: the scene, and above it what is asked, what is done, the time and the outcome.

Frames come from the env, are captioned and encoded as they come (h264 in an mp4), and so take no memory. Made where the
env lives.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import suppress
from fractions import Fraction
from typing import Any

import numpy as np

from vla.contracts.abilities import Explains, Films
from vla.host import lettering

WIDTH, HEIGHT = 640, 480  # of the scene; the caption stands above, where no player's buttons hide it
SMALL = {"crf": "27", "preset": "veryfast"}  # a larger crf is smaller and coarser
SPEED_UP = 2  # videos play at twice the simulated time
_INK, _FAINT, _PAPER = (240, 243, 245), (160, 172, 182), (24, 29, 34)
_GOOD, _BAD = (34, 104, 74), (158, 52, 42)
_EDGE, _LARGE, _SMALL = 14, 19, 16  # pixels: margin, and the two sizes of letters


class Film:
    """Shows an episode, its caption burnt in.

    Args:
        env: the env: an ability of ``vla.contracts.abilities.Films`` is used where it has it, else its first camera.
        dt: seconds between two steps.
        instruction: what is asked for.
        every: steps between two frames.
    """

    def __init__(self, env: Any, dt: float, instruction: str = "", every: int = 2) -> None:
        self._env, self._dt, self._every = env, dt, every
        self._fps = max(1, round(SPEED_UP / (dt * every)))
        self._lines = lettering.wrap(instruction, WIDTH - 2 * _EDGE, _LARGE, 4) if instruction else []
        self._strip = _even(_EDGE + (_LARGE + 7) * len(self._lines) + _SMALL + _EDGE)
        self._video = Mp4(WIDTH, HEIGHT + self._strip, self._fps)
        self._steps = 0
        self._last = self._scene()
        self._video.add(self._captioned())

    def look(self) -> None:
        """To be called after each step; keeps every second frame."""
        self._steps += 1
        if self._steps % self._every == 0:
            self._last = self._scene()
            self._video.add(self._captioned())

    def encode(self, outcome: str = "", success: bool = True) -> bytes:
        """The episode as an mp4 file. Its last moment stays for two seconds, with the ``outcome`` written over it."""
        if self._steps % self._every:
            with suppress(Exception):  # an env that raised shows nothing more
                self._last = self._scene()
        last = self._captioned(outcome, success)
        for _ in range(2 * self._fps):
            self._video.add(last)
        return self._video.finish()

    def _scene(self) -> np.ndarray:
        from PIL import Image

        if isinstance(self._env, Films):
            # Twice the size without multisampling, then halved: as smooth, and several times as fast.
            return np.asarray(Image.fromarray(self._env.film(2 * WIDTH, 2 * HEIGHT)).reduce(2))
        return enlarge(self._env.observe().images[self._env.env_spec.cameras[0].name], WIDTH, HEIGHT)

    def _captioned(self, outcome: str = "", success: bool = True) -> np.ndarray:
        from PIL import Image, ImageDraw

        picture = Image.new("RGB", (WIDTH, HEIGHT + self._strip), _PAPER)
        picture.paste(Image.fromarray(self._last), (0, self._strip))
        draw, y = ImageDraw.Draw(picture), _EDGE - 4
        for line in self._lines:
            lettering.draw(draw, _EDGE, y, line, _LARGE, _INK)
            y += _LARGE + 7
        clock = f"{self._steps * self._dt:.1f} s"
        right = WIDTH - _EDGE - lettering.width_of(clock, _SMALL)
        lettering.draw(draw, right, y, clock, _SMALL, _FAINT)
        doing = ""
        with suppress(Exception):  # an env that raised has nothing more to tell
            doing = self._env.doing() if isinstance(self._env, Explains) else ""
        lettering.draw(draw, _EDGE, y, lettering.wrap(doing, right - 2 * _EDGE, _SMALL, 1)[0], _SMALL, _FAINT)
        if outcome:
            lines = lettering.wrap(outcome, WIDTH - 2 * _EDGE, _LARGE, 4)
            high = _EDGE + (_LARGE + 7) * len(lines) + 4
            draw.rectangle((0, self._strip, WIDTH, self._strip + high), fill=_GOOD if success else _BAD)
            for row, line in enumerate(lines):
                lettering.draw(draw, _EDGE, self._strip + 8 + row * (_LARGE + 7), line, _LARGE, (255, 255, 255))
        return np.asarray(picture)


def _even(number: int) -> int:
    return number + number % 2


def enlarge(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Scale an image (h, w, 3) to fit (height, width, 3), keeping its shape; what is left over is black."""
    scale = min(width / image.shape[1], height / image.shape[0])
    tall, wide = max(1, int(image.shape[0] * scale)), max(1, int(image.shape[1] * scale))
    rows = np.minimum((np.arange(tall) / scale).astype(int), image.shape[0] - 1)
    columns = np.minimum((np.arange(wide) / scale).astype(int), image.shape[1] - 1)
    canvas = np.zeros((height, width, 3), dtype=np.uint8)
    top, left = (height - tall) // 2, (width - wide) // 2
    canvas[top : top + tall, left : left + wide] = image[rows[:, None], columns[None, :]]
    return canvas


class Mp4:
    """An mp4 file in memory, h264, that grows frame by frame.

    Args:
        width, height: of every frame, pixels; even.
        fps: frames a second.
        pixels: how they are stored.
        options: libx264's.
    """

    def __init__(
        self, width: int, height: int, fps: int, pixels: str = "yuv420p", options: Mapping[str, str] = SMALL
    ) -> None:
        import av

        self._file = io.BytesIO()
        self._container = av.open(self._file, "w", format="mp4")
        self._stream = self._container.add_stream("libx264", rate=Fraction(fps), options=dict(options))
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, pixels
        self._stream.codec_context.thread_count = 1

    def add(self, frame: np.ndarray) -> None:
        """Add a uint8 RGB frame (height, width, 3)."""
        import av

        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        for packet in self._stream.encode(picture):
            self._container.mux(packet)

    def finish(self) -> bytes:
        """The file's content. Nothing can be added afterwards."""
        for packet in self._stream.encode():
            self._container.mux(packet)
        self._container.close()
        return self._file.getvalue()

    def __del__(self) -> None:
        # One that was given up, as an interrupted episode's: closed in a collection of garbage it would write its end
        # to a file that may be gone by then, and crash. This comes before.
        with suppress(Exception):
            self._container.close()
