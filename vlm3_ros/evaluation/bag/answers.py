# SPDX-License-Identifier: Apache-2.0
"""Answers of a model about the frames of a bag."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.engines.base import Engine, EngineError
from vlm3_ros.evaluation.answer_counts import AnswerCounts, count_answers
from vlm3_ros.evaluation.bag.frames import BagFrame
from vlm3_ros.evaluation.scores.pairs import match_counts, pose_counts
from vlm3_ros.evaluation.tolerance import PersistentEngine, wrapped
from vlm3_ros.geometry.camera import GeometryError, PinholeCamera
from vlm3_ros.geometry.ground import GroundScale
from vlm3_ros.geometry.motion import Covariance, Transform
from vlm3_ros.tasks.correspondence import CORRESPONDENCE, Matches
from vlm3_ros.tasks.depth import DEPTH
from vlm3_ros.tasks.frame_depth import DepthScale, FrameDepthSettings, ask_frame_depth
from vlm3_ros.tasks.learned import why_unlearned
from vlm3_ros.tasks.odometry import OdometrySettings, OdometryStep, VisualOdometry
from vlm3_ros.tasks.pose import POSE
from vlm3_ros.tasks.reading import fault
from vlm3_ros.tasks.task import learned_wording

GRID = (FrameDepthSettings.columns, FrameDepthSettings.rows)
"""Columns and rows of the grid of pixels whose depth is asked, as depth_node's default."""

Pair = tuple[int, int]
"""Stamps in nanoseconds of the first and the second image."""


@dataclass(frozen=True)
class Click:
    """A clicked pixel, and query_node's answer.

    `pixel`: (u, v) of the published image. `stamp_ns`: of that image, None if the click was
    refused. `point`: metres in the optical frame, shape (3,), NaN if unanswered. `uncertainty`:
    standard deviation of its depth, metres, None if unknown. `reason`: why there is no answer.
    """

    pixel: tuple[float, float]
    stamp_ns: int | None
    point: NDArray[np.float64]
    uncertainty: float | None
    reason: str


@dataclass
class BagAnswers:
    """Answers about a bag, by stamps in nanoseconds.

    Attributes:
        frames: number of frames that the model was asked about.
        answered: stamps of the answered frames, in their order.
        counts: of the questions, by task; empty if only what nodes publish is known.
        failed: number of frames that could not be answered, by reason.
        dropped: number of frames dropped for newer ones in real time, by task.
        depths: metres at `uniform_grid(camera, *GRID)`, shape (n,), NaN where unanswered; all NaN
            for a frame that cannot enter the model. Without frames about which the engine had no
            answer at all.
        faulty: masks of the depths that the engine could not answer, shape (n,), for frames with
            any; they are not scored.
        odom: T_odom_base of frames for which the odometry has a pose.
        starts: frames at which the odometry started at the identity, at first or after a reset.
        steps: number of frames by the status of their odometry.
        refusals: number of frames without a pose, by reason.
        resets: reasons for resets of the odometry.
        motions: answered T_cam1_cam2 of the pairs that the odometry asked about, NaN if the
            answer could not be read; without those that the engine could not answer.
        matches: answered matches, by pair; likewise.
        accepted: T_cam1_cam2 and covariance of the motions that passed all checks, by pair.
        latency: seconds for the answers about a frame, by task.
        left_out: why a task was not asked, by task.
        clicks: on the last image.
    """

    frames: int = 0
    answered: list[int] = field(default_factory=list)
    counts: dict[str, AnswerCounts] = field(default_factory=dict)
    failed: Counter[str] = field(default_factory=Counter)
    dropped: dict[str, int] = field(default_factory=dict)
    depths: dict[int, NDArray[np.floating]] = field(default_factory=dict)
    faulty: dict[int, NDArray[np.bool_]] = field(default_factory=dict)
    odom: dict[int, Transform] = field(default_factory=dict)
    starts: set[int] = field(default_factory=set)
    steps: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    resets: list[str] = field(default_factory=list)
    motions: dict[Pair, Transform] = field(default_factory=dict)
    matches: dict[Pair, Matches] = field(default_factory=dict)
    accepted: dict[Pair, tuple[Transform, Covariance]] = field(default_factory=dict)
    latency: dict[str, list[float]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    clicks: list[Click] = field(default_factory=list)


def ask_about_frames(
    engines: Mapping[str, Engine],
    frames: Iterable[BagFrame],
    T_base_camera: Transform,
    settings: OdometrySettings | None = None,
    view_focal: float | None = None,
    camera_height: float | None = None,
) -> BagAnswers:
    """Ask for depth on a grid and for the motion, each if its model learned it.

    A frame that cannot be answered is counted as failed.

    Args:
        engines: that answer "depth", "pose" and "correspondence"; one may answer several tasks.
        frames: in the order in which they were taken.
        T_base_camera: of the optical frame on the robot's base, shape (4, 4).
        settings: of the odometry; those of pose_node by default.
        view_focal: focal length at which images enter the model for depth, px; None for the
            checkpoint's own.
        camera_height: metres above the ground, which then gives the scale of the depths, as
            depth_node's scale_from: ground; None for the model's own scale. Depths before the
            ground was found are NaN.

    Raises:
        EngineError: if neither depth nor motion was learned.
        NoAnswersError: if an engine fails before it has answered anything.
    """
    answers = BagAnswers()
    engines = wrapped(engines, PersistentEngine)
    depth_settings = FrameDepthSettings(*GRID, view_focal=view_focal)
    odometry = _odometry(engines, T_base_camera, settings or OdometrySettings(), answers)
    if reason := why_unlearned(engines[DEPTH.name], DEPTH):
        if odometry is None:
            raise EngineError(f"{reason}; {answers.left_out['pose']}")
        answers.left_out["depth"] = reason
    scale = None if camera_height is None else _ground_scale(T_base_camera, camera_height)
    pair_questions = {} if odometry is None else _pair_questions(odometry.settings, engines)
    for frame in frames:
        answers.frames += 1
        asks_depth = "depth" not in answers.left_out
        if asks_depth:
            answers.depths[frame.stamp_ns] = np.full(math.prod(GRID), np.nan)
        try:
            if asks_depth:
                frame_scale = None if scale is None else partial(scale, frame.stamp_ns / 1e9)
                _ask_depth(answers, engines[DEPTH.name], frame, depth_settings, frame_scale)
            if odometry is not None:
                with _failures_noted(answers, pair_questions), _timed(answers, "pose"):
                    step = odometry.update(frame.image, frame.camera, frame.stamp_ns, frame.visible)
                _note_step(answers, step)
            answers.answered.append(frame.stamp_ns)
        except (EngineError, GeometryError) as error:
            answers.failed[str(error)] += 1
    return answers


def at_rate(frames: Iterable[BagFrame], rate: float | None) -> Iterator[BagFrame]:
    """Yield at most `rate` frames per second, evenly to a tenth of a period; all if it is None."""
    ticks_since = None
    last = -1
    for frame in frames:
        if rate is not None:
            if ticks_since is None or frame.stamp_ns < ticks_since:
                ticks_since, last = frame.stamp_ns, -1
            # The slack allows for the jitter of a camera that has just this rate.
            tick = int((frame.stamp_ns - ticks_since) / 1e9 * rate + 0.1)
            if tick == last:
                continue
            last = tick
        yield frame


def _odometry(
    engines: Mapping[str, Engine],
    T_base_camera: Transform,
    settings: OdometrySettings,
    answers: BagAnswers,
) -> VisualOdometry | None:
    """Build the odometry; None, with the reason in `left_out`, if the model did not learn pose."""
    if reason := why_unlearned(engines[POSE.name], POSE):
        tasks = ("pose", "odometry", "trajectory", "correspondence")
        answers.left_out.update(dict.fromkeys(tasks, reason))
        return None
    if reason := why_unlearned(engines[CORRESPONDENCE.name], CORRESPONDENCE):
        answers.left_out["correspondence"] = reason
        settings = settings.without_matches()
    return VisualOdometry(engines, T_base_camera, settings)


def _pair_questions(settings: OdometrySettings, engines: Mapping[str, Engine]) -> dict[str, int]:
    """Return how many questions are asked about a pair, by task."""
    parts = len(learned_wording(engines[POSE.name], POSE).parts)
    matches = settings.match_columns * settings.match_rows
    return {"pose": parts, **({"correspondence": matches} if matches else {})}


@contextmanager
def _failures_noted(answers: BagAnswers, questions: Mapping[str, int]) -> Iterator[None]:
    """Count the questions of tasks as failed if the engine raises EngineError."""
    try:
        yield
    except EngineError as error:
        for task, asked in questions.items():
            _count(answers, task, count_answers(asked, [fault(str(error))] * asked))
        raise


def _count(answers: BagAnswers, task: str, counts: AnswerCounts) -> None:
    answers.counts[task] = answers.counts.get(task, AnswerCounts()) + counts


def _ground_scale(
    T_base_camera: Transform, camera_height: float
) -> Callable[[float, PinholeCamera, NDArray[np.float64], NDArray[np.float32]], float]:
    """Return what takes the time of a frame in seconds and the arguments of `DepthScale`."""
    ground, T_ground_camera = GroundScale(), T_base_camera.copy()
    T_ground_camera[2, 3] = camera_height

    def scale(
        seconds: float,
        camera: PinholeCamera,
        pixels: NDArray[np.float64],
        depth: NDArray[np.float32],
    ) -> float:
        return ground.update(camera, pixels, depth, T_ground_camera, seconds)

    return scale


def _ask_depth(
    answers: BagAnswers,
    engine: Engine,
    frame: BagFrame,
    settings: FrameDepthSettings,
    scale: DepthScale | None,
) -> None:
    asked = math.prod(GRID)
    try:
        with _failures_noted(answers, {"depth": asked}), _timed(answers, "depth"):
            depth = ask_frame_depth(engine, frame, settings, scale)
    except EngineError:
        del answers.depths[frame.stamp_ns]
        raise
    answers.depths[frame.stamp_ns] = depth.depth.astype(float)
    raw = depth.answers
    _count(answers, "depth", count_answers(len(raw.texts), raw.missing))
    if depth.faulty.any():
        answers.faulty[frame.stamp_ns] = depth.faulty


@contextmanager
def _timed(answers: BagAnswers, task: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    answers.latency.setdefault(task, []).append(time.perf_counter() - start)


def _note_step(answers: BagAnswers, step: OdometryStep) -> None:
    answers.steps[step.status] += 1
    if step.has_pose:
        answers.odom[step.stamp_ns] = step.T_odom_base
    else:
        answers.refusals[step.reason] += 1
    if step.status in ("first", "reset"):
        answers.starts.add(step.stamp_ns)
    if step.status == "reset":
        answers.resets.append(step.reason)
    for asked in step.attempts:
        if asked.reference_stamp_ns is None:
            continue
        pair = (asked.reference_stamp_ns, asked.stamp_ns)
        if asked.pose is not None:
            _count(answers, "pose", pose_counts(asked.pose))
            if not asked.pose.is_incomplete:
                answers.motions[pair] = asked.pose.T_cam1_cam2
        if asked.matches is not None:
            _count(answers, "correspondence", match_counts(asked.matches))
            answers.matches[pair] = asked.matches.without_faulty()
        if asked.status in ("accepted", "fused"):
            assert asked.T_ref_camera is not None and asked.covariance is not None
            answers.accepted[pair] = asked.T_ref_camera, asked.covariance
