"""Windows of demonstrations: a frame and the actions that begin there, as training draws them from a frame cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from vla.contracts import VlaError
from vla.data.frames import FrameCache


class Windows:
    """What training draws from: a frame, and the actions of the ``chunk`` steps that begin there.

    Every frame of every chosen episode at which the expert acted may begin a window; past the end of the expert's
    turn, mostly the episode's end, the last action is repeated and marked invalid.

    Args:
        cache: the frames.
        chunk: actions in a window.
        sub_instruction_probability: how often a window's text is what the expert was doing at that frame, in place
            of the episode's instruction.
        episodes: use these episodes only, by number; all if None.
        paraphrase: called as ``paraphrase(text, rng)``; gives another sentence of the same meaning, so that a sentence
            is hardly ever seen twice. None keeps the recorded ones.
        observation_steps: which frames, counted from a window's first, its images and states are of; more than one give
            them another dimension. Before an episode's begin there is its first frame, again and again.
        decision_steps, decision_repeat: windows that begin within ``decision_steps`` frames of a new sub-instruction
            count ``decision_repeat`` times. There the sentence decides where to go; later the arm's own place gives
            it away, and a policy that sees mostly such frames learns to look at the nearest thing, not to read.
        whoever: whether windows begin at an agent's frames too: for what does not learn their actions.
        plan_steps: of a policy of two systems: what it sees are two frames, the first up to so many before the second,
            drawn for each window. ``observation_steps`` is not heeded then.

    Raises:
        VlaError: if ``episodes`` names one that is not there, or none.
    """

    def __init__(
        self,
        cache: FrameCache,
        chunk: int,
        sub_instruction_probability: float = 0.0,
        episodes: list[int] | None = None,
        paraphrase: Callable[[str, np.random.Generator], str] | None = None,
        decision_steps: int = 0,
        decision_repeat: int = 1,
        observation_steps: tuple[int, ...] = (0,),
        whoever: bool = False,
        plan_steps: int | None = None,
    ) -> None:
        count = len(cache.bounds) - 1
        chosen = list(range(count)) if episodes is None else list(episodes)
        if not chosen or min(chosen) < 0 or max(chosen) >= count:
            raise VlaError(f"windows need episodes from 0 to {count - 1}, and got {chosen or 'none'}")
        if chunk < 1 or not 0 <= sub_instruction_probability <= 1:
            raise VlaError(
                f"a window needs chunk >= 1 and a probability from 0 to 1, and got {chunk} and "
                f"{sub_instruction_probability}"
            )
        self.cache, self.chunk, self.sub_instruction_probability = cache, chunk, sub_instruction_probability
        self.paraphrase, self.observation_steps, self.plan_steps = paraphrase, observation_steps, plan_steps
        rows = np.concatenate([np.arange(cache.bounds[e], cache.bounds[e + 1]) for e in chosen])
        self.frames_once = rows if whoever else rows[cache.columns["by_expert"][rows] > 0]
        decisive = self.frames_once[_frames_since_new_task(cache)[self.frames_once] < decision_steps]
        self.starts = np.concatenate((self.frames_once, np.tile(decisive, max(decision_repeat - 1, 0))))
        self.ends = _ends_of_turns(cache)

    def __len__(self) -> int:
        return len(self.starts)

    def batch(self, indices: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:
        """Gather windows.

        Args:
            indices: int (B,), each from 0 to ``len(self) - 1``.
            rng: decides which windows get their sub-instruction, and how it is worded.

        Returns:
            SI units, nothing normalised: ``images.{camera}`` uint8 (B, H, W, 3), ``state`` float32 (B, S),
            ``actions`` float32 (B, chunk, A) absolute, ``valid`` bool (B, chunk), ``instruction`` a list of B
            strings, ``points.{camera}`` float32 (B, 6). Of K > 1 ``observation_steps``, images are (B, K, H, W, 3) and
            states (B, K, S). With ``plan_steps`` K is 2, and there is ``doing``, a list of B sub-instructions at the
            first of the two.
        """
        rows = self.starts[np.asarray(indices)]
        words = {"instruction": self.words(rows, rng)}
        seen = self.seen(rows) if self.plan_steps is None else self._planned(rows, self.plan_steps, rng)
        return seen | self.targets(rows) | words | self._points(rows)

    def _planned(self, rows: np.ndarray, most: int, rng: np.random.Generator) -> dict[str, Any]:
        """What two systems see, the first one up to ``most`` frames before; and what is being done there."""
        before = np.maximum(rows - rng.integers(0, most, len(rows), endpoint=True), self._first(rows))
        doing = [self.cache.sub_instructions[which] for which in self.cache.columns["sub_instruction"][before]]
        return self._seen(np.stack((before, rows), axis=1)) | {"doing": doing}

    def _first(self, rows: np.ndarray) -> np.ndarray:
        """The first frame of each one's episode, int (B,)."""
        return self.cache.bounds[np.searchsorted(self.cache.bounds, rows, side="right") - 1]

    def seen(self, rows: np.ndarray) -> dict[str, Any]:
        """Images and states at frames ``rows``, int (B,), as ``batch`` has them."""
        if self.observation_steps == (0,):
            return self._seen(rows)
        return self._seen(np.maximum(rows[:, None] + self.observation_steps, self._first(rows)[:, None]))

    def _seen(self, seen: np.ndarray) -> dict[str, Any]:
        import torch

        images = {f"images.{name}": self._pictures(name, seen) for name in self.cache.frames}
        return {**images, "state": torch.from_numpy(self.cache.columns["state"][seen])}

    def targets(self, rows: np.ndarray) -> dict[str, Any]:
        """``actions`` and ``valid`` of windows that begin at frames ``rows``, int (B,), as ``batch`` has them."""
        import torch

        columns, ends = self.cache.columns, self.ends[rows][:, None]
        steps = rows[:, None] + np.arange(self.chunk)
        return {
            "actions": torch.from_numpy(columns["action"][np.minimum(steps, ends - 1)]),
            "valid": torch.from_numpy(steps < ends),
        }

    def words(self, rows: np.ndarray, rng: np.random.Generator) -> list[str]:
        """A sentence for each of the frames ``rows``, int (B,), drawn as ``batch`` draws it."""
        cache, columns = self.cache, self.cache.columns
        use_sub = rng.random(len(rows)) < self.sub_instruction_probability
        found = [
            cache.sub_instructions[sub] if use else cache.instructions[whole]
            for use, sub, whole in zip(
                use_sub, columns["sub_instruction"][rows], columns["instruction"][rows], strict=True
            )
        ]
        return [self.paraphrase(text, rng) for text in found] if self.paraphrase is not None else found

    def _points(self, rows: np.ndarray) -> dict[str, Any]:
        import torch

        return {
            f"points.{name}": torch.from_numpy(self.cache.columns[f"points.{name}"][rows]) for name in self.cache.frames
        }

    def _pictures(self, camera: str, rows: np.ndarray) -> Any:
        return self.cache.pictures(camera, rows.reshape(-1)).unflatten(0, rows.shape)


def _ends_of_turns(cache: FrameCache) -> np.ndarray:
    """For each frame, the row after the last one of its stretch by one actor in one episode, int (N,)."""
    actor, episode = cache.columns["by_expert"], cache.columns["episode"]
    last = np.ones(len(actor), dtype=bool)
    last[:-1] = (actor[1:] != actor[:-1]) | (episode[1:] != episode[:-1])
    ends = np.nonzero(last)[0] + 1
    return ends[np.searchsorted(ends, np.arange(len(actor)), side="right")]


def _frames_since_new_task(cache: FrameCache) -> np.ndarray:
    """For each frame, how many frames ago the sub-instruction, or the expert's turn, began, int (N,)."""
    columns = [cache.columns[name] for name in ("sub_instruction", "episode", "by_expert")]
    rows = np.arange(len(cache))
    begins = np.ones(len(cache), dtype=bool)
    begins[1:] = np.any([column[1:] != column[:-1] for column in columns], axis=0)
    return rows - np.maximum.accumulate(np.where(begins, rows, 0))
