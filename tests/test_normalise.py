"""Scaling happens in one place, and undoes itself."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from vla.contracts import CameraSpec, EnvSpec, Group, SpecMismatchError, VlaError, episode_seed, groups_of
from vla.normalise import FLOOR, Normaliser

SPEC = EnvSpec("s", (CameraSpec("eye", 8, 8),), ("x", "y"), ("x", "y", "grip"), 0.1, 10, relative=((0, 0), (1, 1)))


def data(n: int = 500) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    state = rng.normal(3.0, 2.0, (n, 2)).astype(np.float32)
    offsets = rng.normal(0.0, 0.1, (n, 4, 2)) * np.arange(1, 5)[None, :, None]
    actions = np.concatenate((state[:, None] + offsets, np.full((n, 4, 1), 0.25)), axis=-1).astype(np.float32)
    return state, actions


def test_encoded_data_has_unit_scale_at_each_step_and_decodes_to_itself() -> None:
    state, actions = data()
    n = Normaliser.fit(state, actions, SPEC)
    batch = {"state": torch.from_numpy(state), "actions": torch.from_numpy(actions)}
    encoded = n.encode(batch)
    assert torch.allclose(encoded["state"].std(0), torch.ones(2), atol=0.01)
    assert torch.allclose(encoded["actions"][..., :2].std(0), torch.ones(4, 2), atol=0.02)
    assert torch.allclose(n.decode(encoded["actions"], batch["state"]), batch["actions"], atol=1e-5)


def test_a_constant_dimension_is_scaled_by_the_floor() -> None:
    n = Normaliser.fit(*data(), SPEC)
    assert torch.allclose(n.action_std[:, 2], torch.full((4,), FLOOR))


def test_images_become_floats_here_and_nowhere_else() -> None:
    n = Normaliser.fit(*data(), SPEC)
    image = torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 2, 1).expand(1, 8, 2, 3)
    out = n.encode({"images.eye": image, "state": torch.zeros(1, 2)})["images.eye"]
    assert out.shape == (1, 3, 8, 2) and out.min() == -1 and out.max() == 1


def test_a_missing_statistic_is_named() -> None:
    tensors = Normaliser.fit(*data(), SPEC).tensors()
    del tensors["action_std"]
    with pytest.raises(VlaError, match=r"action_std.*present.*state_mean"):
        Normaliser.from_tensors(tensors, SPEC)


@pytest.mark.parametrize(
    "spoil", [lambda s, a: (s[:0], a[:0]), lambda s, a: (s * np.nan, a), lambda s, a: (s[:, :1], a)]
)
def test_bad_data_is_refused(spoil) -> None:
    with pytest.raises(VlaError, match="cannot fit statistics"):
        Normaliser.fit(*spoil(*data()), SPEC)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("cameras", (CameraSpec("nose", 8, 8),)),
        ("cameras", (CameraSpec("eye", 16, 16),)),
        ("dt", 0.05),
        ("action", ("x", "y", "suction")),
        ("state", ("x",)),
    ],
)
def test_a_mismatch_prints_both_sides(field: str, value) -> None:
    other = dataclasses.replace(SPEC, **{field: value})
    with pytest.raises(SpecMismatchError) as caught:
        SPEC.require(other, "agent a", "env b")
    message = str(caught.value)
    assert field in message and "agent a" in message and "env b" in message
    SPEC.require(dataclasses.replace(SPEC, name="else", episode_steps=3), "a", "b")


def test_spec_survives_json() -> None:
    assert EnvSpec.from_dict(SPEC.to_dict()) == SPEC


def test_groups_say_what_names_only_hint_at() -> None:
    groups = (Group("tool", 0, 2, "position", "m", "base"), Group("grip", 2, 3, "gripper", "1"))
    spec = dataclasses.replace(SPEC, action_groups=groups)
    assert EnvSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec and spec.groups("action") == groups
    assert groups_of(("ee_x [m]", "ee_y [m]", "gripper [0..1]", "q1 [rad]", "q2 [rad]", "heat [K]", "dx [cm]")) == (
        Group("ee_x", 0, 2, "position", "m"),
        Group("gripper", 2, 3, "gripper", "1"),
        Group("q1", 3, 5, "joint", "rad"),
        Group("heat", 5, 6, "other", "K"),
        Group("dx", 6, 7, "position", "cm", delta=True),
    )
    for wrong in (
        groups[:1],
        groups[::-1],
        (*groups, groups[1]),
        (dataclasses.replace(groups[0], kind="nose"), groups[1]),
    ):
        with pytest.raises(SpecMismatchError, match="action_groups of s"):
            dataclasses.replace(SPEC, action_groups=wrong)


@pytest.mark.parametrize("change", [{"delta": True}, {"unit": "cm"}, {"frame": "world"}, {"kind": "other"}])
def test_groups_that_mean_something_else_do_not_fit(change: dict) -> None:
    tool = Group("tool", 0, 2, "position", "m", "base")
    groups = (tool, Group("grip", 2, 3, "gripper", "1"))
    spec = dataclasses.replace(SPEC, action_groups=groups)
    spec.require(
        dataclasses.replace(spec, action_groups=(dataclasses.replace(tool, unit="", frame=""), groups[1])), "a", "b"
    )
    other = dataclasses.replace(spec, action_groups=(dataclasses.replace(tool, **change), groups[1]))
    with pytest.raises(SpecMismatchError, match=r"tool \[0:2\] position m base"):
        spec.require(other, "agent a", "env b")


def test_seed_streams_never_meet() -> None:
    streams = ("record", "validate", "evaluate", "stills", "questions", "rewards")
    seeds = {s: {episode_seed(s, seed, i) for seed in (0, 1, -5, 10**12) for i in range(300)} for s in streams}
    assert sum(map(len, seeds.values())) == len(set().union(*seeds.values()))
    assert all((value < 2**32) == (s in streams[:4]) and value >= 0 for s in streams for value in seeds[s])
    first = {s: episode_seed(s, 7, 3) for s in streams[:4]}
    assert first == {"record": 7000024, "validate": 1080741848, "evaluate": 2154483672, "stills": 3228225496}


@pytest.mark.parametrize(
    ("group", "least"),
    [
        (Group("p", 0, 1, "position", "m"), 1e-2),
        (Group("p", 0, 1, "position", "cm"), 1.0),
        (Group("p", 0, 1, "position", "mm"), 10.0),
        (Group("p", 0, 1, "position", "m", delta=True), 1e-4),
        (Group("p", 0, 1, "position", "cm", delta=True), 1e-2),
        (Group("p", 0, 1, "position"), 1e-2),
        (Group("r", 0, 1, "rotation", "1"), 1e-2),
        (Group("j", 0, 1, "joint", "rad"), 1e-2),
        (Group("g", 0, 1, "gripper", "1"), 1e-2),
    ],
)
def test_the_floor_is_as_long_in_every_unit_and_short_for_displacements(group: Group, least: float) -> None:
    spec = dataclasses.replace(SPEC, state=("x",), action=("x",), relative=(), state_groups=(group,))
    spec = dataclasses.replace(spec, action_groups=(group,))
    fitted = Normaliser.fit(np.full((5, 1), 3.0), np.full((5, 4, 1), 3.0), spec)
    for scale in (fitted.state_std, fitted.action_std):
        assert torch.equal(scale, torch.full_like(scale, least))
