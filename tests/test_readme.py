"""The READMEs keep their word: every command runs (shrunken), the Python examples run, the links lead somewhere."""

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests import staged_recipe
from tests.lerobot_data import make_dataset
from tests.test_deploy_sim import patient_robot
from vla import cli, registry
from vla.agent import load
from vla.eval.folder import read_results
from vla.serve.server import running

ROOT = Path(__file__).resolve().parent.parent
READMES = ("README.md", "README.zh-CN.md")
DOCUMENTS = (
    *READMES,
    "CONTRIBUTING.md",
    "docs/architecture.md",
    "docs/lab_notebook.md",
    "docs/reliability.md",
    "docs/robots.md",
)
NOT_RUN = {  # they would change the machine, or run this very test
    "pip install uv",
    "apt-get install -y libegl1 libgl1 libgl1-mesa-dri libgles2 libopengl0",
    "uv run pytest",
}
# What makes a command small. Later options win over the README's own.
SMALL = {
    "record": ["--episodes", "3", "--items", "2", "--kind", "named", "--workers", "1"],
    "replay": ["--episodes", "1", "--workers", "1"],
    "train": [
        "--policy.trunk.vision",
        "test_resnet",
        "--policy.trunk.map_dim",
        "16",
        "--policy.trunk.pixels",
        "64,32",
        "--policy.dim",
        "32",
        "--policy.depth",
        "1",
        "--optim.steps",
        "2",
        "--optim.batch_size",
        "4",
        "--validate.every",
        "-1",
        "--data.stills",
        "16",
        "--data.stills_batch",
        "2",
    ],
    "eval": ["--episodes", "2", "--items", "2", "--kind", "named", "--workers", "1", "--videos", "1"],
    "align": ["--scenes", "5", "--episodes", "2"],
    "imagine": ["--steps", "2"],
    "score": [],
    "ask": [],
    "compare": [],
    "deploy": ["--seconds", "5", "--config", "panda.yaml"],  # one that bears with a shared machine
    "bag": [],
    "sim-robot": [],
    "export": [],
    "bench": ["--minutes", "0.02", "--idle"],
    "doctor": [],
    "serve": ["--port", "0"],
}
SERVED = "ws://127.0.0.1:8000"


def blocks(document: str, language: str) -> list[str]:
    """The fenced code blocks of one language."""
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(document: str) -> list[str]:
    return [line for block in blocks(document, "bash") for line in block.splitlines() if line.strip()]


def shrunken(command: str) -> list[str]:
    """The arguments of ``vla`` for a README command, made small."""
    words = shlex.split(command)
    assert words[:3] == ["uv", "run", "vla"], f"neither run nor listed in NOT_RUN: {command}"
    name = words[3]
    if {"--list", "--show", "--repeat"} & set(words):  # small already, or as small as what is repeated
        return words[3:]
    if "--preview" in words:
        return words[3:]
    small = list(SMALL["replay" if "--replay" in words else name])
    if "--suite" in words:  # one axis of nine
        small += ["--perturb", "noise", "--episodes", "1", "--videos", "0"]
    if "lerobot_flow" in words:  # one camera, and no simulator that could render stills
        small += ["--policy.trunk.pixels", "32", "--data.stills", "0"]
    if words[3:5] == ["train", "tidy_desk"]:  # an hour and more: stages that are over in seconds in its place
        words[4], small = staged_recipe.NAME, ["--processes", "1", "--out", "runs/tidy_desk"]
    if words[3:5] == ["train", "tidy_desk_language"]:  # likewise
        words[4], small = staged_recipe.ASKING, ["--processes", "1", "--out", "runs/tidy_desk_language"]
    if {"tidy_desk_autoencoder", "tidy_desk_imagination"} & set(words):  # networks without a trunk, of pictures alone
        small = ["--data.stills", "16", "--optim.steps", "2", "--optim.batch_size", "4", "--policy.width", "24"]
    if "finetune" in words:  # the network is that of the agent that ships
        small = ["--optim.steps", "1", "--optim.batch_size", "2"]
    if any(word.startswith("gymnasium:") for word in words):
        small = ["--episodes", "2", "--workers", "1", "--videos", "1"]
    if any("metaworld" in word for word in words):  # one of fifty tasks, and one camera
        own = {
            "record": ["--episodes", "2", "--workers", "1"],
            "train": [*SMALL["train"], "--policy.trunk.pixels", "64"],
            "eval": ["--episodes", "1", "--seed", "0", "--workers", "1", "--videos", "0"],
        }
        small = ["--env", "metaworld:reach-v3", *own[name]]
    if "--kind" in small and "--instruction" in words:  # the sentence decides the kind
        at = small.index("--kind")
        del small[at : at + 2]
    return words[3:] + small


def run(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"}
    environment["HF_LEROBOT_HOME"] = str(folder / "home")  # in place of the hub: a small dataset by that name
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=900
    )


def test_both_readmes_have_the_same_commands() -> None:
    english, chinese = (commands(document) for document in READMES)
    assert english == chinese
    assert "uv run vla eval --env tidy_desk" in english and set(english) >= NOT_RUN
    without_comments = [[re.sub(r"\s+#.*", "", block) for block in blocks(document, "python")] for document in READMES]
    assert without_comments[0] == without_comments[1]


@pytest.mark.parametrize("agent", ["vla.agent.load", "RemoteAgent"])
def test_the_example_with_an_agent_has_five_lines(agent: str) -> None:
    (example,) = [block for block in blocks("README.md", "python") if agent in block]
    assert len([line for line in example.splitlines() if line.strip()]) == 5


@pytest.mark.parametrize("document", READMES)
def test_every_command_is_one_that_the_command_line_knows(document: str) -> None:
    named = re.findall(r"`(?:uv run )?vla ([a-z-]+)", (ROOT / document).read_text(encoding="utf-8"))
    assert set(named) <= set(cli.COMMANDS)
    shown = {shlex.split(command)[3] for command in commands(document) if command not in NOT_RUN}
    assert shown == set(cli.COMMANDS), "each command is shown"


# One process for all: importing torch once takes longer than most of these commands.
DRIVER = """
import atexit, json, subprocess, sys
from vla.cli import main

if __name__ == "__main__":
    address = {}
    for words in json.loads(sys.argv[1]):
        words = [address.get(word, word) for word in words]
        print("$ vla", *words, flush=True)
        if words[0] == "serve":
            server = subprocess.Popen([sys.executable, "-m", "vla", *words], stdout=subprocess.PIPE, text=True)
            atexit.register(server.wait)
            atexit.register(server.terminate)
            address["ws://127.0.0.1:8000"] = server.stdout.readline().split()[-1]
        elif main(words):
            sys.exit(1)
"""


def stands_alone(words: list[str]) -> bool:
    """Whether a command uses nothing that those about the desk's data and agents have made."""
    apart = {"deploy", "bag", "bench", "sim-robot", "doctor"} | {"--playback", "--suite"}
    return bool(apart & set(words)) or any(name in " ".join(words) for name in ("pusht", "metaworld", "gymnasium:"))


@pytest.mark.campaign
@pytest.mark.timeout(1200)
@pytest.mark.filterwarnings("ignore")  # LeRobot's own imports warn
@pytest.mark.parametrize("alone", [False, True], ids=["on the desk", "apart from it"])
def test_every_command_runs(alone: bool, tmp_path: Path) -> None:
    (tmp_path / "driver.py").write_text(DRIVER)
    patient_robot(tmp_path)
    make_dataset(tmp_path / "home" / "lerobot" / "pusht", size=96, state=("motor_0", "motor_1"), camera="image")
    lines = [shrunken(command) for command in commands("README.md") if command not in NOT_RUN]
    lines = [line for line in lines if stands_alone(line) == alone]
    for package in ("gym_pusht", "metaworld"):
        if importlib.util.find_spec(package) is None:
            lines = [line for line in lines if package not in " ".join(line)]
    result = run(["driver.py", json.dumps(lines)], tmp_path)
    assert result.returncode == 0, f"{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
    if alone:
        assert read_results(tmp_path / "runs" / "robustness")["suite"]["noise"]["strong"]["n"] == 1
        if importlib.util.find_spec("metaworld") is not None:
            assert read_results(tmp_path / "runs" / "eval_metaworld_reach-v3")["tasks"]["reach-v3"]["n"] == 1
        return
    assert (tmp_path / "runs" / "eval_mine" / "report.html").is_file()
    assert (tmp_path / "runs" / "eval_tidy_desk" / "preview.png").is_file()
    assert (tmp_path / "data" / "desk" / "meta" / "vla.json").is_file()
    plain, quick = load("tidy_desk", "cpu"), load(tmp_path / "runs" / "quick", "cpu")
    assert quick.graph is not None and quick.hash != plain.hash
    assert quick.replay_golden_trace() == pytest.approx(plain.replay_golden_trace(), abs=1e-5)


@pytest.mark.slow
def test_the_python_examples_run(tmp_path: Path) -> None:
    with running(load("tidy_desk", "cpu")) as server:
        for example in blocks("README.md", "python"):
            result = run(["-c", example.replace(SERVED, server.url)], tmp_path)
            assert result.returncode == 0, f"{example}\n{result.stderr[-3000:]}"
            assert result.stdout.strip()
        assert server.metrics.answered > 1


def test_contributing_names_what_there_is() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    recipe = next(block for block in blocks("CONTRIBUTING.md", "python") if "def recipe" in block)
    scope: dict = {}
    registry.names("recipe")  # makes `configs` importable
    exec(compile(recipe, "CONTRIBUTING.md", "exec"), scope)
    assert scope["recipe"]().name == "tidy_desk_wide"
    axes = next(line for line in text.splitlines() if line.startswith("PERTURBATIONS = "))
    assert f"    {axes}" in (ROOT / "envs/tidy_desk/task.py").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_and_pictures_exist(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    targets = [t.partition("#")[0] for t in re.findall(r"\]\(([^)\s]+)\)", text) if not t.startswith("http")]
    broken = [t for t in targets if t and not ((ROOT / document).parent / t).exists()]
    assert broken == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_that_are_named_exist(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:vla|envs|policies|configs|assets|tests|docs)/[\w./]*)`", text))
    missing = sorted(n for n in named if "NAME" not in n and not (ROOT / n).exists())
    assert missing == []


@pytest.mark.parametrize("document", READMES)
def test_results_and_speed_are_marked(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    for name in ("results", "speed"):
        assert re.search(rf"<!-- {name} -->.*<!-- /{name} -->", text, re.DOTALL)
