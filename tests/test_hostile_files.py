"""Files that others wrote: what they name is not run, what is wrong in them is one line that names the file."""

from __future__ import annotations

import contextlib
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
from vla.data.open import open_dataset
from vla.data.recording.record import RecordSettings, record

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
    data.pop("content_hash", None)  # which older results.json lack, so that leaving it out hides a change
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


def test_a_changed_digit_of_results_is_noticed(
    evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, whole = evaluated / "results.json", (evaluated / "results.json").read_text(encoding="utf-8")
    again = ("--env", ENV, "--episodes", 1, "--videos", 0, "--workers", 1, "--out", evaluated)
    for old, new in (('"steps": ', '"steps": 1'), ('"progress": 1.0', '"progress": 0.9')):
        assert old in whole
        file.write_text(whole.replace(old, new, 1), encoding="utf-8")
        for words in (("compare", evaluated, evaluated), ("eval", "--repeat", evaluated), ("eval", *again)):
            assert f"{file} is damaged: it is not what vla eval wrote, by its" in refused(capsys, *words)
    edit(file, lambda data: None)  # without its hash, as one of before there was any
    assert main(["compare", str(evaluated), str(evaluated), "--out", str(tmp_path / "page")]) == 0


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
    monkeypatch.setattr("vla.nn.vision._timm_network", lambda *args: pytest.fail("asked timm for weights"))
    edit(bundle / "agent.json", lambda data: data["config"]["trunk"].update(pretrained=True))
    assert agents.load(bundle, "cpu").config.trunk.pretrained is True


def test_a_locale_without_letters_reads_the_same(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edit(bundle / "agent.json", lambda data: data.update(golden_instruction="请整理桌面"))
    text = (bundle / "agent.json").read_text(encoding="utf-8").encode().decode("unicode_escape")
    (bundle / "agent.json").write_text(text, encoding="utf-8") if "请" in text else None
    monkeypatch.setattr("locale.getpreferredencoding", lambda *_: "ascii")
    assert agents.load(bundle, "cpu")._golden_instruction == "请整理桌面"


def saved(bundle: Path, folder: Path) -> Path:
    agent = agents.load(bundle, "cpu")
    images = {camera.name: agent.golden[f"images.{camera.name}"].numpy() for camera in agent.spec.cameras}
    return agent.save(folder, agents.Observation(images, agent.golden["state"].numpy(), "tidy up"))


def test_a_bundle_is_written_for_all_who_may_read(bundle: Path, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        saved(bundle, tmp_path / "saved")
    finally:
        os.umask(before)
    assert {oct(file.stat().st_mode & 0o777) for file in (tmp_path / "saved").iterdir()} == {"0o640"}


def test_a_bundle_is_on_the_disk_before_it_has_its_name(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced, sync = [], os.fsync
    monkeypatch.setattr(
        os,
        "fsync",
        lambda handle: synced.append((tmp_path / "saved").exists()) or sync(handle),  # type: ignore[func-returns-value]
    )
    saved(bundle, tmp_path / "saved")
    assert synced[:3] == [False] * 3 and synced[-1] is True, "three files, and at last the folder's name"


def test_an_agent_of_outside_code_loads_where_the_user_allows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.test_record import saved_agent

    folder = saved_agent(tmp_path / "agent")
    assert "set VLA_ALLOW=tests.test_train:TinyPolicy" in said(folder)
    monkeypatch.setenv("VLA_ALLOW", "some.other:Policy,tests.test_train:TinyPolicy")
    with registry.only_typed([]):
        assert agents.load(folder, "cpu").policy_name == "tests.test_train:TinyPolicy"


# --- datasets ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("recorded") / "dots"
    record(RecordSettings(ENV, out, episodes=2, workers=1))
    shutil.rmtree(out / ".episodes")
    return out


@pytest.fixture
def dataset(recorded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(recorded, tmp_path / "data"))


def plain(dataset: Path) -> None:
    """Make it a dataset that somebody else could have written."""
    (dataset / "meta/vla.json").unlink()
    (dataset / "meta/vla_episodes.jsonl").unlink()


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_dataset_runs_nothing(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    def change(facts: dict[str, Any]) -> None:
        facts["env"] = name
        facts["recording"]["env_options"] = {"args": ["touch", str(tmp_path / "ran")]}

    edit(dataset / "meta/vla.json", change)
    assert "meta/vla.json" in refused(capsys, "record", "--replay", dataset)
    assert not (tmp_path / "ran").exists()


def test_an_outside_env_is_replayed_where_it_is_typed(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "name it yourself with --env" in refused(capsys, "record", "--replay", dataset)
    assert "was recorded in the env" in refused(capsys, "record", "--replay", dataset, "--env", "tidy_desk")
    assert main(["record", "--replay", str(dataset), "--env", ENV]) == 0


def test_lost_lines_are_noticed(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = (dataset / "meta/vla_episodes.jsonl").read_text().splitlines(keepends=True)
    for count in (1, 0):
        (dataset / "meta/vla_episodes.jsonl").write_text("".join(lines[:count]))
        line = refused(capsys, "record", "--replay", dataset, "--env", ENV)
        assert f"vla_episodes.jsonl holds {count} episodes, and {dataset}/meta/info.json says 2" in line


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "vla.json cut": lambda d: put(d / "meta/vla.json", (d / "meta/vla.json").read_bytes()[:300]),
    "vla.json no UTF-8": lambda d: put(d / "meta/vla.json", b"\xff"),
    "vla.json nested": lambda d: put(d / "meta/vla.json", b"[" * 100_000),
    "vla.json without env_spec": lambda d: edit(d / "meta/vla.json", lambda j: j.pop("env_spec")),
    "vla.json without env": lambda d: edit(d / "meta/vla.json", lambda j: j.pop("env")),
    "vla.json recording": lambda d: edit(d / "meta/vla.json", lambda j: j.update(recording=[])),
    "vla.json options": lambda d: edit(d / "meta/vla.json", lambda j: j["recording"].update(env_options=[1])),
    "vla.json dt": lambda d: edit(d / "meta/vla.json", lambda j: j["env_spec"].update(dt="0.1")),
    "vla.json camera": lambda d: edit(d / "meta/vla.json", lambda j: j["env_spec"]["cameras"][0].update(name="../x")),
    "vla_episodes.jsonl cut": lambda d: put(
        d / "meta/vla_episodes.jsonl", (d / "meta/vla_episodes.jsonl").read_bytes()[:300]
    ),
    "vla_episodes.jsonl a list": lambda d: put(d / "meta/vla_episodes.jsonl", b"[1]\n"),
    "vla_episodes.jsonl gone": lambda d: (d / "meta/vla_episodes.jsonl").unlink(),
    "info.json without total_frames": lambda d: edit(d / "meta/info.json", lambda j: j.pop("total_frames")),
    "info.json without total_episodes": lambda d: edit(d / "meta/info.json", lambda j: j.pop("total_episodes")),
    "info.json without video_path": lambda d: edit(d / "meta/info.json", lambda j: j.pop("video_path")),
    "info.json {nope}": lambda d: edit(d / "meta/info.json", lambda j: j.update(video_path="{nope}")),
    "info.json {}": lambda d: edit(d / "meta/info.json", lambda j: j.update(video_path="{}/{video_key[0]}")),
    "info.json wide": lambda d: edit(d / "meta/info.json", lambda j: j.update(video_path="{file_index:999999999d}")),
    "info.json ../": lambda d: edit(d / "meta/info.json", lambda j: j.update(video_path="../{video_key}.mp4")),
    "info.json /": lambda d: edit(d / "meta/info.json", lambda j: j.update(video_path="/{video_key}.mp4")),
    "info.json features": lambda d: edit(d / "meta/info.json", lambda j: j.update(features=[1])),
    "info.json lacks camera": lambda d: edit(
        d / "meta/info.json", lambda j: j["features"].pop("observation.images.scene")
    ),
    "info.json a FIFO": lambda d: (d / "meta/info.json").unlink() or put(d / "meta/info.json", "a FIFO"),
    "tasks.parquet a FIFO": lambda d: (d / "meta/tasks.parquet").unlink() or put(d / "meta/tasks.parquet", "a FIFO"),
    "tasks.parquet a folder": lambda d: (
        (d / "meta/tasks.parquet").unlink() or put(d / "meta/tasks.parquet", "a folder")
    ),
    "x.parquet a loop": lambda d: (d / "data/chunk-000/x.parquet").symlink_to("x.parquet"),
    "x.parquet dangling": lambda d: (d / "data/chunk-000/x.parquet").symlink_to("gone"),
    "x.parquet a FIFO": lambda d: put(d / "data/chunk-000/x.parquet", "a FIFO"),
    "file-000.mp4 a FIFO": lambda d: [file.unlink() or put(file, "a FIFO") for file in d.glob("videos/*/*/*.mp4")],
    "file-000.mp4 a loop": lambda d: [
        file.unlink() or file.symlink_to(file.name) for file in d.glob("videos/*/*/*.mp4")
    ],
}
PLAIN: dict[str, Any] = {
    "fps": [0, -1, "10", None, True, 1e300, float("nan")],
    "features": [[1], {}, {"action": 3}, 5],
    "codebase_version": [None, "v2.1"],
    "total_frames": ["x", 10**9],
    "total_episodes": [1, 10**9],
}


def read(dataset: Path) -> None:
    found = open_dataset(dataset)
    found.fingerprint()
    found.columns()
    for camera in found.spec.cameras:
        for source in found.sources(camera.name):
            list(found.read_frames(source, camera.name))


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_dataset_names_the_file(dataset: Path, damage: str) -> None:
    DAMAGES[damage](dataset)
    with pytest.raises(VlaError, match=damage.split()[0].replace(".", r"\.")):
        read(dataset)


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in PLAIN.items() for value in values])
def test_anothers_damaged_dataset_names_the_file(dataset: Path, key: str, value: Any) -> None:
    plain(dataset)
    read(dataset)
    edit(dataset / "meta/info.json", lambda info: info.update({key: value}))
    with pytest.raises(VlaError) as caught:
        read(dataset)
    assert str(dataset) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("shape", 3),
        ("shape", []),
        ("shape", [2**40]),
        ("shape", [10**6]),
        ("shape", ["2"]),
        ("names", 5),
        ("names", {"a": 1, "b": [2]}),
        ("dtype", 3),
        ("dtype", None),
        ("info", [1]),
    ],
)
@pytest.mark.parametrize("feature", ["action", "observation.images.scene"])
def test_anothers_odd_features_are_one_error_or_none(dataset: Path, feature: str, key: str, value: Any) -> None:
    plain(dataset)
    edit(dataset / "meta/info.json", lambda info: info["features"][feature].update({key: value}))
    with contextlib.suppress(VlaError):
        read(dataset)


def test_links_that_lead_nowhere_and_odd_letters_do_no_harm(dataset: Path) -> None:
    (dataset / "data/chunk-000/note.txt").symlink_to("gone")
    (dataset / "videos/loop.txt").symlink_to("loop.txt")
    file = dataset / "meta/vla_episodes.jsonl"
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    lines[0]["category"] = "a\u2028b\x85c"  # which str.splitlines would part
    file.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    read(dataset)


# --- the terminal --------------------------------------------------------------------------------------------------

NOISE = "\x1b]0;owned\x07\x1b[31m[/red] [bold]x :smile: \u202e"


def test_what_files_say_does_nothing_to_the_terminal(
    evaluated: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(data: dict[str, Any]) -> None:
        data["agent"] = data["episodes_detail"][0]["instruction"] = NOISE

    other = Path(shutil.copytree(evaluated, tmp_path / NOISE.replace("/", "")))
    for folder in (evaluated, other):
        edit(folder / "results.json", change)
    edit(other / "results.json", lambda data: data["episodes_detail"][0].update(success=False))
    capsys.readouterr()
    assert main(["compare", str(evaluated), str(other), "--out", str(tmp_path / "out [/x]")]) == 0
    file = dataset / "meta/vla_episodes.jsonl"
    lines = [json.loads(line) | {"instruction": NOISE} for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(["record", "--replay", str(dataset), "--env", ENV]) in (0, 1)
    edit(dataset / "meta/vla.json", lambda facts: facts.update(env=NOISE))
    assert main(["record", "--replay", str(dataset)]) == 2
    printed = "".join(capsys.readouterr())
    assert "[/red] [bold]x :smile:" in printed and "out [/x]" in printed
    assert not {"\x1b", "\x07", "\u202e"} & set(printed)


def test_printed_commands_can_be_pasted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "train", "demonstrations", "--data", tmp_path / "my data", "--out", tmp_path / "my run")
    assert f"--out '{tmp_path}/my data'" in line
