# SPDX-License-Identifier: Apache-2.0
"""Motions and matches of pairs of frames of a data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.datasets.source import Pairs
from vlm3_ros.datasets.views import View, ViewPair
from vlm3_ros.engines.base import Engine
from vlm3_ros.evaluation.dataset.reading import (
    FrameReader,
    drawn_pairs,
    generator,
    pair_name,
    short_name,
)
from vlm3_ros.evaluation.dataset.settings import DataSettings, by_few_groups
from vlm3_ros.evaluation.metrics.pairs import NO_DIRECTION
from vlm3_ros.evaluation.parts.base import Tasks
from vlm3_ros.evaluation.parts.pairs import PairsPart, visible_pixels
from vlm3_ros.evaluation.scores.base import Progress, no_progress
from vlm3_ros.evaluation.scores.pairs import PairSample, ScoredPair, score_pair
from vlm3_ros.geometry.camera import GeometryError
from vlm3_ros.tasks.correspondence import CORRESPONDENCE
from vlm3_ros.tasks.pose import POSE

MATCHES = 8
"""Pixels asked in a pair whose data set chose none."""

MEASURED_NO_DIRECTION_M = 0.01
"""True displacements below this have no direction, as on bags: poses are measured."""

_UNKNOWN_MOTION = np.full((4, 4), np.nan)


def evaluate_pairs(
    engines: Mapping[str, Engine],
    tasks: Tasks,
    reader: FrameReader,
    pairs: Pairs,
    numbers: NDArray[np.int64],
    settings: DataSettings,
    progress: Progress = no_progress,
) -> PairsPart:
    """Ask for the motions and the matches of pairs of frames, and score the answers.

    Args:
        engines: by the name of their task.
        tasks: of pose and correspondence, those that are asked.
        reader: of the frames.
        pairs: of these frames.
        numbers: of the pairs among which some are drawn.
        settings: what is asked.
        progress: takes the number of pairs done, and of all.

    Raises:
        DatasetError: if no pair can be used.
    """
    source = reader.source
    engine, match_engine = engines[tasks[0].name], engines[tasks[-1].name]
    count = len(numbers) if settings.frames is None else min(settings.frames, len(numbers))
    frames_of: dict[int, tuple[int, int]] = {}
    scored: list[ScoredPair] = []
    for frames, views in drawn_pairs(reader, pairs, numbers, count, settings.seed):
        index = len(frames_of)
        frames_of[index] = frames
        sample = _sample(index, views, tasks, settings)
        if not (sample.has_motion or len(sample.pixels1)):
            reader.skip(pair_name(source, frames), "neither its motion nor a match is known")
            continue
        try:
            scored.append(score_pair(engine, sample, match_engine))
            reader.used.update(frames)
        except GeometryError as error:
            reader.skip(pair_name(source, frames), str(error))
        progress(len(frames_of), count)
    if not scored:
        raise reader.nothing("pair of frames", "none that was tried shows enough of the same")

    def view_pair(index: int) -> ViewPair:
        first, second = map(source.read, frames_of[index])
        return ViewPair(first, second)

    has_scenes = len({pair.group for pair in scored}) > 1

    def name_of(pair: ScoredPair) -> str:
        first, second = frames_of[pair.index]
        scene = pair.group if has_scenes else ""
        return f"{short_name(source, first, scene)} and {short_name(source, second, '')}"

    is_metric = all(pair.motion.is_metric for pair in scored)
    part = PairsPart.of_pairs(
        scored,
        engine,
        match_engine,
        view_pair,
        name_of,
        tasks,
        MEASURED_NO_DIRECTION_M if is_metric else NO_DIRECTION,
    )
    return replace(
        part,
        motion=part.motion and by_few_groups(part.motion),
        matches=part.matches and by_few_groups(part.matches),
    )


def _sample(index: int, views: ViewPair, tasks: Tasks, settings: DataSettings) -> PairSample:
    first, second = views.first, views.second
    pixels1 = pixels2 = np.empty((0, 2))
    if CORRESPONDENCE in tasks:
        rng = generator(settings.seed, index)
        count = settings.matches or (len(views.labels.pixels1) if views.labels else MATCHES)
        pixels1, pixels2 = visible_pixels(views, count, rng)
    return PairSample(
        index=index,
        group=first.kind,
        seconds=np.nan,
        images=(first.image, second.image),
        cameras=(first.camera, second.camera),
        T_cam1_cam2=views.T_cam1_cam2 if POSE in tasks and _has_pose(views) else _UNKNOWN_MOTION,
        T_constant_velocity=_UNKNOWN_MOTION,
        pixels1=pixels1,
        pixels2=pixels2,
        is_metric=views.is_metric,
    )


def _has_pose(views: ViewPair) -> bool:
    def is_known(view: View) -> bool:
        return bool(np.isfinite(view.T_world_camera).all())

    return is_known(views.first) and is_known(views.second)
