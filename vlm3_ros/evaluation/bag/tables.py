# SPDX-License-Identifier: Apache-2.0
"""The scores of a bag as tables, for the terminal and for the report alike."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vlm3_ros.evaluation.bag.answers import BagAnswers
from vlm3_ros.evaluation.bag.occupancy import BagOccupancy
from vlm3_ros.evaluation.bag.scores import (
    NO_DIRECTION,
    BagScores,
    MotionScores,
    TrajectoryScores,
)
from vlm3_ros.evaluation.metrics.depth import DepthMetrics, RangeError
from vlm3_ros.evaluation.metrics.occupancy import MAX_HEIGHT, MAX_RANGE, MIN_HEIGHT, NEAR
from vlm3_ros.evaluation.metrics.pair_baselines import SIFT
from vlm3_ros.evaluation.metrics.pairs import (
    AUC_LIMITS_DEG,
    EPE_LIMITS_PX,
    MatchMetrics,
    PoseMetrics,
)
from vlm3_ros.evaluation.tables import TextTable

MODEL = "model"


def latency_json(answers: BagAnswers) -> dict[str, dict[str, float]]:
    """Milliseconds by task: median, 95th percentile and mean."""
    return {
        f"{task}_ms": {
            "p50": float(np.nanmedian(seconds)) * 1e3,
            "p95": float(np.nanpercentile(seconds, 95)) * 1e3,
            "mean": float(np.nanmean(seconds)) * 1e3,
        }
        for task, seconds in answers.latency.items()
        if np.isfinite(seconds).any()
    }


def frames_json(answers: BagAnswers) -> dict[str, Any]:
    """How many frames there were, and what became of them."""
    return {
        "frames": answers.frames,
        "answered": len(answers.answered),
        "failed": answers.failed.total(),
        "dropped": answers.dropped,
        "with_pose": len(answers.odom),
        "pose_refused": answers.refusals.total(),
        "resets": len(answers.resets),
        "odometry_steps": {status: n for status, n in answers.steps.items() if n},
    }


def score_tables(answers: BagAnswers, scores: BagScores) -> list[TextTable]:
    """A table for each task that was scored, then frames and latency."""
    tables = []
    if scores.depth:
        depth = scores.depth
        rows = {
            MODEL: depth.metrics,
            "best constant": depth.constant.metrics,
            "best per row": depth.row.metrics,
        }
        tables.append(_depth_table(rows))
        tables.append(_range_table(depth.by_range))
    if scores.pose:
        tables.append(_motion_table("relative pose, as answered", scores.pose))
    if scores.odometry:
        told = ""
        if scores.nees is not None:
            told = (
                f" NEES of the covariance that {len(scores.nees)} motions were given: mean "
                f"{scores.nees.mean():.2f} (right: 1), median {np.median(scores.nees):.2f}."
            )
        tables.append(_motion_table("odometry, from pose to pose", scores.odometry, told))
    if scores.trajectory:
        tables.append(_trajectory_table(scores.trajectory))
    if scores.correspondence:
        matches = scores.correspondence
        rows_by_name = {MODEL: matches.metrics, "same pixel": matches.same_pixel}
        tables.append(_match_table(rows_by_name))
    tables.append(_frames_table(answers))
    if latency := latency_json(answers):
        tables.append(_latency_table(latency))
    return tables


def occupancy_table(occupancy: BagOccupancy) -> TextTable:
    """The maps against the true one."""
    true_cells = int(occupancy.truth.occupied.sum())
    return TextTable(
        f"map from above: {true_cells} occupied cells of {occupancy.truth.cell:g} m",
        (
            "",
            *(f"{'' if index else 'found '}{near:g} m" for index, near in enumerate(NEAR)),
            *(f"{'' if index else 'real '}{near:g} m" for index, near in enumerate(NEAR)),
            "as free",
            "cells",
        ),
        tuple(
            (
                name,
                *(f"{scores.found[near]:.3f}" for near in NEAR),
                *(f"{scores.real[near]:.3f}" for near in NEAR),
                f"{scores.called_free:.3f}",
                str(scores.cells),
            )
            for name, scores in occupancy.scores.items()
        ),
        f"{MIN_HEIGHT:g} to {MAX_HEIGHT:g} m over the base, within {MAX_RANGE:g} m. found: of what "
        "is there, so near on the map; real: of what is on the map, so near in truth; as free: of "
        "what is there. True sparse depth: of the pixels that the model is asked. All maps but the "
        "first stand at true poses.",
    )


def _depth_table(rows: Mapping[str, DepthMetrics]) -> TextTable:
    model = rows[MODEL]
    return TextTable(
        f"depth: {model.pixels} pixels of {model.images} frames",
        ("", "δ1", "AbsRel", "RMSE m", "log10", "unanswered"),
        tuple(
            (
                name,
                f"{m.delta1:.3f}",
                f"{m.abs_rel:.3f}",
                f"{m.rmse:.2f}",
                f"{m.log10:.3f}",
                str(m.unanswered),
            )
            for name, m in rows.items()
        ),
        "the best guesses are chosen on these very pixels, without a look at the images",
    )


def _range_table(errors: Sequence[RangeError]) -> TextTable:
    return TextTable(
        "depth by distance",
        ("true depth", "bias", "AbsRel", "median m", "90 % m", "pixels"),
        tuple(
            (
                f"{error.near:g} to {error.far:g} m"
                if math.isfinite(error.far)
                else f"over {error.near:g} m",
                f"{error.bias:+.3f}",
                f"{error.abs_rel:.3f}",
                f"{error.median_m:.2f}",
                f"{error.p90_m:.2f}",
                str(error.pixels),
            )
            for error in errors
        ),
        "bias: as a share of the depth, positive where answers are too far; errors in metres: "
        "half and nine tenths of the answers err by less",
        has_baselines=False,
    )


def _motion_table(title: str, scores: MotionScores, told: str = "") -> TextTable:
    rows: dict[str, PoseMetrics] = {MODEL: scores.metrics, **scores.guesses}
    still = scores.metrics.pairs - scores.metrics.directed
    left_out = (
        f" AUC and direction leave out those that truly moved less than {NO_DIRECTION * 100:g} cm: "
        f"{still}."
        if still
        else ""
    )
    return TextTable(
        f"{title}: {scores.metrics.pairs} pairs",
        (
            "",
            *(f"{'' if index else 'AUC'}@{limit}" for index, limit in enumerate(AUC_LIMITS_DEG)),
            "rot. °",
            "dir. °",
            "dist. m",
            "failed",
        ),
        tuple(
            (
                name.replace("_", " ").replace("constant", "const."),
                *(f"{auc:.3f}" for auc in m.auc.values()),
                f"{m.rotation_deg_median:.2f}",
                f"{m.direction_deg_median:.1f}",
                "true" if name == SIFT else f"{m.distance_error_m_median:.3f}",
                str(m.unanswered),
            )
            for name, m in rows.items()
        ),
        "Medians of the errors of rotation, direction and distance; failed: without an answer. "
        "Identity: no motion. Constant motion: the mean of these very pairs. Constant velocity: "
        "the true motion of the frame before goes on. SIFT: essential matrix, given the true "
        f"distance.{left_out}{told}",
    )


def _trajectory_table(scores: TrajectoryScores) -> TextTable:
    metres, degrees = "{:.3f} m", "{:.2f}°"
    rows = (
        ("APE after SE(3) alignment", scores.ape),
        ("APE from the first pose on", scores.ape_from_start),
        ("RPE from pose to pose", scores.rpe),
    )
    parts = f"; the longest of {scores.chains} parts" if scores.chains > 1 else ""
    return TextTable(
        f"trajectory: {len(scores.estimate.poses)} poses, {scores.length_m:.1f} m{parts}",
        ("", "RMSE", "median", "max", "rotation RMSE"),
        tuple(
            (
                name,
                metres.format(e.translation_m.rmse),
                metres.format(e.translation_m.median),
                metres.format(e.translation_m.max),
                degrees.format(e.rotation_deg.rmse),
            )
            for name, e in rows
        ),
        "no alignment of scale: metres are metres",
        has_baselines=False,
    )


def _match_table(rows: Mapping[str, MatchMetrics]) -> TextTable:
    return TextTable(
        f"correspondence: {rows[MODEL].matches} matches",
        ("", "EPE px", *(f"above {limit} px" for limit in EPE_LIMITS_PX), "unanswered"),
        tuple(
            (
                name,
                f"{m.epe_px:.2f}",
                *(f"{share:.1%}" for share in m.above.values()),
                str(m.unanswered),
            )
            for name, m in rows.items()
        ),
        "in pixels of the bag's images, where depth and poses tell the true match",
    )


def _frames_table(answers: BagAnswers) -> TextTable:
    content = frames_json(answers)
    del content["odometry_steps"]
    counts = {name.replace("_", " "): str(count) for name, count in content.items()}
    counts["dropped"] = " / ".join(map(str, answers.dropped.values())) or "0"
    title = "frames"
    if answers.dropped:
        title += f"; dropped for newer ones: {' / '.join(answers.dropped)}"
    return TextTable(title, tuple(counts), (tuple(counts.values()),), has_baselines=False)


def _latency_table(latency: Mapping[str, Mapping[str, float]]) -> TextTable:
    return TextTable(
        "latency of a frame, ms",
        ("", "median", "95 %", "mean"),
        tuple(
            (name.removesuffix("_ms"), *(f"{ms[key]:.0f}" for key in ("p50", "p95", "mean")))
            for name, ms in latency.items()
        ),
        has_baselines=False,
    )
