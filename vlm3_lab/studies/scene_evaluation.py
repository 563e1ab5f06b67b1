# SPDX-License-Identifier: Apache-2.0
"""A checkpoint on procedural scenes: all tasks that it learned, as one result with pictures."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vlm3_lab.studies.synthetic import check_std_scale, depth_pictures, evaluate_synthetic
from vlm3_lab.studies.synthetic_objects import evaluate_objects, object_pictures
from vlm3_lab.studies.synthetic_pairs import PairEvaluation, evaluate_pairs, pair_pictures
from vlm3_ros.engines.base import AnswerUncertainty, Engine
from vlm3_ros.evaluation.metrics.calibration import calibration_json, draw_reliability
from vlm3_ros.evaluation.metrics.declared import headline_text
from vlm3_ros.evaluation.pictures.depth import DepthFrame, draw_depth_frames
from vlm3_ros.evaluation.pictures.object import draw_object_frames
from vlm3_ros.evaluation.pictures.pair import draw_pair_frames
from vlm3_ros.evaluation.result import Result
from vlm3_ros.evaluation.scores.base import Progress, Scores, TaskScores
from vlm3_ros.evaluation.scores.depth import DepthScores
from vlm3_ros.evaluation.scores.objects import ObjectScores, knows_objects
from vlm3_ros.evaluation.scores.pairs import knows_pairs, pair_nees
from vlm3_ros.evaluation.scores.uncertainty import (
    DepthUncertainty,
    MotionUncertainty,
    nees_json,
    view_calibration,
)

ProgressBar = Callable[[str], AbstractContextManager[Progress]]
"""Opens a bar with a description."""


@dataclass(frozen=True)
class SceneSettings:
    """What is asked.

    `count`: number of views, of pairs, and of views with objects. `pixels`: asked in each view.
    `matches`: asked in each pair. `view_focal`: as in `ask_depth`.
    """

    count: int
    seed: int
    pixels: int
    matches: int
    view_focal: float | None = None


@dataclass(frozen=True)
class SceneEvaluation:
    """Scores on the scenes of a seed; None for tasks that the checkpoint did not learn.

    `names`: of the checkpoints that answered about images and about pairs.
    """

    names: tuple[str, str]
    settings: SceneSettings
    depth: TaskScores[DepthScores]
    pairs: PairEvaluation | None
    objects: TaskScores[ObjectScores] | None
    depth_frames: list[DepthFrame]
    depth_uncertainty: DepthUncertainty | None
    motion_uncertainty: MotionUncertainty | None


@dataclass(frozen=True)
class Calibrated:
    """What calibration found on the scenes of the next seed.

    Attributes:
        std_scale: factor for the standard deviations of depth; None if it does not help.
        uncertainty: standard deviations that motions had; None if no motion was answered.
        nees: of the pairs of the next seed under `uncertainty`, shape (n,).
    """

    std_scale: float | None
    uncertainty: AnswerUncertainty | None
    nees: np.ndarray[tuple[int], np.dtype[np.float64]] | None


def evaluate_scenes(
    engine: Engine,
    pair_engine: Engine,
    names: tuple[str, str],
    settings: SceneSettings,
    bar: ProgressBar,
) -> SceneEvaluation:
    """Ask about views, pairs and objects of one seed, and score the answers.

    Args:
        engine: answers about depth and objects.
        pair_engine: answers about pairs; it may be the same.
        names: of both.
        settings: what is asked.
        bar: shows the progress.
    """
    seed, focal = settings.seed, settings.view_focal
    depth = _evaluate_depth(engine, settings, bar)
    frames = depth_pictures(engine, seed, depth.overall, view_focal=focal)
    pairs = _evaluate_pairs(pair_engine, settings, bar) if knows_pairs(pair_engine) else None
    objects = None
    if knows_objects(engine):
        with bar(f"objects of seed {seed}") as progress:
            objects = evaluate_objects(engine, settings.count, seed, progress=progress)
    calibration = view_calibration(depth.overall.views)
    return SceneEvaluation(
        names=names,
        settings=settings,
        depth=depth,
        pairs=pairs,
        objects=objects,
        depth_frames=frames,
        depth_uncertainty=(DepthUncertainty(f"seed {seed}", calibration) if calibration else None),
        motion_uncertainty=pairs.uncertainty if pairs else None,
    )


def calibrate_on_scenes(
    engine: Engine, pair_engine: Engine, evaluation: SceneEvaluation, bar: ProgressBar
) -> tuple[SceneEvaluation, Calibrated]:
    """Check the measured uncertainties on as many scenes of the next seed.

    Returns:
        The evaluation with the checks, and what is to be stored in the checkpoint's profile.
    """
    settings = replace(evaluation.settings, seed=evaluation.settings.seed + 1)
    other = _evaluate_depth(engine, settings, bar)
    check = check_std_scale(evaluation.depth.overall, other.overall)
    depth, scale = evaluation.depth_uncertainty, None
    if depth is not None and check is not None:
        scale = check.scale if check.helps else None
        name = f"seed {settings.seed}"
        depth = replace(
            depth,
            checks={name: check.before, f"{name}, std x {check.scale:.3g}": check.after},
            check_json={
                "seed": settings.seed,
                "before": calibration_json(check.before),
                "after": calibration_json(check.after),
                "stored": check.helps,
            },
        )
    motion, measured, nees = evaluation.motion_uncertainty, None, None
    if motion is not None and motion.measured is not None:
        measured = motion.measured
        nees = pair_nees(_evaluate_pairs(pair_engine, settings, bar).pairs, measured)
        motion = replace(motion, check_json={"seed": settings.seed, **nees_json(nees)})
    checked = replace(evaluation, depth_uncertainty=depth, motion_uncertainty=motion)
    return checked, Calibrated(scale, measured, nees)


def scene_result(evaluation: SceneEvaluation) -> Result:
    """Return the result of an evaluation."""
    name, pair_name = evaluation.names
    settings, pairs = evaluation.settings, evaluation.pairs
    scores: dict[str, TaskScores[Scores]] = {"depth": evaluation.depth}
    left_out: dict[str, str] = {}
    if evaluation.depth_uncertainty:
        scores["calibration"] = TaskScores(evaluation.depth_uncertainty)
    if pairs:
        scores |= {"pose": pairs.motion, "correspondence": pairs.matches}
    else:
        reason = f"{pair_name} did not learn relative pose and correspondence"
        left_out |= dict.fromkeys(("pose", "correspondence"), reason)
    if evaluation.motion_uncertainty:
        scores["consistency"] = TaskScores(evaluation.motion_uncertainty)
    elif pairs:
        left_out["consistency"] = "no motion could be read"
    if evaluation.objects:
        scores["objects"] = evaluation.objects
    else:
        left_out["objects"] = f"{name} did not learn about objects"
    both = name if name == pair_name else f"{name} and {pair_name}"
    return Result(
        models={"model": name, "pair_model": pair_name},
        title=f"{both} on procedural scenes, seed {settings.seed}",
        source={"kind": "scenes", "name": "procedural scenes", "seed": settings.seed},
        scores=scores,
        left_out=left_out,
    )


def draw_pictures(evaluation: SceneEvaluation, out: Path) -> dict[str, str]:
    """Draw views.png, reliability.png, pairs.png and objects.png, as far as there is data.

    Returns:
        Titles by the names of the files.
    """
    name, pair_name = evaluation.names
    seed, depth = evaluation.settings.seed, evaluation.depth.overall.model
    wrote = {"views.png": "Depth: the best, the median and the worst view"}
    draw_depth_frames(
        evaluation.depth_frames,
        out / "views.png",
        f"{name}: {headline_text(depth)} on {depth.images} views",
    )
    if pairs := evaluation.pairs:
        motion, matches = pairs.motion.overall.model, pairs.matches.overall.model
        draw_pair_frames(
            pair_pictures(seed, pairs.pairs),
            out / "pairs.png",
            f"{pair_name}: AUC@30 {motion.auc[30]:.3f}, EPE {matches.epe_px:.1f} px on "
            f"{motion.pairs} pairs",
        )
        wrote["pairs.png"] = "Motion and matches: the best, the median and the worst pair"
    if objects := evaluation.objects:
        model = objects.overall.model
        draw_object_frames(
            object_pictures(seed, objects.overall),
            out / "objects.png",
            f"{name}: relations {model.accuracy:.1%}, lengths and directions "
            f"{model.success:.1%} right of {objects.overall.questions}",
        )
        wrote["objects.png"] = "Objects: the best, the median and the worst view"
    if uncertainty := evaluation.depth_uncertainty:
        title = f"{name}: {depth.pixels} depths of procedural views"
        draw_reliability(uncertainty.curves, out / "reliability.png", title)
        wrote["reliability.png"] = "Standard deviations of depth"
    return wrote


def _evaluate_depth(
    engine: Engine, settings: SceneSettings, bar: ProgressBar
) -> TaskScores[DepthScores]:
    with bar(f"views of seed {settings.seed}") as progress:
        return evaluate_synthetic(
            engine,
            settings.count,
            settings.seed,
            settings.pixels,
            progress,
            settings.view_focal,
        )


def _evaluate_pairs(engine: Engine, settings: SceneSettings, bar: ProgressBar) -> PairEvaluation:
    with bar(f"pairs of seed {settings.seed}") as progress:
        return evaluate_pairs(engine, settings.count, settings.seed, settings.matches, progress)
