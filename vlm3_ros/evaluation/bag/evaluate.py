# SPDX-License-Identifier: Apache-2.0
"""The evaluation of a bag: its frames, the answers about them, the truth and the scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vlm3_ros.bags.nearest import stamps_note
from vlm3_ros.bags.poses import TruePoses, find_true_poses
from vlm3_ros.bags.reading import open_bag
from vlm3_ros.bags.topics import NO_DEPTH, find_camera_topics, info_beside
from vlm3_ros.bags.truncation import readable_bag
from vlm3_ros.errors import BagError
from vlm3_ros.evaluation.answer_counts import void_tasks
from vlm3_ros.evaluation.bag.answers import BagAnswers
from vlm3_ros.evaluation.bag.clicks import ScoredClick, ScoredClicks, score_clicks
from vlm3_ros.evaluation.bag.counts import FrameCounts, Latency
from vlm3_ros.evaluation.bag.depth_options import DepthOptions
from vlm3_ros.evaluation.bag.frames import BagFrames, camera_frame, counted
from vlm3_ros.evaluation.bag.occupancy import BagOccupancy, OccupancySurvey
from vlm3_ros.evaluation.bag.scores import BagScores, published_pairs, score_answers
from vlm3_ros.evaluation.bag.true_depth import depth_rule
from vlm3_ros.evaluation.bag.truth import BagTruth, read_truth
from vlm3_ros.evaluation.result import Result
from vlm3_ros.evaluation.scores.base import Progress, Scores, TaskScores, no_progress
from vlm3_ros.geometry.calibration_files import GivenCamera
from vlm3_ros.geometry.motion import Transform


@dataclass(frozen=True)
class BagSource:
    """A bag to evaluate.

    `path`: as given. `frames`: of its camera; `images`: their number. `poses`: the ground truth;
    None if the bag has none, for the reason `no_poses`. `notes`: remarks on the recording, by
    title.
    """

    path: Path
    frames: BagFrames
    images: int
    poses: TruePoses | None
    no_poses: str
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def T_base_camera(self) -> Transform:
        """Of the ground truth; without any, the base is the camera itself."""
        return np.eye(4) if self.poses is None else self.poses.T_base_camera


@dataclass(frozen=True)
class BagEvaluation:
    """A bag, the answers about it, and their scores.

    `mode`: how the answers were obtained, "offline" or "online". `occupancy`: maps from above;
    None if they could not be drawn, for a reason in `scores.left_out`. `clicks`: answered ones.
    `notes`: what else a reader must know, by title.
    """

    source: BagSource
    model: str
    mode: str
    answers: BagAnswers
    truth: BagTruth
    scores: BagScores
    occupancy: BagOccupancy | None
    clicks: list[ScoredClick]
    notes: dict[str, str]


@contextmanager
def bag_source(
    path: Path,
    image: str | None = None,
    camera_info: str | None = None,
    depth: str | None = None,
    ground_truth: str | None = None,
    is_rectified: bool = False,
    camera: GivenCamera | None = None,
    depth_options: DepthOptions | None = None,
) -> Iterator[BagSource]:
    """Find the camera, its truth and the poses of a bag; a truncated mcap is read up to its end.

    Args:
        path: rosbag2 folder, .mcap, .db3 or ROS 1 .bag.
        image, camera_info, depth: topics; None to find them, see `find_camera_topics`.
        ground_truth: see `find_true_poses`.
        is_rectified: whether the image topic is rectified already.
        camera: instead of the bag's CameraInfo; None for that.
        depth_options: how true depth is found; None for the defaults.

    Raises:
        BagError: if the bag cannot be read or has no images, a named topic is missing, several
            topics would do, or depth cannot be registered to the images.
        GeometryError: if the given camera is not that of the images.
    """
    with readable_bag(path) as (readable, truncation):
        damage = [truncation] if truncation else []
        notes = {}
        poses, no_poses, rule = None, "", None
        with open_bag(readable) as bag:
            topics = find_camera_topics(bag, image, camera_info, depth, camera is not None)
            images = bag.topics[topics.image].count
            optical = camera_frame(bag, topics.image, topics.camera_info)
            if stamps := stamps_note(bag, topics.image, damage):
                notes["stamps of the images"] = stamps
            try:
                poses = find_true_poses(bag, optical, ground_truth, damage)
            except BagError as error:
                if ground_truth is not None:
                    raise
                no_poses = str(error)
            if topics.depth is not None:
                try:
                    stamps = stamps_note(bag, topics.depth, damage)
                except BagError as error:
                    raise BagError(
                        f"{error}; --depth-topic {NO_DEPTH} works without true depth"
                    ) from error
                if stamps:
                    notes["stamps of the depth images"] = stamps
                own = camera_frame(bag, topics.depth, info_beside(bag, topics.depth))
                is_named = depth is not None
                options = depth_options or DepthOptions()
                rule = depth_rule(bag, topics, options, is_named, (optical, own), damage)
            if bag.left_out:
                notes["topics that cannot be read"] = bag.left_out_text()
        frames = BagFrames(readable, topics, rule, camera, is_rectified, damage=damage)
        frames.check_camera()
        if rectified := frames.rectified_note():
            notes["raw or rectified"] = rectified
        if registration := frames.check_depth():
            notes["true depth"] = f"depth on '{topics.depth}': {registration}"
        yield BagSource(path, frames, images, poses, no_poses, notes)


def evaluate_answers(
    source: BagSource,
    model: str,
    mode: str,
    answers: BagAnswers,
    progress: Progress = no_progress,
) -> BagEvaluation:
    """Compare answers with the truth of the bag.

    Args:
        source: the bag.
        model: its name.
        mode: see `BagEvaluation`.
        answers: about the bag.
        progress: takes the number of images compared, and of all.
    """
    frames = counted(source.frames, lambda done: progress(done, source.images))
    pixels = {pair: matches.pixels1 for pair, matches in answers.matches.items()}
    pairs = [*answers.motions, *published_pairs(answers)]
    survey = OccupancySurvey(answers, source.poses, source.no_poses)
    truth = read_truth(survey.watched(frames), source.poses, pairs, pixels)
    scores = score_answers(answers, truth, source.poses, source.no_poses)
    for task, reason in void_tasks(answers.counts).items():
        scores.leave_out(task, reason)
    if source.frames.topics.depth is None:
        reason = f"{source.path}: the bag has no depth images"
        scores.left_out["depth"] = reason
        if "correspondence" not in answers.left_out:
            scores.left_out["correspondence"] = reason
    occupancy = survey.result(truth, scores)
    if occupancy is None:
        scores.left_out["occupancy"] = scores.left_out.get("depth", survey.reason)
    notes = {**source.notes, **_notes(source.frames, answers)}
    clicks = score_clicks(source.frames, answers.clicks)
    return BagEvaluation(source, model, mode, answers, truth, scores, occupancy, clicks, notes)


def bag_result(evaluation: BagEvaluation) -> Result:
    """Return the result of an evaluation."""
    source, answers = evaluation.source, evaluation.answers
    topics = source.frames.topics
    poses = source.poses.source if source.poses else None
    what = f"{answers.frames} frames of {topics.image}"
    truth = f"true depth: {topics.depth or 'none'}; true poses: {poses or 'none'}"
    scores: dict[str, Scores] = evaluation.scores.by_task()
    if evaluation.occupancy:
        scores["occupancy"] = evaluation.occupancy
    if evaluation.clicks:
        scores["clicks"] = ScoredClicks(evaluation.clicks)
    scores["frames"] = FrameCounts(answers, len(evaluation.truth.stamps_ns))
    scores["latency"] = Latency(answers.latency)
    return Result(
        models={"model": evaluation.model},
        title=f"{evaluation.model} on {source.path.name}, {evaluation.mode}",
        source={
            "kind": "bag",
            "name": source.path.name,
            "mode": evaluation.mode,
            "topics": {
                "image": topics.image,
                "camera_info": str(source.frames.camera or topics.camera_info),
                "depth": topics.depth,
                "ground_truth": poses,
            },
        },
        scores={task: TaskScores(of_task) for task, of_task in scores.items()},
        left_out=evaluation.scores.left_out,
        notes={f"evaluated {evaluation.mode}": f"{what}; {truth}", **evaluation.notes},
        answers=answers.counts,
    )


def _notes(frames: BagFrames, answers: BagAnswers) -> dict[str, str]:
    """Notes on frames that have just been read to the end."""
    notes = {}
    if frames.assumptions:
        notes["assumed of the calibration"] = "; ".join(frames.assumptions)
    if frames.damage:
        notes["only part of the bag was read"] = "; ".join(frames.damage)
    for title, counts in (
        ("images that could not be used", frames.failed),
        ("frames that could not be answered", answers.failed),
        ("frames without true depth", frames.without_depth),
        ("frames whose motion was refused", answers.refusals),
    ):
        if counts:
            notes[title] = "; ".join(f"{n} times: {why}" for why, n in counts.most_common(3))
    if refused := Counter(click.reason for click in answers.clicks if click.stamp_ns is None):
        notes["clicks that were refused"] = "; ".join(refused)
    if answers.resets:
        notes["the odometry was reset"] = "; ".join(answers.resets[:5])
    return notes
