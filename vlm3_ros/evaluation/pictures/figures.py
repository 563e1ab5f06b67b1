# SPDX-License-Identifier: Apache-2.0
"""Figures drawn without a display, laid out in inches, and encoded for files and pages."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import LayoutEngine

DPI = 110
"""Resolution of PNG files."""


def new_figure(
    width: float, height: float, layout: Literal["constrained"] | LayoutEngine | None = None
) -> Figure:
    """Build a white figure of a size in inches.

    Args:
        width, height: inches.
        layout: arranges axes and texts; None to place everything by hand.
    """
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, layout=layout, facecolor="white")


def add_panel(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Add axes without ticks and frame; place and size in inches."""
    across, up = figure.get_size_inches()
    axes = figure.add_axes(
        (left / across, bottom / up, width / across, height / up), xticks=[], yticks=[]
    )
    axes.spines[:].set_visible(False)
    return axes


def add_text(
    figure: Figure,
    left: float,
    top: float,
    text: str,
    size: int,
    weight: str = "normal",
    colour: str = "black",
) -> None:
    """Write text whose upper left corner is at a place in inches, `top` measured from below."""
    width, height = figure.get_size_inches()
    place = left / width, top / height
    figure.text(*place, text, fontsize=size, weight=weight, color=colour, va="top", ha="left")


def save_png(figure: Figure, path: Path | str | BinaryIO) -> None:
    """Save a figure as a PNG file, or write the PNG to an open file."""
    figure.savefig(path, format="png", dpi=DPI)


def svg_source(figure: Figure) -> str:
    """Encode a figure as the source of an <img>: SVG in a data URL."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", dpi=150)
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def png_source(png: bytes) -> str:
    """Encode the bytes of a PNG file as the source of an <img>."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
