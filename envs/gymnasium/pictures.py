"""What another env calls a picture, checked and turned into ours: uint8 (height, width, 3), RGB."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from vla.contracts import BadObservationError

_CHANNELS = (3, 1, 4)  # RGB, grey, RGB with alpha
_LEAST_SIDE = 8  # pixels; what is smaller is a matrix of numbers
_OVERSHOOT = 0.02  # of the range: what resizing may leave beyond it


@dataclass(frozen=True)
class PictureForm:
    """How one camera's pictures come: grey is told thrice, alpha is dropped, floats are scaled.

    Attributes:
        shape: of the array that the env gives.
        first: whether the channels come first, (channels, height, width).
        high: what counts as white: 255, or 1 for floats from 0 to 1.
    """

    shape: tuple[int, ...]
    first: bool
    high: float

    @classmethod
    def of_space(cls, box: spaces.Space) -> PictureForm | None:
        """How the pictures of a box come; None where it holds something else.

        A picture is uint8, or floats from 0 to 1 or from 0 to 255; and (height, width, channels), (channels, height,
        width) or (height, width). Four channels that come first are more often four frames than a picture.
        """
        if not isinstance(box, spaces.Box) or box.shape is None or not box.shape:
            return None
        low, high = float(np.min(box.low)), float(np.max(box.high))
        if box.dtype != np.uint8 and not (np.issubdtype(box.dtype, np.floating) and low == 0 and high in (1, 255)):
            return None
        return cls._of(box.shape, 255.0 if box.dtype == np.uint8 else high, strict=box.dtype != np.uint8)

    @classmethod
    def of_array(cls, drawn: Any) -> PictureForm | None:
        """How the pictures come of which ``drawn`` is the first; None where it is no picture."""
        if not hasattr(drawn, "__array__"):
            return None
        array = np.asarray(drawn)
        floats = array.dtype.kind == "f"
        return cls._of(array.shape, 1.0 if floats and array.size and np.nanmax(array) <= 1 else 255.0, strict=False)

    @classmethod
    def _of(cls, shape: tuple[int, ...], high: float, strict: bool) -> PictureForm | None:
        def large(*sides: int) -> bool:
            return min(sides) >= _LEAST_SIDE

        if len(shape) == 3 and shape[2] in _CHANNELS and (large(*shape[:2]) or (shape[2] == 3 and not strict)):
            return cls(shape, False, high)
        if len(shape) == 3 and shape[0] in (3, 1) and large(*shape[1:]):
            return cls(shape, True, high)
        if len(shape) == 2 and large(*shape) and not strict:
            return cls(shape, False, high)
        return None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, pixels."""
        height, width = self.shape[1:] if self.first else self.shape[:2]
        return height, width

    def read(self, given: Any, what: str) -> np.ndarray:
        """A fresh picture, uint8 (height, width, 3). ``what`` names it in errors.

        Raises BadObservationError unless it has this form and lies in the range, and is finite.
        """
        array = np.asarray(given) if hasattr(given, "__array__") else None
        if array is None or array.shape != self.shape or array.dtype.kind not in "uif":
            raise BadObservationError(f"{what} gave {told(given)} where a picture {self.shape} was wanted")
        if array.dtype != np.uint8:
            high = self.high if array.dtype.kind == "f" else 255.0
            slack = _OVERSHOOT * high if array.dtype.kind == "f" else 0.0
            if not (array.min() >= -slack and array.max() <= high + slack):  # also catches NaN
                raise BadObservationError(f"{what} gave {told(given)} where a picture from 0 to {high:g} was wanted")
            array = np.clip(np.rint(array * (255.0 / high)), 0, 255).astype(np.uint8)
        if self.first:
            array = np.moveaxis(array, 0, -1)
        if array.ndim == 2:
            array = array[..., None]
        return np.array(np.broadcast_to(array[..., :3], (*self.size, 3)), order="C")


def told(given: Any) -> str:
    """What was given, in a few words for an error."""
    if given is None or isinstance(given, bool | int | float | str):
        return repr(given)
    if not hasattr(given, "__array__"):
        return f"a {type(given).__name__}"
    array = np.asarray(given)
    numbers = array.size and array.dtype.kind in "biuf"
    return f"{array.dtype} {array.shape}" + (f" from {array.min():g} to {array.max():g}" if numbers else "")
