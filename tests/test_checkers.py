"""The desk's success, checked by hand: outcomes that are written into the simulator, right ones and wrong ones.

Policies that do nothing, or anything, are measured by ``tests/benchmarks/bench_checkers.py``; few episodes stand here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from envs.tidy_desk.task import HOLD_STEPS, TidyDesk
from tests.benchmarks.bench_checkers import POLICIES, succeeds
from vla import registry

SEEDS = {"pens": 3, "blocks": 12, "waste": 5}


@pytest.fixture(scope="module")
def desk() -> Iterator[TidyDesk]:
    made = TidyDesk()
    yield made
    made.close()


@pytest.fixture(params=SEEDS)
def asked(request: pytest.FixtureRequest, desk: TidyDesk) -> str:
    """The category of the one item that is asked for."""
    desk.reset(seed=SEEDS[request.param], options={"kind": "named", "category": request.param})
    return str(request.param)


def target(desk: TidyDesk) -> int:
    assert desk.scene.target is not None
    return desk.scene.target


def put(desk: TidyDesk, index: int, at: Any, turn: Any = (1.0, 0.0, 0.0, 0.0), speed: Any = (0.0, 0.0, 0.0)) -> None:
    """An item at a place, metres, with a quaternion and a velocity."""
    tabletop, name = desk.tabletop, desk.scene.placed[index].item.name
    joint = tabletop.model.joint(name)
    tabletop.data.qpos[joint.qposadr[0] : joint.qposadr[0] + 7] = (*at, *turn)
    tabletop.data.qvel[joint.dofadr[0] : joint.dofadr[0] + 6] = (*speed, 0.0, 0.0, 0.0)


def wait(desk: TidyDesk, steps: int) -> list[bool]:
    """Whether it is a success after each of so many steps in which the arm rests, its gripper open."""
    action = np.concatenate((desk.tabletop.position, [1, 0, 0, 0, -1, 0, 1]))
    return [bool(desk.play(action).info["success"]) for _ in range(steps)]


def lengthwise(desk: TidyDesk, category: str) -> np.ndarray:
    """The quaternion of an item that lies along its receptacle."""
    yaw = desk.scene.receptacles[category].lengthwise[0]
    return np.array([math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2)])


def inside(desk: TidyDesk, category: str, height: float = 0.03) -> tuple[float, float, float]:
    receptacle = desk.scene.receptacles[category]
    return receptacle.x, receptacle.y, height


def test_what_rests_in_its_place_for_a_while_is_a_success(desk: TidyDesk, asked: str) -> None:
    put(desk, target(desk), inside(desk, asked), lengthwise(desk, asked))
    after = wait(desk, 12)
    first = after.index(True)
    assert first >= HOLD_STEPS - 1 and all(after[first:])


def test_upside_down_is_tidy_too(desk: TidyDesk, asked: str) -> None:
    turned = np.zeros(4)
    w, _, _, z = lengthwise(desk, asked)
    turned[:] = (0.0, w, z, 0.0)  # half a turn around its own length, after that
    put(desk, target(desk), inside(desk, asked), turned)
    assert wait(desk, 12)[-1]


def test_beside_it_is_none(desk: TidyDesk, asked: str) -> None:
    receptacle, index = desk.scene.receptacles[asked], target(desk)
    long = desk.scene.placed[index].item.size[0]
    for side in (-1, 1):
        x, y = receptacle.world(0.0, side * (receptacle.outside[1] + max(long, 0.02) + 0.01))
        put(desk, index, (x, y, 0.02), lengthwise(desk, asked))
        assert not any(wait(desk, 8))


def test_in_another_place_is_none(desk: TidyDesk, asked: str) -> None:
    for other in desk.scene.receptacles.keys() - {asked}:
        put(desk, target(desk), inside(desk, other), lengthwise(desk, other))
        assert not any(wait(desk, 8)), other


def test_over_it_is_none(desk: TidyDesk, asked: str) -> None:
    """Held there by nothing: put back before it has fallen."""
    for _ in range(8):
        put(desk, target(desk), inside(desk, asked, 0.25), lengthwise(desk, asked))
        assert wait(desk, 1) == [False]


def test_through_a_wall_is_none(desk: TidyDesk, asked: str) -> None:
    """Its middle in the wall, one end inside: put back before the wall has pushed it out."""
    receptacle, index = desk.scene.receptacles[asked], target(desk)
    turn = receptacle.yaw
    for _ in range(5):
        x, y = receptacle.world(receptacle.half[0] + 0.004, 0.0)
        put(desk, index, (x, y, 0.02), (math.cos(turn / 2), 0.0, 0.0, math.sin(turn / 2)))
        assert wait(desk, 1) == [False]


def test_thrown_in_and_bounced_out_is_none(desk: TidyDesk, asked: str) -> None:
    receptacle, index = desk.scene.receptacles[asked], target(desk)
    start = desk.scene.positions[index].copy()
    for _ in range(3):  # and the short stays do not add up
        put(desk, index, inside(desk, asked), lengthwise(desk, asked))
        assert not any(wait(desk, HOLD_STEPS - 1))
        put(desk, index, start)
        assert not any(wait(desk, 1))
    x, y, z = inside(desk, asked)
    put(desk, index, (x, y, z), lengthwise(desk, asked), speed=(0.0, 0.0, 2.0))
    assert not any(wait(desk, 2)), "on its way out"
    assert receptacle.wall < 0.1


def test_in_the_grip_is_none(desk: TidyDesk) -> None:
    """Lowered between the walls and not let go, for as long as one likes; then let go."""
    desk.reset(seed=SEEDS["blocks"], options={"kind": "named", "category": "blocks"})
    expert, index, box = desk.expert(), target(desk), desk.scene.receptacles["blocks"]
    while desk.scene.held is None or math.dist(desk.scene.positions[index][:2], (box.x, box.y)) > 0.01:
        action = expert.act().action
        result = desk.play(action)
        assert not (result.terminated or result.truncated)
    action = action.copy()
    action[2], action[-1] = 0.03, 0.0
    inside = []
    for _ in range(20):
        result = desk.play(action)
        inside.append(desk.scene.inside[index] and desk.scene.held == index)
        assert not result.info["success"]
    assert sum(inside) > HOLD_STEPS
    action[-1] = 1.0
    assert any(desk.play(action).info["success"] for _ in range(15))


def test_the_wrong_item_is_none_even_beside_the_right_one(desk: TidyDesk, asked: str) -> None:
    wrong = desk.scene.asked.index(False)
    put(desk, wrong, inside(desk, asked))
    assert not any(wait(desk, 6))
    put(desk, target(desk), inside(desk, asked, 0.05), lengthwise(desk, asked))
    assert not any(wait(desk, 8))


def test_all_but_one_is_none(desk: TidyDesk) -> None:
    desk.reset(seed=3, options={"kind": "all", "items": 4})
    scene, spots = desk.scene, dict.fromkeys(desk.scene.receptacles, 0)
    order = list(range(len(scene.placed)))
    for count, index in enumerate(order, 1):
        category = scene.placed[index].item.category
        receptacle = scene.receptacles[category]
        x, y = receptacle.world(*receptacle.places[spots[category]])
        spots[category] += 1
        put(desk, index, (x, y, 0.03), lengthwise(desk, category))
        after = wait(desk, 10)
        assert any(after) == (count == len(order)), count


@pytest.mark.parametrize("policy", POLICIES)
def test_who_does_not_try_does_not_succeed(policy: str) -> None:
    env = registry.make_env("tidy_desk")
    try:
        assert not any(succeeds(env, policy, seed, steps=40) for seed in range(4))
    finally:
        env.close()
