"""``vla doctor``: what works on this machine, what is missing, and the line that fixes it."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

EPILOG = """examples:
  vla doctor                       check everything; exit code 0 if `vla eval --env tidy_desk` can run
  vla doctor --frame frame.png     keep the rendered test frame
  vla doctor --json                the same report for a program
"""

_STYLE = {"ok": "green", "warn": "yellow", "missing": "red"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options and the examples."""
    parser.epilog = EPILOG
    parser.add_argument("--frame", type=Path, metavar="FILE", help="write the rendered test frame here (PNG)")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(args: argparse.Namespace, extra: list[str]) -> int:
    """Print one line for each check. Returns 0 if the main job can run, else 1."""
    from vla.contracts import VlaError
    from vla.doctor import can_run, run_checks

    if extra:
        raise VlaError(f"vla doctor takes no '{extra[0]}'; see vla doctor --help")
    if args.frame is not None and not args.frame.parent.is_dir():
        raise VlaError(f"--frame {args.frame}: the folder {args.frame.parent} does not exist")
    if args.json:
        checks = list(run_checks(args.frame))
        print(json.dumps({"can_run": can_run(checks), "checks": [asdict(check) for check in checks]}, indent=2))
        return 0 if can_run(checks) else 1

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    table = Table(box=None, pad_edge=False)
    for title in ("", "check", "found"):
        table.add_column(title, overflow="fold")
    with console.status("looking at this machine"):
        checks = list(run_checks(args.frame))
    for check in checks:
        found = Text(check.detail)
        if check.fix:
            found.append(f"\nfix: {check.fix}", style="bold")
        label = check.name if check.essential else f"{check.name} (optional)"
        table.add_row(Text(check.status, style=_STYLE[check.status]), label, found)
    console.print(table)
    if can_run(checks):
        console.print("\nReady: [bold]vla eval --env tidy_desk[/bold]", highlight=False)
        return 0
    broken = ", ".join(check.name for check in checks if check.essential and check.status == "missing")
    console.print(
        f"\nNot ready, because of: {broken}. Run the lines after 'fix:' above.", highlight=False, markup=False
    )
    return 1
