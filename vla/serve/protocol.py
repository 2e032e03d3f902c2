"""The wire: msgpack frames, what one may hold, and how much. Only plain types and arrays of three kinds come in.

An array is ``{b"__ndarray__": True, b"data": bytes, b"dtype": text, b"shape": [int, …]}`` as openpi writes it, or the
same with text for keys as vla-eval does, which also sends images as PNG or JPEG: ``{"__image__": True, "format",
"data", "shape"}``. Both of them trust what they read; here dtype, shape and size are checked before anything is made of
them, objects cannot be said, and what a frame unpacks to is bounded by more than its size.
"""

from __future__ import annotations

import io
import math
from typing import Any

import msgpack
import numpy as np

from vla.contracts import EnvSpec, VlaError

VERSION = 1  # of what ours adds to openpi's
DTYPES = ("|u1", "<f4", "<f8")  # images; states and actions
MOST_TEXT = 2_000  # letters of a text: a sentence, or a key
MOST_ENTRIES = 20_000  # of all lists and maps of a frame together: one of 1 byte takes up 64 and more
MOST_PIXELS = 2**24  # of all compressed images of a frame together
MOST_AXES = 4
_IMAGES = {"png": "PNG", "jpeg": "JPEG"}


class WireError(VlaError):
    """What a message is answered with. ``kind``: ``malformed``, ``observation``, ``limit`` or ``agent``."""

    def __init__(self, message: str, kind: str = "malformed") -> None:
        super().__init__(message)
        self.kind = kind


def pack(message: Any, text_keys: bool = False) -> bytes:
    """A message as a frame; arrays as openpi writes them, or with ``text_keys`` as vla-eval does."""

    def array(value: Any) -> Any:
        if isinstance(value, np.generic):
            return value.item()
        if not isinstance(value, np.ndarray) or value.dtype.str not in DTYPES:
            raise TypeError(f"{type(value).__name__} cannot be sent")
        found: dict[Any, Any] = {
            "__ndarray__": True,
            "data": value.tobytes(),
            "dtype": value.dtype.str,
            "shape": list(value.shape),
        }
        return found if text_keys else {key.encode(): one for key, one in found.items()}

    return msgpack.packb(message, default=array)


def unpack(frame: bytes | str) -> dict[Any, Any]:
    """What a frame holds. Raises WireError for all that is not a map of plain types and arrays within the limits."""
    if isinstance(frame, str):
        raise WireError("this is a text frame; messages are binary msgpack frames")
    read = _Reader()
    try:
        found = msgpack.unpackb(
            frame, object_hook=read.map, list_hook=read.list, ext_hook=read.extension, max_str_len=4 * MOST_TEXT,
            max_ext_len=0,
        )  # fmt: skip
    except WireError:
        raise
    except Exception as error:  # each kind of damage has its own
        raise WireError(f"this is no msgpack message: {' '.join(str(error).split())[:200] or repr(error)}") from error
    if not isinstance(found, dict):
        raise WireError(f"a message is a map, and this is {type(found).__name__}")
    return found


class _Reader:
    """Takes what msgpack finds in one frame, and counts it."""

    def __init__(self) -> None:
        self._entries = self._pixels = 0

    def _count(self, entries: int) -> None:
        self._entries += 1 + entries
        if self._entries > MOST_ENTRIES:
            raise WireError(f"the message has more than {MOST_ENTRIES} entries", "limit")

    def list(self, value: list[Any]) -> Any:
        self._count(len(value))
        return value

    def map(self, value: dict[Any, Any]) -> Any:
        """The array, image or number that a map stands for; the map itself if it is none."""
        self._count(len(value))
        for name, read in (("__ndarray__", _array), ("__image__", self._image), ("__npgeneric__", _number)):
            if name in value or name.encode() in value:
                return read({k.decode("ascii", "replace") if isinstance(k, bytes) else k: v for k, v in value.items()})
        return value

    def extension(self, code: int, data: bytes) -> Any:
        raise WireError("extension types are not taken")

    def _image(self, value: dict[str, Any]) -> np.ndarray:
        form, data = value.get("format"), value.get("data")
        if form == "raw":
            return _array(value)
        shape = _shape(value)
        if form not in _IMAGES or not isinstance(data, bytes) or len(shape) != 3 or shape[2] != 3:
            raise WireError("an image is raw, png or jpeg, with its bytes and a shape (height, width, 3)")
        self._pixels += shape[0] * shape[1]
        if self._pixels > MOST_PIXELS:
            raise WireError(f"the message's images have more than {MOST_PIXELS} pixels", "limit")
        from PIL import Image

        try:
            with Image.open(io.BytesIO(data), formats=[_IMAGES[form]]) as picture:  # which reads the header alone
                size, mode = picture.size, picture.mode
                if size == (shape[1], shape[0]) and mode == "RGB":
                    return np.array(picture)
        except Exception as error:  # whatever a decoder raises
            raise WireError(f"a {form} image cannot be read: {' '.join(str(error).split())[:100]}") from error
        raise WireError(f"an image said to be {shape} has {size[1]}x{size[0]} pixels, mode {mode}")


def _array(value: dict[str, Any]) -> np.ndarray:
    data, dtype, shape = value.get("data"), value.get("dtype"), _shape(value)
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise WireError(f"an array's dtype is one of {', '.join(DTYPES)}, and not {str(dtype)[:40]!r}")
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if not isinstance(data, bytes) or len(data) != size:
        raise WireError(f"an array of {dtype} {shape} has {size} bytes, and not {len(data) if data else 'none'}")
    return np.frombuffer(data, dtype).reshape(shape).copy()  # which may then be written to


def _shape(value: dict[str, Any]) -> tuple[int, ...]:
    shape = value.get("shape")
    if (
        not isinstance(shape, list)
        or len(shape) > MOST_AXES
        or not all(type(n) is int and 0 <= n < 2**31 for n in shape)
    ):
        raise WireError(f"an array's shape is a list of up to {MOST_AXES} whole numbers, and not {str(shape)[:60]}")
    return tuple(shape)


def _number(value: dict[str, Any]) -> bool | int | float:
    data = value.get("data")
    if not isinstance(data, (bool, int, float)):
        raise WireError("a numpy scalar is a number")
    return data


def most_bytes(spec: EnvSpec, rows: int, looks: int) -> int:
    """How large a frame with so many ``rows`` of an agent's observations, each with ``looks`` of them, may be."""
    pixels = sum(camera.height * camera.width * 3 for camera in spec.cameras)
    return rows * looks * (pixels + pixels // 100 + 8 * len(spec.state) + 4 * MOST_TEXT + 4096) + 2**16
