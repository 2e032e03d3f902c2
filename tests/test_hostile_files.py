"""Files that others wrote: what they name is not run, what is wrong in them is one line that names the file."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.acting import ENV, DotAgent
from vla import agent as agents
from vla import registry
from vla.cli import main
from vla.commands import eval as eval_command
from vla.contracts import VlaError

SHIPPED = Path(__file__).resolve().parent.parent / "assets/agents/tidy_desk"


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The one line that a command ends with, which must be a user's error."""
    capsys.readouterr()
    assert main([str(word) for word in words]) == 2
    line = capsys.readouterr().err
    assert line.startswith("vla: error: ") and line.count("\n") == 1, line
    return line


# --- what a file names ---------------------------------------------------------------------------------------------

OUTSIDE = ("subprocess:Popen", "antigravity:x", "os:system", "gymnasium:antigravity:x/Y-v0", "gymnasium:this/X-v0")


@pytest.fixture
def evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    monkeypatch.setattr(eval_command, "_load_agent", lambda *args: DotAgent())
    words = ["eval", "--env", ENV, "--episodes", "1", "--videos", "0", "--workers", "1", "--out", str(tmp_path / "run")]
    assert main(words) == 0
    return tmp_path / "run"


def edit(file: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    data = json.loads(file.read_text(encoding="utf-8"))
    change(data)
    file.write_text(json.dumps(data), encoding="utf-8")


@pytest.mark.parametrize("name", OUTSIDE)
def test_results_run_nothing(evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    def change(data: dict[str, Any]) -> None:
        data["env"] = data["settings"]["env"] = name
        data["settings"]["env_options"] = {"args": ["touch", str(tmp_path / "ran")]}

    edit(evaluated / "results.json", change)
    line = refused(capsys, "eval", "--repeat", evaluated, "--out", tmp_path / "again")
    assert "results.json" in line and not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("workers", 10**6),
        ("workers", True),
        ("episodes", 10**12),
        ("slots", 10**9),
        ("suite", {"../../elsewhere": ["mild"]}),
        ("suite", {"camera": ["../../elsewhere"]}),
        ("suite", {"camera": 3}),
        ("perturb", {"camera": 3}),
        ("more_seeds", ["x"]),
        ("agent", "lerobot:somebody/policy"),
        ("env_options", {"cameras_px": 10**9}),
        ("env_options", {"cameras_px": [1]}),
        ("env_options", {"cameras": "two"}),
        ("env_options", {"unknown": 1}),
    ],
)
def test_results_ask_for_nothing_absurd(
    evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, value: Any
) -> None:
    edit(evaluated / "results.json", lambda data: data["settings"].update({name: value}))
    line = refused(capsys, "eval", "--repeat", evaluated, "--env", ENV, "--out", tmp_path / "again")
    assert "results.json" in line


@pytest.mark.parametrize("content", [b"\xff{}", b"[1]", b"[" * 100_000, b"", b'{"env": 3}', None, "a FIFO", "a folder"])
def test_results_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: Any) -> None:
    file = put(tmp_path / "results.json", content)
    assert "results.json" in refused(capsys, "eval", "--repeat", file)
    assert "results.json" in refused(capsys, "compare", file, file)


def put(file: Path, content: bytes | str | None) -> Path:
    """A file with these bytes; None for none, or what else may bear its name."""
    if content == "a FIFO":
        os.mkfifo(file)
    elif content == "a folder":
        file.mkdir()
    elif isinstance(content, bytes):
        file.write_bytes(content)
    return file


def test_only_what_is_typed_is_imported() -> None:
    words = ["--env", "tests.fake_env:DotEnv", "--env-option=env_id=tests.acting:X", "--env=tests.acting:SwapDotEnv"]
    with registry.only_typed(words):
        assert registry.load_env("tests.fake_env:DotEnv").__name__ == "DotEnv"
        assert registry.load_env("tests.acting:SwapDotEnv").__name__ == "SwapDotEnv"
        registry.require_typed("tests.acting:X", "it")
        for name in ("tests.acting:DyingDotEnv", "fake_env:DotEnv"):
            with pytest.raises(VlaError, match="this command line does not name it"):
                registry.load_env(name)
        with pytest.raises(VlaError, match="does not name it"):
            registry.load_function("os:system")
    assert registry.load_env("tests.acting:DyingDotEnv").__name__ == "DyingDotEnv"


@pytest.mark.parametrize("name", ["subprocess:Popen", "policies.flow:FlowConfig", "builtins:dict"])
def test_a_class_that_is_none_is_not_called(name: str) -> None:
    with pytest.raises(VlaError, match="which is no env: it lacks reset"):
        registry.make_env(name, args=["false"])
    with pytest.raises(VlaError, match=r"which is no policy: it lacks loss"):
        registry.load_policy(name)


# --- agents --------------------------------------------------------------------------------------------------------


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SHIPPED, tmp_path / "an [/red] agent"))


def test_the_shipped_agent_loads(bundle: Path) -> None:
    agents.load(bundle, "cpu")


def said(bundle: Path) -> str:
    with pytest.raises(agents.AgentError) as caught:
        agents.load(bundle, "cpu")
    text = str(caught.value)
    assert "agent.json" in text and "\n" not in text
    return text


@pytest.mark.parametrize(
    "content", [b'{"policy": "\xff"}', b"[1]", b"[" * 100_000, b"", b"{}", b'{"format_version": 1}']
)
def test_an_agent_json_that_cannot_be_read(bundle: Path, content: bytes) -> None:
    (bundle / "agent.json").write_bytes(content)
    said(bundle)


@pytest.mark.parametrize(
    "key", ["format_version", "policy", "config", "spec", "golden_instruction", "sha256", "provenance"]
)
@pytest.mark.parametrize("value", ["lacks it", None, 3, "x", [], {"x": 1}])
def test_an_agent_json_with_wrong_types(bundle: Path, key: str, value: Any) -> None:
    if (key, value) in (("provenance", {"x": 1}), ("golden_instruction", "x")):
        return  # these may say anything
    edit(bundle / "agent.json", lambda data: data.pop(key) if value == "lacks it" else data.update({key: value}))
    said(bundle)


@pytest.mark.parametrize(
    "name", ["policies.flow:FlowConfig", "subprocess:Popen", "os.path:join", "../flow", "", "flow:x"]
)
def test_an_agent_names_our_policies_only(bundle: Path, name: str) -> None:
    edit(bundle / "agent.json", lambda data: data.update(policy=name))
    assert "which is not in policies/" in said(bundle)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("config.sample_steps", 10_000_000),
        ("config.sample_steps", "2"),
        ("config.sample_steps", 2.5),
        ("config.sample_steps", True),
        ("config.depth", 100_000),
        ("config.depth", 120),
        ("config.dim", 16_000),
        ("config.dim", -1),
        ("config.heads", 0),
        ("config.heads", 5),
        ("config.chunk", 10**9),
        ("config.chunk", 1000),
        ("config.actions_per_token", 0),
        ("config.noise_scale", 1e300),
        ("config.trunk", 3),
        ("config.trunk.hops", 1000),
        ("config.trunk.slots", 10**6),
        ("config.trunk.pixels", [10**6, 64]),
        ("config.trunk.pixels", ["128", 64]),
        ("config.trunk.pixels", []),
        ("config.trunk.nothing", 1),
        ("config.trunk.vision", "hf-hub:evil/model"),
        ("config.trunk.vision", "local-dir:/tmp"),
        ("config.trunk.vision", "resnet18.hf-hub:evil/model"),
        ("config.trunk.vision", "eva_giant_patch14_560"),
        ("spec.cameras", [{"name": "../../scene", "height": 128, "width": 128}]),
        ("spec.cameras", [{"name": "scene", "height": 10**9, "width": 128}] * 2),
        ("spec.cameras", [1]),
        ("spec.dt", 0),
        ("spec.dt", "0.1"),
        ("spec.action", ["x"]),
        ("spec.relative", [[0, 99]]),
        ("sha256.model.safetensors", "0"),
    ],
)
def test_an_agent_with_an_impossible_value(bundle: Path, path: str, value: Any) -> None:
    def change(data: dict[str, Any]) -> None:
        first, _, rest = path.partition(".")
        second, _, third = rest.partition(".") if first == "config" else (rest, "", "")
        if third:
            data[first][second][third] = value
        else:
            data[first][second] = value

    edit(bundle / "agent.json", change)
    said(bundle)


@pytest.mark.parametrize("file", ["model.safetensors", "golden.safetensors"])
@pytest.mark.parametrize("content", [None, "a FIFO", "a folder", b"", b"\x80\x04N."])
def test_weights_that_are_none(bundle: Path, file: str, content: Any) -> None:
    (bundle / file).unlink()
    put(bundle / file, content)
    assert file in said(bundle)


def test_a_bundle_that_says_pretrained_asks_nobody(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    asked, make = [], timm.create_model
    monkeypatch.setattr("timm.create_model", lambda name, **kw: asked.append(kw["pretrained"]) or make(name, **kw))
    edit(bundle / "agent.json", lambda data: data["config"]["trunk"].update(pretrained=True))
    assert agents.load(bundle, "cpu").config.trunk.pretrained is True and True not in asked


def test_a_locale_without_letters_reads_the_same(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edit(bundle / "agent.json", lambda data: data.update(golden_instruction="请整理桌面"))
    text = (bundle / "agent.json").read_text(encoding="utf-8").encode().decode("unicode_escape")
    (bundle / "agent.json").write_text(text, encoding="utf-8") if "请" in text else None
    monkeypatch.setattr("locale.getpreferredencoding", lambda *_: "ascii")
    assert agents.load(bundle, "cpu")._golden_instruction == "请整理桌面"


def test_a_bundle_is_written_for_all_who_may_read(bundle: Path, tmp_path: Path) -> None:
    agent = agents.load(bundle, "cpu")
    images = {camera.name: agent.golden[f"images.{camera.name}"].numpy() for camera in agent.spec.cameras}
    before = os.umask(0o027)
    try:
        agent.save(tmp_path / "saved", agents.Observation(images, agent.golden["state"].numpy(), "tidy up"))
    finally:
        os.umask(before)
    assert {oct(file.stat().st_mode & 0o777) for file in (tmp_path / "saved").iterdir()} == {"0o640"}
