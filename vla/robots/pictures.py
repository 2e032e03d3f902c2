"""A camera's picture made into the one that the agent knows."""

from __future__ import annotations

import numpy as np


def fit(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Cut about the middle to the shape of ``size``, then made smaller by area.

    Args:
        image: uint8 (height, width, 3).
        size: the height and width wanted, neither larger than the image's.

    Returns:
        uint8 (size[0], size[1], 3), a fresh array.
    """
    height, width = image.shape[:2]
    if (height, width) == size:
        return image.copy()
    scale = min(height / size[0], width / size[1])
    tall, wide = round(size[0] * scale), round(size[1] * scale)
    top, left = (height - tall) // 2, (width - wide) // 2
    cut = np.ascontiguousarray(image[top : top + tall, left : left + wide])
    import cv2

    return cv2.resize(cut, (size[1], size[0]), interpolation=cv2.INTER_AREA)


def from_message(
    data: bytes | memoryview, encoding: str, height: int, width: int, step: int, big_endian: bool = False
) -> np.ndarray:
    """The picture in a sensor_msgs/Image, uint8 (height, width, 3), RGB.

    Raises ValueError for an encoding that is not read, or data that are too short.
    """
    channels = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1}.get(encoding)
    if channels is None:
        raise ValueError(f"the encoding {encoding!r} is not read; rgb8, bgr8, rgba8, bgra8 and mono8 are")
    flat = np.frombuffer(data, np.uint8)
    if step < width * channels or flat.size < height * step:
        raise ValueError(f"{flat.size} bytes are too few for {height} rows of {max(step, width * channels)}")
    rows = flat[: height * step].reshape(height, step)[:, : width * channels].reshape(height, width, channels)
    if channels == 1:
        return np.repeat(rows, 3, axis=2)
    return np.ascontiguousarray(rows[..., :3] if encoding.startswith("rgb") else rows[..., 2::-1])


def from_compressed(data: bytes | memoryview) -> np.ndarray:
    """The picture in a sensor_msgs/CompressedImage (JPEG or PNG), uint8 (height, width, 3), RGB. Raises ValueError."""
    import cv2

    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError("it is neither JPEG nor PNG")
    return np.ascontiguousarray(image[..., ::-1])
