"""Three checks that an agent truly sees and reads: take a sense away, or swap the words, and watch what it does.

- ``blank_image``: all cameras black. Success should fall to near zero.
- ``shuffled_instruction``: the sentence of another episode with another goal. Success should fall to chance.
- ``swapped_item``: the sentence names another item on the same desk. That item should be moved, not the first one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from vla.contracts import Observation, VlaError
from vla.eval.statistics import rate_of
from vla.rollout.loop import EpisodeRequest, EpisodeResult, RolloutInterrupted

Play = Callable[..., list[EpisodeResult]]


def blank_image(observation: Observation, request: EpisodeRequest) -> Observation:
    """The observation with all images black."""
    return replace(observation, images={name: np.zeros_like(image) for name, image in observation.images.items()})


class ShuffledInstruction:
    """Gives each episode the sentence of another one that has another goal.

    Args:
        results: finished episodes, whose sentences are dealt out.

    Attributes:
        sentences: episode index to the foreign sentence. Episodes for which no other goal exists are left out.
    """

    def __init__(self, results: Sequence[EpisodeResult]) -> None:
        self.sentences: dict[int, str] = {}
        for place, result in enumerate(results):
            others = [*results[place + 1 :], *results[:place]]
            foreign = next((other for other in others if _goal(other) != _goal(result)), None)
            if foreign is not None:
                self.sentences[result.index] = foreign.instruction

    def __call__(self, observation: Observation, request: EpisodeRequest) -> Observation:
        """The observation with the foreign sentence."""
        return replace(observation, instruction=self.sentences[request.index])


def _goal(result: EpisodeResult) -> tuple[Any, ...]:
    asked = sorted(item["name"] for item in result.items if item["asked"]) if result.kind == "named" else []
    return result.kind, result.category, *asked


def run_checks(
    play: Play, episodes: Sequence[EpisodeRequest], results: Sequence[EpisodeResult], can_swap: bool = True
) -> dict[str, dict[str, Any]]:
    """Run the three checks on episodes that were already played as they are.

    Args:
        play: ``play(episodes, observation_filter=...)`` runs episodes with the agent in question.
        episodes: what was played.
        results: what became of it, in the same order; the reference.
        can_swap: whether the env has ``sentence_for(item)``, a sentence that asks for one of its items by name.

    Returns:
        check name to ``expected`` (a sentence), ``success`` and ``reference`` (rates with intervals) and, for
        ``swapped_item``, ``moved_named`` (the item that the sentence names) and ``moved_original``, or ``skipped``
        (why).
    """
    checks: dict[str, dict[str, Any]] = {}

    def check(name: str, expected: str, run: Callable[[], dict[str, Any]]) -> None:
        """One that can't be made says why, and costs no other."""
        try:
            checks[name] = {"expected": expected, **run()}
        except RolloutInterrupted:
            raise
        except VlaError as error:
            checks[name] = {"expected": expected, "skipped": str(error)}

    def blank() -> dict[str, Any]:
        return {"success": _success(play(episodes, observation_filter=blank_image)), "reference": _success(results)}

    def shuffle() -> dict[str, Any]:
        shuffled = ShuffledInstruction(results)
        subset = [request for request in episodes if request.index in shuffled.sentences]
        if not subset:
            raise VlaError("it needs episodes with at least two different goals")
        foreign = play(subset, observation_filter=shuffled)
        reference = [result for result in results if result.index in shuffled.sentences]
        return {"success": _success(foreign), "reference": _success(reference)}

    def swap() -> dict[str, Any]:
        if not can_swap:
            raise VlaError("the env has no sentence_for(item)")
        swaps = []
        for request in episodes:
            options = {name: value for name, value in request.options.items() if name != "category"}
            swaps.append(replace(request, swap=True, options={**options, "kind": "named"}))
        swapped = play(swaps)
        named = [_placed(result, result.swapped_to) for result in swapped]
        first = [any(item["placed"] for item in result.items if item["asked"]) for result in swapped]
        return {
            "success": _success(swapped),
            "moved_named": rate_of(named).to_dict(),
            "moved_original": rate_of(first).to_dict(),
        }

    check("blank_image", "near zero: without eyes there is nothing to reach for", blank)
    check("shuffled_instruction", "chance: it does what another episode's sentence says", shuffle)
    check("swapped_item", "it moves the item that the sentence names, and leaves the first one", swap)
    return checks


def _placed(result: EpisodeResult, name: str | None) -> bool:
    return any(item["placed"] for item in result.items if item["name"] == name)


def _success(results: Sequence[EpisodeResult]) -> dict[str, Any]:
    return rate_of([result.success for result in results]).to_dict()
