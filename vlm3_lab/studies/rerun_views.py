# SPDX-License-Identifier: Apache-2.0
"""Procedural views as a recording for the viewer of rerun.io."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vlm3_lab.studies.synthetic import SyntheticReport, evaluation_view
from vlm3_ros.engines.base import Engine
from vlm3_ros.evaluation.bag.answers import GRID
from vlm3_ros.evaluation.rerun_log import import_rerun, log_camera, recording
from vlm3_ros.tasks.depth import ask_depth, uniform_grid

SYNTHETIC_VIEWS = 12
"""Procedural views that are shown, evenly from the smallest error to the largest."""


def log_views(
    engine: Engine, report: SyntheticReport, path: Path, view_focal: float | None = None
) -> None:
    """Write procedural views, asked again on a grid, as a recording.

    Args:
        engine: who answered.
        report: whose views are ranked by their error.
        path: of the .rrd file.
        view_focal: as in `ask_depth`.

    Raises:
        ImportError: without rerun.
    """
    rr = import_rerun()
    ranked = sorted(report.views, key=lambda view: view.error)
    shown = np.unique(np.linspace(0, len(ranked) - 1, SYNTHETIC_VIEWS).astype(int))
    with recording(path, is_level=False) as log:
        for rank in shown.tolist():
            scored = ranked[rank]
            view, _ = evaluation_view(report.seed, scored.index)
            answers = ask_depth(
                engine, view.image, view.camera, uniform_grid(view.camera, *GRID), view_focal
            )
            log.set_time("rank", sequence=rank)
            log.log("world/kind", rr.TextDocument(f"{scored.kind} {scored.index}"))
            log.log("errors/abs_rel", rr.Scalars(scored.error))
            truth = np.where(np.isfinite(view.depth), view.depth, np.nan)
            log_camera(log, view.camera, view.image, answers.depth, truth)
