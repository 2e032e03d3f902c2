"""The wheel: built, installed in an environment of its own, and used from outside the checkout."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from vla import __version__

ROOT = Path(__file__).resolve().parent.parent
UV = os.environ.get("UV") or shutil.which("uv")

pytestmark = [
    pytest.mark.campaign,
    pytest.mark.skipif(UV is None, reason="uv builds and installs the wheel, and is not on the path"),
]


def run(*words: str | Path, cwd: Path, timeout: float = 500) -> str:
    """Run a program without this checkout on its path. Returns its standard output."""
    left_out = ("PYTHONPATH", "VIRTUAL_ENV", "UV_PROJECT_ENVIRONMENT")
    environment = {name: value for name, value in os.environ.items() if name not in left_out}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"}
    result = subprocess.run(
        [str(word) for word in words], cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout
    )
    assert result.returncode == 0, f"{words}\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run(UV or "", "build", "--wheel", "--out-dir", folder, ROOT, cwd=ROOT)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` of a clean environment with the wheel. It borrows the dependencies that are installed here."""
    folder = tmp_path_factory.mktemp("wheel") / "env"
    venv.create(folder, with_pip=False, symlinks=True)
    run(UV or "", "pip", "install", "--no-deps", "--offline", "--python", folder / "bin" / "python", wheel, cwd=folder)
    site = next((folder / "lib").glob("python*/site-packages"))
    # A folder that a .pth file names is searched last, and its own .pth files, the editable install's among them,
    # are not read: `vla` can only come from the wheel.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


def test_what_is_in_it(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.split("/")[0] for name in names}
    assert top == {"vla", "envs", "policies", f"vla-{__version__}.dist-info"}
    for needed in (
        "vla/cli.py",
        "vla/commands/eval.py",
        "vla/eval/pages/report.html.jinja",
        "vla/eval/pages/style.css",
        "envs/tidy_desk/task.py",
        "policies/flow.py",
        "vla/configs/demonstrations.py",
        "vla/assets/arms/panda.xml",
        "vla/assets/agents/tidy_desk/model.safetensors",
        f"vla-{__version__}.dist-info/licenses/LICENSE",
    ):
        assert needed in names
    assert not [name for name in names if "__pycache__" in name or name.endswith((".pyc", ".lock"))]


def test_it_finds_its_own_parts(installed: Path, tmp_path: Path) -> None:
    code = (
        "import json, vla; from vla import paths, registry; paths.check_packages();"
        "print(json.dumps([vla.__file__, str(paths.assets_dir()), str(paths.configs_dir()),"
        " registry.names('env'), registry.names('policy'), registry.names('recipe')]))"
    )
    *folders, envs, policies, recipes = json.loads(run(installed / "python", "-c", code, cwd=tmp_path))
    for folder in folders:
        assert Path(folder).is_relative_to(installed.parent)
    assert "tidy_desk" in envs and "flow" in policies and "demonstrations" in recipes


def test_the_command_line(installed: Path, tmp_path: Path) -> None:
    assert run(installed / "vla", "--version", cwd=tmp_path) == f"vla {__version__}\n"
    assert "demonstrations" in run(installed / "vla", "train", "--list", cwd=tmp_path)


def test_it_evaluates_from_outside_the_checkout(installed: Path, tmp_path: Path) -> None:
    run(installed / "vla", "eval", "--env", "tidy_desk", "--episodes", "2", "--videos", "1", cwd=tmp_path)
    results = json.loads((tmp_path / "runs" / "eval_tidy_desk" / "results.json").read_text())
    assert results["episodes"] == 2 and results["success"]["n"] == 2
    assert (tmp_path / "runs" / "eval_tidy_desk" / "report.html").is_file()


def test_the_python_is_the_tested_one(installed: Path, tmp_path: Path) -> None:
    version = run(installed / "python", "-c", "import sys; print(*sys.version_info[:2])", cwd=tmp_path)
    assert version.split() == [str(part) for part in sys.version_info[:2]]
