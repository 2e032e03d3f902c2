"""``vla bench delay``: what agents lose where their answers come late, played in several ways."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

from vla.commands.bench import played

EPILOG = """\
examples:
  vla bench delay --env tidy_desk tidy_desk tidy_desk@receding tidy_desk@guided
        the agent that ships: its chunks begun late and from their first action, and played in two ways that know of
        the delay (receding, ensemble, guided, prefix, forward; see docs/architecture.md)
  vla bench delay --env tidy_desk tidy_desk@guided runs/tidy_desk_hierarchical --delays 0,300,600 --kind all
        of an agent of two systems it is System 2's plans that are late

The simulator does not wait: what was planned before goes on meanwhile. The folder --out gets an evaluation for each
(as vla eval writes it), delay.json and delay.png: success with its interval, how long a success takes, how jerkily the
joints move, and the paired difference to the same row without a delay. The same command goes on with what is
unfinished.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options and the examples."""
    parser.epilog, parser.formatter_class = EPILOG, argparse.RawDescriptionHelpFormatter
    parser.add_argument("rows", nargs="+", metavar="AGENT[@WAY]", help="an agent, and how its chunks are played")
    parser.add_argument("--env", required=True, metavar="NAME", help="the env, by name or as package.module:Class")
    parser.add_argument("--delays", default="0,50,150,300,600", metavar="MS", help="milliseconds (0,50,150,300,600)")
    parser.add_argument("--out", type=Path, default=Path("runs/delay"), metavar="DIR", help="(runs/delay)")
    parser.add_argument("--episodes", type=int, default=50, metavar="N", help="of each (50)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the episodes (0)")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes that step the envs (1)")
    parser.add_argument("--kind", metavar="NAME", help="of the instructions (any)")
    parser.add_argument("--items", type=int, metavar="N", help="items on the desk (the env's own)")


def run(args: argparse.Namespace, extra: list[str]) -> int:
    """Evaluate each row at each delay, write what was found. Returns 0."""
    from rich.console import Console

    from vla.contracts import VlaError
    from vla.eval.delay import assemble, draw
    from vla.eval.folder import as_json
    from vla.host.files import claimed, write_atomically

    delays = _delays(args.delays)
    configs = {row: {delay: _config(args, row, delay) for delay in delays} for row in args.rows}
    if len(configs) < len(args.rows):
        raise VlaError("a row is named twice")
    for config in (one for row in configs.values() for one in row.values()):
        config.check_env()  # before anything is played
    console = Console()
    with claimed(args.out, "vla bench"):
        found: dict[str, dict[int, dict[str, Any]]] = {}
        for row, by_delay in configs.items():
            for delay, config in by_delay.items():
                console.print(f"{row}, {delay} ms late", highlight=False, markup=False)
                where = args.out / "eval" / f"{row.strip('/.').replace('/', '_')}_{delay}ms"
                found.setdefault(row, {})[delay] = played(console, config, where)
        told = assemble(found, shlex.join(["vla", *sys.argv[1:]]))
        write_atomically(args.out / "delay.json", as_json(told))  # before the picture: what fails there loses nothing
        write_atomically(args.out / "delay.png", draw(told))
    _print(console, told)
    console.print(f"\npicture: {args.out / 'delay.png'}", highlight=False, markup=False, soft_wrap=True)
    return 0


def _delays(text: str) -> list[int]:
    from vla.contracts import VlaError

    try:
        found = sorted({int(part) for part in text.split(",")})
    except ValueError:
        found = [-1]
    if found[0] < 0 or found[-1] > 10_000:
        raise VlaError(f"--delays takes milliseconds from 0 to 10000, e.g. 0,150,300, and not {text}")
    return found


def _config(args: argparse.Namespace, row: str, delay: int) -> Any:
    from vla.eval.config import EvalConfig

    agent, _, way = row.partition("@")
    return EvalConfig(
        args.env, args.episodes, args.seed, args.workers, kind=args.kind, items=args.items, videos=0, agent=agent,
        playback=way or None, perturb={"latency": f"{delay}ms"} if delay else {},
    )  # fmt: skip


def _print(console: Any, told: dict[str, Any]) -> None:
    from rich.table import Table

    from vla.eval.table import plain

    shown = Table(title=f"success in {told['episodes']} episodes of {plain(told['env'])}, by delay")
    shown.add_column("agent@way")
    delays = [cell["delay_ms"] for cell in told["rows"][0]["cells"]]
    for delay in delays:
        shown.add_column(f"{delay} ms", justify="right")
    for row in told["rows"]:
        shown.add_row(plain(row["label"]), *[_cell(cell) for cell in row["cells"]])
    console.print(shown)
    console.print("below each: 95 % interval, mean seconds to success, mean of the joints' largest jerk (1: the limit)")


def _cell(cell: dict[str, Any]) -> str:
    rate = cell["success"]
    rest = [f"{100 * rate['low']:.0f} – {100 * rate['high']:.0f}"]
    rest += [f"{cell['seconds']:.1f} s"] if cell["seconds"] is not None else []
    rest += [f"jerk {cell['jerk']:.2f}"] if cell["jerk"] is not None else []
    return "\n".join([f"{100 * rate['rate']:.0f} %", *rest])
