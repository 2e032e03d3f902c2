"""Imports run one way: configs -> {envs, policies} -> vla, and light modules stay light."""

import ast
import multiprocessing
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fake_env import DotEnv
from vla.contracts import VlaError

ROOT = Path(__file__).resolve().parent.parent
FORBIDDEN = {
    "vla": {"envs", "policies", "configs", "tests"},
    "envs": {"policies", "configs", "tests"},
    "policies": {"envs", "configs", "tests"},
    "configs": {"tests"},
}
LIGHT = ["vla.cli", "vla.contracts", "vla.registry", "vla.paths", "vla.recipe"]
HEAVY = (
    "torch",
    "mujoco",
    "lerobot",
    "matplotlib",
    "av",
    "timm",
    "transformers",
    "diffusers",
    "accelerate",
    "gymnasium",
)


def imports(source: str) -> list[tuple[int, str]]:
    """Line and top-level package of every import in a file, those inside functions too. Relative ones stay inside."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name.split(".")[0]) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.append((node.lineno, node.module.split(".")[0]))
    return found


def breaches(root: Path) -> list[str]:
    found = []
    for package, forbidden in FORBIDDEN.items():
        for file in sorted((root / package).rglob("*.py")):
            lines = imports(file.read_text(encoding="utf-8"))
            found += [f"{file.relative_to(root)}:{line} imports {name}" for line, name in lines if name in forbidden]
    return found


def test_imports_run_one_way() -> None:
    assert all(list((ROOT / package).glob("*.py")) for package in ("vla", "envs", "policies"))
    assert breaches(ROOT) == []


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("vla/nn/deep.py", "def f():\n    from envs.tidy_desk.task import TidyDesk"),
        ("vla/a.py", "import policies.flow as p"),
        ("envs/a.py", "from policies import flow"),
        ("policies/a.py", "import envs"),
        ("policies/b.py", "import numpy, configs.demonstrations"),
    ],
)
def test_a_breach_is_seen(tmp_path: Path, file: str, line: str) -> None:
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(line)
    assert len(breaches(tmp_path)) == 1


def test_what_is_allowed_is_not_a_breach(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "a.py").write_text(
        "from policies.flow import FlowConfig\nimport envs.tidy_desk.items, vla.recipe"
    )
    assert breaches(tmp_path) == []


def loaded_after(statements: str, among: tuple[str, ...] = HEAVY) -> list[str]:
    """Those packages of ``among`` that are loaded once a fresh interpreter has run ``statements``."""
    code = f"import sys\n{statements}\nprint()\nprint(*sorted(set(sys.modules) & set({among!r})))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()[-1].split()


def test_light_modules_load_nothing_heavy() -> None:
    commands = [f"vla.commands.{file.stem}" for file in sorted((ROOT / "vla" / "commands").glob("[!_]*.py"))]
    assert loaded_after("import " + ", ".join(LIGHT + commands)) == []
    assert loaded_after("import gymnasium") == ["gymnasium"]


def test_no_module_of_an_evaluation_loads_mujoco_before_opengl_is_chosen() -> None:
    assert loaded_after("import vla.commands.eval, vla.eval.evaluate, vla.data.recording.record", ("mujoco",)) == []


def test_recipes_are_listed_and_shown_without_torch() -> None:
    main = "from vla.cli import main\nassert main(['train', *{!r}]) == 0"
    assert loaded_after(main.format(["--list"]), (*HEAVY, "policies")) == []
    recipes = "from vla.registry import load_recipe, names\n[load_recipe(name) for name in names('recipe')]\n"
    assert loaded_after(recipes + main.format(["demonstrations", "--show", "--policy.trunk.map_dim", "32"])) == []


class LightEnv(DotEnv):
    """Refuses to be played where torch is loaded: a worker only steps envs."""

    def reset(self, **kwargs: Any) -> tuple[dict[str, Any], dict]:
        if "torch" in sys.modules and multiprocessing.parent_process() is not None:
            raise VlaError("a worker has imported torch")
        return super().reset(**kwargs)


SLOW = ("timm", "torchvision", "sympy", "torch._dynamo", "lerobot", "transformers", "datasets", "diffusers")
TINY = """
    --policy.trunk.vision tiny --policy.trunk.map_dim 8 --policy.trunk.pixels 32 --policy.dim 16 --policy.depth 1
    --optim.steps 2 --optim.batch_size 4 --env tests.test_imports:LightEnv --validate.every 0 --validate.episodes 2
"""


def test_what_takes_seconds_to_import_stays_out_of_the_whole_road(tmp_path: Path) -> None:
    env, data, run = "tests.test_imports:LightEnv", f"{tmp_path}/data", f"{tmp_path}/run"
    commands = [
        ["record", "--env", env, "--episodes", "1", "--workers", "1", "--out", data],
        ["train", "lerobot_flow", "--data", data, "--out", run, *TINY.split()],
        ["eval", "--env", env, "--agent", run, "--episodes", "2", "--workers", "2", "--out", f"{tmp_path}/eval"],
    ]
    words = f"from vla.cli import main\nif __name__ == '__main__':\n    assert not any(map(main, {commands!r}))"
    assert loaded_after(words, SLOW) == []
