# SPDX-License-Identifier: Apache-2.0
"""Reports as files."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from vlm3_ros.evaluation.metrics.depth import DepthMetrics, Guess
from vlm3_ros.evaluation.metrics.pairs import MatchMetrics, PoseMetrics

Item = TypeVar("Item")


def of_ranks(ranked: Sequence[Item]) -> dict[str, Item]:
    """Those that a report shows of many: the best, the median and the worst.

    Args:
        ranked: best first, at least one.
    """
    return {"best": ranked[0], "median": ranked[len(ranked) // 2], "worst": ranked[-1]}


def metrics_json(metrics: DepthMetrics) -> dict[str, float | int]:
    """Depth metrics under the names of their fields."""
    return {
        "delta1": metrics.delta1,
        "abs_rel": metrics.abs_rel,
        "rmse": metrics.rmse,
        "log10": metrics.log10,
        "pixels": metrics.pixels,
        "unanswered": metrics.unanswered,
    }


def guess_json(guess: Guess) -> dict[str, Any]:
    """Metrics of a guess, and the depths that it is."""
    return {**metrics_json(guess.metrics), "depths": guess.depths.tolist()}


def pose_json(metrics: PoseMetrics) -> dict[str, Any]:
    """Metrics of relative poses: `auc30` and so on, and medians by error."""
    return {
        **{f"auc{limit}": auc for limit, auc in metrics.auc.items()},
        "rotation_deg": {"median": metrics.rotation_deg_median},
        "direction_deg": {"median": metrics.direction_deg_median},
        "distance_error_m": {"median": metrics.distance_error_m_median},
        "pairs": metrics.pairs,
        "directed": metrics.directed,
        "unanswered": metrics.unanswered,
    }


def match_json(metrics: MatchMetrics) -> dict[str, Any]:
    """Metrics of correspondences under the names of their fields."""
    return {
        "epe_px": metrics.epe_px,
        **{f"above_{limit}_px": share for limit, share in metrics.above.items()},
        "matches": metrics.matches,
        "unanswered": metrics.unanswered,
    }


def write_json(path: Path | str, content: Mapping[str, Any]) -> None:
    """Write nested mappings, lists, numbers and texts as JSON.

    What is not a number becomes null, for JSON knows no NaN; other numbers keep six digits.
    """
    Path(path).write_text(json.dumps(_plain(content), indent=2) + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
