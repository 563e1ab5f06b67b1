# SPDX-License-Identifier: Apache-2.0
"""Procedural views as a recording for the viewer of rerun.io."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vlm3_lab.studies.tasks.depth import evaluation_view
from vlm3_ros.engines.base import Engine
from vlm3_ros.evaluation.bag.answers import GRID
from vlm3_ros.evaluation.rerun_log import import_rerun, log_camera, log_errors, recording
from vlm3_ros.evaluation.scores.depth import ScoredView
from vlm3_ros.tasks.depth import ask_depth, uniform_grid

SYNTHETIC_VIEWS = 12
"""Procedural views that are shown, evenly from the smallest error to the largest."""


def log_views(
    engine: Engine,
    seed: int,
    views: Sequence[ScoredView],
    path: Path,
    view_focal: float | None = None,
) -> None:
    """Ask about procedural views on a grid again, and write them as a recording.

    Args:
        engine: answers.
        seed: of the evaluation.
        views: that were scored; they are ranked by their error.
        path: of the .rrd file.
        view_focal: as in `ask_depth`.

    Raises:
        ImportError: without rerun.
    """
    rr = import_rerun()
    ranked = sorted(views, key=lambda view: view.error)
    shown = np.unique(np.linspace(0, len(ranked) - 1, SYNTHETIC_VIEWS).astype(int))
    with recording(path, is_level=False) as log:
        for rank in shown.tolist():
            scored = ranked[rank]
            view, _ = evaluation_view(seed, scored.index)
            answers = ask_depth(
                engine, view.image, view.camera, uniform_grid(view.camera, *GRID), view_focal
            )
            log.set_time("rank", sequence=rank)
            log.log("world/kind", rr.TextDocument(f"{scored.group} {scored.index}"))
            log_errors(log, scored.metrics)
            truth = np.where(np.isfinite(view.depth), view.depth, np.nan)
            log_camera(log, view.camera, view.image, answers.depth, truth)
