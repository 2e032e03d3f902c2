"""``vla bench``: measurements, each a file of this folder."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

PARTS = {
    "delay": "what is lost where answers come late: agents, each played in several ways, against delays",
    "families": "policies of several families on the same episodes, with what each costs",
    "realtime": "the 200 Hz control process, timed on this machine beside an agent that infers",
}

EPILOG = """\
examples:
  vla bench families --env tidy_desk tidy_desk runs/tidy_desk_diffusion runs/tidy_desk_parallel
  vla bench realtime --minutes 10
  vla bench delay --env tidy_desk tidy_desk@receding tidy_desk@guided runs/tidy_desk_hierarchical

Each has examples of its own: vla bench NAME --help
"""


def played(console: Any, config: Any, out: Path) -> dict[str, Any]:
    """The evaluation that ``config`` asks for, of the agent that it names, in ``out``; one that is there goes on."""
    import torch

    from vla.agent import load
    from vla.eval.evaluate import evaluate
    from vla.host.progress import EpisodeBar

    torch.set_num_threads(1)  # as vla eval does: see there
    words = ["vla", "eval", "--env", config.env, "--agent", config.agent, "--episodes", config.episodes]
    words += ["--seed", config.seed]
    for name in ("kind", "items", "playback"):
        if getattr(config, name) is not None:
            words += [f"--{name}", getattr(config, name)]
    if config.perturb:
        words += ["--perturb", ",".join(f"{axis}={strength}" for axis, strength in config.perturb.items())]
    command = shlex.join(map(str, [*words, "--videos", config.videos, "--out", out]))
    with EpisodeBar(console) as bar:
        return evaluate(
            *(config, load(config.agent), out, command, lambda result: bar.count(result.success), bar.stage), keep=True
        )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the measurements; which one it is the command line has found out before."""
    lines = "\n".join(f"  {name:<10}  {text}" for name, text in PARTS.items())
    parser.description, parser.epilog = f"{parser.description}\n\nmeasurements:\n{lines}", EPILOG
    parser.add_argument("name", metavar="NAME", choices=list(PARTS), help=f"one of: {', '.join(PARTS)}")


def run(args: argparse.Namespace, extra: list[str]) -> int:
    """Nothing: a name that is one of ``PARTS`` leads to that file."""
    raise AssertionError(f"vla bench {args.name} has a file of its own")
