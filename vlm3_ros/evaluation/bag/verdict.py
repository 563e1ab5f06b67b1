# SPDX-License-Identifier: Apache-2.0
"""The result of the evaluation of a bag in one line."""

from __future__ import annotations

from vlm3_ros.evaluation.bag.answers import BagAnswers
from vlm3_ros.evaluation.bag.scores import BagScores


def verdict(answers: BagAnswers, scores: BagScores) -> str:
    """Say how good depth and odometry are, and how many frames were answered."""
    sentences = []
    if scores.depth:
        guess = max(scores.depth.constant.metrics.delta1, scores.depth.row.metrics.delta1)
        sentences.append(
            f"Depth: δ1 {scores.depth.metrics.delta1:.2f} against {guess:.2f} for the best guess "
            "that ignores the image."
        )
    else:
        sentences.append("Depth: not scored.")
    if scores.trajectory:
        sentences.append(
            f"Odometry: APE {scores.trajectory.ape.translation_m.rmse:.2f} m over "
            f"{scores.trajectory.length_m:.1f} m."
        )
    else:
        sentences.append("Odometry: not scored.")
    sentences.append(f"{len(answers.answered)} of {answers.frames} frames answered.")
    return " ".join(sentences)
