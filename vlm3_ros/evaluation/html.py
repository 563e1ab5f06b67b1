# SPDX-License-Identifier: Apache-2.0
"""Reports as one HTML file that needs nothing else: no link leads out of it."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from vlm3_ros.evaluation.tables import TextTable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem;
  color: #222; background: #fff; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; margin: 0.4rem 0; }
th, td { padding: 0.2rem 0.8rem; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; }
tr.model td { font-weight: 600; background: #f2f6fa; }
p.note { color: #666; font-size: 0.9rem; margin-top: 0; }
img { max-width: 100%; height: auto; }
dt { font-weight: 600; } dd { margin: 0 0 0.5rem 1rem; }
"""


def svg_source(figure: Figure) -> str:
    """A figure as the source of an <img>: SVG in a data URL."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", dpi=150)
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def png_source(png: bytes) -> str:
    """The bytes of a PNG file as the source of an <img>."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def table_html(table: TextTable) -> str:
    """A table with its title and note."""
    head = "".join(f"<th>{escape(column)}</th>" for column in table.columns)
    rows = "".join(
        f"<tr{' class=model' if table.has_baselines and index == 0 else ''}>"
        + "".join(f"<td>{escape(cell)}</td>" for cell in row)
        + "</tr>"
        for index, row in enumerate(table.rows)
    )
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    return f"<h2>{escape(table.title)}</h2><table><tr>{head}</tr>{rows}</table>{note}"


def picture_html(title: str, source: str) -> str:
    """A picture with its title."""
    return f'<h2>{escape(title)}</h2><img alt="{escape(title)}" src="{source}">'


def facts_html(title: str, facts: Mapping[str, str]) -> str:
    """Names and what is to be said of them; nothing where there is nothing."""
    if not facts:
        return ""
    items = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts.items())
    return f"<h2>{escape(title)}</h2><dl>{items}</dl>"


def write_page(path: Path, title: str, lead: Sequence[str], parts: Iterable[str]) -> None:
    """Write a page of parts below a title and some lines of text."""
    lines = "".join(f"<p>{escape(line)}</p>" for line in lead)
    path.write_text(
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body><h1>{escape(title)}</h1>{lines}\n" + "\n".join(filter(None, parts)) + "\n"
        "</body></html>\n",
        encoding="utf-8",
    )
