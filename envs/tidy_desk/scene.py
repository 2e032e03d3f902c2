"""What the simulator knows of an episode on the desk: what lies where, what is asked for, what is to be moved next.

The task decides by it, the expert acts on it, and ``envs.tidy_desk.descriptions`` puts it into words. Policies never
see it.
"""

from __future__ import annotations

import numpy as np

from envs.tabletop.table import CAMERAS, Tabletop
from envs.tidy_desk.demand import Demand
from envs.tidy_desk.items import Receptacle
from envs.tidy_desk.layout import Placed

DISTURBED = 0.03  # metres that an item which was not asked for may move
_RESTING = 0.02  # m/s, below which an item counts as at rest
_STICKY = 0.03  # metres by which another item must be nearer to become the target


class Scene:
    """One episode's things, followed from its start on: call ``look`` whenever the physics has gone on.

    Args:
        tabletop: it has been built with these things in it.
        receptacles: by category.
        placed: the items as they were laid out; everywhere below, an item is its index in this list.
        demand: which of them go where.
        language: ``en`` or ``zh``, for what is said of the scene.
        seed: the episode's.

    Attributes:
        asked: whether each item may be put away.
        positions: the items' centres, metres, (n, 3).
        rotations: their axes in world coordinates, as columns, (n, 3, 3).
        inside, resting: for each item, whether it is in its receptacle, and whether it also lies still and released.
        held: the item between both fingers.
        target: the item to move now; None when everything asked for is in place.
        moved: how far each item is from where it began, metres, (n,).
        disturbed: the items further than DISTURBED from where they began that were not asked for, or are too many.
        early: the items that were put away before their turn.
        touched, gripped: the items that the fingers ever touched, and held.
    """

    def __init__(
        self,
        tabletop: Tabletop,
        receptacles: dict[str, Receptacle],
        placed: list[Placed],
        demand: Demand,
        language: str,
        seed: int,
    ) -> None:
        self.tabletop, self.receptacles, self.placed = tabletop, receptacles, placed
        self.demand, self.asked = demand, demand.asked
        self.language, self.seed = language, seed
        model = tabletop.model
        bodies = [model.body(one.item.name) for one in placed]
        self._body_ids = [int(body.id) for body in bodies]
        self._velocity_at = [int(model.jnt_dofadr[body.jntadr[0]]) for body in bodies]
        unasked = [body for body, wanted in zip(self._body_ids, self.asked, strict=True) if not wanted]
        tabletop.watch([*unasked, *(model.body(r.name).id for r in receptacles.values())])
        self._start = self._item_positions()
        self.touched, self.gripped, self.early = set[int](), set[int](), set[int]()
        self._begun = list[int]()  # the asked-for items that were moved, in the order in which that began
        self.inside = list[bool]()
        self.target: int | None = None
        self.look()

    def _item_positions(self) -> np.ndarray:
        return self.tabletop.data.xpos[self._body_ids].copy()

    def look(self) -> None:
        """Read from the simulator what rests where, what is held and what is to be moved next."""
        touching = self.tabletop.touching()
        data = self.tabletop.data
        self.positions = self._item_positions()
        self.rotations = data.xmat[self._body_ids].reshape(-1, 3, 3).copy()
        before, self.inside, self.resting = self.inside, list[bool](), list[bool]()
        self.held: int | None = None
        for index, placed in enumerate(self.placed):
            ends = self.positions[index] + np.outer((-1, 1), self.rotations[index][:, 0] * placed.item.size[0] * 0.9)
            inside = self.receptacles[self.demand.into[index]].contains(ends)
            pads = [(self._body_ids[index], side) in touching for side in (0, 1)]
            if all(pads):
                self.held = index
                self.gripped.add(index)
            if any(pads):
                self.touched.add(index)
            at = self._velocity_at[index]
            slow = float(np.abs(data.qvel[at : at + 3]).max()) < _RESTING
            self.inside.append(inside)
            self.resting.append(inside and slow and not any(pads))
        self.moved = np.linalg.norm(self.positions - self._start, axis=1)
        far = [i for i, moved in enumerate(self.moved) if moved > DISTURBED]
        self._begun += [i for i in far if self.asked[i] and i not in self._begun]
        self.disturbed = [i for i in far if not self.asked[i] or i in self._begun[self.demand.count :]]
        waiting = [turn for i, turn in enumerate(self.demand.turns) if self.asked[i] and not self.inside[i]]
        for i, turn in enumerate(self.demand.turns):
            if before and self.inside[i] and not before[i] and any(other < turn for other in waiting):
                self.early.add(i)
        self.target = self.choose_target(self.due())

    def due(self) -> list[bool]:
        """Whether each item may be moved now: it is asked for, it is its turn, and no others were begun instead."""
        lying = [i for i, wanted in enumerate(self.asked) if wanted and not self.inside[i]]
        turn = min((self.demand.turns[i] for i in lying), default=max(self.demand.turns))
        count, put = self.demand.count, sum(self.asked) - len(lying) - (self.held is not None)
        others = self._begun if len(self._begun) >= count else range(len(self.asked))
        return [
            wanted and i in others and self.demand.turns[i] <= turn and (i == self.held or put < count)
            for i, wanted in enumerate(self.asked)
        ]

    def choose_target(self, asked: list[bool]) -> int | None:
        """The item in the grip, else the asked-for item out of place that is nearest to the tool over the table.

        The last target stays unless another is nearer by a margin, so that the choice does not flicker.
        """
        if self.held is not None and asked[self.held]:
            return self.held
        away = [i for i, wanted in enumerate(asked) if wanted and not self.inside[i]]
        if not away:
            return None
        tool = self.tabletop.position[:2]
        distance = {i: float(np.linalg.norm(self.positions[i][:2] - tool)) for i in away}
        best = min(away, key=distance.__getitem__)
        if self.target in distance and distance[self.target] < distance[best] + _STICKY:
            return self.target
        return best

    @property
    def progress(self) -> float:
        """The share of the items that are to be put away and rest in their receptacles, 0 to 1."""
        put = sum(r for r, a in zip(self.resting, self.asked, strict=True) if a)
        return min(1.0, put / self.demand.count)

    @property
    def done(self) -> bool:
        """Whether everything asked for rests in its receptacle, nothing else was disturbed and the order was kept."""
        return self.progress == 1.0 and not self.disturbed and not self.early

    def places_of(self, index: int, into: str = "") -> tuple[np.ndarray, np.ndarray]:
        """Where an item is and where it belongs, or the receptacle of a category, metres, each (3,)."""
        receptacle = self.receptacles[into or self.demand.into[index]]
        return self.positions[index], np.array([receptacle.x, receptacle.y, 0.0])

    def points_of(self, index: int | None, into: str = "") -> dict[str, np.ndarray]:
        """Camera name to float32 (6,): u, v, visible of an item, then of its, or another, receptacle's floor centre.

        All six are 0 for None.
        """
        if index is None:
            return {name: np.zeros(6, np.float32) for name in CAMERAS}
        places = self.places_of(index, into)
        seen = {name: [self.tabletop.project(name, place) for place in places] for name in CAMERAS}
        return {name: np.array(values, np.float32).ravel() for name, values in seen.items()}
