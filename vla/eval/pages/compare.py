"""``compare.html``: one file that tells how runs differ on the same episodes, with its plots inside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vla.eval.pages.style import bar_row, escape, facts_table, p_text, page, percent, points, words

READING = (
    "A difference is the run's share minus the first one's, on the same episodes, with a 95 % interval (Agresti and "
    "Min's for success, Student's paired t for items placed). p is McNemar's exact test: how often chance alone would "
    "split the episodes that only one of the two solved at least as unevenly."
)


def render(found: dict[str, Any]) -> str:
    """The page as one HTML document.

    Args:
        found: what ``vla.eval.compare.compare_runs`` gives.
    """
    title = " against ".join(run["label"] for run in reversed(found["runs"]))
    return page(
        f"{title} on {found['env']}",
        [
            _header(found),
            _success(found),
            _differences(found),
            _groups(found),
            _strips(found),
            _differing(found),
            _origin(found),
        ],
    )


def _header(found: dict[str, Any]) -> str:
    split = "held-out" if found["split"] == "heldout" else found["split"]
    facts = [f"{found['episodes']} episodes", f"{split} split", f"seed {found['seed']}", found["date"]]
    notes = "".join(f'<p class="note">{escape(text)}</p>' for text in found["warnings"])
    title = f"{len(found['runs'])} runs on {found['env']}"
    return f"<header><h1>{escape(title)}</h1><p>{escape(' · '.join(facts))}</p>{notes}</header>"


def _success(found: dict[str, Any]) -> str:
    rows = [
        bar_row(run["success"], f"{run['label']} ({run['agent']})", f", items placed {percent(run['placed'])}")
        for run in found["runs"]
    ]
    return f"<section><h2>Success</h2><p class='hint'>95 % Wilson intervals.</p>{''.join(rows)}</section>"


def _differences(found: dict[str, Any]) -> str:
    first = found["runs"][0]["label"]
    several = len(found["against_first"]) > 1
    plots, rows = [], []
    for one in found["against_first"]:
        success, placed = one["success"], one["placed"]
        plots += [_whisker(one["label"], success), _whisker(f"{one['label']}: items placed", placed)]
        cells = [
            one["label"],
            f"{points(success['difference'])} ({_range(success)})",
            p_text(success["p_value"]),
            *([p_text(success["p_holm"])] if several else []),
            str(success["only_this"]),
            str(success["only_other"]),
            f"{points(placed['difference'])} ({_range(placed)})",
        ]
        rows.append(cells)
    heads = ["", "success", "p", *(["p, Holm"] if several else []), "only this", "only the first", "items placed"]
    hint = READING + (" Holm's p allows for there being several runs." if several else "")
    return (
        f"<section><h2>Difference from {escape(first)}</h2><p class='hint'>{hint}</p>{''.join(plots)}"
        f"{_table(heads, rows)}</section>"
    )


def _whisker(label: str, found: dict[str, Any]) -> str:
    """A row with a difference from -100 to 100 points and its interval; the upright line is zero."""
    middle = 50 + 50 * found["difference"]
    low, high = (found["low"], found["high"]) if found["low"] is not None else (found["difference"],) * 2
    left, right = 50 + 50 * max(low, -1), 50 + 50 * min(high, 1)
    start, width = min(middle, 50), abs(middle - 50)
    described = f"{label}: {points(found['difference'])}, {_range(found)}, n = {found['n']}"
    return (
        f'<div class="row"><span class="name">{escape(label)}</span>'
        f'<svg viewBox="0 0 100 10" preserveAspectRatio="none" role="img" aria-label="{escape(described)}">'
        '<rect class="track" x="0" y="1" width="100" height="8"/><path class="axis" d="M50 0V10"/>'
        f'<rect class="bar" x="{start:.2f}" y="2.5" width="{width:.2f}" height="5"/>'
        f'<path class="whisker" d="M{left:.2f} 5H{right:.2f}M{left:.2f} 2.5V7.5M{right:.2f} 2.5V7.5"/></svg>'
        f'<span class="figures"><b>{points(found["difference"])}</b> {_range(found)} '
        f"<i>n = {found['n']}</i></span></div>"
    )


def _range(found: dict[str, Any]) -> str:
    if found["low"] is None:
        return "no interval: no episode varies"
    return f"{found['low'] * 100:+.1f} to {found['high'] * 100:+.1f}"


def _groups(found: dict[str, Any]) -> str:
    first = found["runs"][0]
    parts = []
    for field in first["by"]:
        rows = []
        for value, rate in first["by"][field].items():
            for run, one in zip(found["runs"][1:], found["against_first"], strict=True):
                difference = one["by"][field][value]
                rows.append(
                    [
                        words(value),
                        run["label"],
                        str(rate["n"]),
                        f"{percent(rate['rate'])} ({_share_range(rate)})",
                        f"{percent(run['by'][field][value]['rate'])} ({_share_range(run['by'][field][value])})",
                        f"{points(difference['difference'])} ({_range(difference)})",
                        p_text(difference["p_value"]),
                    ]
                )
        if rows:
            heads = [field, "run", "n", first["label"], "the run", "difference", "p"]
            parts.append(f"<h3>By {escape(field)}</h3>{_table(heads, rows)}")
    if not parts:
        return ""
    hint = "Parts of the same episodes: the more of them one looks at, the likelier one stands out by chance."
    return f"<section><h2>Success by group</h2><p class='hint'>{hint}</p>{''.join(parts)}</section>"


def _share_range(rate: dict[str, Any]) -> str:
    return f"{rate['low'] * 100:.0f}–{rate['high'] * 100:.0f}"


def _strips(found: dict[str, Any]) -> str:
    """Each run's episodes as a strip of cells, so that runs of luck and shared failures show."""
    seeds, rows = found["seeds"], []
    for run, outcomes in zip(found["runs"], found["outcomes"], strict=True):
        cells = "".join(
            f'<rect class="{"bar" if good else "track"}" x="{place}" y="0" width="0.9" height="10">'
            f"<title>seed {seed}: {'success' if good else 'failure'}</title></rect>"
            for place, (seed, good) in enumerate(zip(seeds, outcomes, strict=True))
        )
        rows.append(
            f'<div class="row"><span class="name">{escape(run["label"])}</span>'
            f'<svg viewBox="0 0 {len(seeds)} 10" preserveAspectRatio="none" role="img" '
            f'aria-label="{sum(outcomes)} of {len(outcomes)} succeeded">{cells}</svg>'
            f'<span class="figures">{sum(outcomes)} of {len(outcomes)}</span></div>'
        )
    hint = "One cell an episode, in the order of the seeds; filled where it succeeded."
    return f"<section><h2>Episode by episode</h2><p class='hint'>{hint}</p>{''.join(rows)}</section>"


def _differing(found: dict[str, Any]) -> str:
    heading = f"<h2>{len(found['differing'])} episodes with another outcome</h2>"
    if not found["differing"]:
        return f"<section>{heading}<p>All runs succeeded and failed in the same episodes.</p></section>"
    rows = [
        [
            str(e["index"]),
            str(e["seed"]),
            e["instruction"],
            *(
                f"{outcome(good)}, {percent(share)}" + (f"; {why}" if why else "")
                for good, share, why in zip(e["success"], e["placed"], e["why"], strict=True)
            ),
        ]
        for e in found["differing"]
    ]
    heads = ["#", "seed", "instruction", *(run["label"] for run in found["runs"])]
    hint = "Outcome, share of the items placed, and what went wrong."
    return f"<section>{heading}<p class='hint'>{hint}</p>{_table(heads, rows)}</section>"


def outcome(success: bool) -> str:
    """An outcome in one word."""
    return "success" if success else "failure"


def _origin(found: dict[str, Any]) -> str:
    blocks = []
    for run in found["runs"]:
        rows = [
            ("agent", " ".join(filter(None, (run["agent"], run["agent_hash"])))),
            ("policy, recipe", ", ".join(filter(None, (run["policy"], run["recipe"])))),
            ("data that it was trained on", run["data_hash"] or "not known"),
            ("steps played of each chunk", str(run["execute"] or "not known")),
            ("commit", run["commit"] or "not from a checkout"),
            ("date", run["date"] or "not known"),
            ("versions", ", ".join(f"{name} {version}" for name, version in (run["versions"] or {}).items())),
        ]
        command = f"<pre><code>{escape(run['command'])}</code></pre>" if run["command"] else ""
        blocks.append(f"<h3>{escape(run['label'])}</h3>{command}{facts_table(rows)}")
    shared = facts_table([(name, "the env's own" if v is None else str(v)) for name, v in found["settings"].items()])
    command = f"<pre><code>{escape(found['command'])}</code></pre>" if found["command"] else ""
    same = f"<h3>The same for all</h3>{shared}" if found["settings"] else ""
    return f"<section><h2>To repeat it</h2>{command}{same}{''.join(blocks)}</section>"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
