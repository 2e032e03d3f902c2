"""What an evaluation came to, as tables on the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from vla.eval.benchmark import benchmark_rows
from vla.eval.wording import across_seeds, interval, percent, words
from vla.host.files import printable
from vla.perturb.axes import STRENGTHS, describe
from vla.registry import load_env


def print_table(console: Console, summary: dict[str, Any]) -> None:
    """The figures on the terminal."""
    harder = f", perturbed: {describe(summary['perturb'])}" if summary.get("perturb") else ""
    heading = plain(f"{summary['agent']} on {summary['env']}, {summary['split']}{harder}")
    table = Table(title=heading, title_justify="left")
    for title in ("", "success", "95 % interval", "progress", "episodes"):
        table.add_column(title, justify="left" if not title else "right")

    def row(name: str, rate: dict[str, Any], progress: float | None = None, style: str | None = None) -> None:
        interval = f"{rate['low'] * 100:.1f} – {rate['high'] * 100:.1f} %"
        shown = "" if progress is None else percent(progress)
        table.add_row(plain(name), percent(rate["rate"]), interval, shown, str(rate["n"]), style=style)

    row("all episodes", summary["success"], summary["progress"]["mean"], "bold")
    if summary.get("safety"):
        row("… without a safety violation", summary["safety"]["safe_success"])
    for field in ("kind", "language", "category"):
        if summary["by"][field]:
            table.add_section()
        for name, group in summary["by"][field].items():
            row(f"{field}: {words(name)}", group["success"], group["progress"]["mean"])
    if summary.get("seeds"):
        table.add_section()
    for seed, group in summary.get("seeds", {}).items():
        row(f"seed {seed}", group["success"], group["progress"]["mean"])
    for name, check in summary.get("checks", {}).items():
        table.add_section()
        for key, label in (("success", "success"), ("moved_named", "moved the named item")):
            if key in check and (key != "success" or "moved_named" not in check):
                row(f"{words(name)}: {label}", check[key])
    console.print(table)
    if summary.get("failures"):
        counts = ", ".join(f"{count} × {reason}" for reason, count in summary["failures"].items())
        console.print(f"failures: {counts}", highlight=False, markup=False)
    if summary.get("judge", {}).get("agrees"):
        judge = summary["judge"]
        area = f", ROC AUC {judge['auc']['auc']:.3f}" if "auc" in judge else ""
        rate = f"{percent(judge['agrees']['rate'])} of {judge['n']} episodes{area}"
        console.print(plain(f"the judge {judge['model']} agrees with the physics in {rate}"), highlight=False)
    if "tiers" in summary:
        benchmark = load_env(summary["env"]).benchmark  # type: ignore[attr-defined]
        published = Table(title="beside what was published, success in %", title_justify="left", caption_justify="left")
        for title in ("model", "size", *map(words, benchmark.tiers), "mean"):
            published.add_column(title, overflow="fold")
        rows = benchmark_rows(benchmark, summary["agent"], summary)
        for texts in rows:
            published.add_row(*map(plain, texts[:-1]))
        published.caption = plain(f"{summary['agent']}: {rows[-1][-1]}; the others' sources are in the report")
        console.print(published)
    if summary.get("suite"):
        _print_suite(console, summary)
    for line in across_seeds(summary):
        console.print(line, highlight=False)
    facts = [
        ("policy decisions a second", summary["policy_hz"]),
        ("env steps a second", summary["env_steps_per_s"]),
        ("simulated seconds per second", summary["realtime_factor"]),
    ]
    console.print(" · ".join(f"{name}: {value}" for name, value in facts), highlight=False)
    for name, check in summary.get("checks", {}).items():
        if "skipped" in check:
            console.print(plain(f"{words(name)}: left out, {check['skipped']}"), style="yellow", highlight=False)
    if summary["cut_short"]:
        first = next(e for e in summary["episodes_detail"] if e["error"])
        which = f"episode {first['index']}, seed {first['seed']}: " if "seed" in first else ""
        count = f"{summary['cut_short']} episodes were cut short, e.g.: {which}{first['error']}"
        console.print(plain(count), style="yellow", highlight=False)
    if "against" in summary:
        other = summary["against"]
        console.print(
            plain(
                f"against {other['agent']}: {other['difference'] * 100:+.1f} points "
                f"({other['low'] * 100:+.1f} to {other['high'] * 100:+.1f}), p = {other['p_value']:.3f}, "
                f"{other['n']} shared episodes"
            ),
            highlight=False,
        )


def plain(text: str) -> Text:
    """A text that came from a file, an env or a user, as it is: what looks like markup or an escape is none."""
    return Text(printable(text))


def _print_suite(console: Console, summary: dict[str, Any]) -> None:
    """Success for each axis and strength, by delay, and the share that is retained."""

    def cell(rate: dict[str, Any] | None) -> str:
        return "–" if rate is None else f"{percent(rate['rate'])} ({interval(rate)})"

    table = Table(
        title=f"robustness: success (95 % interval), {summary['episodes']} episodes each", title_justify="left"
    )
    for title in ("", *STRENGTHS):
        table.add_column(title, justify="right" if title else "left")
    table.add_row("unperturbed", cell(summary["success"]), style="bold")
    table.add_section()
    for axis, rates in summary["suite"].items():
        table.add_row(axis, *(cell(rates.get(strength)) for strength in STRENGTHS))
    console.print(table)
    if "delay_ms" in summary:
        curve = ", ".join(f"{ms} ms {cell(rate)}" for ms, rate in summary["delay_ms"].items())
        console.print(f"by delay: {curve}", highlight=False)
    if summary["retained"] is not None:
        low, high = summary["retained_interval"]
        kept = f"{percent(summary['retained'])} (95 % bootstrap interval {percent(low)} to {percent(high)})"
        console.print(f"retained at medium strength: {kept} of the unperturbed success", highlight=False)
