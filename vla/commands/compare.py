"""``vla compare``: how evaluations differ, paired on the same episodes."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

EPILOG = """\
examples:
  vla compare runs/eval_tidy_desk runs/eval_mine         is mine better than the one that ships?
  vla compare runs/a runs/b runs/c --out runs/abc        b and c, each against a
  vla compare old/results.json new/results.json          files in place of folders

A RUN is a folder that vla eval wrote. The first one is what the others are compared with. All must have played the
same episodes: runs whose env, options, split or seeds differ are refused, and both sides are printed. To get such runs,
give the same options and another agent:
  vla eval --env tidy_desk --episodes 200 --agent runs/mine --out runs/eval_mine

The folder --out gets compare.html, one page with tables and plots, and compare.json.
"""

MOST_LISTED = 10  # episodes on the terminal; the page has them all


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options and the examples."""
    parser.epilog = EPILOG
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a folder with results.json, or that file")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/compare"), metavar="DIR", help="folder for the page (runs/compare)"
    )


def run(args: argparse.Namespace, extra: list[str]) -> int:
    """Compare; print the tables, write the page. Returns 0."""
    from rich.console import Console

    from vla.contracts import VlaError
    from vla.eval.comparable import load_runs
    from vla.eval.compare import compare_runs
    from vla.eval.folder import as_json
    from vla.eval.pages.compare import render
    from vla.host.files import write_atomically

    if extra:
        raise VlaError(f"vla compare takes no '{extra[0]}'; see vla compare --help")
    command = shlex.join(["vla", "compare", *map(str, args.runs), "--out", str(args.out)])
    found = compare_runs(load_runs(args.runs), command)
    console = Console()
    print_tables(console, found)
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        write_atomically(args.out / "compare.html", render(found))
        write_atomically(args.out / "compare.json", as_json(found))
    except OSError as error:
        raise VlaError(f"--out {args.out} can't be written: {error.strerror or error}") from error
    console.print(f"\npage: {args.out / 'compare.html'}", highlight=False, markup=False, soft_wrap=True)
    return 0


def print_tables(console: Console, found: dict[str, Any]) -> None:
    """The figures on the terminal. ``found`` is what ``vla.eval.compare.compare_runs`` gives."""
    from rich.table import Table

    from vla.eval.table import plain
    from vla.eval.wording import outcome, p_text, percent, words

    def table(title: str, *columns: str) -> Table:
        made = Table(title=plain(title), title_justify="left")
        for place, name in enumerate(columns):
            made.add_column(name, justify="right" if place else "left", overflow="fold")
        return made

    def between(one: dict[str, Any]) -> str:
        return "" if one["low"] is None else f" ({one['low'] * 100:+.1f} to {one['high'] * 100:+.1f})"

    first = found["runs"][0]["label"]
    rates = table(
        f"{found['episodes']} episodes of {found['env']}, {found['split']}, seed {found['seed']}",
        *("run", "agent", "success", "95 % interval", "items placed"),
    )
    for one in found["runs"]:
        rate = one["success"]
        span = f"{rate['low'] * 100:.1f} – {rate['high'] * 100:.1f} %"
        rates.add_row(plain(one["label"]), plain(one["agent"]), percent(rate["rate"]), span, percent(one["placed"]))
    console.print(rates)
    for one in found["against_first"]:
        shown = table(f"{one['label']} minus {first}", "", "points (95 % interval)", "p", "gained", "lost", "n")

        def row(name: str, pair: dict[str, Any], shown: Table = shown) -> None:
            counts = [str(pair.get(key, "")) for key in ("only_this", "only_other", "n")]
            p_value = p_text(pair["p_value"]) if "p_value" in pair else ""
            shown.add_row(plain(name), f"{pair['difference'] * 100:+.1f}{between(pair)}", p_value, *counts)

        row("success", one["success"])
        row("items placed", one["placed"])
        for field, groups in one["by"].items():
            if groups:
                shown.add_section()
            for value, pair in groups.items():
                row(f"{field}: {words(value)}", pair)
        console.print(shown)
        if len(found["against_first"]) > 1:
            allowed = p_text(one["success"]["p_holm"])
            console.print(f"p with Holm's allowance for several runs: {allowed}", highlight=False)
    console.print("p: McNemar's exact test. gained, lost: episodes that only this run, only the first solved.")
    differing = found["differing"]
    console.print(f"{len(differing)} of {found['episodes']} episodes came out differently", highlight=False)
    for episode in differing[:MOST_LISTED]:
        outcomes = " / ".join(outcome(good) for good in episode["success"])
        told = plain(f"  seed {episode['seed']}: {outcomes}: {episode['instruction']}")
        console.print(told, highlight=False, soft_wrap=True)
    if len(differing) > MOST_LISTED:
        console.print(f"  ... and {len(differing) - MOST_LISTED} more, on the page", highlight=False)
    for text in found["warnings"]:
        console.print(plain(f"note: {text}"), style="yellow", highlight=False, soft_wrap=True)
