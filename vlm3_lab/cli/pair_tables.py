# SPDX-License-Identifier: Apache-2.0
"""What `vlm3 evaluate` tells of motions and matches of pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from vlm3_lab.studies.synthetic_pairs import (
    PairReport,
    best_median_worst,
    report_json,
)
from vlm3_ros.evaluation.metrics.pair_baselines import CONSTANT_MOTION, SIFT
from vlm3_ros.evaluation.metrics.pairs import AUC_LIMITS_DEG, PoseMetrics
from vlm3_ros.evaluation.pictures.pair import draw_pair_frames


def add_pairs(content: dict[str, Any], report: PairReport) -> None:
    """Add the report to the content of a metrics.json, kinds and baselines to those there."""
    added = report_json(report)
    for kind, scores in added.pop("kinds").items():
        _add(content["kinds"].setdefault(kind, {}), scores)
    _add(content, added)


def draw_pairs(report: PairReport, name: str, path: Path) -> None:
    """Draw the best, the median and the worst pair."""
    auc, matches = report.overall.pose.auc[30], report.overall.matches
    draw_pair_frames(
        best_median_worst(report),
        path,
        f"{name}: AUC@30 {auc:.3f}, EPE {matches.metrics.epe_px:.1f} px on {len(report.pairs)} "
        "pairs",
    )


def print_pairs(console: Console, name: str, report: PairReport) -> None:
    """Print motions and matches as tables, and whether their uncertainty is honest."""
    console.print(_motions(name, report))
    console.print(_kinds(name, report))
    _print_consistency(console, report)


def _add(content: dict[str, Any], added: dict[str, Any]) -> None:
    content.update(added, baselines={**content.get("baselines", {}), **added["baselines"]})


def _motions(name: str, report: PairReport) -> Table:
    table = Table(
        title=f"{name}: motions of {len(report.pairs)} pairs, seed {report.seed}; medians",
        caption="constant motion is chosen on these very pairs; constant velocity knows the exact "
        "motion before; SIFT is given the true distance",
    )
    table.add_column("who")
    columns = [f"AUC@{limit}" for limit in AUC_LIMITS_DEG]
    for column in (*columns, "rot °", "dir °", "dist m", "failed"):
        table.add_column(column, justify="right")
    table.add_row("model", *_motion_cells(report.overall.pose), style="bold")
    for guess, metrics in report.overall.motions.items():
        cells = _motion_cells(metrics)
        if guess == SIFT:
            cells[-2] = "true"
        table.add_row(guess.replace("_", " "), *cells)
    return table


def _motion_cells(metrics: PoseMetrics) -> list[str]:
    return [
        *(f"{auc:.3f}" for auc in metrics.auc.values()),
        f"{metrics.rotation_deg_median:.2f}",
        f"{metrics.direction_deg_median:.1f}",
        f"{metrics.distance_error_m_median:.3f}",
        str(metrics.unanswered),
    ]


def _kinds(name: str, report: PairReport) -> Table:
    table = Table(
        title=f"{name} by kind of scene, {report.overall.matches.metrics.matches} matches"
    )
    table.add_column("pairs")
    for column in (
        "AUC@30",
        "constant",
        "SIFT",
        "EPE px",
        "of width",
        "same pixel",
        "failed",
    ):
        table.add_column(column, justify="right")
    for kind, scores in {**report.kinds, "all": report.overall}.items():
        matches = scores.matches
        table.add_row(
            kind,
            f"{scores.pose.auc[30]:.3f}",
            f"{scores.motions[CONSTANT_MOTION].auc[30]:.3f}",
            f"{scores.motions[SIFT].auc[30]:.3f}",
            f"{matches.metrics.epe_px:.1f}",
            f"{matches.epe_share:.1%}",
            f"{scores.same_pixel.metrics.epe_px:.1f}",
            str(matches.metrics.unanswered),
            style="bold" if kind == "all" else "",
        )
    return table


def _print_consistency(console: Console, report: PairReport) -> None:
    consistency = report.consistency
    if consistency is None:
        console.print("no motion could be read, so its uncertainty is unknown")
        return
    for name, uncertainty, scores in (
        ("assumed", consistency.assumed, consistency.nees_assumed),
        ("measured", consistency.measured, consistency.nees_measured),
    ):
        console.print(
            f"standard deviations {name}: distance {uncertainty.distance_relative:.0%}, direction "
            f"{uncertainty.direction_deg:.1f}°, rotation {uncertainty.rotation_deg:.1f}° an axis, "
            f"matches {uncertainty.match_deg:.1f}°; "
            f"NEES {np.nanmean(scores):.2f} (right: 1), median {np.nanmedian(scores):.2f}"
        )
