# SPDX-License-Identifier: Apache-2.0
"""Reports as one HTML file that loads nothing: verdict, pictures, 3D view, tables, notes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from vlm3_ros.evaluation.scene import ELEMENT, INSTALL, MAX_POINTS, Scene3D, scene_script
from vlm3_ros.evaluation.tables import TextTable

_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 1.5rem auto 4rem; max-width: 72rem;
  padding: 0 1rem; color: #1f2328; background: #fff; overflow-wrap: anywhere; }
h1 { font-size: 1.1rem; font-weight: 600; color: #59636e; margin: 0; }
p.verdict { font-size: 1.2rem; line-height: 1.35; margin: 0.2rem 0 1rem; }
h2 { font-size: 1.05rem; margin: 0 0 0.3rem; }
section { margin-top: 2.2rem; }
.pictures { display: grid; gap: 1.2rem; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)); }
figure { margin: 0; }
figure:first-child { grid-column: 1 / -1; }
img { display: block; width: 100%; height: auto; }
#scene-view { height: min(42rem, 80vh); border: 1px solid #d5d9df; border-radius: 4px;
  overflow: hidden; }
.table { overflow-x: auto; margin-top: 1.6rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.95rem; }
th, td { padding: 0.2rem 0.8rem; text-align: right; border-bottom: 1px solid #d5d9df;
  white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0.2rem; }
tr.model td { font-weight: 600; background: #eef4fb; }
p.note { color: #59636e; font-size: 0.9rem; margin: 0.3rem 0 0; max-width: 60rem; }
dt { font-weight: 600; } dd { margin: 0 0 0.5rem 1rem; }
"""


def write_page(
    path: Path,
    title: str,
    verdict: str,
    pictures: Sequence[tuple[str, str]],
    scene: Scene3D | None,
    tables: Sequence[TextTable],
    notes: Mapping[str, str],
) -> None:
    """Write a report.

    Args:
        path: of the file.
        title: what was evaluated.
        verdict: the result in a sentence or two.
        pictures: titles and sources of <img> (data URLs); the first is drawn over the full width.
        scene: drawn in 3D if plotly is installed; otherwise the page says that it is needed.
        tables: in their order.
        notes: what a reader must know besides the scores, by name.
    """
    figures = "".join(_figure_html(name, source) for name, source in pictures)
    content, script = _scene_html(scene) if scene else ("", "")
    parts = (
        f'<h1>{escape(title)}</h1><p class="verdict">{escape(verdict)}</p>',
        f'<div class="pictures">{figures}</div>' if figures else "",
        content,
        "<section>" + "".join(map(_table_html, tables)) + "</section>" if tables else "",
        _notes_html(notes) if notes else "",
        script,
    )
    path.write_text(
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(filter(None, parts))
        + "\n</body></html>\n",
        encoding="utf-8",
    )


def _figure_html(title: str, source: str) -> str:
    name = escape(title)
    return f'<figure><h2>{name}</h2><img alt="{name}" src="{source}"></figure>'


def _scene_html(scene: Scene3D) -> tuple[str, str]:
    """The view, and the script that draws it; the script comes last since it is large."""
    try:
        script = f"<script>{scene_script(scene)}</script>"
    except ImportError:
        return f'<section><p class="note">The 3D view needs plotly: {INSTALL}</p></section>', ""
    note = (
        f"{scene.note} At most {MAX_POINTS:,} points are shown at first, a random choice. Drag to "
        "turn, scroll to zoom, click a name to hide or show it."
    )
    return (
        f'<section><h2>3D view</h2><div id="{ELEMENT}">Loading the 3D view (needs JavaScript)'
        f'</div><p class="note">{escape(note.strip())}</p></section>'
    ), script


def _table_html(table: TextTable) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in table.columns)
    rows = "".join(
        f"<tr{' class=model' if table.has_baselines and index == 0 else ''}>"
        + "".join(f"<td>{escape(cell)}</td>" for cell in row)
        + "</tr>"
        for index, row in enumerate(table.rows)
    )
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    return (
        f'<div class="table"><h2>{escape(table.title)}</h2><table><tr>{head}</tr>{rows}</table>'
        f"{note}</div>"
    )


def _notes_html(notes: Mapping[str, str]) -> str:
    items = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in notes.items())
    return f"<section><h2>Notes</h2><dl>{items}</dl></section>"
