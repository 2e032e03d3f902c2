"""The commands under trial: what each needs, reads and makes, small enough that a run takes about a second."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.campaign.server import Done, Server

DOT = "tests.fake_env:DotEnv"
EPISODES = 3
RECORD = ["record", "--env", DOT, "--workers", "1", "--seed", "5"]
TRAIN = ["train", "tests.campaign.recipe:recipe", "--data", "data", "--out", "run"]
EVAL = ["eval", "--env", DOT, "--workers", "1", "--videos", "0", "--episodes", "4"]


@dataclass(frozen=True)
class Subject:
    """A command.

    Attributes:
        argv: what follows ``vla``.
        inputs: folders and files of the base that it needs, by their name there.
        makes: the folder that it writes; "" for none.
        product: what it came to, given its folder and what it said; two runs are alike if these are equal.
        again: its words when it goes on after it was cut short; None for the same. Tried in order until one is not
            refused.
        codes: exit codes of a run that came to its end.
    """

    name: str
    argv: list[str]
    inputs: tuple[str, ...]
    makes: str
    product: Callable[[Path, Done], Any]
    again: tuple[list[str], ...] = ()
    codes: tuple[int, ...] = (0,)

    def prepare(self, base: Path, folder: Path) -> None:
        """Put the inputs into a folder."""
        for name in self.inputs:
            into = folder / name.partition("@")[0]
            (shutil.copytree if (base / name).is_dir() else shutil.copy)(base / name, into)


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "missing"


def dataset(folder: Path, _: Done | None = None) -> Any:
    """A dataset's files, but for what names the command and the versions."""
    root = folder / "out"
    names = sorted(
        str(path.relative_to(root)) for top in ("data", "videos", "meta") for path in (root / top).rglob("*.*")
    )
    return {name: _hash(root / name) for name in names if name != "meta/vla.json"}


def agent(folder: Path, _: Done | None = None) -> Any:
    """An agent's weights and statistics."""
    file = folder / "run/agent/agent.json"
    about = json.loads(file.read_text()) if file.exists() else {}
    kept = {key: value for key, value in about.items() if key not in ("provenance", "created", "versions")}
    return _hash(folder / "run/agent/model.safetensors"), json.dumps(kept, sort_keys=True)


def results(folder: Path, _: Done | None = None, name: str = "out") -> Any:
    """An evaluation's episodes."""
    file = folder / name / "results.json"
    if not file.exists():
        return "missing"
    episodes = json.loads(file.read_text())["episodes_detail"]
    return [{key: value for key, value in one.items() if not key.endswith("wall_s")} for one in episodes]


def table(_: Path, done: Done) -> Any:
    """What was printed, but for folders and speeds."""
    return [
        line for line in done.out.splitlines() if "second" not in line and "page:" not in line and "report:" not in line
    ]


SUBJECTS = [
    Subject("record", [*RECORD, "--episodes", str(EPISODES), "--out", "out"], (), "out", dataset),
    Subject("record more", [*RECORD, "--episodes", str(EPISODES), "--out", "out"], ("out@fewer",), "out", dataset),
    Subject("record in workers", [*RECORD, "--workers", "2", "--episodes", "6", "--out", "out"], (), "out", dataset),
    Subject("train", TRAIN, ("data",), "run", agent, ([*TRAIN, "--resume"], TRAIN)),
    Subject("resume", [*TRAIN, "--resume"], ("data", "run@half"), "run", agent),
    Subject("eval", [*EVAL, "--agent", "agent", "--out", "out"], ("agent",), "out", results),
    Subject(
        "repeat",
        ["eval", "--repeat", "eval/results.json", "--env", DOT, "--agent", "agent", "--workers", "1", "--out", "out"],
        ("agent", "eval"), "out", results, codes=(0, 1),
    ),
    Subject("replay", ["record", "--replay", "data", "--env", DOT], ("data",), "", table, codes=(0, 1)),
    Subject("compare", ["compare", "eval", "eval2", "--out", "out"], ("eval", "eval2"), "out", table),
]  # fmt: skip


def make_base(server: Server, base: Path) -> None:
    """Record, train and evaluate once, undisturbed. Raises RuntimeError where that fails."""

    def run(*argv: str) -> None:
        done = server.run(list(argv), base)
        if done.code != 0:
            raise RuntimeError(f"vla {' '.join(argv)} ended with {done.code}:\n{done.out}\n{done.err}")

    run(*RECORD, "--episodes", str(EPISODES - 1), "--out", "out@fewer")
    run(*RECORD, "--episodes", "4", "--out", "data")
    shutil.rmtree(base / "data/.episodes")
    run(*TRAIN)
    shutil.copytree(base / "run", base / "run@half")
    shutil.rmtree(base / "run@half/agent")
    newest = max((base / "run@half/checkpoints").glob("step_*"))
    shutil.rmtree(newest)
    (base / "run/agent").rename(base / "agent")
    run(*EVAL, "--agent", "agent", "--out", "eval")
    run(*EVAL, "--agent", "agent", "--execute", "2", "--out", "eval2")
