"""Contexts of a trunk that does not learn, worked out once: its head then trains without looking at a picture."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vla.contracts import VlaError
from vla.data.caches import made_whole
from vla.data.windows import Windows
from vla.nn.policy import Policy
from vla.normalise import Normaliser
from vla.train.sampling import batch_rng, to_device

BATCH = 64  # frames that are encoded together
_PART = 2**30  # apart from the parts of any training step and of validation


class ContextWindows:
    """Windows whose batches hold, in place of pictures and sentences, the context of one of R sentences about each.

    Args:
        windows: what is trained on.
        root: the folder that ``remember`` wrote.

    Attributes:
        text: which of the M tokens are of the sentence, bool (M,); None where the trunk does not tell.
    """

    def __init__(self, windows: Windows, root: Path) -> None:
        self.windows, self._tokens = windows, np.load(root / "tokens.npy", mmap_mode="r")
        mask, text = root / "mask.npy", root / "text.npy"
        self._mask = np.load(mask, mmap_mode="r") if mask.exists() else None
        self.text = torch.from_numpy(np.load(text)) if text.exists() else None

    def __len__(self) -> int:
        return len(self.windows)

    def batch(self, indices: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:
        """As ``Windows.batch``, with ``tokens`` float16 (B, M, D) and, of a trunk that has one, ``mask`` (B, M)."""
        rows = self.windows.starts[np.asarray(indices)]
        place = np.searchsorted(self.windows.frames_once, rows)
        which = rng.integers(self._tokens.shape[1], size=len(rows))
        state = torch.from_numpy(self.windows.cache.columns["state"][rows])
        batch = self.windows.targets(rows) | {"state": state, "tokens": torch.from_numpy(self._tokens[place, which])}
        return batch if self._mask is None else batch | {"mask": torch.from_numpy(self._mask[place, which])}


def with_contexts(
    windows: Windows, policy: Policy, normaliser: Normaliser, sentences: int, seed: int, home: Path, key: str
) -> ContextWindows:
    """The contexts of all frames of ``windows``, each with so many sentences: found in ``home``, or made.

    Args:
        windows: with one observation each.
        policy: its trunk encodes; its weights stay as they are.
        normaliser: of the same agent as the trunk.
        sentences: drawn for each frame, as training would draw them.
        seed: of these draws.
        home: a folder for caches.
        key: what else the draws depend on, e.g. the name of the function that words sentences anew.
    """
    trunk: torch.nn.Module = policy.trunk  # type: ignore[assignment]
    digest = hashlib.sha256(f"{windows.cache.fingerprint} {sentences} {seed} {key} {type(trunk).__name__}".encode())
    digest.update(windows.frames_once.tobytes())
    for name, value in [*sorted(trunk.state_dict().items()), *sorted(normaliser.tensors().items())]:
        if not name.startswith("action_"):
            digest.update(
                name.encode() + value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
            )
    root = home / "contexts" / digest.hexdigest()[:16]
    if not (root / "tokens.npy").exists():
        with made_whole(root) as folder:
            _write(windows, policy, normaliser, sentences, seed, folder)
    return ContextWindows(windows, root)


@torch.no_grad()
def _write(windows: Windows, policy: Policy, normaliser: Normaliser, sentences: int, seed: int, folder: Path) -> None:
    from vla.host.progress import Progress

    device, count = normaliser.state_mean.device, len(windows.frames_once)
    trunk: Any = policy.trunk
    arrays: dict[str, np.ndarray] = {}
    policy.eval()
    with Progress() as bar:
        task = bar.add_task("encoding frames", total=count)
        for begin in range(0, count, BATCH):
            rows = windows.frames_once[begin : begin + BATCH]
            rng = batch_rng(seed, begin, _PART)
            texts = [windows.words(rows, rng) for _ in range(sentences)]
            batch = windows.seen(rows) | {
                "instruction": [text for of_frame in zip(*texts, strict=True) for text in of_frame]
            }
            if not trunk.shares_images:
                batch = _each(batch, lambda value: value.repeat_interleave(sentences, dim=0))
            context = trunk.encode(normaliser.encode(to_device(policy.prepare(batch), device)))
            if len(context.extras.get("layers", ())) > 1:
                raise VlaError("--trunk_from keeps one layer of a trunk, and this head reads several")
            found = {"tokens": context.tokens.half(), "mask": context.mask}
            for name, value in found.items():
                if value is None:
                    continue
                part = value.cpu().view(len(rows), sentences, *value.shape[1:]).numpy()
                if begin == 0:
                    shape = (count, *part.shape[1:])
                    arrays[name] = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", part.dtype, shape)
                arrays[name][begin : begin + len(rows)] = part
            bar.advance(task, len(rows))
    if context.text is not None:
        np.save(folder / "text.npy", context.text.cpu().numpy())
    for array in arrays.values():
        array.flush()  # type: ignore[attr-defined]


def _each(batch: dict[str, Any], change: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, Any]:
    return {key: change(value) if isinstance(value, torch.Tensor) else value for key, value in batch.items()}
