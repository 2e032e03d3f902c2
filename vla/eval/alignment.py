"""What towers of ``vla.nn.clip`` are worth on scenes that no training saw: retrieval, success and progress.

Scenes are those of evaluation's seeds, with held-out shades, layouts and wishes; captions are worded as in training.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from vla.contracts import VlaError, episode_seed
from vla.contracts.captions import DIFFERENCES
from vla.eval.statistics import mean_of, rate_of
from vla.nn.clip_folder import Scorer

NEAR_MISSES = ("beside", "elsewhere", "held")
_LONGEST = 400  # steps of an episode
_EVERY = 2  # steps between two pictures of an episode
_RESAMPLES = 500


def measure(
    scorer: Scorer, env: Any, scenes: int, episodes: int, seed: int, on_part: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """All measures, as JSON types; see the functions below.

    Args:
        scorer: whom to measure.
        env: it can be captioned and arranged, and has an expert.
        scenes: of retrieval, at least 5.
        episodes: of success and progress, at least 2.
        seed: chooses both.
        on_part: called after each scene and episode.

    Raises VlaError where there are too few, or the expert never succeeds.
    """
    if scenes < 5 or episodes < 2:
        raise VlaError(f"at least 5 scenes and 2 episodes are needed, and {scenes} and {episodes} are asked for")
    found: dict[str, Any] = {"scenes": scenes, "episodes": episodes, "seed": seed}
    found |= {"retrieval": retrieval(scorer, env, scenes, seed, on_part)}
    return found | outcomes(scorer, env, episodes, seed, on_part)


def retrieval(scorer: Scorer, env: Any, count: int, seed: int, on_part: Callable[[], None]) -> dict[str, Any]:
    """Recall at 1 and 5 among ``count`` scenes, each way and language; and how often a wrong word is noticed."""
    pictures, captions = list[np.ndarray](), list[list[Any]]()
    index = 0
    while len(pictures) < count:
        own = episode_seed("evaluate", seed, index)
        index += 1
        env.reset(seed=own, options={"split": "heldout", "stage": "midway"})
        said = env.captions(np.random.default_rng(own), "heldout")
        if said:  # else nothing can be told beyond doubt
            pictures.append(env.observe().images[scorer.camera])
            captions.append(said)
            on_part()
    images = scorer.embed(np.stack(pictures))
    found: dict[str, Any] = {}
    for place, language in enumerate(one.language for one in captions[0]):
        alike = scorer.match(images, [said[place].text for said in captions]).numpy()
        for name, table in (("picture_to_text", alike), ("text_to_picture", alike.T)):
            rank = (table > np.diag(table)[:, None]).sum(axis=1)
            found[f"{language}_{name}"] = {f"recall_at_{k}": rate_of((rank < k).tolist()).to_dict() for k in (1, 5)}
    noticed: dict[str, list[bool]] = {kind: [] for kind in DIFFERENCES}
    for row, said in enumerate(captions):
        for one in said:
            logits = scorer.match(images[row : row + 1], [one.text, *one.wrong])[0].tolist()
            for kind, other in zip(one.differs, logits[1:], strict=True):
                noticed[kind].append(logits[0] > other)
    found["wrong_word_noticed"] = {kind: rate_of(one).to_dict() for kind, one in noticed.items() if one}
    return found


def outcomes(scorer: Scorer, env: Any, count: int, seed: int, on_part: Callable[[], None]) -> dict[str, Any]:
    """Success from the last picture, and progress along episodes of the expert.

    The last pictures of successful episodes are held against their first, against near misses, and against the same
    pictures with other wishes, which are not done in them. ``beside`` and ``elsewhere`` are written into the simulator
    after the success, so that the arm is where it was; in ``held`` the expert has not let go. As failures for the
    progress there are the same episodes with a sentence about another item, which nobody touches.
    """
    pictures: dict[str, list[float]] = {name: [] for name in ("done", "start", "another_wish", *NEAR_MISSES)}
    along: dict[str, list[float]] = {"success": [], "another_item": []}
    fell: list[float] = []
    for index in range(count):
        own_seed = episode_seed("evaluate", seed, index)
        rng = np.random.default_rng([own_seed, 1])
        frames, told, wishes, won = _played(scorer, env, own_seed, rng)
        on_part()
        if not won:
            continue
        last = scorer.embed(frames[-1:])
        pictures["done"] += scorer.success(last, [told]).tolist()
        pictures["start"] += scorer.success(scorer.embed(frames[:1]), [told]).tolist()
        others = [one.text for one in wishes[1:] if not one.done]
        pictures["another_wish"] += scorer.success(last.expand(len(others), -1), others).tolist() if others else []
        embedded = scorer.embed(frames)
        progress = scorer.progress(embedded, [told] * len(frames)).numpy()
        along["success"].append(_rank_correlation(progress))
        _, info = env.reset(seed=own_seed, options={"split": "heldout"})
        spared = [item["name"] for item in info["items"] if not item["asked"]]
        if spared:
            another = env.sentence_for(spared[0])
            along["another_item"].append(_rank_correlation(scorer.progress(embedded, [another] * len(frames)).numpy()))
        for name in NEAR_MISSES:
            if name == "held":
                env.reset(seed=own_seed, options={"split": "heldout"})
            else:
                _played(scorer, env, own_seed, rng, pictures=False)
            env.arrange(name, rng)
            seen = scorer.embed(env.observe().images[scorer.camera][None])
            pictures[name] += scorer.success(seen, [told]).tolist()
            if name == "beside":
                fell.append(float(progress[-1] - scorer.progress(seen, [told])[0]))
    done = np.array(pictures["done"])
    if not len(done):
        raise VlaError(
            f"the expert succeeded in none of {count} episodes, so there is no success to tell from the rest"
        )
    success = {
        name: auc(done, np.array(values), seed) for name, values in pictures.items() if name != "done" and values
    }
    misses = np.concatenate([pictures[name] for name in ("start", *NEAR_MISSES)])
    return {
        "threshold": best_threshold(done, misses),
        "at_threshold": {
            name: rate_of([value >= scorer.threshold for value in values]).to_dict()
            for name, values in pictures.items()
            if values
        },
        "success_auc": success,
        "success_mean": {name: float(np.mean(values)) for name, values in pictures.items() if values},
        "progress_rank_correlation": {name: mean_of(values, seed) for name, values in along.items() if values},
        "falls_when_taken_out": rate_of([one > 0 for one in fell]).to_dict() | {"mean_fall": float(np.mean(fell))},
    }


def _played(
    scorer: Scorer, env: Any, own: int, rng: np.random.Generator, pictures: bool = True
) -> tuple[np.ndarray, str, list[Any], bool]:
    """An episode of the expert: its pictures, its sentence, the wishes at its end, and whether it succeeded."""
    _, info = env.reset(seed=own, options={"split": "heldout"})
    expert, frames, won = env.expert(), [], False
    for step in range(_LONGEST):
        if pictures and step % _EVERY == 0:
            frames.append(env.observe().images[scorer.camera])
        result = env.play(expert.act().action)
        if result.terminated or result.truncated:
            won = bool(result.info["success"])
            break
    frames.append(env.observe().images[scorer.camera])
    return np.stack(frames), info["instruction"], env.wishes(rng, "heldout"), won


def auc(positive: np.ndarray, negative: np.ndarray, seed: int) -> dict[str, float]:
    """The chance that a positive scores above a negative (the area under the ROC curve), with a bootstrap interval."""
    rng = np.random.default_rng(seed)

    def area(one: np.ndarray, other: np.ndarray) -> float:
        difference = one[:, None] - other[None]
        return float((difference > 0).mean() + 0.5 * (difference == 0).mean())

    drawn = [area(rng.choice(positive, len(positive)), rng.choice(negative, len(negative))) for _ in range(_RESAMPLES)]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return {"auc": area(positive, negative), "low": float(low), "high": float(high), "n": len(negative)}


def best_threshold(positive: np.ndarray, negative: np.ndarray) -> float:
    """From where on a score is taken for a positive: where the rates of hits and false alarms differ most (Youden)."""
    scores = np.unique(np.concatenate((positive, negative)))
    between = (scores[:-1] + scores[1:]) / 2 if len(scores) > 1 else scores
    gain = [(positive >= one).mean() - (negative >= one).mean() for one in between]
    return float(between[int(np.argmax(gain))])


def _rank_correlation(values: np.ndarray) -> float:
    """Spearman's, with time."""
    from scipy.stats import spearmanr

    return 0.0 if np.ptp(values) == 0 else float(spearmanr(values, np.arange(len(values))).statistic)
