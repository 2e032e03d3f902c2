"""``families.html``: one file that sets policies side by side."""

from __future__ import annotations

from typing import Any

from vla.eval.pages.template import fill


def render(found: dict[str, Any]) -> str:
    """The page as one HTML document. ``found`` is what ``vla.eval.families.assemble`` gives."""
    groups = {
        field: list(dict.fromkeys(value for row in found["rows"] for value in row["by"][field]))
        for field in ("kind", "language")
    }
    return fill("families", {**found, "groups": groups, "title": f"Families of policies on {found['env']}"})
