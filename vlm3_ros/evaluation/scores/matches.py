# SPDX-License-Identifier: Apache-2.0
"""Scores of pixel correspondence, next to the guess that pixels do not move."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from vlm3_ros.evaluation.metrics.declared import metric_cells, metric_json, metric_titles
from vlm3_ros.evaluation.metrics.pairs import UFM_SIZE, MatchMetrics, match_metrics
from vlm3_ros.evaluation.scores.base import MODEL, Scores, group_tables
from vlm3_ros.evaluation.tables import TextTable


@dataclass(frozen=True)
class ScoredMatches:
    """Matches that were answered about one pair of images, and the true ones.

    Attributes:
        group: of the pair, such as its kind of scene; "" for none.
        pixels1: (u, v) that were asked in the first image, shape (n, 2).
        predicted: (u, v) in the second image, shape (n, 2), NaN where unanswered.
        truth: (u, v) in the second image, shape (n, 2), finite.
        width, height: of the second image, px; NaN if unknown.
    """

    group: str
    pixels1: NDArray[np.float64]
    predicted: NDArray[np.float64]
    truth: NDArray[np.float64]
    width: float
    height: float = float("nan")


@dataclass(frozen=True)
class MatchScores(Scores):
    """Matches, and what the same pixels as in the first image would score."""

    model: MatchMetrics
    same_pixel: MatchMetrics

    @override
    def to_json(self) -> dict[str, Any]:
        return metric_json(self.model)

    @override
    def baselines_json(self) -> dict[str, Any]:
        return {"same_pixel": metric_json(self.same_pixel)}

    @override
    def tables(self, groups: Mapping[str, MatchScores]) -> list[TextTable]:
        rows = {MODEL: self.model, "same pixel": self.same_pixel}
        titles = metric_titles(self.model)
        table = TextTable(
            f"correspondence: {self.model.matches} matches",
            ("", *titles),
            tuple((name, *metric_cells(metrics)) for name, metrics in rows.items()),
            "Pixels of the second image, where the true match is known; failed: no answer. "
            "EPE UFM: of images scaled to cover {}x{} px, as in UFM's benchmark.".format(*UFM_SIZE),
        )
        by_group = group_tables(
            "correspondence by group",
            (*titles, "same px"),
            self,
            groups,
            lambda scores: (*metric_cells(scores.model), f"{scores.same_pixel.epe_px:.2f}"),
            "same px: EPE of the same pixel.",
        )
        return [table, *by_group]

    @override
    def verdict(self) -> str:
        if self.model.unanswered == self.model.matches:
            return "Matches: no answer could be read."
        return (
            f"Matches: EPE {self.model.epe_px:.1f} px against {self.same_pixel.epe_px:.1f} px for "
            "the same pixel."
        )


def match_scores(pairs: Sequence[ScoredMatches]) -> MatchScores:
    """Score matches.

    Raises:
        ValueError: if there is no match.
    """
    truth = np.concatenate([pair.truth for pair in pairs])
    sizes = np.concatenate(
        [np.tile((pair.width, pair.height), (len(pair.truth), 1)) for pair in pairs]
    )
    return MatchScores(
        match_metrics(np.concatenate([pair.predicted for pair in pairs]), truth, sizes),
        match_metrics(np.concatenate([pair.pixels1 for pair in pairs]), truth, sizes),
    )
