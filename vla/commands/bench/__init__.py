"""``vla bench``: measurements, each a file of this folder."""

from __future__ import annotations

import argparse

PARTS = {
    "families": "policies of several families on the same episodes, with what each costs",
    "realtime": "the 200 Hz control process, timed on this machine beside an agent that infers",
}

EPILOG = """\
examples:
  vla bench families --env tidy_desk tidy_desk runs/tidy_desk_diffusion runs/tidy_desk_parallel
  vla bench realtime --minutes 10

Each has examples of its own: vla bench NAME --help
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the measurements; which one it is the command line has found out before."""
    lines = "\n".join(f"  {name:<10}  {text}" for name, text in PARTS.items())
    parser.description, parser.epilog = f"{parser.description}\n\nmeasurements:\n{lines}", EPILOG
    parser.add_argument("name", metavar="NAME", choices=list(PARTS), help=f"one of: {', '.join(PARTS)}")


def run(args: argparse.Namespace, extra: list[str]) -> int:
    """Nothing: a name that is one of ``PARTS`` leads to that file."""
    raise AssertionError(f"vla bench {args.name} has a file of its own")
