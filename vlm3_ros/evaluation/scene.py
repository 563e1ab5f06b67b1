# SPDX-License-Identifier: Apache-2.0
"""Clouds and trajectories as a 3D view that the mouse turns, part of an HTML page.

plotly draws it. Its JavaScript library and the points are compressed and embedded as data URLs:
the page loads nothing, and grows by 2 MB for the library and about 25 bytes per point.
"""

from __future__ import annotations

import base64
import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

INSTALL = "pip install plotly"

ELEMENT = "scene-view"
"""Id of the element that the script draws into."""

MAX_POINTS = 20_000
"""Points that are shown at first, of all clouds together. A GPU turns many more; this many still
turn where the CPU draws them, as on a remote desktop."""

_POINT_SIZE = 2.5  # px
_EYE_DISTANCE, _EYE_PITCH_DEG = 1.5, 30.0
"""Start view: distance from the middle in sizes of the scene, angle above the ground."""

_SCRIPT = """
const view = document.getElementById("%(element)s");
const unpack = async (source) => {
  const packed = (await fetch(source)).body;
  return new Response(packed.pipeThrough(new DecompressionStream("gzip"))).text();
};
const draw = async () => {
  if (!document.createElement("canvas").getContext("webgl"))
    throw new Error("this browser has no WebGL");
  const library = document.createElement("script");
  library.textContent = await unpack("%(library)s");
  document.head.append(library);
  const { data, layout } = JSON.parse(await unpack("%(figure)s"));
  view.textContent = "";
  await Plotly.newPlot(view, data, layout, { displaylogo: false, responsive: true });
  view.dataset.state = "drawn";
};
draw().catch((error) => {
  view.textContent = `The 3D view could not be drawn: ${error.message}.`;
  view.dataset.state = "failed";
});
"""


@dataclass(frozen=True)
class Cloud:
    """Coloured points of a scene.

    Attributes:
        name: for the legend.
        points: metres, shape (n, 3); points that are not finite are skipped.
        colours: RGB, shape (n, 3), uint8.
        is_shown: False hides the cloud until its legend entry is clicked.
    """

    name: str
    points: NDArray[np.floating[Any]]
    colours: NDArray[np.uint8]
    is_shown: bool = True


@dataclass(frozen=True)
class Polyline:
    """A line through positions, such as a trajectory.

    Attributes:
        name: for the legend.
        points: metres, shape (n, 3); NaN breaks the line.
        colour: "#rrggbb".
        width: px.
    """

    name: str
    points: NDArray[np.floating[Any]]
    colour: str
    width: float = 5.0


@dataclass(frozen=True)
class Scene3D:
    """What a 3D view shows, in metres in one frame with Z up (REP-103).

    Attributes:
        clouds, lines: layers that the legend switches on and off.
        forward: horizontal direction (x, y) in which the start view looks.
        note: a line of text below the view.
    """

    clouds: Sequence[Cloud]
    lines: Sequence[Polyline]
    forward: tuple[float, float] = (1.0, 0.0)
    note: str = ""


def scene_script(scene: Scene3D) -> str:
    """Build the JavaScript that draws a scene into the element `ELEMENT`.

    Afterwards the element's `data-state` is "drawn", or "failed" and its text says why.

    Raises:
        ImportError: plotly is not installed.
    """
    from plotly.offline import get_plotlyjs

    return _SCRIPT % {
        "element": ELEMENT,
        "library": _packed(get_plotlyjs()),
        "figure": _packed(_figure_json(scene)),
    }


def _packed(text: str) -> str:
    content = gzip.compress(text.encode(), mtime=0)
    return "data:application/gzip;base64," + base64.b64encode(content).decode("ascii")


def _figure_json(scene: Scene3D) -> str:
    from plotly.graph_objects import Figure

    shown = sum(cloud.is_shown for cloud in scene.clouds)
    most = MAX_POINTS // max(1, shown)
    figure = Figure(
        data=[
            *(_line_trace(line) for line in scene.lines),
            *(_cloud_trace(cloud, most) for cloud in scene.clouds),
        ]
    )
    axis = {"ticksuffix": " m", "backgroundcolor": "#f6f7f9", "gridcolor": "#d5d9df"}
    ahead = np.array(scene.forward) / np.linalg.norm(scene.forward)
    pitch = np.deg2rad(_EYE_PITCH_DEG)
    eye = _EYE_DISTANCE * np.array([*(-ahead * np.cos(pitch)), np.sin(pitch)])
    figure.update_layout(
        template="none",
        scene={
            "aspectmode": "data",
            "xaxis": {"title": {"text": "x"}, **axis},
            "yaxis": {"title": {"text": "y"}, **axis},
            "zaxis": {"title": {"text": "z"}, **axis},
            "camera": {"eye": dict(zip("xyz", eye.tolist(), strict=True))},
            "dragmode": "turntable",
            "hovermode": False,
        },
        margin={"l": 0, "r": 0, "t": 0, "b": 0},
        legend={"orientation": "h", "yanchor": "top", "y": 0, "itemsizing": "constant"},
    )
    return str(figure.to_json())


def _cloud_trace(cloud: Cloud, most: int) -> Any:
    from plotly.graph_objects import Scatter3d

    kept = np.flatnonzero(np.isfinite(cloud.points).all(axis=1))
    if len(kept) > most:
        kept = np.random.default_rng(0).choice(kept, most, replace=False)
    x, y, z = np.round(cloud.points[kept].astype(np.float32), 3).T
    return Scatter3d(
        x=x,
        y=y,
        z=z,
        mode="markers",
        # Circles are drawn as many triangles each.
        marker={
            "symbol": "square",
            "size": _POINT_SIZE,
            "color": [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in cloud.colours[kept]],
            "line": {"width": 0},
        },
        name=cloud.name,
        visible=True if cloud.is_shown else "legendonly",
    )


def _line_trace(line: Polyline) -> Any:
    from plotly.graph_objects import Scatter3d

    x, y, z = line.points.astype(np.float32).T
    return Scatter3d(
        x=x,
        y=y,
        z=z,
        mode="lines",
        line={"color": line.colour, "width": line.width},
        connectgaps=False,
        name=line.name,
    )
