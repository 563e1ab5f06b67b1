# SPDX-License-Identifier: Apache-2.0
"""Measure what each check of the odometry accepts and refuses, on recordings with true poses.

    python benchmarks/odometry_checks.py BAG_OR_FOLDER ... --answers FOLDER [--out PICTURE.png]

A folder of RGB-D frames (`vlm3_ros.bags.rgbd_folder`) is read like a bag. Answers about the pairs
of each recording are kept in `--answers`, so that later runs need no model.

Two kinds of motion are checked with the model's matches, depths and motions back:

- wrong: the model's own motions whose displacement errs by more than `WRONG_DISTANCE` plus
  `WRONG_SHARE` of the true distance, or whose rotation errs by more than `WRONG_DEG`;
- right: the model's other motions, and for every pair the true motion with the errors that the
  authors' checkpoints are assumed to have (`AnswerUncertainty`), which a small model seldom gives.

The benchmark prints a Markdown table and draws the share of wrong motions that a check accepts over
the share of right motions that it refuses, for all limits.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.bags.rgbd_folder import bag_from_rgbd
from vlm3_ros.engines.base import AnswerUncertainty, Engine
from vlm3_ros.engines.load import load_engine
from vlm3_ros.engines.recorded import RecordedEngine, RecordingEngine
from vlm3_ros.engines.settings import EngineSettings
from vlm3_ros.evaluation.bag.answers import at_rate
from vlm3_ros.evaluation.bag.evaluate import bag_source
from vlm3_ros.evaluation.bag.frames import BagFrame
from vlm3_ros.geometry.epipolar import metric_motion_covariance, metric_motion_from_matches
from vlm3_ros.geometry.features import Features
from vlm3_ros.geometry.motion import (
    Covariance,
    Transform,
    inverse,
    inverse_covariance,
    motion_error,
    perturbed,
)
from vlm3_ros.paths import default_model
from vlm3_ros.tasks.correspondence import Matches
from vlm3_ros.tasks.depth import ask_depth, uniform_grid
from vlm3_ros.tasks.feature_check import RESIDUAL_LIMIT_DEG, checked_features, feature_evidence
from vlm3_ros.tasks.odometry import OdometrySettings
from vlm3_ros.tasks.pose import RelativePose, ask_pose
from vlm3_ros.tasks.task import CameraPair
from vlm3_ros.tasks.two_view import ask_pair, assumed_uncertainty
from vlm3_ros.tasks.verification import (
    DEPTH_SCALE_STD,
    DISAGREEMENT,
    EPIPOLAR_LIMIT,
    INLIER,
    REVERSED_LIMIT,
    answered_covariance,
    median_parallax,
    median_residual,
)

STRIDES = (1, 2, 4)
"""Images from the first to the second of a pair."""

WRONG_DISTANCE, WRONG_SHARE, WRONG_DEG = 0.1, 0.25, 5.0
"""Metres, share of the true distance, degrees: a motion that errs by more is wrong."""


@dataclass(frozen=True)
class AskedPair:
    """A pair of images, the answers about it, and its true motion."""

    recording: str
    frames: tuple[BagFrame, BagFrame]
    pose: RelativePose
    matches: Matches
    backward: RelativePose
    depth1: NDArray[np.float32]
    T_cam1_cam2: Transform
    uncertainty: AnswerUncertainty

    @property
    def cameras(self) -> CameraPair:
        """The cameras of both images."""
        return self.frames[0].camera, self.frames[1].camera


@dataclass(frozen=True)
class Checked:
    """A motion, whether it is wrong, and the statistic of each check; NaN if it cannot be made."""

    recording: str
    is_wrong: bool
    is_own: bool
    statistics: dict[str, float]


def main() -> None:
    """Ask about the pairs, check their motions, print the table and draw the curves."""
    options = _options()
    rng = np.random.default_rng(0)
    checked = [one for pair in asked_pairs(options) for one in checks_of(pair, rng)]
    _print_table(checked)
    if options.out:
        _draw(checked, options.out)


def checks_of(asked: AskedPair, rng: np.random.Generator) -> Iterator[Checked]:
    """Check the answered motion, and the true motion with errors like the authors'."""
    truth = asked.T_cam1_cam2
    first, second = (checked_features(frame.image, frame.visible) for frame in asked.frames)
    noisy = _perturbed(truth, rng)
    motions = [noisy]
    if asked.pose.has_motion:
        motions.append(asked.pose.T_cam1_cam2)
    for motion in motions:
        wrong = motion is not noisy and is_wrong(motion, truth)
        yield Checked(
            asked.recording, wrong, motion is not noisy, _statistics(asked, motion, (first, second))
        )


def _perturbed(truth: Transform, rng: np.random.Generator) -> Transform:
    """Give a motion the errors of the authors' checkpoints that do not make it wrong."""
    covariance = answered_covariance(truth, math.nan, AnswerUncertainty())
    while True:
        motion = perturbed(truth, rng.multivariate_normal(np.zeros(6), covariance))
        if not is_wrong(motion, truth):
            return motion


def is_wrong(motion: Transform, truth: Transform) -> bool:
    """Whether a motion errs too much to be used."""
    error = motion_error(motion, truth)
    allowed = WRONG_DISTANCE + WRONG_SHARE * float(np.linalg.norm(truth[:3, 3]))
    return bool(
        np.linalg.norm(error[:3]) > allowed or np.linalg.norm(error[3:]) > math.radians(WRONG_DEG)
    )


def _statistics(
    asked: AskedPair,
    motion: Transform,
    features: tuple[Features, Features],
) -> dict[str, float]:
    """Return what each check compares with its limit, in multiples of its limit."""
    uncertainty, cameras, matches = asked.uncertainty, asked.cameras, asked.matches
    covariance = answered_covariance(motion, asked.pose.distance_std, uncertainty)
    values = {
        "matches: epipolar lines": median_residual(motion, matches, cameras)
        / math.radians(EPIPOLAR_LIMIT * uncertainty.match_deg),
        "matches: reversed": -median_parallax(motion, matches, cameras)
        / math.radians(REVERSED_LIMIT * uncertainty.rotation_deg),
        "matches and depth": _depth_gap(asked, motion, covariance) / DISAGREEMENT,
        "backward": math.nan,
        "image features: rotation": math.nan,
        "image features: epipolar lines": math.nan,
        "image features: reversed": math.nan,
    }
    if asked.backward.has_motion:
        back = asked.backward.T_cam1_cam2
        noise = inverse_covariance(
            answered_covariance(back, asked.backward.distance_std, uncertainty), back
        )
        gap = motion_error(motion, inverse(back))
        values["backward"] = _mahalanobis(gap, covariance + noise) / DISAGREEMENT
    evidence = feature_evidence(motion, features, cameras)
    if evidence is not None:
        values["image features: rotation"] = evidence.rotation_deg / evidence.rotation_limit_deg
        values["image features: epipolar lines"] = evidence.residual_deg / RESIDUAL_LIMIT_DEG
        values["image features: reversed"] = evidence.behind_deg / evidence.behind_limit_deg
    both = _largest(values, "matches: epipolar lines", "matches: reversed")
    seen = _largest(values, *(name for name in values if name.startswith("image features")))
    values["image features (`check_features`)"] = seen
    values["image features, else matches (default)"] = both if evidence is None else seen
    values["image features and matches"] = float(np.nanmax([seen, both]))
    return values


def _largest(values: dict[str, float], *names: str) -> float:
    """The largest of some statistics; NaN if one is NaN."""
    return float(np.max([values[name] for name in names]))


def _depth_gap(asked: AskedPair, motion: Transform, covariance: Covariance) -> float:
    """Squared Mahalanobis distance to the motion from matches and depth; NaN if there is none."""
    matches, cameras = asked.matches, asked.cameras
    inlier = math.radians(INLIER * asked.uncertainty.match_deg)
    observed = (cameras[0], matches.pixels1, asked.depth1, cameras[1], matches.pixels2)
    geometric = metric_motion_from_matches(*observed, inlier)
    noise = None if geometric is None else metric_motion_covariance(geometric, *observed)
    if geometric is None or noise is None:
        return math.nan
    place = geometric.T_cam1_cam2[:3, 3]
    noise[:3, :3] += DEPTH_SCALE_STD**2 * np.outer(place, place)
    return _mahalanobis(motion_error(motion, geometric.T_cam1_cam2), covariance + noise)


def _mahalanobis(gap: NDArray[np.float64], covariance: Covariance) -> float:
    """The larger one of displacement and rotation, squared."""
    parts = (slice(0, 3), slice(3, 6))
    return max(float(gap[p] @ np.linalg.solve(covariance[p, p], gap[p])) for p in parts)


def rates(checked: Sequence[Checked], check: str, limit: float) -> tuple[float, float]:
    """Return the shares of wrong motions that are accepted and of right ones that are refused."""
    refused = np.array([one.statistics[check] > limit for one in checked])
    wrong = np.array([one.is_wrong for one in checked])
    return float((~refused[wrong]).mean()), float(refused[~wrong].mean())


def _limit_for(checked: Sequence[Checked], check: str, refused: float) -> float:
    """Return the smallest limit that refuses at most this share of right motions."""
    right = [one.statistics[check] for one in checked if not one.is_wrong]
    return float(np.quantile(np.nan_to_num(right, nan=-np.inf), 1 - refused, method="higher"))


def _print_table(checked: Sequence[Checked]) -> None:
    for name in [*dict.fromkeys(one.recording for one in checked), "all"]:
        of_name = [one for one in checked if name in ("all", one.recording)]
        own = [one for one in of_name if one.is_own]
        wrong = sum(one.is_wrong for one in of_name)
        right = f"{len(of_name) - wrong} right motions, {len(own) - wrong} of them the model's"
        print(f"\n{name}: {right}; {wrong} wrong ones\n")
        print(
            "| check | accepts of wrong | refuses of right | of the model's right "
            "| accepts of wrong if it refuses 5 % of right |"
        )
        print("|---|---|---|---|---|")
        for check in of_name[0].statistics:
            accepted, refused = rates(of_name, check, 1.0)
            there, _ = rates(of_name, check, _limit_for(of_name, check, 0.05))
            of_own = rates(own, check, 1.0)[1]
            print(f"| {check} | {accepted:.0%} | {refused:.0%} | {of_own:.0%} | {there:.0%} |")


def _draw(checked: Sequence[Checked], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for check in checked[0].statistics:
        known = [one.statistics[check] for one in checked if np.isfinite(one.statistics[check])]
        limits = np.quantile(known, np.linspace(0, 1, 200))
        curve = np.array([rates(checked, check, limit) for limit in limits])
        (line,) = axes.plot(100 * curve[:, 1], 100 * curve[:, 0], label=check)
        accepted, refused = rates(checked, check, 1.0)
        axes.plot(100 * refused, 100 * accepted, "o", color=line.get_color())
    axes.plot([0, 100], [100, 0], ":", color="grey", label="a coin")
    axes.set_xlabel("right motions that are refused, %")
    axes.set_ylabel("wrong motions that are accepted, %")
    axes.set_title("Dots: the limits of the node")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recordings", nargs="+", type=Path, help="bags or RGB-D folders with poses")
    parser.add_argument("--answers", type=Path, required=True, help="folder for the answers")
    parser.add_argument("--rate", type=float, default=5.0, help="frames per second of a recording")
    parser.add_argument("--model", default=str(default_model("pose")), help="checkpoint for pairs")
    parser.add_argument("--depth-model", default=str(default_model()), help="checkpoint for depth")
    parser.add_argument("--out", type=Path, help="picture of the curves, PNG")
    return parser.parse_args()


def asked_pairs(options: argparse.Namespace) -> Iterator[AskedPair]:
    """Yield the pairs of all recordings with their answers."""
    options.answers.mkdir(parents=True, exist_ok=True)
    for recording in options.recordings:
        name = recording.resolve().name
        with ExitStack() as stack:
            files = [options.answers / f"{name}-{task}.jsonl" for task in ("pairs", "depth")]
            models = (options.model, options.depth_model)
            engines = [_engine(f, model) for f, model in zip(files, models, strict=True)]
            for engine in engines:
                stack.callback(engine.close)
            bag = recording
            if (recording / "intrinsics.json").exists():
                bag = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "bag"
                bag_from_rgbd(recording, bag)
            source = stack.enter_context(bag_source(bag))
            frames = list(at_rate(source.frames, options.rate))
            poses = source.poses.base.at([frame.stamp_ns for frame in frames])
            places = [T @ source.T_base_camera for T in poses]
            for stride in STRIDES:
                for i in range(0, len(frames) - stride, stride):
                    pair = (frames[i], frames[i + stride])
                    motion = inverse(places[i]) @ places[i + stride]
                    if np.isfinite(motion).all():
                        yield _asked(name, pair, motion, *engines)


def _engine(file: Path, model: str) -> Engine:
    """Answer from the file if it is complete, else from the model into the file."""
    if file.exists():
        return RecordedEngine(file)
    return RecordingEngine(load_engine(EngineSettings(model, offline=True)), file)


def _asked(
    name: str, frames: tuple[BagFrame, BagFrame], motion: Transform, engine: Engine, depth: Engine
) -> AskedPair:
    images = frames[0].image, frames[1].image
    cameras = frames[0].camera, frames[1].camera
    pixels = uniform_grid(cameras[0], OdometrySettings.match_columns, OdometrySettings.match_rows)
    pose, matches = ask_pair(engine, images, cameras, pixels)
    back = ask_pose(engine, images[::-1], cameras[::-1])
    depth1 = ask_depth(depth, images[0], cameras[0], pixels).depth
    uncertainty = assumed_uncertainty(engine, engine)
    return AskedPair(name, frames, pose, matches, back, depth1, motion, uncertainty)


if __name__ == "__main__":
    main()
