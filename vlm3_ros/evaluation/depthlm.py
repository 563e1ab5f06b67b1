# SPDX-License-Identifier: Apache-2.0
"""DepthLM's evaluation of metric depth: the protocol.

The image enters at the unified focal length, one pixel per question, greedy answers, delta1 pooled
over all pixels, unanswered ones wrong. DepthLM's script differs in two ways: it points with a red
arrow at one random pixel each time, until 128 are asked, and it leaves out pixels at the border
where no arrow fits; here all pixels are asked, in text. Source:
https://github.com/facebookresearch/DepthLM_Official (eval.py, utils/metrics.py).
"""

from __future__ import annotations

from vlm3_ros.datasets.depthlm import DepthLmFile
from vlm3_ros.engines.base import Engine
from vlm3_ros.errors import DatasetError
from vlm3_ros.evaluation.answer_counts import check_answered, total
from vlm3_ros.evaluation.result import Result
from vlm3_ros.evaluation.scores.base import Progress, TaskScores, no_progress, score_samples
from vlm3_ros.evaluation.scores.depth import (
    DepthSample,
    DepthScores,
    ScoredView,
    depth_scores,
    score_depth,
)
from vlm3_ros.evaluation.tolerance import TolerantEngine
from vlm3_ros.geometry.camera import GeometryError


def evaluate_dataset(
    engine: Engine,
    dataset: DepthLmFile,
    progress: Progress = no_progress,
    view_focal: float | None = None,
) -> DepthScores:
    """Ask for the depth of all pixels of all images, and score the answers.

    The protocol wants greedy answers: load the engine with `force_answers` off, otherwise the
    medians of its distributions are scored.

    Args:
        engine: answers.
        dataset: at least one pixel in all.
        progress: takes the number of images done, and of all.
        view_focal: focal length at which images enter the model, px; None for the checkpoint's.

    Raises:
        DatasetError: naming the line whose image cannot be read, does not hold its pixels, or
            does not fit its calibration.
        NoAnswersError: if too few questions were answered, see `AnswerCounts.is_void`.
    """
    engine = TolerantEngine(engine)

    def score(index: int) -> ScoredView:
        view = dataset.read(index)
        assert view.labels is not None
        labels = view.labels
        sample = DepthSample(index, "", view.image, view.camera, labels.pixels, labels.depth)
        try:
            return score_depth(engine, sample, view_focal)
        except GeometryError as error:
            raise DatasetError(f"{dataset.lines[index].source}: {error}") from error

    count = len(dataset.lines)
    views = score_samples(range(count), count, score, progress)
    check_answered({"depth": total(view.answers for view in views)})
    return depth_scores(views)


def dataset_result(name: str, data: str, scores: DepthScores) -> Result:
    """Return the result of an evaluation.

    Args:
        name: of the checkpoint.
        data: name of the data set.
        scores: of `evaluate_dataset`.
    """
    return Result(
        models={"model": name},
        title=f"{name} on {data} by DepthLM's protocol",
        source={"kind": "jsonl", "name": data, "protocol": "DepthLM"},
        scores={"depth": TaskScores(scores)},
        answers={"depth": scores.answers},
    )
