# SPDX-License-Identifier: Apache-2.0
"""How well a model tells motions and matches of two views of scenes that it has not seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlm3_lab.scenes import KINDS
from vlm3_lab.scenes.view_pairs import (
    RATE,
    DrivePair,
    ViewPair,
    sample_drive_pair,
    true_matches,
)
from vlm3_lab.studies.by_kind import of_kinds
from vlm3_ros.engines.base import AnswerUncertainty, Engine
from vlm3_ros.evaluation.metrics.consistency import measured_uncertainty, nees
from vlm3_ros.evaluation.metrics.pair_baselines import (
    CONSTANT_MOTION,
    CONSTANT_VELOCITY,
    IDENTITY,
    SIFT,
    constant_motion,
    sift_motion,
)
from vlm3_ros.evaluation.metrics.pairs import (
    MatchMetrics,
    PoseMetrics,
    match_metrics,
    pose_errors,
    pose_metrics,
)
from vlm3_ros.evaluation.pictures.pair import PairFrame
from vlm3_ros.evaluation.report import match_json, of_ranks, pose_json
from vlm3_ros.geometry.motion import Transform, angles_between, motion_parts
from vlm3_ros.tasks.two_view import ask_pair
from vlm3_ros.tasks.verification import answered_covariance

STREAM = 0xE7A2
"""First word of the seeds of these pairs: neither training nor the views of
`vlm3_lab.studies.synthetic` draw from this stream."""

MATCHES = 8
"""Pixels of a pair that are asked for their match."""


@dataclass(frozen=True)
class ScoredPair:
    """What was asked about one pair.

    `seconds`: between both views. `truth`, `answered`: T_cam1_cam2, shape (4, 4), metres,
    `answered` NaN unless all three answers could be read. `distance_std`: metres, as the engine
    tells it, or NaN. `constant_velocity`, `sift`: as `truth`, `sift` NaN where it failed.
    `pixels1`: (u, v) in the first view, shape (n, 2); `pixels2_true` and `pixels2` in the second,
    the latter NaN where unanswered; `match_errors_deg`: the angles between
    them, shape (n,). `width`: of the second view in px.
    """

    index: int
    kind: str
    seconds: float
    truth: Transform
    answered: Transform
    distance_std: float
    constant_velocity: Transform
    sift: Transform
    pixels1: NDArray[np.float64]
    pixels2_true: NDArray[np.float64]
    pixels2: NDArray[np.float64]
    match_errors_deg: NDArray[np.float64]
    width: int

    @property
    def error_deg(self) -> float:
        """The larger of rotation and direction error (its sign counts), infinite if unanswered."""
        errors = pose_errors(self.answered[None], self.truth[None])
        worst = np.fmax(errors.rotation_deg[0], errors.direction_deg[0])
        return float(worst) if np.isfinite(worst) else np.inf


@dataclass(frozen=True)
class MatchScores:
    """Metrics of matches, and their mean error as a share of the second image's width."""

    metrics: MatchMetrics
    epe_share: float


@dataclass(frozen=True)
class PairScores:
    """A model's metrics, and on the same pairs those of what needs no model, by name."""

    pose: PoseMetrics
    matches: MatchScores
    motions: Mapping[str, PoseMetrics]
    same_pixel: MatchScores


@dataclass(frozen=True)
class Consistency:
    """Whether the covariance of answered motions is honest.

    `assumed`: the standard deviations that the checkpoint's profile promises. `measured`: those
    that its answers had on these very pairs. `nees_assumed` and `nees_measured`: `nees` under
    either, shape (n,), NaN where unanswered.
    """

    assumed: AnswerUncertainty
    measured: AnswerUncertainty
    nees_assumed: NDArray[np.float64]
    nees_measured: NDArray[np.float64]


@dataclass(frozen=True)
class PairReport:
    """Scores over all pairs and over those of each kind of scene."""

    seed: int
    pairs: tuple[ScoredPair, ...]
    overall: PairScores
    kinds: dict[str, PairScores]
    consistency: Consistency | None
    """None where no motion was answered."""


def knows_pairs(engine: Engine) -> bool:
    """Whether a checkpoint learned both relative pose and correspondence."""
    return {"pose", "correspondence"} <= engine.profile.prompts.wordings.keys()


def evaluation_pair(seed: int, index: int) -> tuple[DrivePair, np.random.Generator]:
    """Pair `index` of the evaluation `seed`, and the generator that draws its pixels.

    The generator is seeded with `np.random.SeedSequence([0xE7A2, seed, index])`; kinds take turns.
    """
    rng = np.random.default_rng(np.random.SeedSequence([STREAM, seed, index]))
    return sample_drive_pair(rng, KINDS[index % len(KINDS)]), rng


def evaluate_pairs(
    engine: Engine,
    count: int,
    seed: int,
    matches: int = MATCHES,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> PairReport:
    """Ask for the motion and for matches of new pairs of all kinds, and score the answers.

    Pairs are those of `evaluation_pair(seed, 0 .. count - 1)`; motion and matches are asked in one
    pass. Pixels are drawn evenly from those that the second view shows. Beside the model stand, on
    the same pairs:

    - `identity`: no motion; it has no direction, so its direction error is 90 degrees.
    - `constant_motion`: `constant_motion` of the pairs that it is scored on, straight ahead.
    - `constant_velocity`: the exact motion of the tenth of a second before the first view,
      repeated; see `DrivePair.T_cam1_cam2_at_constant_velocity`. It is told the truth about the
      past and looks at no image.
    - `sift`: `sift_motion`, with the true distance as its scale; where it fails there is no
      answer.
    - for matches, the same pixel.

    Args:
        engine: who answers; `knows_pairs` must hold.
        count: number of pairs.
        seed: any integer from 0 up.
        matches: pixels asked in each pair.
        progress: told the number of pairs done, and of all.

    Raises:
        EngineError: when the engine did not learn it or cannot answer at all.
    """
    pairs = []
    for index in range(count):
        pairs.append(_score_pair(engine, seed, index, matches))
        progress(index + 1, count)
    return PairReport(
        seed=seed,
        pairs=tuple(pairs),
        overall=_scores(pairs),
        kinds={kind: _scores(some) for kind, some in of_kinds(pairs).items()},
        consistency=_consistency(pairs, engine.profile.uncertainty),
    )


def best_median_worst(report: PairReport) -> list[PairFrame]:
    """The pairs of smallest, middle and largest error of the motion, as pictures."""
    ranked = sorted(report.pairs, key=lambda pair: pair.error_deg)
    return [pair_frame(report.seed, name, pair) for name, pair in of_ranks(ranked).items()]


def report_json(report: PairReport) -> dict[str, Any]:
    """The report as JSON: `pose`, `correspondence`, `baselines`, these by kind, `uncertainty`."""
    return {
        "pairs": len(report.pairs),
        **_scores_json(report.overall),
        "kinds": {kind: _scores_json(scores) for kind, scores in report.kinds.items()},
        "uncertainty": _consistency_json(report.consistency),
    }


def _score_pair(engine: Engine, seed: int, index: int, matches: int) -> ScoredPair:
    drive, rng = evaluation_pair(seed, index)
    views = drive.views
    images, cameras = _images(views), (views.first.camera, views.second.camera)
    pixels1, pixels2 = _visible_pixels(views, matches, rng)
    pose, found = ask_pair(engine, images, cameras, pixels1)
    truth = views.T_cam1_cam2
    classical = sift_motion(images, cameras)
    if classical is not None:
        classical[:3, 3] *= motion_parts(truth).distance
    return ScoredPair(
        index=index,
        kind=views.first.kind,
        seconds=drive.gap / RATE,
        truth=truth,
        answered=pose.T_cam1_cam2,
        distance_std=pose.distance_std,
        constant_velocity=drive.T_cam1_cam2_at_constant_velocity,
        sift=np.full((4, 4), np.nan) if classical is None else classical,
        pixels1=pixels1,
        pixels2_true=pixels2,
        pixels2=found.pixels2,
        match_errors_deg=np.degrees(
            angles_between(*(cameras[1].rays(pixels) for pixels in (found.pixels2, pixels2)))
        ),
        width=views.second.camera.width,
    )


def _images(views: ViewPair) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    return views.first.image, views.second.image


def _visible_pixels(
    views: ViewPair, count: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Random pixels of the first view that the second one shows, and where."""
    pixels1 = views.first.camera.pixel_grid().reshape(-1, 2)
    pixels2 = true_matches(views.first, views.second, pixels1)
    shown = np.flatnonzero(np.isfinite(pixels2).all(axis=1))
    chosen = rng.permutation(shown)[:count]
    return pixels1[chosen], pixels2[chosen]


def _scores(pairs: Sequence[ScoredPair]) -> PairScores:
    truth = np.array([pair.truth for pair in pairs])
    guesses = {
        IDENTITY: np.tile(np.eye(4), (len(pairs), 1, 1)),
        CONSTANT_MOTION: np.tile(constant_motion(truth), (len(pairs), 1, 1)),
        CONSTANT_VELOCITY: np.array([pair.constant_velocity for pair in pairs]),
        SIFT: np.array([pair.sift for pair in pairs]),
    }
    return PairScores(
        pose=pose_metrics([pair.answered for pair in pairs], truth),
        matches=_match_scores(pairs, [pair.pixels2 for pair in pairs]),
        motions={name: pose_metrics(guess, truth) for name, guess in guesses.items()},
        same_pixel=_match_scores(pairs, [pair.pixels1 for pair in pairs]),
    )


def _match_scores(
    pairs: Sequence[ScoredPair], predicted: Sequence[NDArray[np.float64]]
) -> MatchScores:
    found, truth = np.concatenate(predicted), np.concatenate([p.pixels2_true for p in pairs])
    widths = np.concatenate([np.full((len(p.pixels1), 1), p.width) for p in pairs])
    shares = match_metrics(found / widths, truth / widths)
    return MatchScores(match_metrics(found, truth), shares.epe_px)


def _consistency(pairs: Sequence[ScoredPair], assumed: AnswerUncertainty) -> Consistency | None:
    """None where no motion was answered."""
    predicted, truth = [pair.answered for pair in pairs], [pair.truth for pair in pairs]
    errors = np.concatenate([pair.match_errors_deg for pair in pairs])
    measured = measured_uncertainty(predicted, truth, errors)
    if measured is None:
        return None

    scores = (consistency_under(pairs, uncertainty) for uncertainty in (assumed, measured))
    return Consistency(assumed, measured, *scores)


def consistency_under(
    pairs: Sequence[ScoredPair], uncertainty: AnswerUncertainty
) -> NDArray[np.float64]:
    """`nees` of pairs if answers erred by this much, shape (n,), NaN where unanswered."""
    covariance = [
        answered_covariance(pair.answered, pair.distance_std, uncertainty) for pair in pairs
    ]
    predicted, truth = [pair.answered for pair in pairs], [pair.truth for pair in pairs]
    return nees(predicted, truth, covariance)


def spread_json(scores: NDArray[np.float64]) -> dict[str, Any]:
    """Mean and median of the NEES."""
    return {"nees": {"mean": float(np.nanmean(scores)), "median": float(np.nanmedian(scores))}}


def pair_frame(seed: int, name: str, pair: ScoredPair) -> PairFrame:
    """A pair of the evaluation `seed` as a picture; `name` stands before its kind."""
    views = evaluation_pair(seed, pair.index)[0].views
    return PairFrame(
        title=f"{name}: {pair.kind} {pair.index}, {pair.seconds:.1f} s",
        images=_images(views),
        pixels1=pair.pixels1,
        pixels2=pair.pixels2,
        pixels2_true=pair.pixels2_true,
        motion=pair.answered,
        motion_true=pair.truth,
    )


def _scores_json(scores: PairScores) -> dict[str, Any]:
    motions = {name: {"pose": pose_json(score)} for name, score in scores.motions.items()}
    return {
        "pose": pose_json(scores.pose),
        "correspondence": _matches_json(scores.matches),
        "baselines": {
            **motions,
            "same_pixel": {"correspondence": _matches_json(scores.same_pixel)},
        },
    }


def _matches_json(scores: MatchScores) -> dict[str, Any]:
    return {**match_json(scores.metrics), "epe_share": scores.epe_share}


def _consistency_json(consistency: Consistency | None) -> dict[str, Any] | None:
    if consistency is None:
        return None
    of = {
        "assumed": (consistency.assumed, consistency.nees_assumed),
        "measured": (consistency.measured, consistency.nees_measured),
    }
    return {
        name: {**asdict(uncertainty), **spread_json(scores)}
        for name, (uncertainty, scores) in of.items()
    }
