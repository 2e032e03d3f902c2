"""Training: the battery over every recipe, resuming bit for bit, and what happens when something breaks."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.fake_env import DotEnv
from tests.staged_recipe import every_training
from vla import registry
from vla.agent import GOLDEN_TOLERANCE, load
from vla.contracts import EnvSpec, MissingExtraError, SpecMismatchError, VlaError
from vla.data.frames import FORMAT_VERSION, FrameCache, _write_document, _written
from vla.host.provenance import file_sha256
from vla.nn import clip_folder
from vla.nn.config import AutoencoderConfig
from vla.nn.imagination_folder import load as load_imaginer
from vla.nn.latent import Autoencoder
from vla.nn.latent_folder import PictureLatents
from vla.nn.latent_folder import load as load_autoencoder
from vla.nn.policy import Policy, Sampled
from vla.paths import agents_dir
from vla.recipe import OBJECTIVE, DataConfig, OptimConfig, Recipe, ValidateConfig, settings, with_overrides
from vla.train.checkpoint import load_newest
from vla.train.ema import Ema
from vla.train.feed import Feed
from vla.train.optim import checked_groups, learning_rate
from vla.train.sampling import Prefetch, SampleOrder, colour_jitter
from vla.train.trainer import TrainingStopped, train


@dataclass(frozen=True)
class TinyConfig:
    width: int = 8
    chunk: int = 4
    execute: int = 2


class TinyPolicy(Policy):
    """A linear policy with all that resuming must restore: dropout, random draws, batch norm's statistics."""

    def __init__(self, config: TinyConfig, spec: EnvSpec) -> None:
        super().__init__()
        self.config, self.cameras = config, [c.name for c in spec.cameras]
        self.action_dim = len(spec.action)
        self.inner = nn.Linear(len(spec.state) + 3 * len(spec.cameras), config.width)
        self.norm, self.dropout = nn.BatchNorm1d(config.width), nn.Dropout(0.2)
        self.outer = nn.Linear(config.width, config.chunk * self.action_dim)

    def _forward(self, batch: dict) -> Tensor:
        seen = [batch[f"images.{name}"].mean(dim=(2, 3)) for name in self.cameras]
        hidden = self.dropout(self.norm(torch.relu(self.inner(torch.cat([batch["state"], *seen], dim=1)))))
        return self.outer(hidden).reshape(len(hidden), self.config.chunk, self.action_dim)

    def loss(self, batch: dict) -> tuple[Tensor, dict[str, Tensor]]:
        target = batch["actions"] + 0.01 * torch.randn_like(batch["actions"])
        loss = (self._forward(batch) - target).square().mean(dim=(1, 2))
        return loss, {"error": loss.detach().mean()}

    def sample(self, batch: dict, generators: Sequence[torch.Generator]) -> Sampled:
        return Sampled(self._forward(batch))


class ExplodingPolicy(TinyPolicy):
    """Its loss is NaN from the sixth call on."""

    calls = 0

    def loss(self, batch: dict) -> tuple[Tensor, dict[str, Tensor]]:
        type(self).calls += 1
        loss, parts = super().loss(batch)
        return loss * (float("nan") if type(self).calls > 5 else 1.0), parts


class IdlePolicy(TinyPolicy):
    """It holds a layer that it never uses."""

    def __init__(self, config: TinyConfig, spec: EnvSpec) -> None:
        super().__init__(config, spec)
        self.spare = nn.Linear(2, 2)


POLICY, CONFIG = TinyPolicy, TinyConfig


def write_cache(root: Path, spec: EnvSpec, lengths: list[int], success: bool = True) -> FrameCache:
    """A frame cache of random frames, as if decoded from a dataset."""
    rng, total = np.random.default_rng(0), sum(lengths)
    root.mkdir(parents=True)
    walk = rng.normal(size=(total, len(spec.action))).cumsum(axis=0).astype(np.float32) * 0.01
    columns: dict[str, Any] = {
        "state": rng.normal(size=(total, len(spec.state))).astype(np.float32),
        "action": walk,
        "executed": walk,
        "progress": np.zeros(total, np.float32),
        "episode": np.repeat(np.arange(len(lengths)), lengths),
        "frame": np.concatenate([np.arange(n) for n in lengths]),
        "seed": np.zeros(total, np.int64),
        "instruction": np.repeat(np.arange(len(lengths)) % 2, lengths),
        "sub_instruction": np.zeros(total, np.int64),
        "success": np.full(total, success),
        "by_expert": np.ones(total, np.float32),
    }
    for camera in spec.cameras:
        columns[f"points.{camera.name}"] = rng.uniform(-1, 1, (total, 6)).astype(np.float32)
        frames = rng.integers(0, 256, (total, camera.height, camera.width, 3), dtype=np.uint8)
        np.save(root / f"frames.{camera.name}.npy", frames)
        columns[f"sums.{camera.name}"] = np.array([zlib.crc32(frame) for frame in frames], np.uint32)
    for name, column in columns.items():
        np.save(root / f"{name}.npy", column)
    document = {
        "format_version": FORMAT_VERSION,
        "fingerprint": "of a fake",
        "env_spec": spec.to_dict(),
        "arrays": {name: file_sha256(root / f"{name}.npy") for name in columns},
        "written": _written(root),
        "instructions": ["tidy up", "请整理桌面"],
        "sub_instructions": ["move it"],
        "stamps": {},
        "files": {},
        "mapping": [],
        "columns": [],
    }
    _write_document(root, document)
    return FrameCache.open(root)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A dataset of six short episodes of DotEnv, its frame cache ready."""
    return fake_dataset(tmp_path / "data", DotEnv().env_spec, monkeypatch)


def fake_dataset(folder: Path, spec: EnvSpec, monkeypatch: pytest.MonkeyPatch, success: bool = True) -> Path:
    (folder / "meta").mkdir(parents=True)
    (folder / "meta" / "info.json").write_text("{}")
    write_cache(folder / "frames", spec, [6, 5, 7, 5, 6, 5], success)
    monkeypatch.setattr(FrameCache, "build", lambda path, *_, **__: FrameCache.open(Path(path) / "frames"))
    return folder


def tiny(*words: str, policy: str = "tests.test_train:TinyPolicy") -> Recipe:
    optim = OptimConfig(steps=6, batch_size=4, warmup_steps=2, log_every=2, checkpoint_every=2, lr=1e-2, ema_decay=0.9)
    data = DataConfig("data/dot", "vla record --env dot --out data/dot", colour_jitter=0.2)
    recipe = Recipe("tiny", "tests.fake_env:DotEnv", policy, TinyConfig(), data, optim, ValidateConfig(-1))
    return with_overrides(recipe, words)


class StopAt:
    """Collects the losses, and asks for an end after some step, as ``kill`` does."""

    def __init__(self, step: int | None = None) -> None:
        self.losses: list[float] = []
        self._step = step

    def __call__(self, step: int, loss: float) -> None:
        self.losses.append(loss)
        if step == self._step:
            os.kill(os.getpid(), signal.SIGTERM)


def log_of(out: Path) -> list[dict[str, Any]]:
    """The log without what depends on the clock."""
    lines = [json.loads(line) for line in (out / "train_log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("samples_per_s", "wall_s")} for line in lines]


def assert_same_files(left: Path, right: Path) -> None:
    for name in ("model", "ema", "optimizer"):
        a, b = load_file(left / f"{name}.safetensors"), load_file(right / f"{name}.safetensors")
        assert a.keys() == b.keys() and a
        for key in a:
            assert torch.equal(a[key], b[key]), (name, key)


# ------------------------------------------------------------------ the battery


@pytest.mark.parametrize("name", every_training())
def test_every_recipe_trains_two_steps_and_resumes(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = every_training()[name]
    try:
        env = registry.make_env(recipe.env or "tests.fake_env:DotEnv")  # some train on any dataset
    except MissingExtraError as error:
        pytest.skip(str(error))
    spec = env.env_spec
    env.close()
    data = fake_dataset(tmp_path / "data", spec, monkeypatch)
    # Real sizes are the next test's.
    small: dict[str, int | str] = {"policy.dim": 32, "policy.depth": 1, "policy.trunk.vision": "tiny"}
    small |= {"policy.trunk.map_dim": 16, "policy.trunk.language_depth": 1}
    small |= {"policy.trunk.model": "tiny", "policy.trunk.layers": 2}  # of a language model
    small |= {"policy.eyes": "", "policy.vision": "tiny", "policy.pixels": 32}  # of towers
    small |= {"policy.width": 8}  # of towers, of an autoencoder, and of what imagines in its latents
    small |= {"policy.heads": 2, "policy.patch": 2, "policy.words": "", "policy.language_depth": 1}
    if "policy.autoencoder" in dict(settings(recipe)):
        latent, small["policy.autoencoder"] = AutoencoderConfig(width=8), str(tmp_path / "autoencoder")
        camera = spec.cameras[0]
        known = (recipe.env, camera.name, (camera.height, camera.width))
        PictureLatents(Autoencoder(latent), latent, *known).save(tmp_path / "autoencoder")
    words = [f"--{key}={value}" for key, value in small.items() if key in dict(settings(recipe))]
    words += ["--optim.steps=2", "--optim.batch_size=2", "--validate.every=-1", "--optim.checkpoint_every=1"]
    if recipe.data.stills:
        words += ["--data.stills=4", "--data.stills_batch=2"]
    if recipe.trunk_from:  # an agent's, of its own size
        words += ["--trunk_from="]
    if recipe.objective == "distillation":  # from an agent that ships, which has its own size
        words = [word for word in words if not word.startswith("--policy.")]
    elif recipe.init:  # the agent and the corrections are yet to be made
        words += ["--init=", "--init_share=0", "--data.corrections="]
    recipe = with_overrides(recipe, words)
    monkeypatch.setattr("vla.train.pictures._HELD_OUT", 16)  # scenes that it renders
    whole, stop = tmp_path / "whole", StopAt(1)
    both = StopAt()
    result = train(recipe, data, whole, on_step=both)
    assert result.steps == 2 and all(np.isfinite(both.losses))
    with pytest.raises(TrainingStopped):
        train(recipe, data, tmp_path / "parts", on_step=stop)
    train(recipe, data, tmp_path / "parts", resume=True, on_step=stop)
    assert stop.losses == both.losses
    if recipe.objective == "alignment":
        assert clip_folder.load(str(result.agent_dir)).card and not recipe.policy
        return
    if recipe.objective == "autoencoding":
        assert load_autoencoder(str(result.agent_dir)).provenance["steps"] == 2 and not recipe.policy
        return
    if recipe.objective == "imagining":
        assert load_imaginer(str(result.agent_dir)).provenance["steps"] == 2 and not recipe.policy
        return
    agent = load(result.agent_dir, device="cpu")
    assert agent.provenance["recipe"]["name"] == name and agent.replay_golden_trace() < GOLDEN_TOLERANCE


def shipped_networks() -> dict[str, Recipe]:
    """A recipe for each network that a recipe trains or a shipped agent has: its real size and layers."""
    found = {}
    for recipe in every_training().values():
        if recipe.objective == OBJECTIVE:  # others train no network of their own
            found[recipe.policy, recipe.policy_config] = recipe
    assert {policy for policy, _ in found} == set(registry.names("policy")), "a policy that no recipe trains"
    for folder in sorted(agents_dir().glob("*/agent.json")):
        agent = load(folder.parent, "cpu")
        found.setdefault((agent.policy_name, agent.config), replace(registry.load_recipe("demonstrations"),
                         policy=agent.policy_name, policy_config=agent.config))  # fmt: skip
    return {recipe.name: recipe for recipe in found.values()}


@pytest.mark.parametrize("recipe", shipped_networks().values(), ids=shipped_networks())
def test_every_real_network_resumes_bit_for_bit(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = fake_dataset(tmp_path / "data", load("tidy_desk", "cpu").spec, monkeypatch)
    words = ["--optim.steps=2", "--optim.batch_size=2", "--optim.checkpoint_every=1", "--validate.every=-1"]
    words += ["--data.stills=0", "--data.stills_questions=0", "--data.holdout=0", "--data.paraphrase="]
    words += ["--optim.warmup_steps=0"]
    words += ["--init=", "--init_share=0", "--trunk_from=", "--data.corrections="]
    recipe = with_overrides(recipe, words)
    train(recipe, data, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "parts")
    shutil.rmtree(tmp_path / "parts/checkpoints/step_000002")
    train(recipe, data, tmp_path / "parts", resume=True)
    assert_same_files(tmp_path / "whole/checkpoints/step_000002", tmp_path / "parts/checkpoints/step_000002")


# ------------------------------------------------------------------ resuming


STILLS = ("--data.stills=5", "--data.stills_batch=2")


@pytest.mark.parametrize("words", [(), ("--optim.accumulate=2", "--optim.log_every=4"), STILLS])
def test_resume_is_bit_for_bit(words: tuple[str, ...], data: Path, tmp_path: Path) -> None:
    whole, first = StopAt(), StopAt(3)
    train(tiny(*words), data, tmp_path / "whole", on_step=whole)
    with pytest.raises(TrainingStopped, match="SIGTERM at step 3"):
        train(tiny(*words), data, tmp_path / "parts", on_step=first)
    assert len(first.losses) == 3
    torch.manual_seed(99)  # what happened in between must not matter
    train(tiny(*words), data, tmp_path / "parts", resume=True, on_step=first)
    assert first.losses == whole.losses and len(set(whole.losses)) == 6
    assert_same_files(tmp_path / "whole/checkpoints/step_000006", tmp_path / "parts/checkpoints/step_000006")
    assert log_of(tmp_path / "whole") == log_of(tmp_path / "parts")
    names = sorted(path.name for path in (tmp_path / "parts" / "checkpoints").iterdir())
    assert len(names) == 2 and names[-1] == "step_000006"
    agents = [load_file(tmp_path / run / "agent" / "model.safetensors") for run in ("whole", "parts")]
    assert all(torch.equal(agents[0][key], agents[1][key]) for key in agents[0])


def test_each_step_sees_its_share_of_the_stills(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Any]] = []
    plain = TinyPolicy.loss
    monkeypatch.setattr(TinyPolicy, "loss", lambda self, batch: (seen.append(batch), plain(self, batch))[1])
    train(tiny(*STILLS, "--data.stills_sentences=3"), data, tmp_path / "run")
    seen = [batch for batch in seen if "stills" in batch]  # the validation loss does without
    assert len(seen) == 6
    for batch in seen:
        stills = batch["stills"]
        assert stills["images.scene"].shape == (2, 3, 32, 32) and float(stills["images.scene"].min()) < 0
        assert len(stills["instruction"]) == len(stills["points.scene"]) == 6
    first = [float(batch["stills"]["images.scene"][0].sum()) for batch in seen]
    assert len(set(first)) > 2
    with pytest.raises(VlaError, match="stills_batch 0"):
        train(tiny("--data.stills=5", "--data.stills_batch=0"), data, tmp_path / "none")


def test_corrections_make_up_their_share_of_each_batch(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = fake_dataset(tmp_path / "more", DotEnv().env_spec, monkeypatch)
    np.save(more / "frames/state.npy", np.load(more / "frames/state.npy") + 100)
    document = json.loads((more / "frames/cache.json").read_text())
    document["arrays"]["state"] = file_sha256(more / "frames/state.npy")
    _write_document(more / "frames", document)
    both = Feed(
        tiny(f"--data.corrections={more},{data}", "--data.corrections_share=0.5"), data, 0, 1, torch.device("cpu")
    )
    [batch] = both.step(0)
    assert (batch["state"][:, 0] > 50).tolist() == [False, False, True, False]
    feed = Feed(tiny(f"--data.corrections={more}", "--data.corrections_share=0.25"), data, 0, 1, torch.device("cpu"))
    for step in range(3):
        [batch] = feed.step(step)
        assert len(batch["instruction"]) == len(batch["actions"]) == 4
        assert (batch["state"][:, 0] > 50).tolist() == [False, False, False, True]
    assert feed.fingerprint == "of a fake+of a fake"
    with pytest.raises(VlaError, match="without one of its parts"):
        Feed(tiny(f"--data.corrections={more}", "--data.corrections_share=0.01"), data, 0, 1, torch.device("cpu"))
    with pytest.raises(VlaError, match="no corrections in nowhere"):
        Feed(tiny("--data.corrections=nowhere"), data, 0, 1, torch.device("cpu"))


def test_a_run_starts_from_an_agent(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLA_ALLOW", "tests.test_train:TinyPolicy")
    first = train(tiny(), data, tmp_path / "first")
    words = (f"--init={tmp_path / 'first'}", "--optim.steps=1", "--optim.warmup_steps=0", "--optim.lr=1e-9")
    second = train(tiny(*words), data, tmp_path / "second")
    before, after = load(first.agent_dir, "cpu"), load(second.agent_dir, "cpu")
    for name, value in before.policy.state_dict().items():
        if "norm" not in name:
            torch.testing.assert_close(after.policy.state_dict()[name], value, atol=1e-3, rtol=1e-3)
    assert torch.equal(before.normaliser.action_std, after.normaliser.action_std)
    assert after.provenance["init"]["hash"] == before.hash
    with pytest.raises(VlaError, match="another config"):
        train(tiny(*words, "--policy.width=9"), data, tmp_path / "third")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("os:system", "fails for 'tidy up': TypeError"),  # takes one argument
        ("builtins:slice", "gave slice('tidy up', Generator"),
        ("builtins:min", "fails for 'tidy up': TypeError"),
    ],
)
def test_a_paraphrase_that_gives_no_sentence_is_told_before_the_first_step(
    name: str, reason: str, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(VlaError, match=re.escape(f"--data.paraphrase {name} {reason}")):
        train(tiny(f"--data.paraphrase={name}"), data, tmp_path / "run")


def test_an_agent_may_stay_near_the_one_it_came_from(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLA_ALLOW", "tests.test_train:TinyPolicy")
    first = load(train(tiny(), data, tmp_path / "first").agent_dir, "cpu").policy.state_dict()
    words = (f"--init={tmp_path / 'first'}", "--seed=5")
    whole, mixed = (
        load(train(tiny(*words, f"--init_share={share}"), data, tmp_path / str(share)).agent_dir, "cpu")
        for share in (0.0, 0.25)
    )
    names = [name for name, tensor in first.items() if tensor.is_floating_point()]
    way, gone = (
        torch.cat([(agent.policy.state_dict()[name] - first[name]).ravel() for name in names])
        for agent in (whole, mixed)
    )
    assert float(gone @ way / (way @ way)) == pytest.approx(0.75, abs=0.02)  # weights are kept in bf16
    assert float((gone - 0.75 * way).norm() / way.norm()) < 0.2
    assert mixed.replay_golden_trace() < GOLDEN_TOLERANCE  # the chunk is from before the weights are rounded
    for bad in (("--init_share=0.5",), (*words, "--init_share=1")):
        with pytest.raises(VlaError, match="init_share"):
            train(tiny(*bad), data, tmp_path / "bad")


def test_seed_changes_the_run(data: Path, tmp_path: Path) -> None:
    runs = [StopAt(), StopAt()]
    for seed, run in enumerate(runs):
        train(tiny(f"--seed={seed}"), data, tmp_path / str(seed), on_step=run)
    assert runs[0].losses != runs[1].losses


SCRIPT = """
import sys
from pathlib import Path
from tests.test_train import tiny
from vla.data.frames import FrameCache
from vla.train.ema import Ema
from vla.train.trainer import train
FrameCache.build = lambda path, *_, **__: FrameCache.open(Path(path) / "frames")
train(tiny("--optim.steps=100000"), sys.argv[1], sys.argv[2])
"""


def test_kill_9_and_resume(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen([sys.executable, "-c", SCRIPT, str(data), str(out)], env=environment) as process:
        limit = time.monotonic() + 60
        while not list(out.glob("checkpoints/step_*[0-9]/state.json")) and time.monotonic() < limit:
            assert process.poll() is None
            time.sleep(0.05)
        process.kill()
    (out / "checkpoints" / "step_999999.tmp").mkdir()  # what a kill in the middle of a save leaves
    with (out / "train_log.jsonl").open("a") as file:
        file.write('{"step": 12, "lo')
    reached = load_newest(out / "checkpoints", pytest.fail)
    assert reached is not None
    step = reached[1]["step"]
    result = train(tiny(f"--optim.steps={step + 2}"), data, out, resume=True)
    assert result.steps == step + 2
    assert [line["step"] for line in log_of(out) if "loss" in line] == list(range(2, step + 3, 2))
    assert not list((out / "checkpoints").glob("*.tmp"))


def test_damaged_checkpoints(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, run = tmp_path / "run", StopAt()
    train(tiny(), data, out, on_step=run)
    newest, older = out / "checkpoints" / "step_000006", out / "checkpoints" / "step_000004"
    model = bytearray((newest / "model.safetensors").read_bytes())
    model[-1] ^= 1
    (newest / "model.safetensors").write_bytes(model)
    again = StopAt()
    train(tiny(), data, out, resume=True, on_step=again)
    printed = " ".join(capsys.readouterr().out.split())
    assert "damaged (model.safetensors does not match its SHA-256)" in printed and "resuming at step 4" in printed
    assert again.losses == run.losses[4:]
    for folder in (newest, older):
        (folder / "ema.safetensors").write_bytes(b"short")
    with pytest.raises(VlaError, match=r"no readable checkpoint in .*checkpoints"):
        train(tiny(), data, out, resume=True)


def test_run_folders_are_not_mixed(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(tiny(), data, out)
    with pytest.raises(VlaError, match=r"already holds a run.*--resume"):
        train(tiny(), data, out)
    with pytest.raises(VlaError, match=r"policy.width was 8 and is 16.*--out"):
        train(tiny("--policy.width=16"), data, out, resume=True)
    longer = train(tiny("--optim.steps=8"), data, out, resume=True)
    assert longer.steps == 8


# ------------------------------------------------------------------ what goes wrong


def test_missing_dataset_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(VlaError, match="vla record --env dot --out data/dot"):
        train(tiny(), "data/dot", tmp_path / "run")
    with pytest.raises(VlaError, match=f"vla record .*--out {tmp_path}/other"):
        train(tiny(), tmp_path / "other", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_loss_of_nan_stops_and_keeps_the_checkpoint(data: Path, tmp_path: Path) -> None:
    ExplodingPolicy.calls = 0
    with pytest.raises(VlaError, match="no longer finite at step 6"):
        train(tiny(policy="tests.test_train:ExplodingPolicy"), data, tmp_path / "run")
    kept = load_newest(tmp_path / "run" / "checkpoints", pytest.fail)
    assert kept is not None and kept[1]["step"] == 4
    assert all(tensor.isfinite().all() for tensor in kept[0]["model"].values())


def test_an_env_that_does_not_fit_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = fake_dataset(tmp_path / "data", DotEnv(cameras_px=16).env_spec, monkeypatch)
    with pytest.raises(SpecMismatchError, match="scene 16x16"):
        train(tiny("--validate.every=0"), data, tmp_path / "run")


def test_failed_episodes_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = fake_dataset(tmp_path / "data", DotEnv().env_spec, monkeypatch, success=False)
    with pytest.raises(VlaError, match="none of the dataset's 6 episodes succeeded"):
        train(tiny(), data, tmp_path / "run")
    assert train(tiny("--data.only_success=false"), data, tmp_path / "run").steps == 6


def test_groups_must_hold_every_parameter_once() -> None:
    policy = TinyPolicy(TinyConfig(), DotEnv().env_spec)
    everything = list(policy.parameters())
    with pytest.raises(VlaError, match=r"missing: inner.weight"):
        checked_groups(policy, [{"params": everything[1:]}])
    with pytest.raises(VlaError, match=r"repeated or not trainable: inner.weight"):
        checked_groups(policy, [{"params": everything}, {"params": everything[:1]}])


# ------------------------------------------------------------------ the run's results


def test_closed_loop_and_agent(data: Path, tmp_path: Path) -> None:
    recipe = tiny("--validate.every=4", "--validate.episodes=3")
    result = train(recipe, data, tmp_path / "run", command="vla train tiny")
    assert result.scores["success"]["n"] == 3 and 0 <= result.scores["progress"] <= 1
    assert [line["step"] for line in log_of(tmp_path / "run") if "success" in line] == [4, 6]
    assert result.scores["validation_loss"] > 0
    for name in ("loss.png", "train_log.jsonl", "tensorboard"):
        assert (tmp_path / "run" / name).exists()
    provenance = json.loads((result.agent_dir / "agent.json").read_text(encoding="utf-8"))["provenance"]
    assert provenance["steps"] == 6 and provenance["samples"] == 24 and provenance["command"] == "vla train tiny"
    assert provenance["scores"]["success"] == result.scores["success"]
    averaged = load_file(tmp_path / "run/checkpoints/step_000006/ema.safetensors")
    shipped = load_file(result.agent_dir / "model.safetensors")
    for name, tensor in averaged.items():
        assert torch.equal(shipped[f"policy.{name}"], tensor.half())


def test_loss_falls(data: Path, tmp_path: Path) -> None:
    run = StopAt()
    train(tiny("--optim.steps=60", "--optim.checkpoint_every=60"), data, tmp_path / "run", on_step=run)
    assert np.mean(run.losses[-10:]) < 0.8 * np.mean(run.losses[:3])


# ------------------------------------------------------------------ the parts


def test_learning_rate_warms_up_and_ends_at_one_percent() -> None:
    optim = OptimConfig(steps=100, warmup_steps=10, lr=1.0)
    rates = [learning_rate(optim, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == rates[10] == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.01) and rates[10:] == sorted(rates[10:], reverse=True)
    assert learning_rate(replace(optim, warmup_steps=0), 0) == pytest.approx(1.0)


def test_ema_follows_the_closed_form() -> None:
    module = nn.BatchNorm1d(2)
    ema, expected = Ema(module, 0.5), 1.0
    for count in range(5):
        with torch.no_grad():
            module.weight.fill_(count)
            module.running_mean.fill_(-count)
        ema.update()
        decay = min(0.5, (1 + count) / (10 + count))
        expected = decay * expected + (1 - decay) * count
    with ema.applied():
        assert module.weight.tolist() == pytest.approx([expected] * 2)
        assert module.running_mean.tolist() != [-4.0, -4.0]
    assert module.weight.tolist() == [4.0, 4.0] and module.running_mean.tolist() == [-4.0, -4.0]


def test_sample_order_is_a_permutation_for_each_epoch() -> None:
    order = SampleOrder(7, seed=3)
    epochs = order.take(0, 21).reshape(3, 7)
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert not np.array_equal(epochs[0], epochs[1])
    assert np.array_equal(SampleOrder(7, seed=3).take(5, 9), epochs.reshape(-1)[5:14])


def test_prefetch_keeps_the_order_and_passes_errors_on() -> None:
    with Prefetch(lambda step: step * step, 3, 8) as results:
        assert list(results) == [9, 16, 25, 36, 49]

    def fail(step: int) -> int:
        if step == 2:
            raise VlaError("no such frame")
        return step

    with Prefetch(fail, 0, 5) as results, pytest.raises(VlaError, match="no such frame"):
        list(results)
    with Prefetch(lambda step: step, 0, 10**9) as results:
        next(iter(results))  # leaving early ends the thread


def test_colour_jitter_changes_colours_and_nothing_else() -> None:
    torch.manual_seed(0)
    batch = {"images.scene": torch.rand(4, 3, 8, 8) * 2 - 1, "state": torch.rand(4, 5), "instruction": ["a"] * 4}
    kept = batch["images.scene"].clone()
    assert colour_jitter(batch, 0.0) is batch
    torch.manual_seed(1)
    first = colour_jitter(batch, 0.3)
    torch.manual_seed(1)
    second = colour_jitter(batch, 0.3)
    assert torch.equal(first["images.scene"], second["images.scene"]) and torch.equal(batch["images.scene"], kept)
    assert first["state"] is batch["state"] and first["images.scene"].abs().max() <= 1
    changes = (first["images.scene"] - kept).flatten(1).abs().mean(dim=1)
    assert changes.min() > 0.005 and len(set(changes.tolist())) == 4
    flat = colour_jitter({"images.scene": torch.zeros(2, 3, 4, 4)}, 0.3)["images.scene"]
    assert torch.equal(flat, flat[:, :, :1, :1].expand_as(flat))  # each pixel's colour depends on its colour alone


def test_idle_parameters_are_named(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tiny(policy="tests.test_train:IdlePolicy"), data, tmp_path / "run")
    assert "2 parameters take no part in the loss and stay as they are, e.g. spare.weight" in capsys.readouterr().out


def test_command_lists_shows_and_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    from vla.cli import main

    assert main(["train", "--list"]) == 0 and "demonstrations" in capsys.readouterr().out
    assert main(["train", "demonstrations", "--optim.steps=77", "--show"]) == 0
    assert " 77" in capsys.readouterr().out
    assert main(["train"]) == 2 and "--list" in capsys.readouterr().err
    assert main(["train", "demonstrations", "--steps", "5"]) == 2
    assert "did you mean --optim.steps?" in capsys.readouterr().err
    assert main(["train", "--resume", "demonstrations", "--data", "no/such"]) == 2
    told = capsys.readouterr().err  # it may be a name on the hub, which cannot be asked here
    assert "there is no folder no/such" in told and "record one with: vla record --env tidy_desk" in told
    assert main(["train", "demonstrations", "--data", "tests/none"]) == 2
    assert "there is no dataset in tests/none; record one with: vla record" in capsys.readouterr().err


def test_the_average_follows_a_module_that_was_given_new_storage() -> None:
    """Wrapping a module for several processes does that; the average once stayed at the first weights."""
    module = torch.nn.BatchNorm1d(3)
    ema = Ema(module, decay=0.5)
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.data = tensor.data.clone()
    with torch.no_grad():
        module.weight.fill_(5.0)
        module.running_mean.fill_(7.0)
    for _ in range(60):
        ema.update()
    assert torch.allclose(ema.state()["weight"], module.weight)
    assert torch.allclose(ema.state()["running_mean"], module.running_mean)
    with torch.no_grad():
        module.weight.fill_(1.0)
    with ema.applied():
        assert torch.allclose(module.weight, torch.full((3,), 5.0), atol=1e-4)
    assert torch.equal(module.weight, torch.ones(3))
