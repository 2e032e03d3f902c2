"""Small videos of episodes: frames from the env, h264 in an mp4, made where the env lives."""

from __future__ import annotations

import io
from fractions import Fraction
from typing import Any

import numpy as np

WIDTH, HEIGHT = 320, 240
SPEED_UP = 2  # videos play at twice the simulated time


class Film:
    """Collects an episode's frames and encodes them.

    Args:
        env: the env. Its ``frame(width, height, quality="fast")`` is used where it has one, else its first camera.
        dt: seconds between two steps.
        every: steps between two frames.
    """

    def __init__(self, env: Any, dt: float, every: int = 2) -> None:
        self._env, self._every = env, every
        self._fps = max(1, round(SPEED_UP / (dt * every)))
        self._frames: list[np.ndarray] = []
        self._steps = 0
        self._frames.append(self._picture())

    def look(self) -> None:
        """To be called after each step; keeps every second frame."""
        self._steps += 1
        if self._steps % self._every == 0:
            self._frames.append(self._picture())

    def encode(self) -> bytes:
        """The episode as an mp4 file, its last moment included."""
        if self._steps % self._every:
            self._frames.append(self._picture())
        self._frames.extend([self._frames[-1]] * (self._fps // 2))  # let the eye rest on the end
        return encode_mp4(self._frames, self._fps)

    def _picture(self) -> np.ndarray:
        if hasattr(self._env, "frame"):
            # Twice the size without shadows, then halved: as smooth as multisampling, and 20 times as fast.
            return halve(np.asarray(self._env.frame(2 * WIDTH, 2 * HEIGHT, quality="fast")))
        return enlarge(self._env.observe().images[self._env.env_spec.cameras[0].name], WIDTH, HEIGHT)


def halve(image: np.ndarray) -> np.ndarray:
    """An image (2h, 2w, 3) at half the size: each pixel the mean of four."""
    high, wide = image.shape[0] // 2, image.shape[1] // 2
    return (image.reshape(high, 2, wide, 2, 3).sum(axis=(1, 3), dtype=np.uint16) // 4).astype(np.uint8)


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


def encode_mp4(frames: list[np.ndarray], fps: int, crf: int = 28) -> bytes:
    """Encode uint8 RGB frames (height, width, 3), all alike and with even sides, as h264 in an mp4 file.

    Args:
        frames: at least one.
        fps: frames a second.
        crf: h264's constant rate factor: larger is smaller and coarser.
    """
    import av

    height, width = frames[0].shape[:2]
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps), options={"crf": str(crf), "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            for packet in stream.encode(picture):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return file.getvalue()
