# SPDX-License-Identifier: Apache-2.0
"""The evaluation of a bag: what is in it, what is true of it, and the report on it."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.bags.poses import TruePoses, find_true_poses
from vlm3_ros.bags.reading import open_bag
from vlm3_ros.bags.topics import find_camera_topics
from vlm3_ros.bags.truncation import readable_bag
from vlm3_ros.errors import BagError
from vlm3_ros.evaluation.bag.answers import GRID, BagAnswers
from vlm3_ros.evaluation.bag.clicks import (
    ScoredClick,
    clicks_json,
    clicks_table,
    plot_clicks,
    score_clicks,
)
from vlm3_ros.evaluation.bag.frames import BagFrame, BagFrames, camera_frame, counted
from vlm3_ros.evaluation.bag.occupancy import BagOccupancy, OccupancySurvey, occupancy_json
from vlm3_ros.evaluation.bag.plots import plot_errors, plot_latency, plot_trajectory
from vlm3_ros.evaluation.bag.scores import (
    BagScores,
    odometry_chains,
    published_pairs,
    score_answers,
    scores_json,
)
from vlm3_ros.evaluation.bag.tables import (
    frames_json,
    latency_json,
    occupancy_table,
    score_tables,
)
from vlm3_ros.evaluation.bag.truth import BagTruth, read_truth
from vlm3_ros.evaluation.html import (
    facts_html,
    picture_html,
    png_source,
    svg_source,
    table_html,
    write_page,
)
from vlm3_ros.evaluation.metrics.trajectories import Trajectory, write_tum
from vlm3_ros.evaluation.pictures.depth import DepthFrame, draw_depth_frames
from vlm3_ros.evaluation.pictures.occupancy import plot_occupancy
from vlm3_ros.evaluation.report import of_ranks, write_json
from vlm3_ros.evaluation.tables import TextTable
from vlm3_ros.geometry.motion import Transform
from vlm3_ros.tasks.depth import uniform_grid
from vlm3_ros.tasks.frame_depth import dense_depth

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 3
"""Frames whose depth is shown: of the smallest, the middle and the largest error."""


@dataclass(frozen=True)
class BagSource:
    """A bag to be evaluated.

    `path`: as given. `frames`: of its camera; `images`: how many there are. `poses`: the ground
    truth; None where there is none, for the reason `no_poses`.
    """

    path: Path
    frames: BagFrames
    images: int
    poses: TruePoses | None
    no_poses: str

    @property
    def T_base_camera(self) -> Transform:
        """Of the ground truth; where there is none, the base is the camera itself."""
        return np.eye(4) if self.poses is None else self.poses.T_base_camera


@dataclass(frozen=True)
class BagEvaluation:
    """A bag, the answers about it, and their scores.

    `mode`: how the answers were obtained, in a word. `occupancy`: maps from above; None where they
    could not be drawn, which the notes explain. `clicks`: that were answered. `notes`: what a
    reader must know beside the scores: what is missing, and why.
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
) -> Iterator[BagSource]:
    """Find what is to be evaluated in a bag; of a truncated mcap, in what is whole of it.

    Args:
        path: rosbag2 folder, .mcap, .db3 or ROS 1 .bag.
        image, camera_info, depth: topics; found where None, see `find_camera_topics`.
        ground_truth: see `find_true_poses`.
        is_rectified: whether the image topic is rectified already.

    Raises:
        BagError: when the bag cannot be read, has no images, what was named is missing, or when
            several topics would do.
    """
    with readable_bag(path) as (readable, truncation):
        damage = [truncation] if truncation else []
        poses, no_poses = None, ""
        with open_bag(readable) as bag:
            topics = find_camera_topics(bag, image, camera_info, depth)
            images = bag.topics[topics.image].count
            optical = camera_frame(bag, topics.image)
            try:
                poses = find_true_poses(bag, optical, ground_truth, damage)
            except BagError as error:
                if ground_truth is not None:
                    raise
                no_poses = str(error)
        frames = BagFrames(readable, topics, is_rectified, damage=damage)
        yield BagSource(path, frames, images, poses, no_poses)


def evaluate_answers(
    source: BagSource,
    model: str,
    mode: str,
    answers: BagAnswers,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> BagEvaluation:
    """Compare answers with what is true of the bag.

    Args:
        source: of the bag.
        model: its name.
        mode: see `BagEvaluation`.
        answers: about the bag.
        progress: told the number of images compared, and of all.
    """
    frames = counted(source.frames, lambda done: progress(done, source.images))
    pixels = {pair: matches.pixels1 for pair, matches in answers.matches.items()}
    pairs = [*answers.motions, *published_pairs(answers)]
    survey = OccupancySurvey(answers, source.poses, source.no_poses)
    truth = read_truth(survey.watched(frames), source.poses, pairs, pixels)
    scores = score_answers(answers, truth, source.poses, source.no_poses)
    if source.frames.topics.depth is None:
        reason = f"{source.path}: the bag has no depth images"
        scores.left_out["depth"] = reason
        if "correspondence" not in answers.left_out:
            scores.left_out["correspondence"] = reason
    occupancy = survey.result(truth, scores)
    if occupancy is None:
        scores.left_out["occupancy"] = scores.left_out.get("depth", survey.reason)
    notes = _notes(source.frames, answers, scores)
    clicks = score_clicks(source.frames, answers.clicks)
    return BagEvaluation(source, model, mode, answers, truth, scores, occupancy, clicks, notes)


def evaluation_tables(evaluation: BagEvaluation) -> list[TextTable]:
    """The scores as tables."""
    tables = score_tables(evaluation.answers, evaluation.scores)
    if evaluation.occupancy:
        tables.append(occupancy_table(evaluation.occupancy))
    if evaluation.clicks:
        tables.append(clicks_table(evaluation.clicks))
    return tables


def evaluation_json(evaluation: BagEvaluation) -> dict[str, Any]:
    """The content of metrics.json."""
    source = evaluation.source
    topics = source.frames.topics
    return {
        "model": evaluation.model,
        "bag": source.path.name,
        "mode": evaluation.mode,
        "topics": {
            "image": topics.image,
            "camera_info": topics.camera_info,
            "depth": topics.depth,
            "ground_truth": source.poses.source if source.poses else None,
        },
        **scores_json(evaluation.scores),
        **({"occupancy": occupancy_json(evaluation.occupancy)} if evaluation.occupancy else {}),
        **({"clicks": clicks_json(evaluation.clicks)} if evaluation.clicks else {}),
        "latency": latency_json(evaluation.answers),
        "frames": {"in_bag": len(evaluation.truth.stamps_ns), **frames_json(evaluation.answers)},
        "notes": evaluation.notes,
    }


def write_evaluation(evaluation: BagEvaluation, out: Path) -> list[str]:
    """Write metrics.json, report.html and, where they are known, occupancy.png, clicks.png and the
    trajectories as TUM files.

    Returns:
        The names of the files.
    """
    write_json(out / "metrics.json", evaluation_json(evaluation))
    wrote = ["metrics.json"]
    for name, trajectory in _trajectories(evaluation).items():
        write_tum(out / f"{name}.tum", trajectory)
        wrote.append(f"{name}.tum")
    if figure := occupancy_figure(evaluation):
        figure.savefig(out / "occupancy.png", dpi=110)
        wrote.append("occupancy.png")
    if figure := clicks_figure(evaluation):
        figure.savefig(out / "clicks.png", dpi=110)
        wrote.append("clicks.png")
    _write_report(evaluation, out / "report.html")
    return [*wrote, "report.html"]


def trajectory_figure(evaluation: BagEvaluation) -> Figure | None:
    """The trajectory from above; None where it was not scored."""
    scores = evaluation.scores.trajectory
    return plot_trajectory(scores, _trajectories(evaluation)["truth"]) if scores else None


def occupancy_figure(evaluation: BagEvaluation) -> Figure | None:
    """The maps from above; None where there are none."""
    return plot_occupancy(evaluation.occupancy) if evaluation.occupancy else None


def clicks_figure(evaluation: BagEvaluation) -> Figure | None:
    """The clicked image with the answered points; None where there are none."""
    return plot_clicks(evaluation.clicks) if evaluation.clicks else None


def _notes(frames: BagFrames, answers: BagAnswers, scores: BagScores) -> dict[str, str]:
    """What a reader must know beside the scores, of frames that have just been gone through."""
    reasons: dict[str, list[str]] = {}
    for name, why in scores.left_out.items():
        reasons.setdefault(why, []).append(name)
    notes = {f"left out: {', '.join(names)}": why for why, names in reasons.items()}
    if frames.damage:
        notes["only a part of the bag was read"] = "; ".join(frames.damage)
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
        notes["the odometry began anew"] = "; ".join(answers.resets[:5])
    return notes


def _trajectories(evaluation: BagEvaluation) -> dict[str, Trajectory]:
    """The estimate as it was published, in odom (its longest part), and the truth at all frames."""
    trajectories = {}
    chain = max(odometry_chains(evaluation.answers), key=len, default=[])
    if chain:
        poses = np.stack([evaluation.answers.odom[stamp] for stamp in chain])
        trajectories["estimate"] = Trajectory(np.array(chain, dtype=np.int64), poses)
    if evaluation.source.poses and evaluation.truth.stamps_ns:
        stamps = np.array(evaluation.truth.stamps_ns, dtype=np.int64)
        true = evaluation.source.poses.base.at(stamps)
        known = np.isfinite(true).all(axis=(1, 2))
        if known.any():
            trajectories["truth"] = Trajectory(stamps[known], true[known])
    return trajectories


def _write_report(evaluation: BagEvaluation, path: Path) -> None:
    source, scores = evaluation.source, evaluation.scores
    topics = source.frames.topics
    title = f"{evaluation.model} on {source.path.name}"
    lead = [
        f"{evaluation.mode}: {evaluation.answers.frames} frames of {topics.image}; depth of "
        f"{topics.depth or 'nowhere'}; poses of "
        f"{source.poses.source if source.poses else 'nowhere'}."
    ]
    parts = [table_html(table) for table in evaluation_tables(evaluation)]
    parts.append(facts_html("What else is to be known", evaluation.notes))
    if frames := _shown_frames(evaluation):
        picture = io.BytesIO()
        draw_depth_frames(frames, picture, f"{evaluation.model}: depth along Z")
        parts.append(picture_html("Depth and its errors", png_source(picture.getvalue())))
    figures = {
        "Trajectory": trajectory_figure(evaluation),
        "Map from above": occupancy_figure(evaluation),
        "Clicked pixels": clicks_figure(evaluation),
        "Errors over time": plot_errors(scores, min(evaluation.truth.stamps_ns, default=0)),
        "Latency": plot_latency(evaluation.answers.latency),
    }
    parts += [picture_html(name, svg_source(figure)) for name, figure in figures.items() if figure]
    write_page(path, title, lead, parts)


def _shown_frames(evaluation: BagEvaluation) -> list[DepthFrame]:
    """Frames of the smallest, the middle and the largest error; evenly over time without truth."""
    depth = evaluation.scores.depth
    if depth is None:
        return depth_frames(evaluation, evenly(sorted(evaluation.answers.depths), SHOWN))
    chosen = of_ranks(np.argsort(depth.abs_rel).tolist())  # NaN comes last
    return depth_frames(
        evaluation, {int(depth.stamps_ns[i]): f"{name}: " for name, i in chosen.items()}
    )


def evenly(stamps_ns: Sequence[int], count: int) -> dict[int, str]:
    """A few of these stamps, evenly, for `depth_frames`."""
    indices = np.linspace(0, len(stamps_ns) - 1, min(count, len(stamps_ns)), dtype=int)
    return {stamps_ns[i]: "" for i in indices}


def depth_frames(evaluation: BagEvaluation, names: Mapping[int, str]) -> list[DepthFrame]:
    """Answered frames with their depth, to be drawn.

    Args:
        evaluation: of the bag.
        names: what to say of a frame before its scores, by stamp in nanoseconds.
    """
    depth, start = evaluation.scores.depth, min(evaluation.truth.stamps_ns, default=0)
    scores = {}
    if depth is not None:
        for stamp, delta1, error in zip(
            depth.stamps_ns.tolist(), depth.delta1, depth.abs_rel, strict=True
        ):
            scores[stamp] = f"δ1 {delta1:.2f}, AbsRel {error:.2f}"
    frames = {
        frame.stamp_ns: _depth_frame(
            frame,
            evaluation.answers.depths[frame.stamp_ns],
            f"{(frame.stamp_ns - start) / 1e9:.1f} s\n{names[frame.stamp_ns]}"
            f"{scores.get(frame.stamp_ns, '')}",
        )
        for frame in evaluation.source.frames.at(names)
    }
    return [frames[stamp] for stamp in names if stamp in frames]


def _depth_frame(frame: BagFrame, depth: NDArray[np.floating], title: str) -> DepthFrame:
    pixels = uniform_grid(frame.camera, *GRID)
    dense = dense_depth(frame, pixels, depth)
    return DepthFrame(title.strip(), frame.image, pixels, depth, dense, frame.depth)
