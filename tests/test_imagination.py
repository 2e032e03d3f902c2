"""Pictures of what will be: goal pictures, the network, its folder, its training, the command and the measures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from configs import tidy_desk_imagination
from envs.tidy_desk.foreseen import foreseen
from envs.tidy_desk.goals import Goal
from envs.tidy_desk.task import TidyDesk
from tests.test_clip import CaptionedDot
from vla.agent import load as load_agent
from vla.cli import main
from vla.contracts import VlaError
from vla.data.goal_pictures import GoalPictures, pairs
from vla.eval.imagination import frechet
from vla.host.parallel import SlotPool
from vla.nn.config import AutoencoderConfig, ImaginationConfig
from vla.nn.flow import ddim, dpm_solver
from vla.nn.imagination import Imagination
from vla.nn.imagination_folder import Imaginer, checked, load
from vla.nn.latent import Autoencoder
from vla.nn.latent_folder import PictureLatents
from vla.recipe import DataConfig
from vla.registry import EnvRef
from vla.train.imagine import Imagining
from vla.train.trainer import train

ENV = "tests.test_imagination:ForeseeingDot"
LATENT = AutoencoderConfig(width=8, latent_channels=4)
TINY = ImaginationConfig(latent=LATENT, words="", language_width=8, language_depth=1, width=16, depth=1, heads=2)


class ForeseeingDot(CaptionedDot):
    """Dots whose visit can be asked for, and asked to be seen."""

    def foreseen(self, rng: np.random.Generator, split: str = "train") -> list[str]:
        return [self._instruction, f"show me this: {self._instruction}"]


@pytest.fixture
def model() -> Imagination:
    """One whose weights are all at work: those that begin at zero are stirred."""
    torch.manual_seed(0)
    made = Imagination(TINY, (32, 48))
    for parameter in made.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return made


def test_untrained_it_imagines_that_nothing_changes() -> None:
    torch.manual_seed(0)
    made = Imagination(TINY, (32, 48)).eval()
    present, noise = torch.randn(2, 4, 4, 6), torch.randn(2, 4, 4, 6)
    torch.testing.assert_close(made.imagine(present, ["a", "b"], noise, 3, 2.0, "ddim"), present)
    images = 2.0 * torch.rand(2, 3, 32, 48) - 1.0
    torch.testing.assert_close(made.show(images, ["a", "b"], noise, 3, 2.0, "ddim"), images)


def test_every_weight_learns_but_the_autoencoders(model: Imagination) -> None:
    present, goal = torch.randn(16, 4, 4, 6), torch.randn(16, 4, 4, 6)
    model.config = replace(model.config, drop_words=0.5)
    losses, scores = model.loss(present, goal, [f"put {i} away" for i in range(16)])
    assert losses.shape == (16,) and set(scores) == {"error", "changed_error"}
    losses.mean().backward()
    for name, parameter in model.named_parameters():
        learns = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
        assert learns != name.startswith("autoencoder."), name


def test_what_changes_counts_more(model: Imagination) -> None:
    model.eval()
    present, errors = torch.zeros(1, 4, 4, 6), []
    for weight in (0.0, 4.0):
        model.config = replace(model.config, change_weight=weight, drop_words=0.0)
        torch.manual_seed(3)
        losses, _ = model.loss(present, present + 1.0, ["put it away"])  # a deviation of 1 everywhere
        errors.append(float(losses.detach()))
    assert errors[1] == pytest.approx(5.0 * errors[0], rel=1e-5)


def test_words_and_guidance_lead(model: Imagination) -> None:
    model.eval()
    present, noise = torch.randn(2, 4, 4, 6), torch.randn(2, 4, 4, 6)
    texts = ["put the pen away", "把橡皮收好"]

    def imagine(texts: list[str], guidance: float) -> torch.Tensor:
        return model.imagine(present, texts, noise, 2, guidance, "ddim")

    plain, guided, deaf = imagine(texts, 1.0), imagine(texts, 2.0), imagine(texts, 0.0)
    assert not torch.allclose(plain, imagine(texts[::-1], 1.0)) and not torch.allclose(plain, guided)
    torch.testing.assert_close(deaf, imagine(texts[::-1], 0.0))  # guidance 0 does not hear the words
    # One step is linear in the guess: what guidance adds is the difference that the words make.
    one, two, none = (model.imagine(present, texts, noise, 1, g, "ddim") for g in (1.0, 2.0, 0.0))
    torch.testing.assert_close(two - none, 2.0 * (one - none), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("sampler", [ddim, dpm_solver])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_samplers_ask_at_the_right_times_and_end_at_the_guess(sampler: Any, steps: int) -> None:
    asked, data = list[int](), torch.randn(3, 2)

    def estimate(x: torch.Tensor, i: int) -> torch.Tensor:
        asked.append(i)
        return data

    torch.testing.assert_close(sampler(estimate, torch.randn(3, 2), steps), data)
    assert asked == list(range(steps))


def test_the_second_order_comes_nearer() -> None:
    """Data of a normal distribution, whose best guess is known: so is where the path from each noise ends."""
    mean, deviation, noise = 1.5, 0.4, torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]

    def estimate(steps: int) -> Any:
        def of(x: torch.Tensor, i: int) -> torch.Tensor:
            t = i / steps
            return mean + t * deviation**2 / ((1 - t) ** 2 + (t * deviation) ** 2) * (x - t * mean)

        return of

    exact = mean + deviation * noise
    first, second = (float((sampler(estimate(16), noise, 16) - exact).abs().max()) for sampler in (ddim, dpm_solver))
    assert second < 0.3 * first < 0.3


def test_a_picture_of_two_shapes_and_one_that_does_not_fit() -> None:
    with pytest.raises(VlaError, match="pictures of 40x32 pixels do not divide into patches of 2 cells of 8 pixels"):
        Imagination(TINY, (32, 40))
    with pytest.raises(VlaError, match=r"width 10 must be a multiple of --policy\.heads 4"):
        replace(TINY, width=10, heads=4).check("policy.")


# --- what it learns from ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def desk() -> Iterator[TidyDesk]:
    made = TidyDesk()
    yield made
    made.close()


@pytest.mark.parametrize("kind", ["all", "category", "named", "composed"])
def test_the_desks_goal_is_reached_and_nothing_else_is_touched(desk: TidyDesk, kind: str) -> None:
    for seed in range(4):
        desk.reset(seed=seed, options={"kind": kind, "stage": "midway" if seed % 2 else "start"})
        if seed >= 2:
            desk.arrange("mixed", np.random.default_rng(seed))
        desk.scene._start = desk.scene._item_positions()
        desk.scene._begun.clear()
        desk.arrange("done", np.random.default_rng(seed))
        assert desk.scene.progress == 1.0, desk.shortfall()
        still = [moved for moved, asked in zip(desk.scene.moved, desk.scene.asked, strict=True) if not asked]
        assert all(moved < 0.01 for moved in still), "what was not asked for lies where it lay"
        apart = [np.linalg.norm(a - b) for i, a in enumerate(desk.scene.positions) for b in desk.scene.positions[:i]]
        assert min(apart) > 0.01, "no two things in one place"


def test_pairs_of_the_desk(desk: TidyDesk) -> None:
    first, second = pairs(desk, 5, "train", "scene"), pairs(desk, 5, "train", "scene")
    changed = list[float]()
    for (now, goal, texts), (again, *_) in zip(first, second, strict=True):
        assert now.shape == goal.shape == (128, 128, 3) and np.array_equal(now, again)
        changed.append(float((np.abs(now.astype(int) - goal).max(axis=2) > 30).mean()))
        assert len(texts) == 4 and len(set(texts)) == 4
    assert 0.0 < max(changed) < 0.2, "little changes"


def test_what_is_foreseen_in_training_is_not_asked_in_evaluation() -> None:
    rng, said = np.random.default_rng(0), {"train": set[str](), "heldout": set[str]()}
    goals = [Goal("all"), Goal("category", "pens"), Goal("named", item=("red", "pen"))]
    goals.append(Goal("composed", "several", things=(("red", "pen"), ("blue", "block"))))
    for split, sentences in said.items():
        for goal in goals * 60:
            sentences |= {one.lower().rstrip(".。") for one in foreseen(goal, split, rng)}
        assert not any("{" in one or "}" in one for one in sentences)
    assert not said["train"] & said["heldout"]


def test_goal_pictures_are_made_once(tmp_path: Path) -> None:
    made = GoalPictures.build(EnvRef(ENV), 5, 0, tmp_path, progress=False)
    assert made.frames.shape == (6, 2, 32, 32, 3) and [len(one) for one in made.texts] == [2] * 6
    again = GoalPictures.build(EnvRef(ENV), 5, 0, tmp_path, progress=False)
    assert (
        again.fingerprint
        == made.fingerprint
        != GoalPictures.build(EnvRef(ENV), 5, 0, tmp_path, "heldout", progress=False).fingerprint
    )
    (folder,) = tmp_path.glob("goals-train-seed0-6-????????")
    (folder / "texts.json").write_text("{}")
    with pytest.raises(VlaError, match=f"the goal pictures {folder} are damaged: .*; delete the folder"):
        GoalPictures.build(EnvRef(ENV), 5, 0, tmp_path, progress=False)


def test_what_was_rendered_before_an_interruption_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*given: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vla.data.rendered._assemble", interrupted)
    with pytest.raises(KeyboardInterrupt):
        GoalPictures.build(EnvRef(ENV), 40, 0, tmp_path, progress=False)
    monkeypatch.undo()
    assert len(list(tmp_path.glob("goals-*.part/round_*.npz"))) == 3
    next(tmp_path.glob("goals-*.part/round_000008.npz")).unlink()
    asked, call = list[Any](), SlotPool.call
    monkeypatch.setattr(SlotPool, "call", lambda self, given: asked.append(given) or call(self, given))
    made = GoalPictures.build(EnvRef(ENV), 40, 0, tmp_path, progress=False)
    assert [list(one.values()) for one in asked] == [[("shoot", 0, list(range(8, 16)))]] and len(made) == 40
    whole = GoalPictures.build(EnvRef(ENV), 40, 0, tmp_path / "at once", progress=False)
    assert whole.fingerprint == made.fingerprint and np.array_equal(whole.frames, made.frames)


def test_an_env_without_goals_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VlaError, match="has no words for what is to be seen, which goal pictures need"):
        GoalPictures.build(EnvRef("tests.test_clip:CaptionedDot"), 4, 0, tmp_path, progress=False)


# --- training, its folder and what is done with it -------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run after two steps by the trainer that trains all else."""
    folder = tmp_path_factory.mktemp("imagination")
    torch.manual_seed(0)
    PictureLatents(Autoencoder(LATENT), LATENT, ENV, "scene", (32, 32)).save(folder / "autoencoder")
    base = tidy_desk_imagination.recipe()
    optim = replace(base.optim, steps=2, batch_size=8, warmup_steps=1, log_every=1, ema_decay=0.5)
    config = replace(TINY, autoencoder=str(folder / "autoencoder"), latent=AutoencoderConfig())
    recipe = replace(base, env=ENV, policy_config=config, data=DataConfig("data", stills=16), optim=optim)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vla.train.pictures._HELD_OUT", 8)
        result = train(recipe, folder / "data", folder / "run")
        again = train(recipe, folder / "data", folder / "again")
    assert result.steps == 2 and again.loss == result.loss, "the same seed gives the same training"
    assert {"validation_psnr_db", "validation_changed_psnr_db"} <= set(result.scores)
    return folder / "run"


def test_what_was_trained_is_read_again(trained: Path, tmp_path: Path) -> None:
    imaginer = load(str(trained))
    assert imaginer.config.latent == LATENT, "the autoencoder's config is the one it has"
    again = load(str(trained.parent / "again"))
    now = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    texts = ["visit red", "visit blue", "去红点"]
    made = imaginer.imagine(now, texts, seed=4)
    assert made.shape == now.shape and made.dtype == np.uint8
    assert np.array_equal(made, again.imagine(now, texts, seed=4))
    assert np.abs(made[1].astype(int) - imaginer.imagine(now[:2], texts[:2], seed=4)[1]).max() <= 1, "noise of its own"
    assert "Imagines how the camera `scene`" in (trained / "imagination" / "README.md").read_text(encoding="utf-8")
    imaginer.save(tmp_path / "copy")
    assert np.array_equal(load(str(tmp_path / "copy")).imagine(now, texts, seed=4), made)
    (tmp_path / "copy" / "model.safetensors").unlink()
    with pytest.raises(VlaError, match=r"the weights .*model.safetensors cannot be read"):
        load(str(tmp_path / "copy"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"texts": [" "]}, "the text is empty"),
        ({"texts": ["уберите ручки"]}, r"is neither English nor Chinese \('у'\)"),
        ({"texts": ["a", "b"]}, "1 pictures need as many texts, and 2 are given"),
        ({"images": np.zeros((1, 16, 32, 3), np.uint8)}, "sees uint8 pictures of 32x32 pixels"),
        ({"sampler": "euler"}, "there is no sampler 'euler'; known: ddim"),
        ({"steps": 0}, "at least one step and a guidance of at least 0"),
    ],
)
def test_what_cannot_be_imagined(trained: Path, change: dict[str, Any], message: str) -> None:
    how: dict[str, Any] = {"images": np.zeros((1, 32, 32, 3), np.uint8), "texts": ["a"]}
    with pytest.raises(VlaError, match=message):
        load(str(trained)).imagine(**how | change)


def test_accents_are_no_third_language() -> None:
    assert checked(["put the café's pen away", "收好", "收好 the pen"])


def test_latents_of_the_batches_are_the_autoencoders(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vla.train.pictures._HELD_OUT", 8)
    base = tidy_desk_imagination.recipe()
    config = replace(TINY, autoencoder=str(trained.parent / "autoencoder"), latent=AutoencoderConfig())
    recipe = replace(base, env=ENV, policy_config=config, data=DataConfig("data", stills=16))
    objective = Imagining(recipe, trained.parent / "data", torch.device("cpu"), 0, 1)
    objective.prepare()
    rows = np.array([5, 0])
    batch, frames = objective.batch(objective.scenes, rows, np.random.default_rng(0)), objective.scenes.frames
    for at, name in enumerate(("present", "goal")):
        latents = objective.autoencoder.encode(np.stack([frames[row, at] for row in rows]))
        torch.testing.assert_close(batch[name].float(), latents, atol=2e-3, rtol=2e-3)
    assert all(
        one in texts for one, texts in zip(batch["texts"], (objective.scenes.texts[r] for r in rows), strict=True)
    )


def test_an_autoencoder_of_other_pictures_is_refused(trained: Path, tmp_path: Path) -> None:
    PictureLatents(Autoencoder(LATENT), LATENT, ENV, "scene", (64, 64)).save(tmp_path / "other")
    base = tidy_desk_imagination.recipe()
    for name, message in (
        ("other", "sees 64x64 pixels, and the camera scene gives 32x32"),
        ("gone", "there is no auto"),
    ):
        config = replace(TINY, autoencoder=str(tmp_path / name))
        recipe = replace(base, env=ENV, policy_config=config, data=DataConfig("data", stills=16))
        with pytest.raises(VlaError, match=message):
            train(recipe, tmp_path / "data", tmp_path / "run")


def test_the_command(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "deep" / "seen.png"
    words = ["imagine", "visit the red dot", "--model", str(trained), "--out", str(out)]
    assert main([*words, "--env", ENV, "--seed", "3", "--samples", "2", "--steps", "2"]) == 0
    assert f"picture: {out}" in capsys.readouterr().out
    with Image.open(out) as sheet, Image.open(tmp_path / "deep" / "seen_goal.png") as goal:
        assert sheet.width > 3 * 256 and goal.size == (32, 32)
    assert main([*words, "--image", str(tmp_path / "deep" / "seen_goal.png")]) == 0
    capsys.readouterr()
    for more, message in (
        (["--image", str(out)], "pixels, and the model sees 32x32"),
        (["--image", str(out), "--seed", "3"], "leave out --env, --seed and --env-option"),
        (["--scenes", "9"], "--scenes goes with --measure"),
        (["--samples", "0"], "--samples must be 1 to 64, and is 0"),
        (["--env", "tidy_desk"], r"knows the camera scene with 32x32 pixels, and this env has: scene (128x128)"),
        (["--env", ENV, "--steps", "0"], "at least one step"),
        ([], "name it yourself with --env"),
    ):
        assert main([*words, *more]) == 2
        assert message in capsys.readouterr().err
    assert main(["imagine"]) == 2 and "say what to imagine" in capsys.readouterr().err


def test_it_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An untrained one: what it is held against is told apart."""
    torch.manual_seed(0)
    config = replace(TINY, width=8, heads=2)
    Imaginer(Imagination(config, (128, 128)), config, "tidy_desk", "scene", (128, 128)).save(tmp_path / "untrained")
    out = tmp_path / "measured"
    words = ["imagine", "--measure", "--scenes", "8", "--model", str(tmp_path / "untrained"), "--out", str(out)]
    assert main([*words, "--steps", "1"]) == 0
    assert "the scorer takes it for done" in capsys.readouterr().out
    found = json.loads((out / "imagination.json").read_text(encoding="utf-8"))
    assert found["done"]["real"]["rate"] >= 0.75 > found["done"]["present"]["rate"]
    moved, left = found["pointed"]["moved"], found["pointed"]["left"]
    assert moved["real"]["rate"] > 0.6 > moved["present"]["rate"] and left["present"]["rate"] > 0.6
    assert found["frechet"]["real"] < found["frechet"]["present"]
    with Image.open(out / "worst.png") as worst:
        assert worst.height > 8 * 256
    assert main([*words[:3], "7", *words[4:]]) == 2 and "at least 8 scenes are needed" in capsys.readouterr().err


def test_the_frechet_distance_is_that_of_normal_distributions() -> None:
    from scipy.linalg import sqrtm

    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(40, 5)), 2.0 * rng.normal(size=(50, 5)) @ rng.normal(size=(5, 5)) + 1.0
    first, second = np.cov(one.T), np.cov(other.T)
    apart = ((one.mean(axis=0) - other.mean(axis=0)) ** 2).sum()
    expected = apart + np.trace(first + second - 2.0 * sqrtm(first @ second).real)
    assert frechet(one, other) == pytest.approx(expected, rel=1e-8)
    assert frechet(one, one) == pytest.approx(0.0, abs=1e-8)


def test_the_agent_that_ships_points_at_what_it_is_told_of(desk: TidyDesk) -> None:
    agent = load_agent("tidy_desk")
    near = []
    for seed in range(6):
        desk.reset(seed=seed, options={"split": "heldout"})
        asked = [one for one in desk.referring_expressions() if one.points["scene"][2]]
        places = agent.point(desk.observe(), [one.text for one in asked])
        assert set(places) == {"scene", "wrist"} and places["scene"].shape == (len(asked), 3)
        truth = np.stack([one.points["scene"][:2] for one in asked])
        near += (np.linalg.norm(places["scene"][:, :2] - truth, axis=1) < 0.125).tolist()
    assert np.mean(near) > 0.8
