"""Recording: what is on the disk, resuming after a kill, faults, replay."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.fake_env import DotEnv
from vla.cli import main
from vla.contracts import CameraSpec, Chunk, EnvSpec, Observation, VlaError, episode_seed
from vla.data.open import open_dataset
from vla.data.recording import shards
from vla.data.recording.demonstrate import Turns, play_episode
from vla.data.recording.features import features, frames_per_second
from vla.data.recording.record import SHARDS, RecordSettings, RecordSummary, record
from vla.data.recording.replay import replay
from vla.data.recording.shards import DamagedShardError, Episode, Shard, write_shard
from vla.data.statistics import from_array, from_histogram
from vla.host.files import LOCK, claimed
from vla.host.interrupt import Terminated
from vla.perturb import axes as perturb

DOT = "tests.fake_env:DotEnv"


def run(out: Path, episodes: int = 4, **changes: object) -> RecordSummary:
    return record(RecordSettings(**{"env": DOT, "out": out, "episodes": episodes, "workers": 1} | changes), show=False)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("recorded") / "dots"
    run(out, 6, noise=0.02)
    return out


@pytest.mark.filterwarnings("ignore")  # LeRobot's own imports warn
@pytest.mark.parametrize("video_format", ["h264", "images"])
def test_opens_with_lerobot(tmp_path: Path, video_format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    run(tmp_path, 3, video_format=video_format)
    theirs = LeRobotDataset(
        "local/dots", root=tmp_path, video_backend="pyav", delta_timestamps={"action": [0.0, 0.1, 0.2]}
    )
    ours = open_dataset(tmp_path)
    columns, texts = ours.columns()
    assert theirs.num_episodes == 3 and theirs.num_frames == len(columns["state"]) == ours.frames
    assert theirs.meta.stats is not None and theirs.meta.stats["observation.images.scene"]["mean"].shape == (3, 1, 1)
    for row in (0, int(np.flatnonzero(columns["episode"] == 1)[2]), ours.frames - 1):
        item = theirs[row]
        facts = ours.episodes[columns["episode"][row]]
        assert item["task"] == facts["instruction"] == ours.instructions[columns["instruction"][row]]
        assert item["sub_instruction"] == texts[columns["sub_instruction"][row]]
        np.testing.assert_array_equal(item["observation.state"].numpy(), columns["state"][row])
        np.testing.assert_array_equal(item["action"][0].numpy(), columns["action"][row])
        env = DotEnv()
        env.reset(seed=facts["seed"], options=facts["options"])
        for action in columns["executed"][(columns["episode"] == columns["episode"][row])][: columns["frame"][row]]:
            env.play(action)
        shown = env.observe().images["scene"].astype(int)
        stored = (item["observation.images.scene"].permute(1, 2, 0).numpy() * 255).round().astype(int)
        error = np.abs(shown - stored)
        assert error.max() == 0 if video_format == "images" else error.mean() < 2


def test_what_is_recorded(dataset: Path) -> None:
    recorded = open_dataset(dataset)
    columns, _ = recorded.columns()
    assert recorded.spec == DotEnv().env_spec
    assert [facts["seed"] for facts in recorded.episodes] == [episode_seed("record", 0, i) for i in range(6)]
    assert columns["success"].all() and set(columns["seed"]) == {facts["seed"] for facts in recorded.episodes}
    drift = columns["executed"] - columns["action"]
    assert np.abs(drift[:, :2]).max() > 0.005 and not drift[:, 2].any()
    for number, facts in enumerate(recorded.episodes):
        progress = columns["progress"][columns["episode"] == number]
        assert progress[0] == 0 and facts["progress"] == 1 and facts["steps"] == len(progress)
        assert (progress[-3:] == 1).all() and (progress[:-3] < 1).all()  # three steps after success
    assert columns["points.wrist"].shape == (recorded.frames, 6)
    assert recorded.facts["recording"]["noise"] == 0.02 and recorded.facts["episodes_played"] == 6


def test_workers_and_order_do_not_matter(dataset: Path, tmp_path: Path) -> None:
    run(tmp_path, 6, noise=0.02, workers=2)
    ours, theirs = open_dataset(dataset).columns()[0], open_dataset(tmp_path).columns()[0]
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name])


def test_replay_gives_the_recorded_outcome(dataset: Path) -> None:
    rows = list(replay(dataset, env_name=DOT))
    assert len(rows) == 6 and all(row["same"] and row["replayed"] and row["gap"] == 0 for row in rows)


def test_a_replay_that_is_stopped_shows_what_it_has(
    dataset: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*arguments: object) -> Iterator[dict]:
        yield next(replay(dataset, 1, DOT))
        raise Terminated(signal.SIGTERM)

    monkeypatch.setattr("vla.data.recording.replay.replay", stopped)
    assert main(["record", "--replay", str(dataset), "--env", DOT]) == 143
    said = capsys.readouterr().out
    assert "1 of 1 episodes came out as recorded" in said and "stopped before the last episode" in said


def test_randomized_episodes_differ_and_replay(tmp_path: Path) -> None:
    run(tmp_path, 8, randomize=("state", "noise"))
    recorded = open_dataset(tmp_path)
    columns, _ = recorded.columns()
    begun = [columns["state"][columns["episode"] == i][0] for i in range(8)]
    wanted = [perturb.drawn(("state", "noise"), facts["seed"]) for facts in recorded.episodes]
    assert len({tuple(sorted(harder)) for harder in wanted}) >= 3
    for facts, harder, state in zip(recorded.episodes, wanted, begun, strict=True):
        assert facts["options"].get("perturb", {}) == perturb.for_reset(harder)
        env = DotEnv()
        env.reset(seed=facts["seed"], options=facts["options"])
        assert (np.abs(env.observe().state - state).max() == 0) == ("noise" not in harder)
    assert all(row["same"] for row in replay(tmp_path, env_name=DOT))
    with pytest.raises(VlaError, match=r"another recording|differ"):
        run(tmp_path, 9)


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        ("camera", "cannot do the perturbation 'camera'; it can do state, noise"),
        ("language", "cannot do the perturbation 'language'"),
        ("stat", "did you mean 'state'"),
        ("state=strong", "draws their strengths itself"),
    ],
)
def test_what_cannot_be_randomized_is_refused(
    axes: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["record", "--env", DOT, "--episodes", "2", "--out", str(tmp_path / "out"), "--randomize", axes]
    assert main(command) == 2 and said in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


def test_replay_notices_a_difference(tmp_path: Path) -> None:
    run(tmp_path, 2)
    file = tmp_path / "meta/vla_episodes.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines[1]["seed"] += 1
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [row["same"] for row in replay(tmp_path, env_name=DOT)] == [True, False]


def test_failures_are_dropped_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play, seeds = DotEnv.play, [0]

    def fail_at_odd_seeds(env: DotEnv, action: np.ndarray) -> object:
        result = play(env, action)
        if seeds[-1] % 2:
            result.terminated = result.info["success"] = False
        return result

    reset = DotEnv.reset

    def remember(env: DotEnv, *, seed: int | None = None, options: dict | None = None) -> object:
        seeds.append(seed or 0)
        return reset(env, seed=seed, options=options)

    monkeypatch.setattr(DotEnv, "play", fail_at_odd_seeds)
    monkeypatch.setattr(DotEnv, "reset", remember)
    summary = run(tmp_path / "dropped")
    assert (summary.played, summary.succeeded, summary.kept) == (4, 2, 2)
    assert [facts["seed"] % 2 for facts in open_dataset(tmp_path / "dropped").episodes] == [0, 0]
    assert run(tmp_path / "dropped").new == 0  # a dropped episode is not played again
    summary = run(tmp_path / "kept", keep_failures=True)
    assert summary.kept == 4
    assert not open_dataset(tmp_path / "kept").columns()[0]["success"].all()


def test_options(tmp_path: Path) -> None:
    run(tmp_path, 8, language="zh", kind="all", items=(2, 4))
    episodes = open_dataset(tmp_path).episodes
    assert {facts["language"] for facts in episodes} == {"zh"} and {facts["kind"] for facts in episodes} == {"all"}
    counts = {len(facts["items"]) for facts in episodes}
    assert counts <= {2, 3, 4} and len(counts) > 1


def test_a_recording_can_grow(tmp_path: Path) -> None:
    run(tmp_path, 2)
    shard = tmp_path / ".episodes/000001.npz"
    before = shard.stat().st_mtime_ns
    assert run(tmp_path, 5).new == 3
    assert shard.stat().st_mtime_ns == before and len(open_dataset(tmp_path).episodes) == 5


def test_another_recording_is_refused(tmp_path: Path) -> None:
    run(tmp_path, 1)
    with pytest.raises(VlaError, match=r"(?s)holds another recording.*noise:.*in the folder: 0.0.*asked for: 0.5"):
        run(tmp_path, 1, noise=0.5)
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    with pytest.raises(VlaError, match="something else"):
        run(other, 1)
    assert (other / "thesis.txt").read_text() == "mine"


def test_a_second_recording_at_the_same_time_is_refused(tmp_path: Path) -> None:
    run(tmp_path, 1)
    unfinished = tmp_path / SHARDS / "000001.tmp"
    unfinished.write_bytes(b"the first one is at it")
    with claimed(tmp_path / SHARDS, "vla record"), pytest.raises(VlaError, match="another vla record is at work"):
        run(tmp_path, 2)
    assert unfinished.exists()
    assert run(tmp_path, 2).new == 1 and not unfinished.exists()


SLOW_ENV = """
import time
from tests.fake_env import DotEnv
class Slow(DotEnv):
    def play(self, action):
        time.sleep(0.004)  # so that the kill comes in time
        return super().play(action)
"""


def test_kills_and_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker is killed, then all get SIGTERM as from a scheduler, then the parent is killed; each time it goes on."""
    (tmp_path / "slow_dots.py").write_text(SLOW_ENV)
    out, root = tmp_path / "out", Path(__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": f"{root}{os.pathsep}{tmp_path}", "OMP_NUM_THREADS": "1"}
    words = ["-m", "vla", "record", "--env", "slow_dots:Slow", "--episodes", "40", "--out", str(out), "--workers", "2"]
    kept: dict[Path, int] = {}
    for who, number, code, message in (
        ("worker", signal.SIGKILL, 2, "a worker process died"),
        ("group", signal.SIGTERM, 143, ""),
        ("parent", signal.SIGKILL, -signal.SIGKILL, None),
    ):
        process = psutil.Popen(
            [sys.executable, *words],
            cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        deadline, wanted = time.monotonic() + 60, len(kept) + 3
        while len(list(out.glob(".episodes/*.npz"))) < wanted:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        family = process.children()
        if who == "group":
            os.killpg(process.pid, number)
        elif who == "parent":
            process.send_signal(number)
        else:
            next(one for one in family if "spawn_main" in " ".join(one.cmdline())).send_signal(number)
        said = process.communicate(timeout=60)[1].decode()
        assert process.returncode == code and "Traceback" not in said, said
        assert message is None or (message in said and said.count("\n") == bool(message)), said
        assert not psutil.wait_procs(family, timeout=10)[1]  # the workers end as well
        assert all(path.stat().st_mtime_ns == stamp for path, stamp in kept.items())
        kept = {path: path.stat().st_mtime_ns for path in out.glob(".episodes/*.npz")}
        assert wanted <= len(kept) < 40 and not (out / "meta").exists()
    with pytest.raises(VlaError, match="did not finish"):
        open_dataset(out)
    monkeypatch.syspath_prepend(tmp_path)
    assert record(RecordSettings("slow_dots:Slow", out, 40, workers=1), show=False).new == 40 - len(kept)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in kept.items())
    assert len(open_dataset(out).episodes) == 40
    assert not list(out.glob(".episodes/*.tmp"))


CRASHING_ENV = """
import os, pathlib
from tests.fake_env import DotEnv
class Crashing(DotEnv):
    def reset(self, *, seed=None, options=None):
        mark = pathlib.Path({mark!r})
        if not mark.exists():
            if mark.parent.is_dir():
                mark.touch()
            os.abort()
        return super().reset(seed=seed, options=options)
"""


def test_an_episode_in_which_native_code_crashed_is_played_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    for name, mark in (("crashes_once", tmp_path / "mark"), ("crashes_always", tmp_path / "no folder" / "mark")):
        (tmp_path / f"{name}.py").write_text(CRASHING_ENV.format(mark=str(mark)))
    settings = RecordSettings("crashes_once:Crashing", tmp_path / "once", 4, workers=2)
    assert record(settings, show=False).kept == 4
    assert "ended by signal SIGABRT; its episode is played again by another" in capfd.readouterr().err
    record(replace(settings, env="tests.fake_env:DotEnv", out=tmp_path / "plain"), show=False)
    for one in (tmp_path / "plain").rglob("*.parquet"):
        assert (tmp_path / "once" / one.relative_to(tmp_path / "plain")).read_bytes() == one.read_bytes()
    with pytest.raises(VlaError, match=r"a worker process died: .*SIGABRT"):
        record(replace(settings, env="crashes_always:Crashing", out=tmp_path / "always"), show=False)


def test_a_full_disk_keeps_what_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, calls = shards.write_atomically, []

    def fill_up(path: Path, content: bytes) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, content)

    monkeypatch.setattr(shards, "write_atomically", fill_up)
    with pytest.raises(VlaError, match=r"000002\.npz: No space left on device; finished episodes are kept"):
        run(tmp_path)
    left = {path.name for path in tmp_path.glob(".episodes/*")} - {LOCK}
    assert left == {"000000.npz", "000001.npz", "command.json"}
    assert run(tmp_path).new == 2 and len(open_dataset(tmp_path).episodes) == 4


def test_a_damaged_shard_is_recorded_again(tmp_path: Path) -> None:
    run(tmp_path, 2)
    shard = tmp_path / ".episodes/000001.npz"
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(VlaError, match=r"000001\.npz"):
        Shard(shard)
    assert run(tmp_path, 2).new == 1


def flip(file: Path, at: int) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)


def test_one_damaged_array_in_a_shard(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, 3)
    before, shard = open_dataset(tmp_path).columns()[0], tmp_path / SHARDS / "000001.npz"
    with np.load(shard) as data:
        where = data.zip.getinfo("blob.scene.npy").header_offset + 400
    flip(shard, where)
    assert Shard(shard).facts["success"]  # what is read first is sound
    with pytest.raises(DamagedShardError, match=r"000001\.npz is damaged: blob\.scene\.npy does not fit its checksum"):
        Shard(shard).read()
    assert run(tmp_path, 3).new == 1
    assert "000001.npz is damaged" in capsys.readouterr().err and Shard(shard).read()
    after = open_dataset(tmp_path).columns()[0]
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_damage_anywhere_in_a_shard_is_seen_or_harmless(tmp_path: Path) -> None:
    write_shard(tmp_path / "0.npz", play_episode(DotEnv(), 1, {}, 0.0), "h264", 10)
    whole = (tmp_path / "0.npz").read_bytes()
    sound, rng, seen = Shard(tmp_path / "0.npz").read(), np.random.default_rng(0), 0
    for at in [*range(40), *range(len(whole) - 120, len(whole)), *rng.integers(0, len(whole), 60)]:
        (tmp_path / "1.npz").write_bytes(whole)
        flip(tmp_path / "1.npz", int(at))
        try:
            found = Shard(tmp_path / "1.npz").read()
            assert found.keys() == sound.keys() and all(np.array_equal(found[k], sound[k]) for k in sound)
        except DamagedShardError:
            seen += 1
    assert seen > 100


def test_a_shard_of_another_recording_is_told_and_kept(tmp_path: Path) -> None:
    run(tmp_path, 2)
    shard = tmp_path / SHARDS / "000005.npz"
    shutil.copy(tmp_path / SHARDS / "000001.npz", shard)
    (tmp_path / SHARDS / "mine.npz").write_text("notes")
    with pytest.raises(VlaError, match=r"000005\.npz is not episode 5 of this recording"):
        run(tmp_path, 6)
    assert shard.exists()
    shard.unlink()
    os.mkfifo(shard)
    with pytest.raises(VlaError, match="should be a file"):
        run(tmp_path, 6)


@pytest.mark.parametrize(
    "left", [[".episodes/lock"], [".episodes/.lock", ".episodes/.command.json.7.tmp"], [".assembling/a"]]
)
def test_what_a_stopped_start_leaves_is_no_obstacle(tmp_path: Path, left: list[str]) -> None:
    for name in left:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert run(tmp_path, 1).new == 1


@pytest.mark.parametrize("damage", ["", '{"recording": {', None, "[]", '{"recording": 1, "env_spec": {}}', "\xff"])
def test_a_damaged_command_json(tmp_path: Path, damage: str | None) -> None:
    run(tmp_path, 1)
    command, dataset = tmp_path / SHARDS / "command.json", tmp_path / "meta"
    whole = json.loads(command.read_text())

    def spoil() -> None:
        command.unlink(missing_ok=True)
        if damage is not None:
            command.write_text(damage, encoding="latin-1")

    spoil()
    assert run(tmp_path, 2).new == 1 and json.loads(command.read_text()) == whole  # the dataset knows as well
    spoil()
    with pytest.raises(VlaError, match="another recording"):
        run(tmp_path, 2, noise=0.5)
    dataset.rename(tmp_path / "away")
    (tmp_path / "away").rename(tmp_path.parent / f"away{hash(damage)}")
    with pytest.raises(
        VlaError, match=r"command\.json .*nobody can tell how the 2 episodes beside it.* put it back, or"
    ):
        run(tmp_path, 2)
    for shard in tmp_path.glob(".episodes/*.npz"):
        shard.unlink()
    shutil.rmtree(tmp_path / "data"), shutil.rmtree(tmp_path / "videos")
    assert run(tmp_path, 1).new == 1  # nothing to lose


def test_a_damaged_dataset_is_written_again_from_its_episodes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, 2)
    for name in ("meta/info.json", "data/chunk-000/file-000.parquet"):
        (tmp_path / name).write_bytes(b"")
        assert run(tmp_path, 2).new == 0 and len(open_dataset(tmp_path).episodes) == 2
        assert "the dataset is written again" in capsys.readouterr().err


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(VlaError, match="is a file, and the dataset needs a folder"):
        run(tmp_path / "out", 1)


class FragileEnv(DotEnv):
    """Raises an error in episodes 1 and 4 of seed 0; with ``always`` in each; its expert may give nonsense."""

    def __init__(self, always: bool = False, nonsense: bool = False) -> None:
        super().__init__()
        self.broken = False
        self.always, self.nonsense = always, nonsense

    def reset(self, *, seed=None, options=None):
        assert not self.broken, "an env that raised is not used again"
        self.bad = self.always or seed in (episode_seed("record", 0, 1), episode_seed("record", 0, 4))
        return super().reset(seed=seed, options=options)

    def observe(self):
        seen = super().observe()
        if self.bad and self.nonsense and self._steps == 3:
            seen.state[0] = np.nan
        return seen

    def play(self, action):
        if self.bad and not self.nonsense and self._steps == 3:
            self.broken = True
            raise ZeroDivisionError("the simulator\nfell over")
        return super().play(action)


FRAGILE = "tests.test_record:FragileEnv"


@pytest.mark.parametrize("nonsense", [False, True])
def test_an_episode_that_raises_counts_as_failed(
    tmp_path: Path, nonsense: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    out, option = tmp_path / "out", f"nonsense={str(nonsense).lower()}"
    words = ["record", "--env", FRAGILE, "--env-option", option, "--out", str(out), "--workers", "1", "--episodes"]
    for episodes in ("6", "7"):  # the second goes on, and still tells
        assert main([*words, episodes]) == 0
        said = " ".join(capsys.readouterr().out.split())
        what = "the state holds NaN" if nonsense else "ZeroDivisionError: the simulator fell over (test_record.py:"
        assert f"episode 1 (seed {episode_seed('record', 0, 1)}) counts as failed: {what}" in said
        assert "episode 4" in said and "2 failed and dropped" in said
    assert len(open_dataset(out).episodes) == 5
    assert all(row["same"] for row in replay(out, env_name=FRAGILE))


def test_an_env_that_always_raises_ends_the_recording(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["record", "--env", FRAGILE, "--env-option", "always=true", "--out", str(tmp_path), "--workers", "1"]
    for episodes in ("2", "50"):
        assert main([*words, "--episodes", episodes]) == 2
        said = capsys.readouterr().err
        assert "fails in every episode; in episode 0 (seed 0): ZeroDivisionError: the simulator fell over" in said
        assert said.count("\n") == 1 and not list(tmp_path.glob(".episodes/*.npz"))


def test_workers_that_cannot_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr("multiprocessing.process.BaseProcess.start", full)
    with pytest.raises(VlaError, match=r"cannot be started: Resource temporarily unavailable; try fewer --workers"):
        run(tmp_path, 2, workers=2)


def test_everything_is_synced_before_vla_json_arrives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    sync, rename = os.fsync, Path.rename

    def note_sync(handle: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{handle}"))
        sync(handle)

    def note_rename(path: Path, target: Path) -> Path:
        if path.name == "meta":
            files = {str(file) for file in path.parent.rglob("*") if file.is_file()}
            assert files <= set(synced) and str(path / "vla.json") in synced
            assert {str(tmp_path / "data"), str(tmp_path / "videos")} <= {str(p) for p in tmp_path.iterdir()}
            synced.append("renamed")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "rename", note_rename)
    run(tmp_path, 1)
    assert "renamed" in synced and any("000000.npz" in name for name in synced)


def test_a_locale_without_utf8_and_a_reader_that_leaves(tmp_path: Path) -> None:
    root = Path(__file__).parents[1]
    environment = os.environ | {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    words = [
        sys.executable,
        "-m",
        "vla",
        "record",
        "--env",
        DOT,
        "--episodes",
        "2",
        "--workers",
        "1",
        "--language",
        "zh",
    ]
    process = subprocess.Popen(
        [*words, "--out", str(tmp_path / "dots")],
        cwd=root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout and process.stderr
    process.stdout.read(1)
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) == 141 and said == b""
    assert {facts["language"] for facts in open_dataset(tmp_path / "dots").episodes} == {"zh"}


@pytest.mark.parametrize("name", ["data/chunk-000/file-000.parquet", "meta/episodes/chunk-000/file-000.parquet"])
def test_truncated_parquet(tmp_path: Path, name: str) -> None:
    run(tmp_path, 2)
    file = tmp_path / name
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(VlaError, match=r"file-000\.parquet is damaged") as caught:
        open_dataset(tmp_path).columns()
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("videos/observation.images.wrist/chunk-000/file-000.mp4", "file-000.mp4 is missing"),
        ("meta/vla.json", "did not finish.*meta/vla.json is missing"),
        ("meta/info.json", "did not finish"),
        ("meta/tasks.parquet", "tasks.parquet is missing"),
    ],
)
def test_missing_files(tmp_path: Path, name: str, message: str) -> None:
    run(tmp_path, 1)
    (tmp_path / name).unlink()
    with pytest.raises(VlaError, match=message):
        open_dataset(tmp_path)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(VlaError, match="no LeRobot v3 dataset"):
        open_dataset(tmp_path)


def test_dt_must_divide_a_second() -> None:
    spec = EnvSpec("odd", (CameraSpec("scene", 8, 8),), ("x",), ("x",), 0.03, 10)
    with pytest.raises(VlaError, match=r"dt is 0\.03"):
        frames_per_second(spec)
    assert features(DotEnv().env_spec, "images")["observation.images.wrist"]["shape"] == [32, 32, 3]


def test_statistics_agree_with_numpy() -> None:
    values = np.random.default_rng(0).integers(10, 200, (50, 4, 4, 3)).astype(np.uint8)
    counts = np.stack([np.bincount(values[..., c].ravel(), minlength=256) for c in range(3)])
    stats, flat = from_histogram(counts), values.reshape(-1, 3) / 255
    for name in ("min", "max", "mean", "std"):
        np.testing.assert_allclose(np.ravel(stats[name]), getattr(flat, name)(0))
    np.testing.assert_allclose(np.ravel(stats["q90"]), np.quantile(flat, 0.9, axis=0), atol=1 / 255)
    assert from_array(np.array([1.0, 3.0]))["mean"] == [2.0] and from_array(np.ones((4, 2)))["count"] == [4]


def test_an_episode_is_a_function_of_its_seed() -> None:
    first, second = (play_episode(DotEnv(), 7, {"language": "en"}, 0.02) for _ in range(2))
    for name in first.arrays:
        np.testing.assert_array_equal(first.arrays[name], second.arrays[name])
    other = play_episode(DotEnv(), 8, {"language": "en"}, 0.02)
    assert other.facts["noise"] != first.facts["noise"]


def test_a_dropped_episode_takes_no_room(tmp_path: Path) -> None:
    write_shard(tmp_path / "000000.npz", Episode({"seed": 1, "success": False}), "h264", 10)
    assert not Shard(tmp_path / "000000.npz").kept and (tmp_path / "000000.npz").stat().st_size < 1000


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "dots")
    assert main(["record", "--env", DOT, "--out", out, "--episodes", "2", "--workers", "1", "--items", "2-3"]) == 0
    said = capsys.readouterr().out
    assert "expert success 100.0% (95 % interval 34.2% to 100.0%, 2 episodes)" in said and "0 failed" in said
    assert main(["record", "--replay", out, "--env", DOT]) == 0
    assert "2 of 2 episodes came out as recorded" in capsys.readouterr().out
    file = tmp_path / "dots/meta/vla_episodes.jsonl"
    file.write_text(file.read_text().replace('"success": true', '"success": false'))
    assert main(["record", "--replay", out, "--env", DOT, "--episodes", "1"]) == 1
    assert "0 of 1 episodes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--env", DOT], "--out is missing"),
        (["--out", "x"], "--env is missing"),
        (
            ["--env", DOT, "--out", "x", "--items", "4-2"],
            "--items takes a number or a range such as 2-4, and not '4-2'",
        ),
        (["--env", DOT, "--out", "x", "--episodes", "0"], "--episodes must be at least 1, and is 0"),
        (["--env", DOT, "--out", "x", "--noise", "-1"], "--noise is in metres"),
        (["--env", DOT, "--out", "x", "--workers", "-1"], "--workers must be at least 1"),
        (["--env", "tidy_desc", "--out", "x"], "tidy_desk"),
        (["--replay", "nowhere"], "no LeRobot v3 dataset"),
    ],
)
def test_bad_input_gets_one_line(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["record", *arguments]) == 2
    said = capsys.readouterr().err
    assert message in said and said.startswith("vla: error:") and said.count("\n") == 1
    assert not os.listdir(tmp_path)


# ------------------------------------------------------------------ corrections of an agent


class Lefty:
    """An agent that always goes to the left."""

    execute = 2

    def act(self, observation: Observation, noise_seed: int = 0) -> Chunk:
        aside = np.float32([observation.state[0] - 0.05, observation.state[1], 1.0])
        return Chunk(np.tile(aside, (4, 1)), 0.1)


def test_an_agent_that_gets_on_keeps_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vla.data.recording.demonstrate.AGENT_STEPS", (5, 5))
    monkeypatch.setattr("vla.data.recording.demonstrate.EXPERT_STEPS", (6, 6))
    seen = DotEnv().env_spec
    look = Observation({}, np.zeros(len(seen.state), np.float32), "go", 0.0)
    turns = Turns(Lefty(), np.random.default_rng(1))  # which begins with the agent
    whose = [turns.action(look, progress) is None for progress in [0.0] * 4 + [0.3] * 3 + [0.6] * 9 + [1.0] * 4]
    assert whose == [False] * (4 + 3 + 5) + [True] * 6 + [False] * 2  # the expert's turn goes by the clock


def test_agent_and_expert_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vla.data.recording.demonstrate.AGENT_STEPS", (3, 5))
    monkeypatch.setattr("vla.data.recording.demonstrate.EXPERT_STEPS", (6, 6))
    mixed = 0
    for seed in range(6):
        episode = play_episode(DotEnv(), seed, {}, 0.0, Lefty())
        executed, wanted, state = (episode.arrays[name] for name in ("executed", "action", "state"))
        expert = episode.arrays["by_expert"] > 0
        np.testing.assert_array_equal(executed[expert], wanted[expert])
        np.testing.assert_allclose(executed[~expert, 2], 1.0)
        assert (executed[~expert, 0] < state[~expert, 0] + 1e-6).all()
        switches = np.flatnonzero(np.diff(expert.astype(int)))
        lengths = np.diff(switches)
        assert set(lengths[expert[switches[:-1] + 1]].tolist()) <= {6} and episode.facts["success"]
        mixed += 0 < expert.sum() < len(expert)
    assert mixed >= 4
    alone = play_episode(DotEnv(), 3, {}, 0.0)
    assert (alone.arrays["by_expert"] == 1).all()


def test_corrections_are_recorded_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLA_ALLOW", "tests.test_train:TinyPolicy")
    agent, out = saved_agent(tmp_path / "agent"), tmp_path / "corrections"
    words = ["record", "--env", DOT, "--out", str(out), "--workers", "1", "--agent", str(agent)]
    assert main([*words, "--episodes", "4"]) == 0
    columns, _ = open_dataset(out).columns()
    assert set(columns["by_expert"].tolist()) == {0.0, 1.0}
    assert main(["record", "--replay", str(out), "--env", DOT]) == 0
    assert "4 of 4 episodes came out as recorded" in capsys.readouterr().out
    saved_agent(tmp_path / "agent", seed=1)
    assert main([*words, "--episodes", "5"]) == 2
    assert "holds another recording" in capsys.readouterr().err
    assert main([*words[:-1], "nobody", "--episodes", "5"]) == 2
    assert "no agent at 'nobody'" in capsys.readouterr().err


def test_a_dataset_from_before_turns_were_kept_is_all_the_experts(dataset: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(dataset, old)
    info = json.loads((old / "meta/info.json").read_text())
    del info["features"]["by_expert"]
    (old / "meta/info.json").write_text(json.dumps(info))
    columns, _ = open_dataset(old).columns()
    assert (columns["by_expert"] == 1).all() and len(columns["by_expert"]) == len(columns["state"])


def saved_agent(folder: Path, seed: int = 0) -> Path:
    import torch

    from tests.test_train import TinyConfig, TinyPolicy
    from vla.agent import Agent
    from vla.normalise import Normaliser

    env, rng = DotEnv(), np.random.default_rng(0)
    torch.manual_seed(seed)
    policy = TinyPolicy(TinyConfig(), env.env_spec)
    statistics = Normaliser.fit(rng.normal(size=(9, 3)), rng.normal(size=(9, TinyConfig().chunk, 3)), env.env_spec)
    env.reset(seed=0)
    Agent(policy, statistics, env.env_spec, "tests.test_train:TinyPolicy").save(folder, env.observe())
    return folder
