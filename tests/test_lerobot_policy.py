"""LeRobot's own policies in our loop: what they see, what they remember, what is refused."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.fake_env import DotEnv
from vla.cli import main
from vla.contracts import CameraSpec, EnvSpec, Observation, VlaError
from vla.rollout.lerobot_policy import LeRobotPolicy
from vla.rollout.loop import EpisodeRequest, run_episodes

ENV = "tests.fake_env:DotEnv"
pytestmark = pytest.mark.filterwarnings("ignore")  # LeRobot's own imports warn
SMALL: dict[str, dict[str, Any]] = {
    "act": {
        "pretrained_backbone_weights": None,
        "dim_model": 32,
        "n_heads": 2,
        "dim_feedforward": 32,
        "n_encoder_layers": 1,
        "n_vae_encoder_layers": 1,
        "chunk_size": 8,
        "n_action_steps": 4,
    },
    "diffusion": {
        "pretrained_backbone_weights": None,
        "down_dims": (32, 64),
        "n_groups": 8,
        "diffusion_step_embed_dim": 16,
        "num_train_timesteps": 4,
        "horizon": 8,
        "n_action_steps": 4,
        "resize_shape": (64, 64),
        "crop_ratio": 1.0,
    },
}


def saved(kind: str, folder: Path, spec: EnvSpec) -> Path:
    """A LeRobot policy with fresh weights for an env, as its training leaves it on the disk."""
    from lerobot.configs import FeatureType, PolicyFeature
    from lerobot.policies.factory import get_policy_class, make_policy_config, make_pre_post_processors

    torch.manual_seed(0)
    images = {f"observation.images.{c.name}": (3, c.height, c.width) for c in spec.cameras}
    inputs = {name: PolicyFeature(FeatureType.VISUAL, shape) for name, shape in images.items()}
    inputs["observation.state"] = PolicyFeature(FeatureType.STATE, (len(spec.state),))
    outputs = {"action": PolicyFeature(FeatureType.ACTION, (len(spec.action),))}
    config = make_policy_config(kind, input_features=inputs, output_features=outputs, device="cpu", **SMALL[kind])
    stats = {
        name: {"mean": torch.zeros(n), "std": torch.ones(n), "min": -torch.ones(n), "max": torch.ones(n)}
        for name, n in (("observation.state", len(spec.state)), ("action", len(spec.action)))
    }
    stats |= {
        name: {k: torch.full((3, 1, 1), v) for k, v in (("mean", 0.5), ("std", 0.5), ("min", 0.0), ("max", 1.0))}
        for name in images
    }
    get_policy_class(kind)(config).save_pretrained(folder)
    for processor in make_pre_post_processors(config, dataset_stats=stats):
        processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=sorted(SMALL))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(request.param, tmp_path_factory.mktemp("lerobot") / request.param, DotEnv().env_spec)


def looks(count: int) -> list[Observation]:
    env = DotEnv()
    env.reset(seed=3)
    found = []
    for step in range(count):
        env.play(np.float32([0.05 * step, 0.1, 1.0]))
        found.append(env.observe())
    return found


def test_it_acts_as_in_lerobots_own_loop(folder: Path) -> None:
    """Against LeRobot's select_action, fed by hand as lerobot-eval feeds it."""
    from lerobot.policies.factory import get_policy_class, make_pre_post_processors

    agent = LeRobotPolicy(str(folder), DotEnv().env_spec, "cpu")
    policy = get_policy_class(folder.name).from_pretrained(folder)
    before, after = make_pre_post_processors(policy.config, str(folder))
    policy.reset()
    memory = agent.begin()
    for seed, look in enumerate(looks(7)):
        batch = {
            f"observation.images.{n}": torch.from_numpy(i).permute(2, 0, 1)[None] / 255 for n, i in look.images.items()
        }
        batch |= {"observation.state": torch.from_numpy(look.state)[None], "task": [look.instruction]}
        torch.manual_seed(seed)
        wanted = after(policy.select_action(before(batch))).numpy()
        (chunk,) = memory.act_batch([look], [seed])
        np.testing.assert_allclose(chunk.actions, wanted, atol=1e-5)


def test_episodes_side_by_side_share_no_memory(folder: Path) -> None:
    agent = LeRobotPolicy(str(folder), DotEnv().env_spec, "cpu")
    requests = [EpisodeRequest(i, 100 + i, {}) for i in range(3)]
    alone = run_episodes(ENV, agent, requests, slots=1)
    together = run_episodes(ENV, agent, requests, slots=3)
    for one, other in zip(alone, together, strict=True):
        assert (one.steps, one.progress, one.decisions) == (other.steps, other.progress, other.decisions)
        assert one.decisions == one.steps  # it is asked at every step


def test_features_that_do_not_fit_are_shown_side_by_side(folder: Path) -> None:
    spec = EnvSpec("toy", (CameraSpec("top", 32, 32),), ("x [m]",), ("x [m]", "y [m]"), 0.1, 50)
    with pytest.raises(
        VlaError, match=r"(?s)policy .*images\.scene 3x32x32.*action 3\n.*env toy: .*images\.top 3x32x32"
    ):
        LeRobotPolicy(str(folder), spec, "cpu")


def test_damaged_and_missing_policies_have_one_clear_error(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(VlaError, match="is no folder with a LeRobot policy"):
        LeRobotPolicy(str(tmp_path / "nothing"), DotEnv().env_spec, "cpu")
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(VlaError, match="LeRobot cannot load a policy from"):
        LeRobotPolicy(str(tmp_path), DotEnv().env_spec, "cpu")


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        (
            "policy_preprocessor.json",
            {"steps": [{"class": "subprocess.Popen", "config": {"args": "false"}}]},
            "class",
        ),
        ("policy_postprocessor.json", {"steps": [{"registry_name": "x", "state_file": "../x.safetensors"}]}, "tens"),
        ("policy_preprocessor.json", {"steps": 3}, "'steps' should be list"),
        ("config.json", {"type": "groot"}, "may run code"),
        ("config.json", {"type": "subprocess"}, "may run code"),
        ("config.json", {"num_inference_steps": 10**7}, "is 10000000"),
        ("config.json", {"n_decoder_layers": 10**5}, "is 100000"),
        ("config.json", {"input_features": [1]}, "input_features"),
    ],
)
def test_its_files_name_no_code(folder: Path, tmp_path: Path, file: str, change: dict[str, Any], said: str) -> None:
    copied = Path(shutil.copytree(folder, tmp_path / "copy"))
    about = json.loads((copied / file).read_text())
    (copied / file).write_text(json.dumps(about | change))
    with pytest.raises(VlaError, match=rf"{file} .*{said}"):
        LeRobotPolicy(str(copied), DotEnv().env_spec, "cpu")


def test_eval_against_lerobot_plays_the_same_episodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.acting import DotAgent

    theirs = saved("act", tmp_path / "act", DotEnv().env_spec)
    monkeypatch.setattr("vla.agent.load", lambda *_: DotAgent())
    out = tmp_path / "out"
    words = ["eval", "--env", ENV, "--agent", "dots", "--episodes", "4", "--workers", "1", "--videos", "0"]
    assert main([*words, "--out", str(out), "--against", f"lerobot:{theirs}"]) == 0
    ours, other = (json.loads((f / "results.json").read_text()) for f in (out, out / "against"))
    assert [e["seed"] for e in ours["episodes_detail"]] == [e["seed"] for e in other["episodes_detail"]]
    assert other["policy"] == "lerobot act" and len(other["agent_hash"]) == 16 and other["execute"] == 1
    assert ours["against"]["agent"] == "act"
    assert ours["command"].endswith(f"--against lerobot:{theirs}")
    assert f"--agent lerobot:{theirs}" in other["command"] and f"--out {out / 'against'}" in other["command"]
    counted = Counter(e["success"] for e in ours["episodes_detail"])
    assert ours["against"]["difference"] == pytest.approx(counted[True] / 4 - other["success"]["rate"])
