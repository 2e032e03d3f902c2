"""How good the weights are while they train: loss on held-out episodes, right answers, success in the closed loop."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from vla.contracts import VlaError, episode_seed
from vla.contracts.questions import ABSENT, UNSEEN
from vla.data.frames import FrameCache
from vla.data.stills import Stills
from vla.data.windows import Windows
from vla.eval.statistics import Rate, rate_of
from vla.nn.context import Speaks
from vla.normalise import Normaliser
from vla.recipe import Recipe
from vla.registry import EnvRef
from vla.train.sampling import batch_rng, seed_torch, to_device

BATCHES = 4
SCENES = 48  # that are held out for questions, at most as many as are trained on
_EACH, _TOGETHER = 6, 24  # questions about each scene, scenes at once
_FIRST_PART = 2**31  # apart from the parts of any training step, so that the draws differ from training's


def usable_episodes(cache: FrameCache, only_success: bool) -> list[int]:
    """The dataset's episode numbers, those that failed left out if asked. Raises VlaError where none remains."""
    count = len(cache.bounds) - 1
    found = [e for e in range(count) if not only_success or cache.columns["success"][cache.bounds[e]]]
    if not found:
        raise VlaError(f"none of the dataset's {count} episodes succeeded; to train on them: --data.only_success false")
    return found


def split_episodes(
    episodes: list[int], share: float, tasks: Sequence[int] | None = None
) -> tuple[list[int], list[int]]:
    """Episodes to train on and to hold out: the last ``share`` of them, none where there are fewer than 5.

    With ``tasks``, the task of each of the dataset's episodes, they are the last of each task, as many as its size
    gives it, and one of each stays: fewer are held out where tasks have a single episode.
    """
    wanted = max(1, round(len(episodes) * share)) if len(episodes) >= 5 and share > 0 else 0
    of = {episode: tasks[episode] if tasks is not None else 0 for episode in episodes}
    sizes, held = Counter(of.values()), set[int]()
    left = Counter(sizes)
    for fair in (True, False):  # each task its part first; then whatever may go
        for episode in reversed(episodes):
            task = of[episode]
            part = math.ceil(wanted * sizes[task] / len(episodes)) if fair else sizes[task]
            if len(held) < wanted and episode not in held and left[task] > max(1, sizes[task] - part):
                held.add(episode)
                left[task] -= 1
    return [e for e in episodes if e not in held], [e for e in episodes if e in held]


def hold_out(cache: FrameCache, only_success: bool, share: float) -> tuple[list[int], list[int], list[str]]:
    """The usable episodes to train on and to hold out, and lines on what is unusual about that.

    No task is held out whole: for others' datasets an instruction is a task. The sentences that ``vla record`` wrote
    may all differ; where they do, the last episodes are held out, since a sentence is no task there.

    Raises VlaError where no episode is usable.
    """
    usable = usable_episodes(cache, only_success)
    tasks = cache.columns["instruction"][cache.bounds[:-1]].tolist()
    kept, held = split_episodes(usable, share, tasks)
    wanted = len(split_episodes(usable, share)[1])
    if not held and not cache.mapping:
        kept, held = split_episodes(usable, share)
    if len(held) < wanted:
        return kept, held, [
            f"{len(held)} of {wanted} episode(s) are held out for the validation loss: others are the only ones of "
            "their task"
        ]  # fmt: skip
    return kept, held, []


@torch.no_grad()
def held_out_loss(
    module: Callable[[dict[str, Any]], tuple[torch.Tensor, dict[str, torch.Tensor]]],
    windows: Windows,
    normaliser: Normaliser,
    batch_size: int,
    seed: int,
    device: torch.device,
    prepare: Callable[[dict[str, Any]], dict[str, Any]],
) -> float:
    """The mean loss on a few batches spread over ``windows``: the same samples and draws at each call."""
    size = min(batch_size, len(windows))
    count = min(BATCHES, len(windows) // size)
    indices = np.linspace(0, len(windows) - 1, size * count).astype(np.int64)
    total = 0.0
    for number, chosen in enumerate(np.split(indices, count)):
        seed_torch(seed, 0, _FIRST_PART + number)
        raw = prepare(windows.batch(chosen, batch_rng(seed, 0, _FIRST_PART + number)))
        loss, _ = module(normaliser.encode(to_device(raw, device)))
        total += float(loss.mean()) / count
    return total


@torch.no_grad()
def answer_scores(
    trunk: Speaks,
    stills: Stills,
    normaliser: Normaliser,
    prepare: Callable[[dict[str, Any]], dict[str, Any]],
    device: torch.device,
) -> dict[str, float]:
    """The share of right answers about scenes that are held out, letter by letter: of all, by kind and by words.

    ``invented`` is the share of questions about absent things that got an answer, ``refused`` that of the others that
    got none.
    """
    right: dict[str, list[bool]] = defaultdict(list)
    for first in range(0, len(stills), _TOGETHER):
        rows = np.arange(first, min(first + _TOGETHER, len(stills)))
        picked = np.concatenate([_spread(stills, int(row)) for row in rows])
        batch = to_device(prepare(stills.asked_rows(rows, picked)), device)
        said = trunk.answer(normaliser.encode(batch))
        for number, words, truth in zip(picked, said, batch["answer"], strict=True):
            kind, language, split = (stills.questions[name][number] for name in ("kind", "language", "split"))
            for name in ("accuracy", f"accuracy_{kind}", f"accuracy_{language}", f"accuracy_{split}_words"):
                right[name].append(words == truth)
            unseen = words == UNSEEN[language]
            right["invented" if kind == ABSENT else "refused"].append(unseen != (kind == ABSENT))
    return {name: float(np.mean(found)) for name, found in sorted(right.items())}


def _spread(stills: Stills, row: int) -> np.ndarray:
    """A few of a scene's questions, which begin elsewhere from scene to scene: of all kinds in the end."""
    first, last = (int(one) for one in stills.asked[row : row + 2])
    return first + (row + np.arange(_EACH) * 7) % (last - first)


def closed_loop(recipe: Recipe, agent: Any, env: EnvRef, stopped: Callable[[], bool]) -> tuple[Rate, float]:
    """Let ``agent`` play the recipe's validation episodes in ``env``. Returns success with its interval, and progress.

    Raises vla.rollout.loop.RolloutInterrupted soon after ``stopped()`` has become true.
    """
    from vla.rollout.loop import EpisodeRequest, EpisodeResult, run_episodes

    validate, config = recipe.validate, recipe.policy_config
    requests = [EpisodeRequest(i, episode_seed("validate", recipe.seed, i)) for i in range(validate.episodes)]

    def on_episode(_: EpisodeResult) -> None:
        if stopped():
            raise KeyboardInterrupt

    execute = min(getattr(config, "execute", config.chunk), config.chunk)
    results = run_episodes(env, agent, requests, workers=validate.workers, execute=execute, on_episode=on_episode)
    return rate_of([r.success for r in results]), float(np.mean([r.progress for r in results]))
