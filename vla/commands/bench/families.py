"""``vla bench families``: what each family of policies does on the same episodes, and what it costs."""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from vla.commands.bench import played

EPILOG = """\
examples:
  vla bench families --env tidy_desk tidy_desk runs/tidy_desk_diffusion runs/tidy_desk_parallel --kind named
        trained agents; the first is what the others are compared with
  vla bench families --env tidy_desk tidy_desk_flow_head tidy_desk_diffusion --data data/named --steps 2000
        recipes of configs/: each is trained first, on the same data for as many steps, into OUT/train
  vla bench families --env tidy_desk tidy_desk runs/mine --perturb light=strong

The folder --out gets an evaluation for each agent (as vla eval writes it), families.json and families.html: success
with its interval by kind and language, latency, decisions a second, parameters, memory, training time, and the paired
differences to the first. The same command goes on with what is unfinished.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options and the examples."""
    parser.epilog, parser.formatter_class = EPILOG, argparse.RawDescriptionHelpFormatter
    parser.add_argument("agents", nargs="+", metavar="AGENT", help="a folder, a shipped agent, or a recipe to train")
    parser.add_argument("--env", required=True, metavar="NAME", help="the env, by name or as package.module:Class")
    parser.add_argument("--out", type=Path, default=Path("runs/families"), metavar="DIR", help="(runs/families)")
    parser.add_argument("--episodes", type=int, default=50, metavar="N", help="of each agent (50)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the episodes (0)")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes that step the envs (1)")
    parser.add_argument("--kind", metavar="NAME", help="of the instructions (any)")
    parser.add_argument("--perturb", metavar="AXIS=STRENGTH", help="what is made harder, as vla eval takes it")
    parser.add_argument("--data", metavar="DIR", help="the dataset that recipes are trained on (their own)")
    parser.add_argument("--steps", type=int, metavar="N", help="that each recipe is trained (its own)")


def run(args: argparse.Namespace, extra: list[str]) -> int:
    """Train what is no agent yet, evaluate all, write the page. Returns 0."""
    from rich.console import Console

    from vla.contracts import VlaError
    from vla.eval.families import assemble, costs_of
    from vla.eval.folder import as_json
    from vla.eval.pages.families import render
    from vla.host.files import claimed, write_atomically

    if len(set(args.agents)) < len(args.agents):
        raise VlaError("an agent is named twice")
    console, command = Console(), shlex.join(["vla", *sys.argv[1:]])
    with claimed(args.out, "vla bench"):
        folders = {name: _trained(args, name, command) for name in args.agents}
        rows: dict[str, Any] = {}
        for name, where in folders.items():
            console.print(f"evaluating {name}", highlight=False, markup=False)
            rows[name] = {"folder": _evaluated(args, name, where, console), "costs": costs_of(where)}
        found = assemble(rows, command)
        write_atomically(args.out / "families.json", as_json(found))  # before the page: what fails there loses nothing
        write_atomically(args.out / "families.html", render(found))
    _print(console, found)
    console.print(f"\npage: {args.out / 'families.html'}", highlight=False, markup=False, soft_wrap=True)
    return 0


def _trained(args: argparse.Namespace, name: str, command: str) -> str:
    """The agent called ``name``, or that which its recipe trains: as ``vla.agent.load`` takes it."""
    from vla import paths, registry
    from vla.contracts import VlaError
    from vla.recipe import Recipe
    from vla.train.trainer import train

    if (paths.agents_dir() / name / "agent.json").is_file() or name not in registry.names("recipe"):
        return name
    out = args.out / "train" / name
    if not (out / "agent" / "agent.json").is_file():
        recipe = registry.load_recipe(name)
        if not isinstance(recipe, Recipe):
            raise VlaError(f"{name} is a recipe of stages; train it first, and name its agent")
        if args.steps:
            recipe = replace(recipe, optim=replace(recipe.optim, steps=args.steps))
        train(recipe, args.data or recipe.data.path, out, resume=out.exists(), command=command)
    return str(out)


def _evaluated(args: argparse.Namespace, name: str, where: str, console: Any) -> Path:
    """Where the agent's evaluation lies; one that is finished is not played again."""
    from vla.eval.config import EvalConfig
    from vla.perturb import axes

    config = EvalConfig(
        args.env, args.episodes, args.seed, args.workers, kind=args.kind, videos=0, agent=where,
        perturb=axes.parse(args.perturb) if args.perturb else {},
    )  # fmt: skip
    out = args.out / "eval" / name.strip("/.").replace("/", "_")
    played(console, config, out)
    return out


def _print(console: Any, found: dict[str, Any]) -> None:
    from rich.table import Table

    from vla.eval.table import plain
    from vla.eval.wording import percent

    shown = Table(title=f"{found['episodes']} episodes of {plain(found['env'])}, seed {found['seed']}")
    for place, head in enumerate(
        ("agent", "success", "95 %", "minus the first", "median", "p99", "parameters", "trained")
    ):
        shown.add_column(head, justify="right" if place else "left")
    for row in found["rows"]:
        rate, costs, pair = row["success"], row["costs"], row["difference"]
        shown.add_row(
            plain(row["label"]),
            percent(rate["rate"]),
            f"{100 * rate['low']:.0f} – {100 * rate['high']:.0f}",
            "" if pair is None else f"{100 * pair['difference']:+.1f}",
            f"{costs['latency_ms']['median']:.1f} ms",
            f"{costs['latency_ms']['p99']:.1f} ms",
            f"{costs['parameters'] / 1e6:.2f} M",
            "" if costs["train_s"] is None else f"{costs['train_s'] / 60:.0f} min",
        )
    console.print(shown)
