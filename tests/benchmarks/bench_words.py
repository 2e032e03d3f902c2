"""How often an agent looks at the right thing when it is told in words that no grammar wrote (``tests/own_words.py``).

For each item of some fresh scenes there is one sentence of each sort: the grammar's own (held-out), one by hand with
the colour's usual name, one by hand with another name for the colour.

    python -m tests.benchmarks.bench_words --scenes 200
"""

from __future__ import annotations

import argparse
from typing import Any, cast

import numpy as np
import torch

import tests.own_words as own_words
from envs.tidy_desk import TidyDesk
from envs.tidy_desk.goals import LANGUAGES, Goal
from envs.tidy_desk.instructions import write
from envs.tidy_desk.phrases import COLOR_WORDS
from vla.contracts import episode_seed
from vla.eval.statistics import rate_of
from vla.nn.resampler import pointing_accuracy
from vla.normalise import Normaliser

SORTS = ("grammar", "by hand", "by hand, another colour word")


def sentence(sort: str, color: str, noun: str, language: str, rng: np.random.Generator) -> str:
    """One for an item."""
    if sort == "grammar":
        return write(Goal("named", item=(color, noun)), language, "heldout", rng)
    forms = own_words.SENTENCES[language][noun]
    colors = own_words.COLORS[language][color] if sort == SORTS[2] else (COLOR_WORDS[language][color],)
    return forms[int(rng.integers(len(forms)))].format(c=colors[int(rng.integers(len(colors)))])


def measure(trunk: Any, normaliser: Normaliser, scenes: int, seed: int = 0) -> dict[tuple[str, str], list[bool]]:
    """(sort, language) to whether the first slot pointed at the item, for each item that the scene camera sees."""
    env, rng = TidyDesk(), np.random.default_rng(seed)
    found: dict[tuple[str, str], list[bool]] = {(sort, language): [] for sort in SORTS for language in LANGUAGES}
    trunk.eval()
    for index in range(scenes):
        env.reset(seed=episode_seed("evaluate", seed, index), options={"split": "heldout", "items": 4})
        seen, told = env.observe(), []
        for number, placed in enumerate(env.scene.placed):
            if placed.item.color in own_words.COLORS["en"] and env.scene.points_of(number)["scene"][2]:
                told += [
                    (key, number, sentence(key[0], placed.item.color, placed.item.noun, key[1], rng)) for key in found
                ]
        images = {f"images.{name}": torch.from_numpy(image)[None] for name, image in seen.images.items()}
        batch: dict[str, Any] = images | {"state": torch.from_numpy(seen.state)[None]}
        batch["instruction"] = [text for _, _, text in told]
        with torch.no_grad():
            pointing = cast(Any, trunk)._look(normaliser.encode(batch))[3]
        points = torch.from_numpy(np.stack([env.scene.points_of(number)["scene"] for _, number, _ in told]))
        for row, (key, _, _) in enumerate(told):
            found[key].append(bool(pointing_accuracy(pointing[-1][0][row : row + 1], points[row : row + 1])))
    env.close()
    return found


def table(found: dict[tuple[str, str], list[bool]]) -> str:
    """A line for each sort and language."""
    lines = []
    for (sort, language), right in found.items():
        rate = rate_of(right)
        lines.append(f"{language} {sort}: {rate.rate:.1%} ({rate.low:.1%} to {rate.high:.1%}, n = {rate.n})")
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    from vla.agent import load

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agent", default="tidy_desk")
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="of the evaluation, as in vla eval")
    args = parser.parse_args()
    agent = load(args.agent)
    print(table(measure(cast(Any, agent.policy).trunk, agent.normaliser, args.scenes, args.seed)))


if __name__ == "__main__":
    main()
