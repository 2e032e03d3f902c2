"""``vla train``: train a recipe of ``configs/`` into an agent."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path

HELP = "train an agent from a recipe and a recorded dataset"

ACCEPTS_OVERRIDES = True  # what argparse does not know is a setting of the recipe

EPILOG = """\
examples:
  vla train --list                                        the recipes that there are
  vla train tidy_desk_flow                                train on the recipe's dataset, into runs/tidy_desk_flow
  vla train tidy_desk_flow --show                         print every setting and stop
  vla train tidy_desk_flow --resume                       continue after Ctrl-C, a crash or kill -9
  vla train tidy_desk_flow --data data/mine --out runs/mine
  vla train lerobot_flow --data lerobot/pusht             any LeRobot v3 dataset: a folder, or one of the hub
  vla train tidy_desk_flow --policy.dim 256 --optim.steps 2000 --optim.batch_size=32
  vla train tidy_desk_flow --validate.every 1000 --validate.episodes 50 --seed 1
  accelerate launch --num_processes 4 -m vla.cli train tidy_desk_flow        four GPUs
  ACCELERATE_USE_CPU=true OMP_NUM_THREADS=1 torchrun --standalone --nproc_per_node 2 -m vla.cli train tidy_desk_flow
                                                          two CPU cores, one process each

Any setting of the recipe can be overridden by its name: --policy.*, --data.*, --optim.*, --validate.*, --init,
--seed, --env. Lists are written 1,2,3. The run's folder gets checkpoints/, train_log.jsonl, tensorboard/, loss.png and,
at the end, agent/, which `vla eval --agent` takes.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments; overrides of the recipe are left to ``run``'s ``extra``."""
    parser.epilog, parser.formatter_class = EPILOG, argparse.RawDescriptionHelpFormatter
    parser.add_argument("name", nargs="?", metavar="NAME", help="a recipe in configs/, or package.module:function")
    parser.add_argument("--data", metavar="DIR", help="the dataset, or owner/name of the hub (default: data.path)")
    parser.add_argument("--out", metavar="DIR", help="the run's folder (default: runs/NAME)")
    parser.add_argument("--resume", action="store_true", help="continue from the newest checkpoint in the run's folder")
    parser.add_argument("--wandb", action="store_true", help="log to Weights & Biases too")
    parser.add_argument("--list", action="store_true", help="list the recipes and stop")
    parser.add_argument("--show", action="store_true", help="print the recipe's settings, overrides applied, and stop")


def _find(name: str, env: str) -> Path:
    """The dataset's folder; where there is none, the error also says how to record one."""
    from vla.contracts import VlaError
    from vla.hub import find_dataset

    try:
        return find_dataset(name)
    except VlaError as error:
        if not env:
            raise
        command = shlex.join(["vla", "record", "--env", env, "--episodes", "500", "--out", name])
        raise VlaError(f"{error}; record one with: {command}") from error


def run(args: argparse.Namespace, extra: list[str]) -> int:
    """Carry out the command. Returns the exit code: 0, or 128 + N after signal N."""
    from vla.contracts import VlaError
    from vla.recipe import describe, with_overrides
    from vla.registry import load_recipe

    if args.list:
        print(list_recipes())
        return 0
    name = args.name
    if name is None and extra and not extra[0].startswith("-"):
        name, extra = extra[0], extra[1:]  # argparse leaves the name here where an option came before it
    if name is None:
        raise VlaError("which recipe? Try `vla train --list`, then e.g. `vla train tidy_desk_flow`")
    recipe = with_overrides(load_recipe(name), extra)
    if args.show:
        print(describe(recipe))
        return 0

    from vla.train import TrainingStopped, train

    out = args.out or str(Path("runs") / recipe.name)
    try:
        data = _find(args.data, recipe.env) if args.data else recipe.data.path
        result = train(recipe, data, out, args.resume, args.wandb, shlex.join(["vla", *sys.argv[1:]]))
    except TrainingStopped as stopped:
        print(f"vla: {stopped}", file=sys.stderr)
        return 128 + stopped.signal
    if os.environ.get("RANK", "0") != "0":
        return 0  # one process of several speaks
    print(f"{result.steps} steps in {result.wall_s / 60:.1f} minutes, last loss {result.loss:.4f}")
    if "success" in result.scores:
        rate = result.scores["success"]
        print(f"success {rate['rate']:.1%} [{rate['low']:.1%}, {rate['high']:.1%}] on {rate['n']} validation episodes")
    trusted = [f"VLA_ALLOW={recipe.policy}"] if ":" in recipe.policy else []  # a file may not name outside code
    command = [*trusted, "vla", "eval", "--env", recipe.env or "ENV", "--agent", str(result.agent_dir)]
    print(f"evaluate it on episodes that it has not seen: {shlex.join(command)}")
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
