"""``compare.html``: one file that tells how runs differ on the same episodes, with its plots inside."""

from __future__ import annotations

from typing import Any

from vla.eval.pages.template import fill


def render(found: dict[str, Any]) -> str:
    """The page as one HTML document.

    Args:
        found: what ``vla.eval.compare.compare_runs`` gives.
    """
    title = " against ".join(run["label"] for run in reversed(found["runs"]))
    return fill("compare", {**found, "title": f"{title} on {found['env']}"})
