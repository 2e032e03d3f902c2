"""Stills: what is rendered, what is said about it, and when it is made anew."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from tests.fake_env import CHINESE, COLOURS, DotEnv
from vla import perturb
from vla.contracts import VlaError, episode_seed
from vla.parallel import SlotPool
from vla.stills import Stills

ENV = "tests.fake_env:DotEnv"


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., Stills]:
    def made(count: int = 6, seed: int = 0) -> Stills:
        return Stills.build(ENV, DotEnv().env_spec, count, seed, tmp_path / "stills", progress=False)

    return made


def colour_at(image: np.ndarray, point: np.ndarray) -> tuple[int, ...]:
    column, row = ((point[:2] + 1) / 2 * image.shape[0]).astype(int).clip(0, image.shape[0] - 1)
    return tuple(image[row, column].tolist())


def test_points_show_what_the_sentence_asks_for(build: Callable[..., Stills]) -> None:
    stills = build(12)
    batch = stills.batch(np.arange(12), 3, np.random.default_rng(0))
    assert batch["images.scene"].shape == (12, 32, 32, 3) and batch["state"].shape == (12, 3)
    assert len(batch["instruction"]) == 36 and batch["points.wrist"].shape == (36, 6)
    named = 0
    for i, text in enumerate(batch["instruction"]):
        colours = [name for name in COLOURS if name in text or f"{CHINESE[name]}点" in text]
        if len(colours) == 1:  # the others ask for several dots
            seen = colour_at(batch["images.scene"][i // 3].numpy(), batch["points.scene"][i].numpy())
            assert seen == COLOURS[colours[0]]
            named += 1
    assert named > 20


def test_sentences_of_a_scene_differ_while_there_are_others(build: Callable[..., Stills]) -> None:
    stills = build()
    for scene in range(6):
        count = int(stills.bounds[scene + 1] - stills.bounds[scene])
        picked = stills._pick(scene, count + 1, np.random.default_rng(1))
        assert len(set(picked)) == count and set(picked) <= set(range(*stills.bounds[scene : scene + 2]))


def test_yaws_belong_to_what_the_sentence_asks_for(build: Callable[..., Stills]) -> None:
    batch = build(12).batch(np.arange(12), 3, np.random.default_rng(0))
    assert batch["yaws"].shape == (36, 4)
    for text, yaws in zip(batch["instruction"], batch["yaws"].numpy(), strict=True):
        colours = [name for name in COLOURS if name in text or f"{CHINESE[name]}点" in text]
        if yaws.any():  # the episode's own instruction comes without
            assert len(colours) == 1
            np.testing.assert_array_equal(yaws, DotEnv.yaws_of(colours[0]))
    assert batch["yaws"].any(dim=1).sum() > 20


def test_offsets_belong_to_what_the_sentence_asks_for(build: Callable[..., Stills]) -> None:
    batch, env = build(12).batch(np.arange(12), 3, np.random.default_rng(0)), DotEnv()
    assert batch["offsets"].shape == (36, 6)
    for i, (text, offsets) in enumerate(zip(batch["instruction"], batch["offsets"].numpy(), strict=True)):
        if np.isfinite(offsets[:2]).all():  # the episode's own instruction comes without
            env.reset(seed=episode_seed("stills", 0, i // 3), options={"stage": "midway"})
            colour = next(name for name in COLOURS if name in text or f"{CHINESE[name]}点" in text)
            np.testing.assert_array_equal(offsets, env.offsets_of(colour))
    assert batch["offsets"][:, 0].isfinite().sum() > 20


def test_randomized_scenes_are_other_scenes(build: Callable[..., Stills], tmp_path: Path) -> None:
    calm = build(12)
    spec, folder = DotEnv().env_spec, tmp_path / "varied"
    varied = Stills.build(ENV, spec, 12, 0, folder, progress=False, randomize=("state", "noise"))
    drawn = [perturb.drawn(("state", "noise"), episode_seed("stills", 0, i)) for i in range(12)]
    assert {len(axes) for axes in drawn} == {0, 1, 2}
    apart = (varied.state != calm.state).any(axis=1)
    assert apart.tolist() == [bool(axes) for axes in drawn]
    for now, then, axes in zip(varied.frames["wrist"], calm.frames["wrist"], drawn, strict=True):
        assert ((now != then).mean() > 0.5) == ("noise" in axes)  # in every pixel, not in a dot's alone
    with pytest.raises(VlaError, match="cannot do the perturbation 'camera'"):
        Stills.build(ENV, spec, 12, 0, folder, progress=False, randomize=("camera",))


def test_sentences_are_worded_anew(build: Callable[..., Stills]) -> None:
    batch = build().batch(np.array([2, 0]), 2, np.random.default_rng(0), lambda text, rng: text.upper())
    assert batch["instruction"] == [text.upper() for text in batch["instruction"]] and len(batch["instruction"]) == 4


def test_a_seed_gives_the_same_stills_and_another_seed_others(tmp_path: Path) -> None:
    spec = DotEnv().env_spec
    made = [Stills.build(ENV, spec, 5, seed, tmp_path / str(i), progress=False) for i, seed in enumerate((3, 3, 4))]
    first, same, other = (stills.batch(np.arange(5), 2, np.random.default_rng(0)) for stills in made)
    assert first["instruction"] == same["instruction"]
    assert (first["images.scene"] == same["images.scene"]).all() and (
        first["points.scene"] == same["points.scene"]
    ).all()
    assert (first["images.scene"] != other["images.scene"]).any()


def test_kept_stills_are_opened_and_changed_ones_made_anew(build: Callable[..., Stills], tmp_path: Path) -> None:
    def stamp() -> int:
        return (tmp_path / "stills/stills.json").stat().st_mtime_ns

    build()
    kept = stamp()
    build()
    assert stamp() == kept
    build(count=7)
    changed = stamp()
    assert changed != kept and len(build(count=7)) == 7
    frames = np.load(tmp_path / "stills/frames.scene.npy")
    frames[0] = 255 - frames[0]  # the env no longer renders what is kept
    np.save(tmp_path / "stills/frames.scene.npy", frames)
    again = build(count=7)
    assert stamp() != changed and (np.asarray(again.frames["scene"][0]) != frames[0]).any()
    (tmp_path / "stills/points.scene.npy").write_bytes(b"cut short")
    assert len(build(count=7)) == 7


def test_interrupted_stills_are_taken_up_again(
    build: Callable[..., Stills], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, part = build(count=200).batch(np.arange(200), 1, np.random.default_rng(0)), tmp_path / "stills.part"
    shutil.rmtree(tmp_path / "stills")
    monkeypatch.setattr("vla.stills.available_cpus", lambda: 1)
    call = SlotPool.call

    def interrupted(pool: SlotPool, asked: dict[int, tuple]) -> dict[int, Any]:
        if asked[0][2] == 128:
            raise KeyboardInterrupt
        return call(pool, asked)

    monkeypatch.setattr(SlotPool, "call", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(count=200)
    asked_for: list[int] = []

    def counted(pool: SlotPool, asked: dict[int, tuple]) -> dict[int, Any]:
        asked_for.append(asked[0][2])
        return call(pool, asked)

    monkeypatch.setattr(SlotPool, "call", counted)
    again = build(count=200).batch(np.arange(200), 1, np.random.default_rng(0))
    assert asked_for == [128, 192], "what was rendered is kept"
    assert not part.exists() and not list(tmp_path.glob("stills/round*"))
    assert again["instruction"] == whole["instruction"] and (again["images.scene"] == whole["images.scene"]).all()
    assert (again["points.scene"] == whole["points.scene"]).all()


def test_of_two_runs_one_waits_for_the_other(build: Callable[..., Stills], tmp_path: Path) -> None:
    made: list[Stills] = []
    second = threading.Thread(target=lambda: made.append(build()))
    with FileLock(tmp_path / "stills.lock"):
        second.start()
        second.join(timeout=1.0)
        assert second.is_alive() and not (tmp_path / "stills.part").exists()
    second.join()
    assert len(made[0]) == 6


def test_stills_begun_by_other_code_are_made_anew(build: Callable[..., Stills], tmp_path: Path) -> None:
    part = tmp_path / "stills.part"
    part.mkdir()
    (part / "begun.json").write_text("[]")
    (part / "round_0000000.npz").write_bytes(b"of long ago")
    assert len(build(count=6)) == 6 and not part.exists()


def test_what_cannot_be_rendered_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(VlaError, match="record anew"):
        Stills.build(ENV, DotEnv(cameras=1).env_spec, 2, 0, tmp_path / "a", progress=False)
    (tmp_path / "b").mkdir()
    (tmp_path / "b/thesis.txt").write_text("keep me")
    with pytest.raises(VlaError, match="no stills"):
        Stills.build(ENV, DotEnv().env_spec, 2, 0, tmp_path / "b", progress=False)
    assert (tmp_path / "b/thesis.txt").read_text() == "keep me"
    monkeypatch.delattr(DotEnv, "referring_expressions")
    with pytest.raises(VlaError, match=r"--data\.stills 0"):
        Stills.build(ENV, DotEnv().env_spec, 2, 0, tmp_path / "c", progress=False)
