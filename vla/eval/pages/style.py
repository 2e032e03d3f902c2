"""What the HTML pages share: the style sheet and the pieces of a page.

No font, script or image from anywhere else; dark or light as the reader's system is.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

from vla.host.files import printable

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #fafaf8; --card: #ffffff; --ink: #1d2329; --faint: #68727d; --line: #e3e5e8;
  --bar: #3a7d6b; --bar-soft: #e6efec; --good: #2f7d5b; --bad: #b4483c; --lead: #16443a;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14181c; --card: #1c2228; --ink: #e7eaed; --faint: #98a3ae; --line: #2d353d;
    --bar: #5cb39b; --bar-soft: #243038; --good: #6cc59c; --bad: #e58377; --lead: #24584c;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink); line-height: 1.5;
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", sans-serif;
}
main { max-width: 1000px; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
header p { margin: .2rem 0 0; color: var(--faint); }
h1 { margin: 0; font-size: 1.9rem; letter-spacing: -.02em; }
h2 { margin: 0 0 .8rem; font-size: 1.1rem; }
h3 { margin: 1rem 0 .4rem; font-size: .95rem; }
section { margin-top: 1.25rem; padding: 1.25rem; background: var(--card); border: 1px solid var(--line);
  border-radius: 12px; }
section.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(170px, 1fr)); gap: .8rem; padding: 0;
  background: none; border: 0; }
.tile { padding: 1rem; background: var(--card); border: 1px solid var(--line); border-radius: 12px; }
.tile span, .tile small { display: block; color: var(--faint); font-size: .8rem; }
.tile strong { display: block; font-size: 1.75rem; letter-spacing: -.02em; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
.tile.lead { background: var(--lead); border-color: var(--lead); color: #fff; }
.tile.lead span, .tile.lead small { color: #d5e6e0; }
.hint, .note { margin: -.5rem 0 .8rem; color: var(--faint); font-size: .85rem; }
header .note { margin-top: .5rem; color: var(--bad); }
.row { display: grid; grid-template-columns: 12rem 1fr 19rem; gap: 1rem; align-items: center; padding: .25rem 0; }
.below { margin: -.2rem 0 .4rem 13rem; color: var(--faint); font-size: .8rem; }
.row svg { width: 100%; height: 18px; }
.figures { font-size: .85rem; color: var(--faint); font-variant-numeric: tabular-nums; }
.figures b { color: var(--ink); } .figures i { font-style: normal; display: inline-block; }
.track { fill: var(--bar-soft); } .bar { fill: var(--bar); }
.whisker, .axis { stroke: var(--ink); stroke-width: 1.5; fill: none; vector-effect: non-scaling-stroke; opacity: .75; }
.histogram { width: 100%; max-width: 760px; }
.histogram text { fill: var(--faint); font-size: 9px; text-anchor: middle; }
.films { display: grid; gap: 1.25rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 430px), 1fr)); }
figure { margin: 0; } video { width: 100%; border-radius: 8px; background: #000; display: block; }
figcaption { padding-top: .35rem; } figcaption small, figcaption .wrong { display: block; }
figcaption small { color: var(--faint); } .wrong { color: var(--bad); }
table { border-collapse: collapse; width: 100%; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .6rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
.facts th { width: 19rem; font-weight: 400; color: var(--faint); } .facts td { overflow-wrap: anywhere; }
tr.good td:nth-child(5) { color: var(--good); } tr.bad td:nth-child(5) { color: var(--bad); }
summary { cursor: pointer; font-weight: 600; } .scroll { overflow-x: auto; margin-top: .8rem; }
pre { margin: 0 0 .8rem; padding: .8rem 1rem; overflow-x: auto; background: var(--bar-soft); border-radius: 8px; }
@media (max-width: 700px) {
  .row { grid-template-columns: 1fr; gap: .1rem; } .below { margin-left: 0; } .facts th { width: auto; }
}
"""


def escape(text: str) -> str:
    """``text`` as a page shows it: tags are no tags, and control characters are seen instead of obeyed."""
    return html.escape(printable(text))


def page(title: str, parts: Sequence[str]) -> str:
    """One self-contained HTML document; empty parts are left out."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in parts if part)
        + "\n</main>\n</body>\n</html>\n"
    )


def bar_row(rate: dict[str, Any], label: str, note: str = "") -> str:
    """One row: a name, a bar with its interval as a whisker, and the figures."""
    left, right, middle = rate["low"] * 100, rate["high"] * 100, rate["rate"] * 100
    described = f"{label}: {percent(rate['rate'])}, interval {interval(rate)}, n = {rate['n']}"
    return (
        f'<div class="row"><span class="name">{escape(label)}</span>'
        f'<svg viewBox="0 0 100 10" preserveAspectRatio="none" role="img" aria-label="{escape(described)}">'
        '<rect class="track" x="0" y="1" width="100" height="8"/>'
        f'<rect class="bar" x="0" y="1" width="{middle:.2f}" height="8"/>'
        f'<path class="whisker" d="M{left:.2f} 5H{right:.2f}M{left:.2f} 2.5V7.5M{right:.2f} 2.5V7.5"/></svg>'
        f'<span class="figures"><b>{percent(rate["rate"])}</b> {interval(rate)} '
        f"<i>n = {rate['n']}{escape(note)}</i></span></div>"
    )


def facts_table(rows: Sequence[tuple[str, str]]) -> str:
    """Names and values, one pair a line."""
    cells = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows)
    return f'<table class="facts">{cells}</table>'


_SAID = {
    "en": "English",
    "zh": "Chinese",
    "table_force": "force on the table",
    "bystander_force": "force on what was not asked for",
    "drops": "items that slipped from the grip",
}


def words(name: str) -> str:
    """A key of the results as a reader would say it; ``_n`` at its end is newtons."""
    if name.endswith("_n"):
        return f"{words(name.removesuffix('_n'))} (N)"
    return _SAID.get(name, name.replace("_", " "))


def percent(share: float | None) -> str:
    """A share as a percentage; a dash where there is none."""
    return "–" if share is None else f"{share * 100:.1f} %".replace(".0 %", " %")


def points(difference: float | None) -> str:
    """A difference of two shares in percentage points, with its sign; a dash where there is none."""
    return "–" if difference is None else f"{difference * 100:+.1f} points"


def interval(rate: dict[str, Any]) -> str:
    """A rate's interval in per cent."""
    return f"{rate['low'] * 100:.0f}–{rate['high'] * 100:.0f} %"


def number(value: float | None, unit: str = "") -> str:
    """A number with as many places as matter; a dash where there is none."""
    if value is None:
        return "–"
    return f"{value:.0f}{unit}" if abs(value) >= 100 else f"{value:.1f}{unit}"


def p_text(p_value: float) -> str:
    """A p value with four places."""
    return "< 0.0001" if p_value < 0.0001 else f"{p_value:.4f}"


def across_seeds(summary: dict[str, Any]) -> list[str]:
    """A line for each score that a run of several seeds has the mean of; none for a run of one."""
    return [
        f"{words(name)} over {one['n']} seeds: {percent(one['mean'])}, standard deviation {one['std'] * 100:.1f} points"
        for name, one in summary.get("across_seeds", {}).items()
    ]
