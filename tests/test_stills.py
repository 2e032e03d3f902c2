"""Stills: what is rendered, what is said about it, and when it is made anew."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from tests.fake_env import CHINESE, COLOURS, DotEnv
from vla.contracts import VlaError, episode_seed
from vla.data.stills import Stills, _picked
from vla.data.stills import _name as stills_name
from vla.host.files import claimed
from vla.host.parallel import SlotPool
from vla.perturb import axes as perturb
from vla.registry import EnvRef

ENV = "tests.fake_env:DotEnv"


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., Stills]:
    def made(count: int = 6, seed: int = 0) -> Stills:
        return Stills.build(EnvRef(ENV), DotEnv().env_spec, count, seed, tmp_path / "stills", progress=False)

    return made


def place(folder: Path, count: int = 6, seed: int = 0, **more: Any) -> Path:
    """Where the stills of DotEnv are kept."""
    env_spec = json.loads(json.dumps(DotEnv().env_spec.to_dict()))
    return folder / stills_name({"env": ENV, "env_spec": env_spec, "count": count, "seed": seed} | more)


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
        picked = _picked(stills.bounds, np.array([scene]), count + 1, np.random.default_rng(1))
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
    varied = Stills.build(EnvRef(ENV), spec, 12, 0, folder, progress=False, randomize=("state", "noise"))
    drawn = [perturb.drawn(("state", "noise"), episode_seed("stills", 0, i)) for i in range(12)]
    assert {len(axes) for axes in drawn} == {0, 1, 2}
    apart = (varied.state != calm.state).any(axis=1)
    assert apart.tolist() == [bool(axes) for axes in drawn]
    for now, then, axes in zip(varied.frames["wrist"], calm.frames["wrist"], drawn, strict=True):
        assert ((now != then).mean() > 0.5) == ("noise" in axes)  # in every pixel, not in a dot's alone
    with pytest.raises(VlaError, match="cannot do the perturbation 'camera'"):
        Stills.build(EnvRef(ENV), spec, 12, 0, folder, progress=False, randomize=("camera",))


def test_sentences_are_worded_anew(build: Callable[..., Stills]) -> None:
    batch = build().batch(np.array([2, 0]), 2, np.random.default_rng(0), lambda text, rng: text.upper())
    assert batch["instruction"] == [text.upper() for text in batch["instruction"]] and len(batch["instruction"]) == 4


def test_a_seed_gives_the_same_stills_and_another_seed_others(tmp_path: Path) -> None:
    spec = DotEnv().env_spec
    made = [
        Stills.build(EnvRef(ENV), spec, 5, seed, tmp_path / str(i), progress=False) for i, seed in enumerate((3, 3, 4))
    ]
    first, same, other = (stills.batch(np.arange(5), 2, np.random.default_rng(0)) for stills in made)
    assert first["instruction"] == same["instruction"]
    assert (first["images.scene"] == same["images.scene"]).all() and (
        first["points.scene"] == same["points.scene"]
    ).all()
    assert (first["images.scene"] != other["images.scene"]).any()


def test_kept_stills_are_opened_and_changed_ones_made_anew(
    build: Callable[..., Stills], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = place(tmp_path / "stills", 7)

    def stamp() -> int:
        return (root / "stills.json").stat().st_mtime_ns

    build(count=7)
    kept = stamp()
    build(count=7)
    assert stamp() == kept
    frames = np.load(root / "frames.scene.npy")
    frames[0] = 255 - frames[0]  # the env no longer renders what is kept
    np.save(root / "frames.scene.npy", frames)
    assert capsys.readouterr().out == ""
    again = Stills.build(EnvRef(ENV), DotEnv().env_spec, 7, 0, tmp_path / "stills")
    assert stamp() != kept and (np.asarray(again.frames["scene"][0]) != frames[0]).any()
    said = capsys.readouterr().out
    assert "no longer renders the stills" in said and str(root) in said
    assert "rendering 7 stills" in said and "a minute at most" in said
    (root / "points.scene.npy").write_bytes(b"cut short")
    assert len(Stills.build(EnvRef(ENV), DotEnv().env_spec, 7, 0, tmp_path / "stills")) == 7
    assert "are damaged: they are made anew" in capsys.readouterr().out


def test_stills_of_other_settings_are_left_alone(build: Callable[..., Stills], tmp_path: Path) -> None:
    first = build()
    assert build(seed=1).fingerprint != first.fingerprint != build(count=7).fingerprint
    spec = DotEnv(quality="fine").env_spec
    options = {"quality": "fine"}
    Stills.build(EnvRef(ENV, options), spec, 6, 0, tmp_path / "stills", progress=False)
    Stills.build(EnvRef(ENV), spec, 6, 0, tmp_path / "stills", progress=False, randomize=("state",))
    folders = [place(tmp_path / "stills", *one) for one in ((6, 0), (6, 1), (7, 0))]
    folders += [place(tmp_path / "stills", **more) for more in ({"env_options": options}, {"randomize": ["state"]})]
    assert sorted(folders) == sorted(file.parent for file in (tmp_path / "stills").glob("*/stills.json"))
    stamps = [(folder / "stills.json").stat().st_mtime_ns for folder in folders]
    assert build().fingerprint == first.fingerprint and build(seed=1).fingerprint != first.fingerprint
    assert stamps == [(folder / "stills.json").stat().st_mtime_ns for folder in folders]


def test_stills_are_of_the_env_with_its_options(tmp_path: Path) -> None:
    spec = DotEnv(cameras_px=16).env_spec
    stills = Stills.build(EnvRef(ENV, {"cameras_px": 16}), spec, 3, 0, tmp_path, progress=False)
    assert stills.frames["scene"].shape == (3, 16, 16, 3)


def test_interrupted_stills_are_taken_up_again(
    build: Callable[..., Stills], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = build(count=200).batch(np.arange(200), 1, np.random.default_rng(0))
    root = place(tmp_path / "stills", 200)
    part = root.with_name(f"{root.name}.part")
    shutil.rmtree(root)
    monkeypatch.setattr("vla.data.stills.available_cpus", lambda: 1)
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
    assert not part.exists() and not list(root.glob("round*"))
    assert again["instruction"] == whole["instruction"] and (again["images.scene"] == whole["images.scene"]).all()
    assert (again["points.scene"] == whole["points.scene"]).all()


def test_of_two_runs_one_waits_for_the_other(build: Callable[..., Stills], tmp_path: Path) -> None:
    made: list[Stills] = []
    second = threading.Thread(target=lambda: made.append(build()))
    root = place(tmp_path / "stills")
    root.parent.mkdir()
    with FileLock(root.with_name(f"{root.name}.lock")):
        second.start()
        second.join(timeout=1.0)
        assert second.is_alive() and not root.with_name(f"{root.name}.part").exists()
    second.join()
    assert len(made[0]) == 6


def test_stills_begun_by_other_code_are_made_anew(build: Callable[..., Stills], tmp_path: Path) -> None:
    root = place(tmp_path / "stills")
    part = root.with_name(f"{root.name}.part")
    part.mkdir(parents=True)
    (part / "begun.json").write_text("[]")
    (part / "round_0000000.npz").write_bytes(b"of long ago")
    assert len(build(count=6)) == 6 and not part.exists()


def test_what_cannot_be_rendered_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VlaError, match="record anew"):
        Stills.build(EnvRef(ENV), DotEnv(cameras=1).env_spec, 2, 0, tmp_path / "a", progress=False)
    thesis = place(tmp_path / "b", 2) / "thesis.txt"
    thesis.parent.mkdir(parents=True)
    thesis.write_text("keep me")
    with pytest.raises(VlaError, match="no stills"):
        Stills.build(EnvRef(ENV), DotEnv().env_spec, 2, 0, tmp_path / "b", progress=False)
    assert thesis.read_text() == "keep me"
    with pytest.raises(VlaError, match=r"--data\.stills 0"):
        Stills.build(EnvRef("tests.test_abilities:BareDots"), DotEnv().env_spec, 2, 0, tmp_path / "c", progress=False)


def test_an_interruption_is_prompt_and_says_what_is_kept(tmp_path: Path) -> None:
    """Workers that render are not waited for: one takes a minute for its scenes here."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    script = "from tests.test_stills import render_slowly; render_slowly()"
    with subprocess.Popen(
        [sys.executable, "-u", "-c", script, str(tmp_path)], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert "roughly 4 minutes" in process.stdout.readline()
        time.sleep(0.5)
        since = time.monotonic()
        process.send_signal(signal.SIGINT)
        said = process.stdout.read()
        assert process.wait() != 0 and time.monotonic() - since < 2.0
    assert "the stills so far are kept" in said


@pytest.mark.parametrize("does", ["render_slowly()", "claims(Path(sys.argv[1]))"])
def test_a_script_without_a_guard_is_told_and_does_not_hang(does: str, tmp_path: Path) -> None:
    """Its workers read it first, and would wait for the lock that it holds."""
    script = tmp_path / "script.py"
    script.write_text(f"import sys\nfrom pathlib import Path\nfrom tests.test_stills import *\n{does}\n")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    words = [sys.executable, str(script), str(tmp_path / "out")]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode != 0 and 'put what it does under if __name__ == "__main__":' in done.stderr


def claims(folder: Path) -> None:
    """Work in a folder, in two processes."""
    with claimed(folder, "a test"), closing(SlotPool(DotEnv, 2, 2)) as pool:
        pool.call({0: ("reset",), 1: ("reset",)})


def render_slowly() -> None:
    """Render what takes minutes, in two processes; for the test above."""
    import vla.data.stills

    vla.data.stills.available_cpus = lambda: 2  # type: ignore[attr-defined]
    vla.data.stills.Photographer.pace_s = lambda self, seed: 3.2  # type: ignore[method-assign]
    Stills.build(EnvRef("tests.test_stills:SlowEnv"), DotEnv().env_spec, 150, 0, sys.argv[1])


class SlowEnv(DotEnv):
    """It takes its time for a scene."""

    def reset(self, **given: Any) -> Any:
        time.sleep(1.0)
        return super().reset(**given)
