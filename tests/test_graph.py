"""An exported agent: its network as an ONNX graph gives the chunks that its weights give, or is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from policies.flow import FlowPolicy
from policies.flow_config import FlowConfig
from tests.test_policies import SPEC, normaliser, raw_batch
from vla.agent import NETWORK, WEIGHTS, Agent, AgentError, load
from vla.cli import main
from vla.contracts import Observation, VlaError
from vla.host.provenance import file_sha256
from vla.nn.graph import graph_of

SENTENCES = ["tidy", "put the red pen into the tray, if you would be so kind", "请整理桌面"]


def observations() -> list[Observation]:
    rng, found = np.random.default_rng(0), []
    for sentence in SENTENCES:
        images = {c.name: rng.integers(0, 256, (c.height, c.width, 3), dtype=np.uint8) for c in SPEC.cameras}
        found.append(Observation(images, rng.random(len(SPEC.state)).astype(np.float32), sentence))
    return found


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a flow agent in ``plain`` and, made by the command, in ``fast``."""
    root = tmp_path_factory.mktemp("exported")
    torch.manual_seed(0)
    policy = FlowPolicy(replace(FlowConfig.tiny(), sample_steps=1), SPEC)  # each is a graph of its own
    with torch.no_grad():
        for p in policy.parameters():  # gates and outputs start at zero
            p.add_(0.1 * torch.randn_like(p))
        for name, buffer in policy.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.add_(0.1 * torch.rand_like(buffer))
    batch = raw_batch()
    Agent(policy, normaliser(batch), SPEC, "flow").save(root / "plain", observations()[1])
    assert main(["export", "--agent", str(root / "plain"), "--out", str(root / "fast")]) == 0
    return root


def test_the_graph_gives_what_the_weights_give(exported: Path) -> None:
    """For one observation and for several, whatever the sentence's length, and the same each time."""
    plain, fast = load(exported / "plain", "cpu"), load(exported / "fast", "cpu")
    assert plain.graph is None and fast.graph is not None
    seen, seeds = observations(), [3, 5, 2**40]
    together = fast.act_batch(seen, seeds)
    for chunk, again, wanted in zip(together, fast.act_batch(seen, seeds), plain.act_batch(seen, seeds), strict=True):
        np.testing.assert_allclose(chunk.actions, wanted.actions, atol=1e-5)
        np.testing.assert_array_equal(chunk.actions, again.actions)
        assert (chunk.dt, chunk.time, chunk.execute) == (wanted.dt, wanted.time, wanted.execute)
    for one, seed, chunk in zip(seen, seeds, together, strict=True):
        np.testing.assert_allclose(fast.act(one, seed).actions, chunk.actions, atol=1e-5)
    moved = np.abs(together[0].actions - together[1].actions).max()
    assert moved > 1e-2, "a graph that does not look would pass"


def test_an_exported_agent_is_another_one_with_the_same_weights(exported: Path) -> None:
    plain, fast = load(exported / "plain", "cpu"), load(exported / "fast", "cpu")
    assert fast.hash == file_sha256(exported / "fast" / NETWORK) != plain.hash
    assert file_sha256(exported / "fast" / WEIGHTS) == plain.hash
    for name, tensor in plain.policy.state_dict().items():
        assert torch.equal(tensor, fast.policy.state_dict()[name])


def test_a_damaged_or_foreign_graph_is_refused(exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "fast"
    shutil.copytree(exported / "fast", folder)
    about = json.loads((folder / "agent.json").read_text(encoding="utf-8"))

    def put(content: bytes) -> None:
        (folder / NETWORK).write_bytes(content)
        about["sha256"][NETWORK] = hashlib.sha256(content).hexdigest()
        (folder / "agent.json").write_text(json.dumps(about), encoding="utf-8")

    good = (folder / NETWORK).read_bytes()
    (folder / NETWORK).write_bytes(good[:-1])
    with pytest.raises(AgentError, match=r"network\.onnx is missing or damaged"):
        load(folder, "cpu")
    put(b"no graph")
    with pytest.raises(AgentError, match="the ONNX graph cannot be read") as caught:
        load(folder, "cpu")
    assert "\n" not in str(caught.value)
    other = onnx.load_from_string(good)
    (bias,) = [one for one in other.graph.initializer if one.name.endswith("head.out.bias")]
    bias.raw_data = (onnx.numpy_helper.to_array(bias) + np.float32(0.5)).tobytes()
    put(other.SerializeToString())
    with pytest.raises(AgentError, match="does not give the golden chunk"):
        load(folder, "cpu")
    put(good)
    assert load(folder, "cpu").graph is not None


def test_what_cannot_be_exported_is_told_in_one_line(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["export", "--agent", str(exported / "plain"), "--out"]
    assert main([*words, str(exported / "fast")]) == 2
    assert "is there already; name another folder" in capsys.readouterr().err
    with pytest.raises(VlaError, match="Linear has no head that follows noise"):
        graph_of(torch.nn.Linear(1, 1), SPEC)
    for package in ("onnxscript", "onnxruntime"):
        monkeypatch.setitem(sys.modules, package, None)
    assert main([*words, str(tmp_path / "out")]) == 2
    assert "uv sync --extra onnx" in capsys.readouterr().err
    with pytest.raises(AgentError, match=r"onnxruntime is missing; .*uv sync --extra onnx"):
        load(exported / "fast", "cpu")
    assert not list(tmp_path.iterdir())
