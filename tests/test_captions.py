"""What is said of the desk, and the outcomes that are written into it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from envs.tidy_desk.outcomes import OUTCOMES
from envs.tidy_desk.task import TidyDesk
from vla.contracts import VlaError
from vla.contracts.captions import DIFFERENCES, Arranges, Captions


@pytest.fixture(scope="module")
def desk() -> Iterator[TidyDesk]:
    made = TidyDesk()
    yield made
    made.close()


def test_the_desk_can_do_it(desk: TidyDesk) -> None:
    assert isinstance(desk, Captions) and isinstance(desk, Arranges)
    desk.reset(seed=0)
    with pytest.raises(VlaError, match="there is no outcome 'gone'; known: done, beside"):
        desk.arrange("gone", np.random.default_rng(0))


@pytest.mark.parametrize("outcome", [name for name in OUTCOMES if name != "mixed"])
def test_an_outcome_is_what_it_is_called(desk: TidyDesk, outcome: str) -> None:
    for seed in (4, 9):
        desk.reset(seed=seed, options={"kind": "named"})
        rng = np.random.default_rng(seed)
        assert not desk.wishes(rng)[0].done
        desk.arrange(outcome, rng)
        index = desk.scene.asked.index(True)
        item = desk.scene.placed[index].item
        assert desk.wishes(rng)[0].done == (outcome == "done"), desk.shortfall()
        assert (desk.scene.held == index) == (outcome == "held")
        wrong = [c for c in desk.scene.receptacles if c != item.category]
        at = desk.scene.positions[index]
        within = [c for c, one in desk.scene.receptacles.items() if (np.abs(one.local(at)[:2]) < one.half).all()]
        assert within == {"done": [item.category], "held": [item.category], "beside": []}.get(outcome, within)
        assert outcome != "elsewhere" or (len(within) == 1 and within[0] in wrong)


def test_captions_and_what_differs_from_them(desk: TidyDesk) -> None:
    rng = np.random.default_rng(1)
    kinds = set[str]()
    for seed in range(6):
        desk.reset(seed=seed, options={"stage": "midway"})
        desk.arrange("mixed", rng)
        for one in desk.captions(rng):
            assert one.language in ("en", "zh") and len(one.wrong) == len(one.differs) == len(set(one.wrong))
            assert one.text not in one.wrong and set(one.differs) <= set(DIFFERENCES)
            kinds |= set(one.differs)
            parts = one.text.replace("，", ",").split(",")
            for other in one.wrong:
                others = other.replace("，", ",").split(",")
                assert sum(a != b for a, b in zip(parts, others, strict=True)) == 1, "one of its parts is another"
    assert kinds == set(DIFFERENCES)


def test_wishes_are_of_their_split(desk: TidyDesk) -> None:
    desk.reset(seed=3, options={"split": "heldout"})
    train, held = ({w.text for w in desk.wishes(np.random.default_rng(2), split)} for split in ("train", "heldout"))
    assert len(train) > 3 and not train & held
