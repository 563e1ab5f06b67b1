# SPDX-License-Identifier: Apache-2.0
"""Depth of the frames of a data set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.datasets.covisibility import filled
from vlm3_ros.datasets.views import View
from vlm3_ros.engines.base import Engine
from vlm3_ros.evaluation.answer_counts import check_answered
from vlm3_ros.evaluation.dataset.reading import FrameReader, chosen, generator, short_name
from vlm3_ros.evaluation.dataset.settings import DataSettings, by_few_groups
from vlm3_ros.evaluation.parts.depth import (
    DepthPart,
    depth_frame,
    depth_frames,
    depth_uncertainty,
    random_pixels,
    scores_of_views,
)
from vlm3_ros.evaluation.pictures.depth import DepthFrame
from vlm3_ros.evaluation.scores.base import Progress, best_median_worst, no_progress
from vlm3_ros.evaluation.scores.depth import DepthSample, DepthScores, ScoredView, score_depth
from vlm3_ros.geometry.camera import GeometryError
from vlm3_ros.tasks.depth import DEPTH

PIXELS = 10
"""Asked in a frame whose data set chose none."""

SPARSE = 0.02
"""Share of pixels with depth below which depth is drawn as dots."""


def evaluate_depth(
    engine: Engine,
    reader: FrameReader,
    usable: NDArray[np.bool_],
    settings: DataSettings,
    progress: Progress = no_progress,
) -> DepthPart:
    """Ask for the depth of labelled or random pixels of frames, and score the answers.

    Args:
        engine: answers.
        reader: of the frames.
        usable: mask of the frames among which some are drawn.
        settings: what is asked.
        progress: takes the number of frames done, and of all.

    Raises:
        DatasetError: if no frame can be used.
        NoAnswersError: if too few questions were answered, see `AnswerCounts.is_void`.
    """
    source = reader.source
    scored = score_frames(
        engine,
        reader,
        chosen(usable, settings.frames, settings.seed),
        settings,
        progress,
    )
    scores = by_few_groups(scores_of_views(scored))
    overall = scores.overall
    check_answered({DEPTH.name: overall.answers})
    frames = _frames(engine, reader, overall, settings)
    return DepthPart(scores, frames, depth_uncertainty(Path(source.name).name, overall))


def score_frames(
    engine: Engine,
    reader: FrameReader,
    frames: list[int],
    settings: DataSettings,
    progress: Progress = no_progress,
) -> list[ScoredView]:
    """Ask for the depth of labelled or random pixels of these frames.

    Raises:
        DatasetError: if none can be used.
    """
    scored = []
    for done, index in enumerate(frames, 1):
        view = reader.view(index)
        name = reader.source.frame_name(index)
        if view is not None and not view.is_metric:
            reader.skip(name, "its depth has no metric scale")
        elif view is not None:
            pixels, depth = _asked(view, settings.pixels, generator(settings.seed, index))
            sample = DepthSample(index, view.kind, view.image, view.camera, pixels, depth)
            if not len(pixels):
                reader.skip(name, "no pixel has a depth")
            else:
                try:
                    scored.append(score_depth(engine, sample, settings.view_focal))
                    reader.used.add(index)
                except GeometryError as error:
                    reader.skip(name, str(error))
        progress(done, len(frames))
    if not scored:
        raise reader.nothing("frame with depth", "there is none")
    return scored


def _asked(
    view: View, count: int | None, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Choose the pixels of a view, shape (n, 2), and return their depths, metres, shape (n,)."""
    if view.labels is None:
        return random_pixels(view, count or PIXELS, rng)
    pixels, depth = view.labels.pixels, view.labels.depth
    if count is None or count >= len(pixels):
        return pixels, depth
    some = rng.permutation(len(pixels))[:count]
    return pixels[some], depth[some]


def _frames(
    engine: Engine, reader: FrameReader, scores: DepthScores, settings: DataSettings
) -> list[DepthFrame]:
    """Draw the best, the median and the worst view; those with labels are asked nothing more.

    Sparse depth is drawn as dots: labelled pixels, or points of a LiDAR.
    """
    source = reader.source
    has_scenes = len({view.group for view in scores.views}) > 1

    def name(scored: ScoredView) -> str:
        return short_name(source, scored.index, scored.group if has_scenes else "")

    def drawn(index: int) -> View:
        view = source.read(index)
        is_sparse = np.isfinite(view.depth).mean() < SPARSE
        return replace(view, depth=filled(view.depth)) if is_sparse else view

    if source.read(scores.views[0].index).labels is None:
        return depth_frames(engine, scores, drawn, name, view_focal=settings.view_focal)
    frames = []
    for rank, scored in best_median_worst(scores.views, lambda view: view.error).items():
        view = drawn(scored.index)
        depth = scored.predicted.astype(np.float32)
        called = f"{rank}: {name(scored)}"
        frames.append(depth_frame(called, scored, view, scored.pixels, depth))
    return frames
