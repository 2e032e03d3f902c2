"""``vla doctor``: it finds what works, names what does not, and one broken part never hides the rest."""

import json
import shutil
import sys
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from vla import cli, doctor, paths
from vla.contracts import VlaError
from vla.doctor import MISSING, OK, WARN, Check
from vla.host.gl_backend import NoOpenGLError


def by_name(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def test_a_frame_is_rendered() -> None:
    backend, image, fps = doctor.draw_test_frame(frames=5)
    assert backend in ("glfw", "egl", "osmesa")
    assert image.shape == (128, 128, 3) and image.dtype == np.uint8
    assert image.std() > 10 and fps > 1
    # The boxes go from green on the left to red on the right, and darker to the front.
    assert image[:, 96:, 0].mean() > image[:, :32, 0].mean()


def test_the_frame_can_be_kept(tmp_path: Path) -> None:
    check = doctor.rendering(tmp_path / "frame.png")
    assert check.status in (OK, WARN) and "frames/s" in check.detail
    assert (tmp_path / "frame.png").read_bytes().startswith(b"\x89PNG")


def test_without_a_gl_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> str:
        raise NoOpenGLError("no OpenGL here", "apt-get install x")

    monkeypatch.setattr("vla.host.gl.choose_backend", refuse)
    check = doctor.rendering()
    assert check.status == MISSING and check.detail == "no OpenGL here" and check.fix == "apt-get install x"
    assert not doctor.can_run([check])


def test_video_encodes() -> None:
    check = doctor.video()
    assert check.status == OK and "h264" in check.detail


def test_no_agent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(paths, "agents_dir", lambda: tmp_path / "agents")
    (check,) = doctor.agents()
    assert check.status == MISSING and "vla train" in check.fix and str(tmp_path) in check.detail


def test_a_damaged_agent_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "agent.json").write_text("{")
    monkeypatch.setattr(paths, "agents_dir", lambda: tmp_path)
    (check,) = doctor.agents()
    assert check.name == "Agent broken" and check.status == MISSING and "damaged" in check.detail


@pytest.mark.parametrize(("difference", "status"), [(0.0, OK), (1.0, MISSING), (float("nan"), MISSING)])
def test_the_golden_trace_decides(
    difference: float, status: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Stub:
        policy_name = "flow"

        def replay_golden_trace(self) -> float:
            return difference

    (tmp_path / "desk").mkdir()
    (tmp_path / "desk" / "agent.json").write_text("{}")
    monkeypatch.setattr(paths, "agents_dir", lambda: tmp_path)
    monkeypatch.setattr("vla.agent.load", lambda path: Stub())
    (check,) = doctor.agents()
    assert check.status == status


def test_shipped_agents_pass() -> None:
    for check in doctor.agents():
        assert check.status == OK, check.detail


def test_ros(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROS_DISTRO", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if name == "rclpy" else None)
    assert doctor.ros().status == OK
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("ROS_DISTRO", "jazzy")
    check = doctor.ros()
    assert check.status == WARN and "jazzy" in check.fix
    assert doctor.can_run([Check("ROS", MISSING, "", essential=False)])


@pytest.mark.parametrize(("free", "status"), [(0.5e9, MISSING), (5e9, WARN), (500e9, OK)])
def test_disk(free: float, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1e12, 0, free))
    assert doctor.disk().status == status


def refuse_room(folder: Path, least: int = 0) -> None:
    raise VlaError(f"{folder} can't be written: No space left on device")


def test_folders_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VLA_CACHE", str(tmp_path / "not" / "yet"))
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert [check.status for check in doctor.caches()] == [OK, OK] and not list(tmp_path.iterdir())
    assert doctor.shared_memory().status == OK
    monkeypatch.setattr(doctor, "require_room", refuse_room)
    ours, hub = doctor.caches()
    assert ours.status == WARN and str(tmp_path / "not") in ours.detail and "VLA_CACHE=" in ours.fix
    assert hub.status == WARN and "HF_HOME=" in hub.fix and doctor.can_run([ours, hub])
    shared = doctor.shared_memory()
    assert shared.status == WARN and "/dev/shm can't be written" in shared.detail and "--shm-size" in shared.fix
    full = doctor.disk()
    assert full.status == MISSING and "No space left" in full.detail and "--out" in full.fix


@pytest.mark.parametrize(("wish", "status"), [("2", OK), ("64", WARN), ("all", WARN), ("0", WARN)])
def test_threads(wish: str, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vla.host.parallel.available_cpus", lambda: 2)
    monkeypatch.setattr(Path, "read_text", lambda *_: "max 100000")
    monkeypatch.setenv("OMP_NUM_THREADS", wish)
    check = doctor.threads()
    assert check.status == status and (status == OK or check.fix == "export OMP_NUM_THREADS=2")
    monkeypatch.setattr(Path, "read_text", lambda *_: "50000 100000")  # a container with half a CPU
    assert doctor.threads().fix == "export OMP_NUM_THREADS=1"


def test_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("locale.getpreferredencoding", lambda _: "ANSI_X3.4-1968")
    check = doctor.text()
    assert check.status == WARN and check.fix == "export LC_ALL=C.UTF-8"
    monkeypatch.setattr("locale.getpreferredencoding", lambda _: "UTF-8")
    assert doctor.text().status == OK


def test_a_broken_library_becomes_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "agents", list)
    monkeypatch.setitem(sys.modules, "av", None)  # `import av` now raises ImportError
    checks = by_name(list(doctor.run_checks()))
    assert checks["Video"].status == MISSING and checks["Video"].fix == "uv sync"
    assert {"Python", "Libraries", "Torch", "Rendering", "ROS", "Disk", "Cache", "Threads"} <= set(checks)


def test_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    checks = [Check("Python", OK, "3.12"), Check("ROS", MISSING, "none", "install it", essential=False)]
    monkeypatch.setattr(doctor, "run_checks", lambda save_frame: iter(checks))
    assert cli.main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "ROS (optional)" in out and "fix: install it" in out and "Ready: vla eval --env tidy_desk" in out
    assert cli.main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["checks"][0]["name"] == "Python"
    checks.append(Check("Rendering", MISSING, "no OpenGL", "apt-get install x"))
    assert cli.main(["doctor"]) == 1
    assert "Not ready, because of: Rendering" in capsys.readouterr().out


def test_a_frame_in_no_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--frame", "no/such/folder/frame.png"]) == 2
    assert "no/such/folder does not exist" in capsys.readouterr().err
