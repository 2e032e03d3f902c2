"""Carries out a recipe of stages: records, trains, and goes on from wherever it was interrupted.

The run's folder gets ``stages.json`` (the settings), ``data/NAME`` (recordings), a folder for each stage, which is a
training run as any other, ``log.jsonl`` with the figures of each finished part, and ``agent/``, the last stage's.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vla.contracts import VlaError
from vla.host.files import claimed, parse_json, read_json, whole_folder, write_atomically
from vla.host.parallel import available_cpus
from vla.recipe import Recipe, flat, recipe_to_dict
from vla.registry import env_options
from vla.stages import Recording, Stage, StagedRecipe, recording_to_dict, restored_stages, staged_to_dict
from vla.train.result import TrainResult

SETTINGS, LOG, DONE, AGENT = "stages.json", "log.jsonl", "done.json", "agent"
# What may differ between a finished stage and the one that is asked for: nothing that its weights depend on.
_OPEN = ("optim.log_every", "optim.checkpoint_every", "validate.", "data.record_")


@dataclass(frozen=True)
class Parts:
    """How a stage is carried out, apart from what: by how many processes, and the command that each of them runs.

    Attributes:
        processes: how many train; one trains in this process.
        workers: how many record; 0 for one on each CPU.
        command: the words of ``vla train`` with which a process trains one stage, the stage's name at their end.
        said: the command line, for the agent's provenance.
        wandb: whether to log to Weights & Biases.
    """

    processes: int = 1
    workers: int = 0
    command: tuple[str, ...] = ()
    said: str = ""
    wandb: bool = False


def processes_here() -> int:
    """One for each core, which trains faster than one with as many threads; one where there is a GPU."""
    import torch

    return 1 if torch.cuda.is_available() else available_cpus()


def resumed(staged: StagedRecipe, out: Path) -> StagedRecipe:
    """The recipe with the settings that the run in ``out`` was begun with; as it is where none was begun."""
    return restored_stages(staged, read_json(out / SETTINGS)) if (out / SETTINGS).exists() else staged


def resolved(staged: StagedRecipe, name: str, out: Path) -> Recipe:
    """A stage's recipe with folders in place of the names of recordings and stages."""
    recipe, trained = staged.trained(name), [stage.name for stage in staged.stages]
    init = str(out / recipe.init / AGENT) if recipe.init in trained else recipe.init
    data = replace(
        recipe.data,
        path=str(out / "data" / recipe.data.path),
        corrections=tuple(str(out / "data" / one) for one in recipe.data.corrections),
    )
    return replace(recipe, data=data, init=init)


def train_stage(staged: StagedRecipe, name: str, out: Path, parts: Parts) -> TrainResult:
    """Train one stage, in this process or as one of several; what it needs has been recorded."""
    from vla.train.trainer import train

    recipe, folder = resolved(staged, name, out), out / name
    resume = any((folder / "checkpoints").glob("step_*[0-9]"))
    return train(recipe, recipe.data.path, folder, resume, parts.wandb, parts.said)


def train_staged(staged: StagedRecipe, out: Path, resume: bool, parts: Parts) -> Path:
    """Carry out all stages, but for what is done already. Returns the folder of the agent.

    Raises:
        VlaError: where ``out`` holds a run and ``resume`` is not set, or a finished part had other settings; where a
            stage stays below what it has to reach; and whatever recording and training raise.
        TrainingStopped, KeyboardInterrupt: after a signal; what was finished is kept.
    """
    staged.check()
    with claimed(out, "vla train"):
        if (out / SETTINGS).exists() and not resume:
            raise VlaError(f"{out} already holds a run; go on with it with --resume, or name another folder with --out")
        run = _Run(staged, out, parts)
        write_atomically(out / SETTINGS, json.dumps(staged_to_dict(staged), indent=1) + "\n")
        try:
            return run.all()
        except KeyboardInterrupt:
            print("\nstopped; what is finished is kept, and the same command with --resume goes on", flush=True)
            raise


class _Run:
    """One call of ``train_staged``."""

    def __init__(self, staged: StagedRecipe, out: Path, parts: Parts) -> None:
        self.staged, self.out, self.parts = staged, out, parts
        self._lines = list(_read_log(out / LOG))
        self._trained = {stage.name: self._finished(stage) for stage in staged.stages}
        undone = False
        for stage in staged.stages:
            if undone and self._trained[stage.name]:
                raise VlaError(f"{out / stage.name} was trained on what an earlier stage would now make anew")
            undone = undone or not self._trained[stage.name]

    def all(self) -> Path:
        count, before = len(self.staged.stages), ""
        for number, stage in enumerate(self.staged.stages, 1):
            if self._trained[stage.name]:
                print(f"stage {number} of {count}, {stage.name}: done before", flush=True)
            else:
                print(f"stage {number} of {count}, {stage.name}", flush=True)
                for recording in stage.record:
                    self._record(stage, recording, before)
                self._train(stage)
            before = stage.name
        agent = self.out / AGENT
        with whole_folder(agent) as build:
            shutil.copytree(self.out / before / AGENT, build, dirs_exist_ok=True)
        print(table(self._lines))
        return agent

    def _record(self, stage: Stage, recording: Recording, before: str) -> None:
        from vla.agent import load as load_agent
        from vla.data.recording.record import record
        from vla.data.recording.settings import RecordSettings

        marker, wanted = self.out / "data" / f"{recording.name}.json", recording_to_dict(recording)
        wanted |= {"seed": self.staged.seed_of(recording.name), "env": stage.recipe.env}
        if recording.in_turns:
            wanted["agent"] = load_agent(str(self.out / before / AGENT), "cpu").hash
        if marker.exists():
            _require_same(read_json(marker)["recording"], wanted, f"{self.out / 'data' / recording.name} was recorded")
            return
        print(f"recording {recording.episodes} episodes of {recording.name}", flush=True)
        settings = RecordSettings(
            env=stage.recipe.env,
            out=self.out / "data" / recording.name,
            episodes=recording.episodes,
            seed=self.staged.seed_of(recording.name),
            noise=recording.noise,
            items=(recording.items[0], recording.items[-1]) if recording.items else None,
            kind=recording.kind,
            agent=str(self.out / before / AGENT) if recording.in_turns else "",
            env_options=env_options(list(recording.env_options)),
            randomize=recording.randomize,
            safe=recording.safe,
            workers=self.parts.workers,
        )
        spent, since = marker.with_suffix(".spent"), time.monotonic()
        before_s = float(read_json(spent)["wall_s"]) if spent.exists() else 0.0
        try:
            summary = record(settings, command=self.parts.said)
        except BaseException:
            write_atomically(spent, json.dumps({"wall_s": before_s + time.monotonic() - since}))
            raise
        figures = {name: getattr(summary, name) for name in ("played", "succeeded", "kept", "frames")}
        figures |= {"errors": len(summary.errors), "wall_s": round(before_s + time.monotonic() - since, 1)}
        self._log({"stage": stage.name, "recorded": recording.name, **figures})
        write_atomically(marker, json.dumps({"recording": wanted}, indent=1) + "\n")

    def _train(self, stage: Stage) -> None:
        folder = self.out / stage.name
        if self.parts.processes > 1:
            from vla.train.processes import run_side_by_side

            run_side_by_side([*self.parts.command, stage.name], self.parts.processes)
        else:
            train_stage(self.staged, stage.name, self.out, self.parts)
        figures = _figures(folder)
        short = [
            f"{name} is {figures.get(name)}, and {least} is wanted"
            for name, least in stage.least
            if not float(figures.get(name, -1e9)) >= least
        ]
        if short:
            raise VlaError(
                f"stage {stage.name} is not good enough to go on: {'; '.join(short)}; give it more steps, "
                f"--{stage.name}.optim.steps, with --resume"
            )
        self._log({"stage": stage.name, **figures})
        done = {"recipe": recipe_to_dict(self.staged.trained(stage.name)), "figures": figures}
        write_atomically(folder / DONE, json.dumps(done, indent=1) + "\n")

    def _finished(self, stage: Stage) -> bool:
        done = self.out / stage.name / DONE
        if not done.exists():
            return False
        then, now = (flat(one) for one in (read_json(done)["recipe"], recipe_to_dict(self.staged.trained(stage.name))))
        then, now = ({k: v for k, v in one.items() if not k.startswith(_OPEN)} for one in (then, now))
        if then["optim.steps"] < now["optim.steps"]:  # it is trained on, unless a later stage stands on it
            return False
        _require_same(then, {k: now.get(k) for k in then}, f"stage {stage.name} in {self.out} was trained")
        return True

    def _log(self, line: dict[str, Any]) -> None:
        line = {**line, "at": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
        self._lines.append(line)
        with (self.out / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def _figures(folder: Path) -> dict[str, Any]:
    """What a finished training came to: its agent's scores, and the last values of its log."""
    provenance = read_json(folder / AGENT / "agent.json")["provenance"]
    figures: dict[str, Any] = {"steps": provenance["steps"], "wall_s": provenance["wall_s"]}
    for line in _read_log(folder / "train_log.jsonl"):
        figures |= {name: value for name, value in line.items() if name not in ("step", "wall_s", "learning_rate")}
    return figures


def _read_log(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            yield parse_json(line, str(path))
        except VlaError:  # cut short by a kill
            continue


def _require_same(then: dict[str, Any], now: dict[str, Any], what: str) -> None:
    differ = [
        f"{key} was {then.get(key)} and is {now.get(key)}" for key in {**then, **now} if then.get(key) != now.get(key)
    ]
    if differ:
        raise VlaError(f"{what} with other settings: {', '.join(differ)}; give the same ones, or another --out")


def table(lines: list[dict[str, Any]]) -> str:
    """The figures of a run's parts, one on a line."""
    rows = []
    for line in lines:
        what = f"{line['stage']} {'records ' + line['recorded'] if 'recorded' in line else 'trains'}"
        shown = {k: v for k, v in line.items() if k not in ("stage", "recorded", "wall_s", "at")}
        figures = ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in shown.items())
        rows.append((what, f"{line.get('wall_s', 0.0) / 60:6.1f} min", figures))
    width = max((len(what) for what, _, _ in rows), default=0)
    total = sum(line.get("wall_s", 0.0) for line in lines) / 60
    return "\n".join(
        [*(f"{what:<{width}}  {time}  {figures}" for what, time, figures in rows), f"{total:.1f} minutes in all"]
    )
