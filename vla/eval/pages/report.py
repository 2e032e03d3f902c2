"""``report.html``: one file that tells the whole evaluation, with its videos inside and no other resource."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vla.eval.pages.films import failures, films
from vla.eval.pages.style import (
    across_seeds,
    bar_row,
    escape,
    facts_table,
    interval,
    number,
    page,
    percent,
    points,
    words,
)
from vla.eval.pages.suite import robustness
from vla.host.files import write_atomically
from vla.perturb.axes import describe
from vla.registry import load_env
from vla.rollout.loop import EpisodeResult


def write_report(path: Path, summary: dict[str, Any], shown: Sequence[EpisodeResult]) -> None:
    """Write the report.

    Args:
        path: the HTML file.
        summary: the content of ``results.json``.
        shown: filmed episodes to show.
    """
    write_atomically(path, render(summary, shown))


def render(summary: dict[str, Any], shown: Sequence[EpisodeResult]) -> str:
    """The report as one HTML document."""
    title = f"{summary['agent']} on {summary['env']}"
    parts = [
        _header(summary, title),
        _tiles(summary),
        robustness(summary),
        *(_rates(f"By {name}", summary["by"][name]) for name in ("kind", "language", "category")),
        _seeds(summary),
        _benchmark(summary),
        failures(summary),
        films(shown),
        _items(summary),
        _safety(summary),
        _histogram(summary),
        _checks(summary),
        _against(summary),
        _speed(summary),
        _episodes(summary),
        _origin(summary),
    ]
    return page(title, parts)


def _header(summary: dict[str, Any], title: str) -> str:
    split = "held-out" if summary["split"] == "heldout" else summary["split"]
    facts = [f"{summary['episodes']} episodes", f"{split} split", _seed_names(summary), summary["date"]]
    if summary.get("perturb"):
        facts.insert(1, f"perturbed: {describe(summary['perturb'])}")
    warning = ""
    if summary["split"] != "heldout":
        warning = '<p class="note">Sentences, colours and layouts are those of training: not a held-out figure.</p>'
    return f"<header><h1>{escape(title)}</h1><p>{escape(' · '.join(facts))}</p>{warning}</header>"


def _tiles(summary: dict[str, Any]) -> str:
    success, seconds = summary["success"], summary["time_to_success_s"]["median"]
    tiles = [
        ("success", percent(success["rate"]), f"95 % interval {interval(success)}", "lead"),
        ("progress", percent(summary["progress"]["mean"]), "mean share of each task done", ""),
        ("time to success", number(seconds, " s"), "median, simulated", ""),
        ("policy", number(summary["policy_hz"], " Hz"), "decisions a second, inference alone", ""),
        ("faster than time", number(summary["realtime_factor"], "×"), "simulated seconds per second", ""),
    ]
    return (
        '<section class="tiles">'
        + "".join(
            f'<div class="tile {kind}"><span>{escape(name)}</span><strong>{escape(value)}</strong>'
            f"<small>{escape(hint)}</small></div>"
            for name, value, hint, kind in tiles
        )
        + "</section>"
    )


def _rates(heading: str, groups: dict[str, Any]) -> str:
    if not groups:
        return ""
    rows = [
        bar_row(group["success"], words(name), f", progress {percent(group['progress']['mean'])}")
        for name, group in groups.items()
    ]
    return f"<section><h2>{escape(heading)}</h2>{''.join(rows)}</section>"


def _seed_names(summary: dict[str, Any]) -> str:
    return f"seeds {', '.join(summary['seeds'])}" if summary.get("seeds") else f"seed {summary['seed']}"


def _seeds(summary: dict[str, Any]) -> str:
    spread = "".join(f"<p>{escape(line)}</p>" for line in across_seeds(summary))
    return _rates("By seed", summary.get("seeds", {})).replace("</section>", f"{spread}</section>")


def _benchmark(summary: dict[str, Any]) -> str:
    if "tiers" not in summary:
        return ""
    benchmark = load_env(summary["env"]).benchmark  # type: ignore[attr-defined]
    head = "".join(f"<th>{escape(words(name))}</th>" for name in ("model", "size", *benchmark.tiers, "mean", "source"))
    rows = benchmark.rows(summary["agent"], summary)
    lines = "".join(f"<tr>{''.join(f'<td>{escape(value)}</td>' for value in row)}</tr>" for row in rows)
    return (
        "<section><h2>Beside what was published</h2>"
        '<p class="hint">Success, per cent; the mean counts each tier alike. In brackets: 95 % intervals.</p>'
        f"<div class='scroll'><table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>"
        f"{bar_row(summary['episode_mean'], 'all episodes alike')}</section>"
    )


def _items(summary: dict[str, Any]) -> str:
    if not summary["per_item"]:
        return ""
    rows = [bar_row(rate, name) for name, rate in summary["per_item"].items()]
    return (
        "<section><h2>Per item</h2>"
        '<p class="hint">Items that were asked for and ended in their place, whatever became of the rest.</p>'
        f"{''.join(rows)}</section>"
    )


def _safety(summary: dict[str, Any]) -> str:
    safety = summary.get("safety")
    if not safety:
        return ""
    rows = [bar_row(safety["safe_success"], "success, no violation")]
    rows += [
        bar_row(measure["violated"], words(name), f", median {measure['median']}, worst {measure['worst']}")
        for name, measure in safety["measures"].items()
    ]
    return (
        "<section><h2>Safety</h2>"
        '<p class="hint">The first row: successes in which nothing went beyond a limit. The others: episodes in which '
        "this one did. Joint speed, acceleration and jerk are shares of the arm's limits.</p>"
        f"{''.join(rows)}</section>"
    )


def _histogram(summary: dict[str, Any], bins: int = 12) -> str:
    times = [e["time_to_success_s"] for e in summary["episodes_detail"] if e["time_to_success_s"] is not None]
    if len(times) < 2:
        return ""
    low, high = min(times), max(times)
    width = max((high - low) / bins, 0.1)
    counts = [0] * bins
    for seconds in times:
        counts[min(int((seconds - low) / width), bins - 1)] += 1
    tallest = max(counts)
    bars = "".join(
        f'<rect class="bar" x="{10 + i * 40}" y="{110 - 90 * count / tallest:.1f}" width="36" '
        f'height="{90 * count / tallest:.1f}"><title>{low + i * width:.1f} to {low + (i + 1) * width:.1f} s: {count}'
        f'</title></rect><text x="{28 + i * 40}" y="{104 - 90 * count / tallest:.1f}">{count or ""}</text>'
        f'<text x="{10 + i * 40}" y="124">{low + i * width:.1f}</text>'
        for i, count in enumerate(counts)
    )
    return (
        "<section><h2>Time to success</h2>"
        f'<svg class="histogram" viewBox="0 0 500 132" role="img" '
        f'aria-label="histogram of {len(times)} times to success">{bars}'
        '<path class="axis" d="M10 110H490"/></svg>'
        '<p class="hint">Simulated seconds; successful episodes only.</p></section>'
    )


def _checks(summary: dict[str, Any]) -> str:
    checks = summary.get("checks")
    if not checks:
        return ""
    blocks = []
    for name, check in checks.items():
        rows = []
        for key, label in (
            ("reference", "success, as it is"),
            ("success", "success, with the change"),
            ("moved_named", "moved the item now named"),
            ("moved_original", "moved the first item"),
        ):
            if key in check and not (name == "swapped_item" and key == "success"):
                rows.append(bar_row(check[key], label))
        if "skipped" in check:
            rows.append(f"<p>Left out: {escape(check['skipped'])}.</p>")
        blocks.append(
            f"<h3>{escape(words(name))}</h3><p class='hint'>Expected: {escape(check['expected'])}.</p>{''.join(rows)}"
        )
    return f"<section><h2>Does it see and read?</h2>{''.join(blocks)}</section>"


def _against(summary: dict[str, Any]) -> str:
    other = summary.get("against")
    if not other:
        return ""
    return (
        f"<section><h2>Against {escape(other['agent'])}</h2><p>On the {other['n']} episodes that both played: "
        f"<b>{points(other['difference'])}</b> (95 % interval {points(other['low'])} to {points(other['high'])}), "
        f"McNemar p = {other['p_value']:.3f}. Only this agent solved {other['only_this']}, "
        f"only the other {other['only_other']}.</p></section>"
    )


def _speed(summary: dict[str, Any]) -> str:
    rows = [
        ("policy decisions a second (batched)", number(summary["policy_hz"])),
        ("one decision on one observation", number(summary["policy_latency_ms"], " ms")),
        ("env steps a second (physics and cameras)", number(summary["env_steps_per_s"])),
        ("simulated seconds per second", number(summary["realtime_factor"])),
        ("simulated", f"{summary['simulated_s']} s"),
        ("wall time, videos included", f"{summary['wall_s']} s"),
        ("videos", f"{summary['video_s']} s"),
        ("envs side by side, worker processes", f"{summary['slots']}, {summary['workers']}"),
    ]
    return f"<section><h2>Speed</h2>{facts_table(rows)}</section>"


def _episodes(summary: dict[str, Any]) -> str:
    rows = "".join(
        f'<tr class="{"good" if e["success"] else "bad"}"><td>{e["index"]}</td><td>{e["seed"]}</td>'
        f'<td lang="{escape(e["language"])}">{escape(e["instruction"])}</td>'
        f"<td>{escape(e['kind'])}</td><td>{'✓' if e['success'] else '✗'}</td><td>{percent(e['progress'])}</td>"
        f"<td>{e['steps']}</td><td>{escape(e.get('why') or e['error'] or '')}</td></tr>"
        for e in summary["episodes_detail"]
    )
    return (
        f"<section><details><summary>All {summary['episodes']} episodes</summary><div class='scroll'><table>"
        "<thead><tr><th>#</th><th>seed</th><th>instruction</th><th>kind</th><th></th><th>progress</th>"
        f"<th>steps</th><th></th></tr></thead><tbody>{rows}</tbody></table></div></details></section>"
    )


def _origin(summary: dict[str, Any]) -> str:
    machine = summary["machine"]
    rows = [
        ("agent", " ".join(filter(None, (summary["agent"], summary["agent_hash"])))),
        ("policy, recipe", ", ".join(filter(None, (summary["policy"], str(summary["recipe"] or ""))))),
        ("steps played of each chunk", str(summary["execute"])),
        ("machine", ", ".join(f"{name} {value}" for name, value in machine.items() if value is not None)),
        ("data that it was trained on", summary["data_hash"] or "not known"),
        (
            "commit",
            (summary["commit"] or "not from a checkout") + (", files changed since" if summary["dirty"] else ""),
        ),
        ("versions", ", ".join(f"{name} {version}" for name, version in summary["versions"].items())),
    ]
    command = f"<pre><code>{escape(summary['command'])}</code></pre>" if summary["command"] else ""
    repeat = "<code>vla eval --repeat results.json</code>, in this folder, plays the episodes again and compares."
    return f'<section><h2>To repeat it</h2><p class="hint">{repeat}</p>{command}{facts_table(rows)}</section>'
