# SPDX-License-Identifier: Apache-2.0
"""Images and pairs with what is true of them, and the answers about them.

A source of test data (a data set, procedural scenes, a list of pairs) yields samples. Here they
are asked about and become the scored items of `vlm3_ros.evaluation.scores`. Recordings have a way
of their own (`vlm3_ros.evaluation.bag`), because the nodes' answers are scored there as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.engines.base import AnswerUncertainty, Engine
from vlm3_ros.evaluation.metrics.consistency import measured_uncertainty, nees
from vlm3_ros.evaluation.metrics.objects import Asked
from vlm3_ros.evaluation.metrics.pair_baselines import sift_motion
from vlm3_ros.evaluation.scores.depth import ScoredView
from vlm3_ros.evaluation.scores.matches import ScoredMatches
from vlm3_ros.evaluation.scores.motion import ScoredMotion, with_distance
from vlm3_ros.evaluation.scores.objects import ScoredObjects
from vlm3_ros.evaluation.scores.uncertainty import MotionUncertainty
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.geometry.motion import Transform, angles_between, motion_parts
from vlm3_ros.tasks.depth import DepthAnswers, ask_depth
from vlm3_ros.tasks.objects import Question, Value, ask_objects
from vlm3_ros.tasks.task import CameraPair, ImagePair
from vlm3_ros.tasks.two_view import ask_pair
from vlm3_ros.tasks.verification import answered_covariance

Progress = Callable[[int, int], None]
"""Takes the number of steps done, and of all."""

Sample = TypeVar("Sample")
Scored = TypeVar("Scored")


def no_progress(done: int, total: int) -> None:
    """Report progress to nobody."""


@dataclass(frozen=True)
class DepthSample:
    """An image with pixels whose depth is known.

    Attributes:
        index: number of the image in its source.
        group: of the image, such as its kind of scene; "" for none.
        image: rectified RGB, shape (camera.height, camera.width, 3), uint8.
        camera: its intrinsics.
        pixels: (u, v), shape (n, 2).
        depth: metres along Z, shape (n,), finite and positive.
    """

    index: int
    group: str
    image: NDArray[np.uint8]
    camera: PinholeCamera
    pixels: NDArray[np.float64]
    depth: NDArray[np.float64]


@dataclass(frozen=True)
class PairSample:
    """Two images whose motion is known, with pixels whose match is known.

    Attributes:
        index: number of the pair in its source.
        group: of the pair, such as its kind of scene; "" for none.
        seconds: between both images.
        images, cameras: rectified RGB and intrinsics.
        T_cam1_cam2: the motion, shape (4, 4), metres.
        T_constant_velocity: the true motion before the pair, continued; NaN where unknown.
        pixels1, pixels2: (u, v) in the first image and their true matches, shape (n, 2) each.
    """

    index: int
    group: str
    seconds: float
    images: ImagePair
    cameras: CameraPair
    T_cam1_cam2: Transform
    T_constant_velocity: Transform
    pixels1: NDArray[np.float64]
    pixels2: NDArray[np.float64]


@dataclass(frozen=True)
class ObjectSample:
    """An image with questions about its objects, and their true answers.

    `index`, `group`, `image`, `camera`: as those of `DepthSample`.
    """

    index: int
    group: str
    image: NDArray[np.uint8]
    camera: PinholeCamera
    questions: Sequence[tuple[Question, Value]]


@dataclass(frozen=True)
class ScoredPair:
    """Answers about one pair, and the truth.

    `seconds`: between both images. `distance_std`: of the answered distance as the engine states
    it, metres, NaN where unknown. `match_errors_deg`: angles between answered and true matches,
    shape (n,), NaN where unanswered.
    """

    seconds: float
    motion: ScoredMotion
    matches: ScoredMatches
    distance_std: float
    match_errors_deg: NDArray[np.float64]

    @property
    def index(self) -> int:
        """Number of the pair in its source."""
        return self.motion.index

    @property
    def group(self) -> str:
        """Group of the pair."""
        return self.motion.group


def score_samples(
    samples: Iterable[Sample],
    count: int,
    score: Callable[[Sample], Scored],
    progress: Progress = no_progress,
) -> list[Scored]:
    """Score samples one by one.

    Args:
        samples: may be made while they are scored.
        count: number of samples.
        score: one of the functions below.
        progress: is called after each sample.
    """
    scored = []
    for done, sample in enumerate(samples, 1):
        scored.append(score(sample))
        progress(done, count)
    return scored


def score_depth(engine: Engine, sample: DepthSample, view_focal: float | None = None) -> ScoredView:
    """Ask for the depth of all pixels of a sample.

    Args:
        engine: answers.
        sample: the image.
        view_focal: focal length at which images enter the model, px; None for the checkpoint's.

    Raises:
        GeometryError: if the image does not fit its camera or the engine's limits.
        EngineError: if the engine cannot answer at all.
    """
    answers = ask_depth(engine, sample.image, sample.camera, sample.pixels, view_focal)
    return scored_view(sample, answers)


def scored_view(sample: DepthSample, answers: DepthAnswers) -> ScoredView:
    """Put answers about all pixels of a sample next to the truth."""
    return ScoredView(
        index=sample.index,
        group=sample.group,
        predicted=answers.depth.astype(float),
        std=answers.std.astype(float),
        truth=sample.depth,
        rows=(sample.pixels[:, 1] + 0.5) / sample.camera.height,
    )


def score_pair(engine: Engine, sample: PairSample) -> ScoredPair:
    """Ask for the motion and all matches of a sample in one pass, and run classical vision on it.

    Raises:
        GeometryError: if an image does not fit its camera or the engine's limits.
        EngineError: if the engine did not learn pairs, or cannot answer at all.
    """
    pose, found = ask_pair(engine, sample.images, sample.cameras, sample.pixels1)
    camera2, truth = sample.cameras[1], sample.T_cam1_cam2
    classical = sift_motion(sample.images, sample.cameras)
    rays = (camera2.rays(pixels) for pixels in (found.pixels2, sample.pixels2))
    return ScoredPair(
        seconds=sample.seconds,
        motion=ScoredMotion(
            index=sample.index,
            group=sample.group,
            predicted=pose.T_cam1_cam2,
            truth=truth,
            constant_velocity=sample.T_constant_velocity,
            sift=with_distance(classical, motion_parts(truth).distance),
        ),
        matches=ScoredMatches(
            sample.group, sample.pixels1, found.pixels2, sample.pixels2, camera2.width
        ),
        distance_std=pose.distance_std,
        match_errors_deg=np.degrees(angles_between(*rays)),
    )


def score_objects(engine: Engine, sample: ObjectSample) -> ScoredObjects:
    """Ask all questions of a sample.

    Raises:
        GeometryError: if the image does not fit its camera or the engine's limits.
        EngineError: if the engine did not learn about objects, or cannot answer at all.
    """
    questions = [question for question, _ in sample.questions]
    answers = ask_objects(engine, sample.image, sample.camera, questions)
    return ScoredObjects(
        index=sample.index,
        group=sample.group,
        asked=tuple(
            Asked(question, truth, answer)
            for (question, truth), answer in zip(sample.questions, answers.values, strict=True)
        ),
    )


def knows_pairs(engine: Engine) -> bool:
    """Return whether a checkpoint learned both relative pose and correspondence."""
    return {"pose", "correspondence"} <= engine.profile.prompts.wordings.keys()


def knows_objects(engine: Engine) -> bool:
    """Return whether a checkpoint learned about objects."""
    return "objects" in engine.profile.prompts.wordings


def pair_uncertainty(
    pairs: Sequence[ScoredPair], assumed: AnswerUncertainty
) -> MotionUncertainty | None:
    """Compare errors of motions with the standard deviations of a profile, and measure them.

    Returns:
        None if no motion was answered.
    """
    motions = [pair.motion for pair in pairs]
    measured = measured_uncertainty(
        [motion.predicted for motion in motions],
        [motion.truth for motion in motions],
        np.concatenate([pair.match_errors_deg for pair in pairs]),
    )
    if measured is None:
        return None
    return MotionUncertainty(
        pair_nees(pairs, assumed), assumed, measured, pair_nees(pairs, measured)
    )


def pair_nees(pairs: Sequence[ScoredPair], uncertainty: AnswerUncertainty) -> NDArray[np.float64]:
    """Return the NEES of pairs if answers erred by this much, shape (n,), NaN where unanswered."""
    covariance = [
        answered_covariance(pair.motion.predicted, pair.distance_std, uncertainty) for pair in pairs
    ]
    predicted = [pair.motion.predicted for pair in pairs]
    return nees(predicted, [pair.motion.truth for pair in pairs], covariance)
