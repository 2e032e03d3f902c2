"""Towers that score pictures against sentences: their losses, training, files, commands, and the judge made of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from configs import tidy_desk_clip
from tests.acting import DotAgent
from tests.fake_env import COLOURS, DotEnv
from vla.cli import main
from vla.contracts import VlaError
from vla.contracts.captions import Caption, Wish
from vla.eval.alignment import auc, best_threshold, measure
from vla.eval.config import EvalConfig
from vla.eval.evaluate import evaluate
from vla.nn.clip import OpenClip, SmallClip, clip_loss, make_clip, pair_loss, prompted
from vla.nn.clip_folder import Scorer, calibrate, load
from vla.nn.config import ClipConfig
from vla.recipe import DataConfig, Recipe
from vla.registry import EnvRef
from vla.train.trainer import train

ENV = "tests.test_clip:CaptionedDot"
TINY = ClipConfig(vision="tiny", pixels=32, map_dim=8, queries=2, width=8, language_depth=1, dim=8, wrong=1, wishes=1)


class CaptionedDot(DotEnv):
    """Dots that are visited, or not."""

    outcomes = ("done", "beside", "elsewhere", "held", "mixed")

    def captions(self, rng: np.random.Generator, split: str = "train") -> list[Caption]:
        there = next(iter(self._dots))
        other = next(name for name in COLOURS if name not in self._dots)
        return [Caption(f"a {there} dot", language, (f"a {other} dot",), ("colour",)) for language in ("en", "zh")]

    def wishes(self, rng: np.random.Generator, split: str = "train") -> list[Wish]:
        done = set(self._asked) <= self._placed
        return [Wish(self._instruction, self._language, done), Wish("visit nothing", "en", not self._placed)]

    def sentence_for(self, item: str) -> str:
        return f"visit the {item} dot"

    def arrange(self, outcome: str, rng: np.random.Generator) -> None:
        self._point = rng.uniform(-0.3, 0.3, 2)
        self._placed = set(self._asked) if outcome == "done" else set()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of towers after two steps by the trainer that trains all else."""
    folder = tmp_path_factory.mktemp("clip")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vla.train.pictures._HELD_OUT", 8)
        result = train(small_recipe(), folder / "data", folder / "run")
        assert result.steps == 2 and {"validation_loss", "validation_found"} <= set(result.scores)
        again = train(small_recipe(), folder / "data", folder / "again")
    assert again.loss == result.loss, "the same seed gives the same training"
    first, second = (load(str(folder / name)).model.state_dict() for name in ("run", "again"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    return folder / "run"


def small_recipe() -> Recipe:
    base = tidy_desk_clip.recipe()
    optim = replace(base.optim, steps=2, batch_size=8, warmup_steps=1, log_every=1, ema_decay=0.5)
    return replace(base, env=ENV, policy_config=TINY, data=DataConfig("data", stills=16), optim=optim)


def test_the_loss_is_open_clips() -> None:
    from open_clip.loss import ClipLoss

    torch.manual_seed(0)
    images, texts = (torch.nn.functional.normalize(torch.randn(6, 16), dim=1) for _ in range(2))
    logits = 10.0 * images @ texts.T
    assert torch.allclose(clip_loss(logits, logits.T).mean(), ClipLoss()(images, texts, torch.tensor(10.0)), atol=1e-6)
    wrong = 10.0 * images @ (texts + 0.1 * torch.randn(6, 16)).T
    harder = clip_loss(torch.cat((logits, wrong), dim=1), logits.T)
    assert harder.shape == (6,) and (harder > clip_loss(logits, logits.T)).all(), "wrong captions are columns too"


def test_a_pair_of_texts_may_be_right_to_a_share() -> None:
    losses = pair_loss(torch.tensor([0.0, 30.0, 2.0]), torch.tensor([0.3, 1.0, float("nan")]))
    assert losses.tolist() == pytest.approx([np.log(2), 0.0, 0.0], abs=1e-6)
    assert prompted("put it away", "done") == "done: put it away" and prompted("收好", "undone") == "未完成：收好"


@pytest.mark.parametrize("towers", ["ours", "open_clip"])
def test_towers_give_unit_vectors_and_learn(towers: str, tmp_path: Path) -> None:
    config = TINY
    if towers == "open_clip":
        shape = {"embed_dim": 8, "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16}}
        shape["text_cfg"] = {"context_length": 77, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1}
        (tmp_path / "tiny-towers.json").write_text(json.dumps(shape))
        config = ClipConfig(open_clip=str(tmp_path / "tiny-towers.json"))
    torch.manual_seed(1)
    model = make_clip(config)
    assert isinstance(model, SmallClip if towers == "ours" else OpenClip)
    seen, said = model.embed_images(torch.rand(3, 3, 48, 48) * 2 - 1), model.embed_texts(["a red dot", "一个红点"])
    assert seen.shape == (3, 8) and said.shape == (2, 8) and model.logits(seen, said).shape == (3, 2)
    assert torch.allclose(seen.norm(dim=1), torch.ones(3), atol=1e-5)
    model.between(seen[:2], said, said.flip(0)).sum().backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None]
    assert not idle, f"no gradient for {idle}"


def test_what_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(VlaError, match="open_clip has no architecture 'ViT-X'"):
        make_clip(ClipConfig(open_clip="ViT-X"))
    with pytest.raises(VlaError, match="no architecture of open_clip in"):
        make_clip(ClipConfig(open_clip=str(tmp_path / "none.json")))
    with pytest.raises(VlaError, match=r"there are no weights none\.pt for ViT-B-32"):
        make_clip(ClipConfig(open_clip="ViT-B-32"), "none.pt")
    with pytest.raises(VlaError, match="are those of an architecture of open_clip"):
        ClipConfig(weights="x.pt").check("policy.")
    with pytest.raises(VlaError, match=r"env tests\.fake_env:DotEnv has no captions"):
        train(replace(small_recipe(), env="tests.fake_env:DotEnv"), tmp_path / "data", tmp_path / "run")


def test_what_was_trained_is_read_again(trained: Path, tmp_path: Path) -> None:
    scorer = load(str(trained))
    assert (scorer.env, scorer.camera, scorer.pixels) == (ENV, "scene", (32, 32))
    assert scorer.provenance["steps"] == 2 and "32x32" in (trained / "clip/README.md").read_text()
    seen = scorer.embed(np.zeros((2, 32, 32, 3), np.uint8))
    assert scorer.match(seen, ["a red dot", "a blue dot", "x"]).shape == (2, 3)
    for values in (scorer.success(seen, ["a", "b"]), scorer.progress(seen, ["a", "b"])):
        assert values.shape == (2,) and (values > 0).all() and (values < 1).all()
    with pytest.raises(VlaError, match=r"sees uint8 pictures of 32x32 pixels, and was given uint8 of the shape \[16"):
        scorer.embed(np.zeros((1, 16, 16, 3), np.uint8))
    with pytest.raises(VlaError, match="a text is empty"):
        scorer.success(seen, ["a", " "])

    folder = tmp_path / "copy"
    scorer.save(folder)
    (folder / "model.safetensors").write_bytes(b"other")
    with pytest.raises(VlaError, match="the hashes differ"):
        load(str(folder))
    (folder / "model.safetensors").unlink()
    with pytest.raises(VlaError, match=r"the weights .*model\.safetensors cannot be read: No such file"):
        load(str(folder))
    with pytest.raises(VlaError, match=r"there is no clip\.json in nowhere; train one with `vla align`"):
        load("nowhere")


def test_it_is_measured(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["align", "--measure", "--model", str(trained), "--scenes", "5", "--episodes", "3", "--seed", "2"]
    assert main([*words, "--out", str(tmp_path)]) == 2, "a file does not decide which code is run"
    assert f"names the env '{ENV}', which is not in envs/" in capsys.readouterr().err
    monkeypatch.setenv("VLA_ALLOW", ENV)
    assert main([*words, "--out", str(tmp_path)]) == 0
    told, found = capsys.readouterr().out, json.loads((tmp_path / "alignment.json").read_text())
    assert "retrieval among 5 scenes" in told and "rank correlation with time" in told
    assert set(found["retrieval"]) == {
        *("en_picture_to_text", "en_text_to_picture", "zh_picture_to_text", "zh_text_to_picture", "wrong_word_noticed")
    }
    assert {"start", "another_wish", "beside", "elsewhere", "held"} == set(found["success_auc"])
    assert found["success_auc"]["start"]["n"] == 3 and found["trained"]["steps"] == 2
    with EnvRef(ENV).opened() as env, pytest.raises(VlaError, match="at least 5 scenes and 2 episodes"):
        measure(load(str(trained)), env, 4, 2, 0)
    assert main(["align", "--episodes", "3"]) == 2 and "--episodes goes with --measure" in capsys.readouterr().err


def test_auc() -> None:
    found = auc(np.array([0.9, 0.8, 0.4]), np.array([0.1, 0.4]), 0)
    assert found["auc"] == pytest.approx((6 - 0.5) / 6) and found["low"] <= found["auc"] <= found["high"]


def test_score(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "dots.png"
    Image.new("RGB", (32, 32), "red").save(picture)
    words = ["score", "--model", str(trained), "--image", str(picture)]
    assert main([*words, "--text", "a red dot", "--text", "红点", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["text"] for row in rows] == ["a red dot", "红点"]
    assert sum(row["fit"] for row in rows) == pytest.approx(1.0, abs=1e-3)
    assert main([*words, "--text", "a red dot"]) == 0 and "100.0%" in capsys.readouterr().out

    Image.new("RGB", (64, 48), "red").save(tmp_path / "large.png")
    (tmp_path / "text.png").write_text("no picture")
    wrong = {"large.png": "has 64x48 pixels, and the model sees 32x32", "text.png": "is no picture that can be read"}
    for name, message in {**wrong, "none.png": "is no picture that can be read"}.items():
        assert main([*words[:-1], str(tmp_path / name), "--text", "x"]) == 2
        assert message in capsys.readouterr().err
    assert main([*words[:-1], str(tmp_path / "large.png"), "--text", "x", "--resize"]) == 0
    assert main([*words, "--text", " "]) == 2 and "--text is empty" in capsys.readouterr().err


def test_a_threshold_is_found_and_kept(trained: Path, tmp_path: Path) -> None:
    assert best_threshold(np.array([0.2, 0.6, 0.9]), np.array([0.1, 0.15, 0.3])) == pytest.approx(0.175)
    load(str(trained)).save(tmp_path / "copy")
    calibrate(str(tmp_path / "copy"), 0.3)
    assert load(str(tmp_path / "copy")).threshold == 0.3


class _Sceptic(Scorer):
    """Takes every episode for a failure."""

    def success(self, images: torch.Tensor, texts: Sequence[str]) -> torch.Tensor:
        return torch.full((len(images),), 0.1)


def test_a_judge_and_the_physics(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = load(str(trained))
    monkeypatch.setattr("vla.eval.judge.load_judge", lambda name: _Sceptic(**vars(scorer)))
    config = EvalConfig(ENV, episodes=3, slots=2, videos=0, judge=str(trained))
    found = evaluate(config, DotAgent(), tmp_path / "out")["judge"]
    assert (found["n"], found["agrees"]["rate"]) == (3, 0.0) and found["scores"] == {"0": 0.1, "1": 0.1, "2": 0.1}
    report = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert "They disagree in 3" in report and report.count("data:image/png;base64,iVBOR") == 3
    for one in found["disagreements"]:
        with Image.open(tmp_path / "out" / one["picture"]) as picture:
            assert one["success"] and picture.size == (32, 32)
    plain = evaluate(replace(config, judge=None), DotAgent(), tmp_path / "plain")
    assert "judge" not in plain and not (tmp_path / "plain/frames").exists()
    other = replace(config, env_options={"cameras_px": 16})
    with pytest.raises(
        VlaError, match="knows the camera scene with 32x32 pixels, and the env's first is scene with 16"
    ):
        evaluate(other, DotAgent(), tmp_path / "other")


def test_what_ships_scores_a_stored_picture(capsys: pytest.CaptureFixture[str]) -> None:
    texts = ["put the red pen in the tray", "tidy the desk", "把桌子收拾好"]
    words = [word for text in texts for word in ("--text", text)]
    assert main(["score", "--image", str(Path(__file__).parent / "data" / "desk.png"), *words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["text"] for one in found] == texts and all(one["done"] < 0.02 for one in found)
    assert [one["fit"] for one in found] == pytest.approx([0.0002, 0.3296, 0.6702], abs=0.02)
    assert [one["over"] for one in found] == pytest.approx([0.3999, 0.5255, 0.4457], abs=0.02)
    done = "put the white paper ball in the waste bin"  # which is what the expert did there
    assert main(["score", "--image", str(Path(__file__).parent / "data" / "desk.png"), "--text", done, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["done"] == pytest.approx(0.9369, abs=0.02)
