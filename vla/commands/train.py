"""``vla train``: train a recipe of ``configs/`` into an agent."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vla.recipe import Recipe
    from vla.stages import StagedRecipe

ACCEPTS_OVERRIDES = True  # what argparse does not know is a setting of the recipe

EPILOG = """\
examples:
  vla train --list                                        the recipes that there are
  vla train tidy_desk                                     the agent that ships, from nothing: records, trains, corrects
  vla train tidy_desk --resume                            go on after Ctrl-C, a crash or kill -9
  vla train tidy_desk --scale 0.01 --out runs/try         all of it at a hundredth of the size
  vla train tidy_desk --cloning.optim.steps 5000 --optim.precision bf16 --seed 1
                                                          a setting of one stage, and settings of all
  vla train tidy_desk --show                              print every setting and stop
  vla train finetune --data data/mine                     go on from the agent that ships, on your own demonstrations
  vla train demonstrations --data data/mine --out runs/mine
  vla train demonstrations --policy.dim 256 --optim.steps 2000 --optim.batch_size=32
  vla train demonstrations --validate.every 1000 --validate.episodes 50 --seed 1
  vla train lerobot_flow --data lerobot/pusht             any LeRobot v3 dataset: a folder, or one of the hub
  vla train --resume --out runs/mine                      continue, with the settings that it was begun with
  accelerate launch --num_processes 4 -m vla.cli train demonstrations        four GPUs
  ACCELERATE_USE_CPU=true OMP_NUM_THREADS=1 torchrun --standalone --nproc_per_node 2 -m vla.cli train demonstrations
                                                          two CPU cores, one process each; tidy_desk does so by itself

Any setting of the recipe can be overridden by its name: --policy.*, --data.*, --optim.*, --validate.*, --init,
--trunk_from, --seed, --env. Lists are written 1,2,3. The run's folder gets checkpoints/, train_log.jsonl, tensorboard/,
loss.png and, at the end, agent/, which `vla eval --agent` takes. One of stages has such a folder for each
stage, and log.jsonl.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments; overrides of the recipe are left to ``run``'s ``extra``."""
    parser.epilog = EPILOG
    parser.add_argument("name", nargs="?", metavar="NAME", help="a recipe in configs/, or package.module:function")
    parser.add_argument("--data", metavar="DIR", help="the dataset, or owner/name of the hub (default: data.path)")
    parser.add_argument("--out", metavar="DIR", help="the run's folder (default: runs/NAME)")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue from the newest checkpoint in the run's folder, with its settings",
    )
    parser.add_argument("--processes", type=int, metavar="N", help="for a recipe of stages (on a CPU one a core)")
    parser.add_argument("--stage", metavar="NAME", help=argparse.SUPPRESS)  # what each of those processes is asked for
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:1 … (default: a GPU if there is one)")
    parser.add_argument("--wandb", action="store_true", help="log to Weights & Biases too")
    parser.add_argument("--list", action="store_true", help="list the recipes and stop")
    parser.add_argument("--show", action="store_true", help="print the recipe's settings, overrides applied, and stop")


def joined(words: Sequence[str]) -> list[str]:
    """``--optim.steps 5`` as ``--optim.steps=5``, and so on: argparse would take the 5 for NAME."""
    found: list[str] = []
    for word in words:
        before = found[-1] if found else ""
        setting = "." in before or before in ("--init", "--init_share", "--trunk_from", "--seed", "--env", "--scale")
        if before.startswith("--") and "=" not in before and setting and not word.startswith("--"):
            found[-1] = f"{before}={word}"
        else:
            found.append(word)
    return found


def _find(recipe: Recipe, own_path: str) -> Path:
    """The dataset's folder. The hub is asked only for what was typed, not for the recipe's own ``own_path``.

    Where there is none, the error also says how to record one.
    """
    from vla.contracts import VlaError
    from vla.data.hub import find_dataset
    from vla.train.known import load_objective

    path = recipe.data.path
    if path == own_path or load_objective(recipe.objective).makes_data:
        return Path(path)
    try:
        return find_dataset(path)
    except VlaError as error:
        if not recipe.env:
            raise
        command = shlex.join(["vla", "record", "--env", recipe.env, "--episodes", "500", "--out", path])
        raise VlaError(f"{error}; record one with: {command}") from error


def _recipe(args: argparse.Namespace, extra: list[str]) -> tuple[Recipe, str] | StagedRecipe:
    """What to train: the recipe, then the settings of the run that goes on, then what was typed. And its own data."""
    from vla.contracts import VlaError
    from vla.recipe import with_overrides
    from vla.registry import load_recipe, names
    from vla.stages import StagedRecipe, with_stage_overrides
    from vla.train.run_folder import begun, begun_with

    name = args.name
    if name is None and extra and not extra[0].startswith("-"):
        name, extra = extra[0], extra[1:]  # argparse leaves the name here where an option came before it
    if name is None and args.resume and args.out:
        name = _name_of(Path(args.out), begun)
        if name not in names("recipe"):
            raise VlaError(f"no recipe of configs/ was begun in {args.out}; name the one to go on with")
    if name is None:
        raise VlaError("which recipe? Try `vla train --list`, then e.g. `vla train tidy_desk`")
    args.name = name
    base = load_recipe(name)
    if isinstance(base, StagedRecipe):
        from vla.train.staged import resumed

        if args.data:
            raise VlaError(f"{name} records its own data; for yours there are recipes such as `vla train finetune`")
        if args.processes is not None and args.processes < 1:
            raise VlaError(f"--processes must be at least 1, and is {args.processes}")
        staged = with_stage_overrides(resumed(base, _out(args, base)) if args.resume else base, extra)
        staged.check()
        return staged
    if args.processes or args.stage:
        raise VlaError(f"--processes is for a recipe of stages; {name} is one training, see vla train --help")
    recipe = begun_with(base, _out(args, base)) if args.resume else base
    recipe = with_overrides(recipe, extra)
    if args.data:
        recipe = replace(recipe, data=replace(recipe.data, path=args.data))
    recipe.check()
    return recipe, base.data.path


def _name_of(out: Path, begun: Callable[[Path], dict[str, Any] | None]) -> str:
    from vla.host.files import read_json
    from vla.train.staged import SETTINGS

    return str((read_json(out / SETTINGS) if (out / SETTINGS).exists() else begun(out) or {}).get("name"))


def _out(args: argparse.Namespace, recipe: Recipe | StagedRecipe) -> Path:
    return Path(args.out or Path("runs") / recipe.name)


def run(args: argparse.Namespace, extra: list[str]) -> int:
    """Carry out the command. Returns the exit code: 0, or 128 + N after signal N."""
    from vla.recipe import describe
    from vla.stages import StagedRecipe, describe_stages

    if args.list:
        print(list_recipes())
        return 0
    found = _recipe(args, extra)
    if args.show:
        print(describe_stages(found) if isinstance(found, StagedRecipe) else describe(found[0]))
        return 0

    from vla.host import devices
    from vla.train.result import TrainingStopped

    if args.device:
        devices.choose(args.device)
    command = shlex.join(["vla", *sys.argv[1:]])
    try:
        if isinstance(found, StagedRecipe):
            return _run_stages(args, found, command, extra)
        from vla.train.trainer import train

        recipe, own_path = found
        result = train(recipe, _find(recipe, own_path), _out(args, recipe), args.resume, args.wandb, command)
    except TrainingStopped as stopped:
        print(f"vla: {stopped}", file=sys.stderr)
        return 128 + stopped.signal
    if os.environ.get("RANK", "0") != "0":
        return 0  # one process of several speaks
    print(f"{result.steps} steps in {result.wall_s / 60:.1f} minutes, last loss {result.loss:.4f}")
    if "success" in result.scores:
        rate = result.scores["success"]
        print(f"success {rate['rate']:.1%} [{rate['low']:.1%}, {rate['high']:.1%}] on {rate['n']} validation episodes")
    if result.advice:
        print(result.advice)
    return 0


def _run_stages(args: argparse.Namespace, staged: StagedRecipe, command: str, extra: list[str]) -> int:
    """Carry out a recipe of stages, or as one process of several the stage that it was asked for."""
    from vla.train import staged as stages
    from vla.train.processes import end_with_parent

    out = _out(args, staged)
    if args.stage:
        end_with_parent()
        stages.train_stage(staged, args.stage, out, stages.Parts(said=command, wandb=args.wandb))
        return 0
    count = args.processes or (1 if args.device else stages.processes_here())
    words = ["train", args.name, "--out", str(out), "--resume", *["--wandb"] * args.wandb, "--stage"]
    agent = stages.train_staged(staged, out, args.resume, stages.Parts(count, 0, tuple(words), command, args.wandb))
    print(f"agent written to {agent}")
    words = ["vla", "eval", "--env", staged.stages[-1].recipe.env, "--agent", str(agent)]
    print(f"evaluate it on episodes that it has not seen: {shlex.join(words)}")
    return 0


def list_recipes() -> str:
    """Each recipe with the first line of its function's docstring. Reads the files and runs none of them."""
    import ast

    from vla.paths import configs_dir
    from vla.registry import names

    known = names("recipe")
    lines = []
    for name in known:
        file = configs_dir() / f"{name}.py"
        try:
            body = ast.parse(file.read_text(encoding="utf-8")).body
        except SyntaxError as error:
            doc = f"(not Python: {file}, line {error.lineno})"
        else:
            found = (one for one in body if isinstance(one, ast.FunctionDef) and one.name == "recipe")
            doc = next((ast.get_docstring(one) for one in found), None) or ""
        lines.append(f"{name:<{max(map(len, known))}}  {doc.strip().partition(chr(10))[0]}".rstrip())
    return "\n".join(lines) or "there is no recipe in configs/"
