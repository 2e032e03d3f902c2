"""What perturbations do to the desk: graded, independent of one another, and never impossible."""

import colorsys
from collections.abc import Iterator

import numpy as np
import pytest

from envs.tabletop.distractors import COUNTS, KINDS, PALETTE
from envs.tidy_desk import goals, items, reading
from envs.tidy_desk import layout as tidy_layout
from envs.tidy_desk.task import TidyDesk
from vla.perturb.axes import STRENGTHS

EVERYTHING = dict.fromkeys(TidyDesk.PERTURBATIONS, "strong")


@pytest.fixture(scope="module")
def desk() -> Iterator[TidyDesk]:
    made = TidyDesk(cameras_px=32)
    yield made
    made.close()


def facts(desk: TidyDesk, seed: int, **harder: str) -> dict[str, list]:
    """What each axis may change, read from the scene after a reset."""
    desk.reset(seed=seed, options={"perturb": harder, "split": "heldout", "items": 4})
    model = desk.tabletop.model
    bodies = [model.body(i) for i in range(model.nbody)]
    return {
        "camera": [model.cam_pos.tolist(), model.cam_quat.tolist(), model.cam_fovy.tolist()],
        "light": [model.light_dir.tolist(), model.light_diffuse.tolist(), model.vis.headlight.ambient.tolist()],
        "texture": [model.tex_data.tobytes(), model.geom("floor").rgba.tolist()],
        "distractors": [(b.name, b.pos.tolist()) for b in bodies if b.name.startswith("distractor")],
        "layout": [(p.x, p.y, p.yaw) for p in desk.scene.placed],
        "language": [desk.instruction, desk.language],
        "state": desk.tabletop.controller.q.tolist(),
    }


def test_each_axis_changes_its_own_and_adding_others_changes_no_draw(desk: TidyDesk) -> None:
    for seed in (3, 4):
        calm, everything = facts(desk, seed), facts(desk, seed, **EVERYTHING)
        for axis in TidyDesk.PERTURBATIONS:
            alone = facts(desk, seed, **{axis: "strong"})
            assert [name for name in alone if alone[name] != calm[name]] == [axis]
            if axis != "distractors":  # they keep clear of items, wherever those are
                assert alone[axis] == everything[axis]
        without_layout = {axis: strength for axis, strength in EVERYTHING.items() if axis != "layout"}
        assert (
            facts(desk, seed, **without_layout)["distractors"] == facts(desk, seed, distractors="strong")["distractors"]
        )


def test_strengths_are_graded(desk: TidyDesk) -> None:
    def distance(seed: int, axis: str, strength: str) -> float:
        calm, harder = facts(desk, seed)[axis], facts(desk, seed, **{axis: strength})[axis]
        if axis == "texture":
            calm, harder = ([np.frombuffer(one[0], np.uint8).astype(float)] for one in (calm, harder))
        return float(sum(np.abs(np.subtract(a, b)).mean() for a, b in zip(calm, harder, strict=True)))

    for axis in ("camera", "light", "state"):
        for seed in (5, 6, 7):
            found = [distance(seed, axis, strength) for strength in STRENGTHS]
            assert 0 < found[0] < found[1] < found[2], (axis, seed)
    means = [np.mean([distance(seed, "texture", strength) for seed in (5, 6, 7)]) for strength in STRENGTHS]
    assert 0 < means[0] < means[1] < means[2]


def test_a_moved_camera_still_sees_the_whole_area(desk: TidyDesk) -> None:
    for seed in range(12):
        desk.reset(seed=seed, options={"perturb": {"camera": "strong"}})
        assert all(desk.tabletop.project("scene", corner)[2] for corner in tidy_layout.CORNERS)
        assert desk.tabletop.model.camera("scene").fovy[0] < 60


@pytest.mark.parametrize("strength", STRENGTHS)
def test_layout_is_beyond_training_and_within_reach(desk: TidyDesk, strength: str) -> None:
    least, most = tidy_layout.BEYOND[strength]
    moved = total = 0
    for seed in range(8):
        desk.reset(seed=seed, options={"perturb": {"layout": strength}, "items": 5})
        for index, placed in enumerate(desk.scene.placed):
            low, high = tidy_layout.AREA_LOW, tidy_layout.AREA_HIGH
            excess = max(low[0] - placed.x, placed.x - high[0], low[1] - placed.y, placed.y - high[1])
            beyond = excess >= least - 1e-9
            assert excess <= most + 1e-9 and (beyond or index > 0), "the first item, asked for, is always moved"
            assert np.hypot(placed.x, placed.y) < 0.741
            assert desk.tabletop.project("scene", desk.scene.positions[index])[2] == 1.0
            drift = np.hypot(*(desk.scene.positions[index][:2] - (placed.x, placed.y)))
            assert drift < 0.003 and abs(desk.scene.positions[index][2] - placed.item.size[2]) < 0.003
            moved, total = moved + beyond, total + 1
    assert moved / total > 0.85


@pytest.mark.parametrize("strength", STRENGTHS)
def test_distractors_lie_in_view_and_clear_of_what_matters(desk: TidyDesk, strength: str) -> None:
    for seed in range(6):
        count = 3 + seed % 3
        calm = desk.reset(seed=seed, options={"items": count})[1]
        info = desk.reset(seed=seed, options={"items": count, "perturb": {"distractors": strength}})[1]
        assert info == calm, "they are not among the items"
        model, data = desk.tabletop.model, desk.tabletop.data
        found = [model.body(i) for i in range(model.nbody) if model.body(i).name.startswith("distractor")]
        assert len(found) == COUNTS[strength] or (count == 5 and len(found) == COUNTS[strength] - 1), "a full desk"
        ids = {body.id for body in found}
        for contact in data.contact[: data.ncon] if data.ncon else []:
            assert not ids & {int(model.geom_bodyid[g]) for g in contact.geom}, "touches nothing at the start"
        for body in found:
            assert desk.tabletop.project("scene", np.array(body.pos))[2] == 1.0
            assert np.linalg.norm(desk.scene.positions[:, :2] - body.pos[:2], axis=1).min() > 0.03


def test_distractors_look_like_nothing_that_is_asked_for() -> None:
    assert not set(KINDS) & {noun.replace("_", " ") for noun in goals.NOUNS}
    for colour in PALETTE:
        hue, saturation, value = colorsys.rgb_to_hsv(*colour)
        named = [name for name, ranges in items._HUES.items() for low, high in ranges if low <= hue <= high]
        assert not named or saturation < 0.35 or value < 0.45, "items are more colourful"


@pytest.mark.parametrize("strength", STRENGTHS)
def test_the_arm_starts_elsewhere_and_above_the_table(desk: TidyDesk, strength: str) -> None:
    home = desk.tabletop.controller.home
    for seed in range(10):
        desk.reset(seed=seed, options={"perturb": {"state": strength}})
        off = np.abs(desk.tabletop.controller.q - home)
        assert off.min() > 0.03 and off.max() > 0.09, "training starts within 0.06 rad"
        assert 0.1 < desk.tabletop.position[2] < 0.5 and desk.tabletop.rotation[2, 2] < -0.7
        assert not desk.tabletop.touching() and not any(desk.scene.inside) and not desk.scene.disturbed


def test_other_words_ask_for_the_same(desk: TidyDesk) -> None:
    languages = set()
    for seed in range(12):
        calm = desk.reset(seed=seed, options={"split": "heldout"})[1]
        for strength in STRENGTHS:
            raw, info = desk.reset(seed=seed, options={"split": "heldout", "perturb": {"language": strength}})
            said = info["instruction"]
            assert said != calm["instruction"] and raw["instruction"] == said and raw in desk.observation_space
            assert reading.parse(said) == desk.goal, said
            assert goals.language_of(said) == info["language"] == desk.language
            assert (info["language"] == calm["language"]) == (strength == "mild")
            assert (info["kind"], info["category"], info["items"]) == (calm["kind"], calm["category"], calm["items"])
            languages.add(info["language"])
    assert languages == {"en", "zh"}


def test_the_expert_succeeds_under_all_of_it_at_once(desk: TidyDesk) -> None:
    for seed in (61, 62):
        desk.reset(seed=seed, options={"perturb": EVERYTHING, "split": "heldout", "kind": "named"})
        expert = desk.expert(seed=seed)
        while True:
            result = desk.play(expert.act().action)
            if result.terminated or result.truncated:
                break
        assert result.info["success"] and not result.info["disturbed"]
