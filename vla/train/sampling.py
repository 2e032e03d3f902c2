"""Which samples each training step sees, fetched ahead in a thread, and the colour augmentation.

Everything depends on (seed, step) alone, so a resumed run needs the step number and nothing else.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from vla.data.windows import Windows
from vla.normalise import Normaliser

_ORDER, _BATCH, _TORCH = 0, 1, 2
_FIT_WINDOWS = 50_000  # enough for means and deviations, and it bounds the memory


def _rng(seed: int, *key: int) -> np.random.Generator:
    return np.random.default_rng([seed % 2**64, *key])


def batch_rng(seed: int, step: int, part: int) -> np.random.Generator:
    """The generator for the data side of one micro-batch, ``part`` counting them within the step."""
    return _rng(seed, _BATCH, step, part)


def seed_torch(seed: int, step: int, part: int) -> None:
    """Seed torch's global generators for one micro-batch, so that what came before does not matter."""
    torch.manual_seed(int(_rng(seed, _TORCH, step, part).integers(2**63)))


def fit_normaliser(windows: Windows) -> Normaliser:
    """Statistics of the windows' states and actions."""
    return Normaliser.fit(*samples(windows), windows.cache.spec)


def samples(windows: Windows) -> tuple[np.ndarray, np.ndarray]:
    """States (N, S) and chunks (N, chunk, A) in SI units; of a large dataset, 50,000 spread over it."""
    cache = windows.cache
    rows = windows.frames_once[:: -(-len(windows.frames_once) // _FIT_WINDOWS)]
    ends = windows.ends[rows]
    steps = np.minimum(rows[:, None] + np.arange(windows.chunk), ends[:, None] - 1)
    return cache.columns["state"][rows], cache.columns["action"][steps]


class SampleOrder:
    """A seeded permutation of ``count`` samples for each epoch, read as one endless sequence."""

    def __init__(self, count: int, seed: int) -> None:
        if count < 1:
            raise ValueError("there is no sample to order")
        self.count, self.seed = count, seed
        self._epoch = -1
        self._order: np.ndarray = np.empty(0, dtype=np.int64)

    def take(self, start: int, size: int) -> np.ndarray:
        """Positions ``start`` to ``start + size`` of the sequence: int64 (size,), values below ``count``."""
        parts = []
        while size > 0:
            epoch, offset = divmod(start, self.count)
            if epoch != self._epoch:
                self._epoch, self._order = epoch, _rng(self.seed, _ORDER, epoch).permutation(self.count)
            part = self._order[offset : offset + size]
            parts.append(part)
            start, size = start + len(part), size - len(part)
        return np.concatenate(parts)


class Prefetch:
    """Runs ``fetch(step)`` for start, start + 1, … in a thread, ``ahead`` results before they are needed.

    An exception in ``fetch`` is raised by the iterator. Use it as a context manager, so that the thread ends.
    """

    def __init__(self, fetch: Callable[[int], Any], start: int, stop: int, ahead: int = 2) -> None:
        self._fetch, self._range = fetch, range(start, stop)
        self._queue: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue(maxsize=ahead)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="prefetch", daemon=True)

    def __enter__(self) -> Prefetch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def __iter__(self) -> Iterator[Any]:
        for _ in self._range:
            item, error = self._queue.get()
            if error is not None:
                raise error
            yield item

    def _work(self) -> None:
        for step in self._range:
            try:
                result: tuple[Any, BaseException | None] = (self._fetch(step), None)
            except BaseException as error:  # handed to the consumer, which raises it
                result = (None, error)
            while not self._ended.is_set():
                try:
                    self._queue.put(result, timeout=0.2)
                    break
                except queue.Full:
                    continue
            if self._ended.is_set() or result[1] is not None:
                return


def pinned(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """The batch with its tensors in page-locked memory, if it is to go to a GPU."""
    if device.type != "cuda":
        return batch
    return {k: v.pin_memory() if isinstance(v, torch.Tensor) else v for k, v in batch.items()}


def to_device(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """The batch with its tensors on ``device``; lists are kept as they are."""
    return {k: v.to(device, non_blocking=True) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}


def colour_jitter(batch: dict[str, Any], strength: float) -> dict[str, Any]:
    """Vary brightness, contrast and colour balance of each image; geometry stays as it is.

    Args:
        batch: an encoded batch; ``images.*`` are float (B, …, 3, H, W) in [-1, 1]. It is not changed.
        strength: the largest relative change of brightness and contrast; of each channel, half of it.

    Returns a new dict. The draws come from torch's global generator.
    """
    if strength <= 0:
        return batch
    result = dict(batch)
    for key in sorted(k for k in batch if k.startswith("images.")):
        image = batch[key]
        shape = (len(image), *[1] * (image.dim() - 4), 5, 1, 1)  # all of a sample's history looks alike
        draws = (torch.rand(shape, device=image.device, dtype=image.dtype) * 2 - 1) * strength
        brightness, contrast, balance = draws.split((1, 1, 3), dim=-3)
        contrast = 1 + contrast
        gains = (1 + brightness) * (1 + balance / 2)
        # With pixels p in [0, 1] of mean m: gains * (contrast * (p - m) + m). As one affine map of [-1, 1] it is
        # three times as fast.
        mean = (image.mean(dim=(-3, -2, -1), keepdim=True) + 1) / 2
        offset = gains * (contrast + 2 * mean * (1 - contrast)) - 1
        result[key] = torch.addcmul(offset, image, gains * contrast).clamp_(-1, 1)
    return result
