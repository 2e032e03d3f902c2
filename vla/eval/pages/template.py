"""Fills the templates beside this file: one HTML document each, with its style inside and nothing from elsewhere."""

from __future__ import annotations

import functools
import html
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vla.eval import wording
from vla.host.files import printable

if TYPE_CHECKING:
    from jinja2 import Environment


def fill(template: str, values: dict[str, Any]) -> str:
    """The document that ``template`` (``report`` or ``compare``) makes of ``values``.

    Whatever is put in is escaped: tags are no tags, and control characters are seen instead of obeyed.
    """
    return _environment().get_template(f"{template}.html.jinja").render(values)


@functools.cache
def _environment() -> Environment:
    from jinja2 import ChainableUndefined, Environment, FileSystemLoader
    from markupsafe import Markup

    def shown(value: Any) -> Any:
        return value if hasattr(value, "__html__") else Markup(html.escape(printable(str(value))))

    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=shown,
        undefined=ChainableUndefined,  # older files lack some of what newer ones hold
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {name: getattr(wording, name) for name in wording.__all__}
    return made
