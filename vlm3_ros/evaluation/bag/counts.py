# SPDX-License-Identifier: Apache-2.0
"""How many frames of a bag were answered, and how long that took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from typing_extensions import override

from vlm3_ros.evaluation.bag.answers import BagAnswers
from vlm3_ros.evaluation.scores.base import Scores
from vlm3_ros.evaluation.tables import TextTable


@dataclass(frozen=True)
class FrameCounts(Scores):
    """Frames by outcome; `in_bag`: usable frames of the bag."""

    answers: BagAnswers
    in_bag: int

    @override
    def to_json(self) -> dict[str, Any]:
        return {"in_bag": self.in_bag, **frames_json(self.answers)}

    @override
    def tables(self, groups: Mapping[str, FrameCounts]) -> list[TextTable]:
        content = frames_json(self.answers)
        del content["odometry_steps"]
        counts = {name.replace("_", " "): str(count) for name, count in content.items()}
        dropped = self.answers.dropped
        counts["dropped"] = " / ".join(map(str, dropped.values())) or "0"
        title = f"frames; dropped for newer ones: {' / '.join(dropped)}" if dropped else "frames"
        return [TextTable(title, tuple(counts), (tuple(counts.values()),), has_baselines=False)]

    @override
    def verdict(self) -> str:
        return f"{len(self.answers.answered)} of {self.answers.frames} frames answered."


@dataclass(frozen=True)
class Latency(Scores):
    """Seconds from a frame to its answers, by task; NaN where unknown."""

    seconds: Mapping[str, list[float]]

    @override
    def to_json(self) -> dict[str, dict[str, float]]:
        return {
            f"{task}_ms": {
                "p50": float(np.nanmedian(seconds)) * 1e3,
                "p95": float(np.nanpercentile(seconds, 95)) * 1e3,
                "mean": float(np.nanmean(seconds)) * 1e3,
            }
            for task, seconds in self.seconds.items()
            if np.isfinite(seconds).any()
        }

    @override
    def tables(self, groups: Mapping[str, Latency]) -> list[TextTable]:
        rows = tuple(
            (name.removesuffix("_ms"), *(f"{ms[key]:.0f}" for key in ("p50", "p95", "mean")))
            for name, ms in self.to_json().items()
        )
        if not rows:
            return []
        columns = ("", "median", "95 %", "mean")
        return [TextTable("latency of a frame, ms", columns, rows, has_baselines=False)]


def frames_json(answers: BagAnswers) -> dict[str, Any]:
    """Return the number of frames, in all and by outcome."""
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
