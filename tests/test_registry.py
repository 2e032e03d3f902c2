"""The folders are the registry; the folders are found, and nothing else takes their names."""

import json
import pickle
import subprocess
import sys
import types
from dataclasses import asdict
from pathlib import Path

import pytest

from vla import paths, registry
from vla.contracts import VlaError
from vla.recipe import Recipe
from vla.registry import EnvRef, UnknownNameError

ROOT = Path(__file__).resolve().parent.parent
# What the registry asks of an env and of a policy, so that it makes neither of a class that is none.
METHODS = "    reset = play = observe = close = loss = sample = parameters = lambda self: None\n"


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A made-up project: folders of their own, packages of those names that live there."""
    for folder in ("envs", "policies", "configs", "assets/agents/desk"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "assets/agents/desk/agent.json").write_text("{}")
    (tmp_path / "envs/desk.py").write_text(
        f"class Desk:\n{METHODS}    def __init__(self, px=1):\n        self.px = px\n\nENV = Desk\n"
    )
    (tmp_path / "envs/desk_parts.py").write_text("# ENV = nothing, only shared code\nENVIRONMENT = 1\n")
    (tmp_path / "envs/_ENV.py").write_text("ENV = 1\n")
    (tmp_path / "envs/broken.py").write_text("ENV: int = 3\n")
    (tmp_path / "envs/needy.py").write_text("import a_library_that_is_missing\nENV = 1\n")
    (tmp_path / "policies/flow.py").write_text(f"class CONFIG:\n    pass\n\nclass Flow:\n{METHODS}\nPOLICY = Flow\n")
    (tmp_path / "configs/base.py").write_text(
        "from vla.recipe import Recipe, DataConfig\n"
        "def recipe():\n    return Recipe('base', 'desk', 'flow', None, DataConfig('data'))\n"
    )
    (tmp_path / "configs/variant.py").write_text(
        "from configs.base import recipe as base\ndef recipe():\n    return base()\n"
    )
    (tmp_path / "configs/bad.py").write_text("def recipe():\n    return 3\n")
    for name in [m for m in sys.modules if m.split(".")[0] in ("envs", "policies", "configs")]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("envs", "policies"):
        module = types.ModuleType(name)
        module.__path__ = [str(tmp_path / name)]
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(paths, "_VLA", tmp_path / "vla")
    yield tmp_path
    for name in [m for m in sys.modules if m.split(".")[0] in ("envs", "policies", "configs")]:
        sys.modules.pop(name)


def test_listing_takes_marked_files_only(tree: Path) -> None:
    assert registry.names("env") == ["broken", "desk", "needy"]
    assert registry.names("policy") == ["flow"]
    assert registry.names("recipe") == ["bad", "base", "variant"]
    with pytest.raises(ValueError, match="kind"):
        registry.names("robot")


def test_names_load(tree: Path) -> None:
    assert registry.load_env("desk").__name__ == "Desk"
    assert registry.make_env("desk", px=7).px == 7
    policy = registry.load_policy("flow")
    assert policy.__name__ == "Flow" and hasattr(sys.modules[policy.__module__], "CONFIG")
    assert registry.load_recipe("base").name == "base"
    assert isinstance(registry.load_recipe("variant"), Recipe)


def test_unknown_names_list_the_known_and_the_nearest(tree: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"no env 'dessk'; known: broken, desk, needy; did you mean 'desk'\?"):
        registry.load_env("dessk")
    with pytest.raises(UnknownNameError, match=r"known: flow$"):
        registry.load_policy("zzz")
    with pytest.raises(UnknownNameError, match="did you mean 'variant'"):
        registry.load_recipe("varient")
    with pytest.raises(UnknownNameError):
        registry.load_env("../envs/desk")


def test_modules_that_lack_something_say_so(tree: Path) -> None:
    with pytest.raises(VlaError, match=r"envs/broken\.py: ENV is not a class"):
        registry.load_env("broken")
    with pytest.raises(VlaError, match=r"configs/bad\.py: recipe returned int"):
        registry.load_recipe("bad")
    with pytest.raises(ModuleNotFoundError, match="a_library_that_is_missing"):
        registry.load_env("needy")


def test_names_from_outside(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tree / "mine").mkdir()
    (tree / "mine" / "own_env_module.py").write_text(f"class Kitchen:\n{METHODS}\nprice = 3\n")
    monkeypatch.chdir(tree / "mine")
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    assert registry.load_env("own_env_module:Kitchen").__name__ == "Kitchen"
    with pytest.raises(UnknownNameError, match="did you mean 'Kitchen'"):
        registry.load_env("own_env_module:Kichen")
    with pytest.raises(VlaError, match="is not a class"):
        registry.load_policy("own_env_module:price")
    with pytest.raises(UnknownNameError, match=r"no module 'not_there.at_all'"):
        registry.load_env("not_there.at_all:X")
    with pytest.raises(VlaError, match=r"package.module:"):
        registry.load_env("a b:c")


def test_an_argument_goes_to_the_env(tree: Path) -> None:
    (tree / "envs/many.py").write_text(
        f"class Many:\n{METHODS}    ARGUMENT = 'task'\n"
        "    def __init__(self, task='all', px=1):\n        self.task, self.px = task, px\n\nENV = Many\n"
    )
    assert registry.make_env("many").task == "all"
    made = registry.make_env("many:reach", px=3)
    assert (made.task, made.px) == ("reach", 3)
    assert registry.load_env("many:reach") is registry.load_env("many")
    assert registry.split_argument("many:a:b") == ("many", "a:b")
    assert registry.split_argument("package.module:Class") == ("package.module:Class", None)
    with pytest.raises(VlaError, match=r"'many:reach' was also given task='push'"):
        registry.make_env("many:reach", task="push")
    with pytest.raises(VlaError, match=r"'desk' takes no argument, so 'desk:reach' means nothing; write 'desk'$"):
        registry.make_env("desk:reach")


def test_options_for_the_env_are_read_and_checked(tree: Path) -> None:
    options = registry.env_options(["px=7", "fresh=true", "render=fast"])
    assert options == {"px": 7, "fresh": True, "render": "fast"}
    assert registry.env_options(None) == {}
    odd = options | {"text": "7", "nothing": None}
    words = registry.EnvRef("desk", odd).words()
    assert words[:4] == ["--env", "desk", "--env-option", "px=7"] and "render=fast" in words
    assert registry.env_options(words[3::2]) == odd
    with pytest.raises(VlaError, match=r"takes NAME=VALUE.* and not 'px'"):
        registry.env_options(["px"])
    with pytest.raises(VlaError, match=r"the env 'desk' has no option 'fresh'; it has px$"):
        registry.make_env("desk", fresh=True)


def test_agents_and_folders_are_found(tree: Path) -> None:
    assert paths.shipped_agent("desk") == tree / "assets/agents/desk"
    for wrong in ("kitchen", "../agents/desk", ""):
        with pytest.raises(VlaError, match="shipped: desk"):
            paths.shipped_agent(wrong)
    (tree / "vla" / "assets").mkdir(parents=True)
    assert paths.assets_dir() == tree / "vla" / "assets", "in a wheel the assets travel inside vla"


def test_a_missing_folder_names_both_places(tree: Path) -> None:
    (tree / "assets").rename(tree / "gone")
    with pytest.raises(VlaError, match=r"assets.*checkout.*wheel"):
        paths.assets_dir()


def test_recipes_of_a_wheel_import_each_other(tree: Path) -> None:
    (tree / "vla").mkdir()
    (tree / "configs").rename(tree / "vla" / "configs")
    assert registry.load_recipe("variant").name == "base"


def test_an_intruder_is_named(tree: Path, tmp_path: Path) -> None:
    paths.check_packages()
    sys.modules["envs"].__path__ = ["/somewhere/else/envs"]
    with pytest.raises(VlaError, match="/somewhere/else/envs"):
        registry.load_env("desk")
    other = types.ModuleType("configs")
    other.__path__ = ["/somewhere/else/configs"]
    sys.modules["configs"] = other
    with pytest.raises(VlaError, match="/somewhere/else/configs"):
        registry.load_recipe("base")


def test_an_intruder_on_the_path_is_named_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "envs").mkdir()
    (tmp_path / "envs" / "__init__.py").write_text("raise SystemExit('the intruder ran')")
    code = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]\n"
        "from vla.cli import main\nsys.exit(main(['doctor']))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert result.returncode == 2
    assert str(tmp_path / "envs") in result.stderr and result.stderr.count("\n") == 1


def test_the_project_itself_is_in_order() -> None:
    paths.check_packages()
    assert paths.packages_dir() == ROOT
    assert "tidy_desk" in registry.names("env")
    assert "flow" in registry.names("policy")
    assert "instructions" not in registry.names("env")


def test_an_env_is_its_name_and_its_options(tree: Path) -> None:
    ref = pickle.loads(pickle.dumps(EnvRef("desk", {"px": 3})))
    assert ref == EnvRef(**json.loads(json.dumps(asdict(ref)))) and ref.env_class is registry.load_env("desk")
    assert ref.make().px == 3
    assert ref.tasks() == () and ref.reading() == ""  # and no env is made for that
    with pytest.raises(VlaError, match="the env 'desk' has no option 'fresh'"):
        EnvRef("desk", {"fresh": True}).make()
    with pytest.raises(VlaError, match="is no text: type it in UTF-8"):
        ref.check({"instruction": "\udce4"})
