# SPDX-License-Identifier: Apache-2.0
"""`vlm3 ask` about two photos: the motion of the camera, and matches of pixels."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.cli.camera_options import given_cameras
from vlm3_ros.cli.model_options import loaded_engines
from vlm3_ros.cli.photos import Shot, read_shot
from vlm3_ros.engines.base import AnswerUncertainty, Engine
from vlm3_ros.errors import CommandError, NoAnswersError
from vlm3_ros.paths import Task

if TYPE_CHECKING:
    from vlm3_ros.tasks.correspondence import Matches
    from vlm3_ros.tasks.pose import RelativePose
    from vlm3_ros.tasks.reading import Missing


def ask_about_pair(options: argparse.Namespace) -> int:
    """Ask for the pose, matches, or both; return the exit status."""
    from vlm3_ros.evaluation.scores.pairs import match_counts, pose_counts
    from vlm3_ros.evaluation.tolerance import TolerantEngine, wrapped

    if options.second is None:
        raise CommandError("--pose and --match need a second photo")
    if options.focal is not None:
        raise CommandError(
            "--focal is for depth only: pairs are asked at the model's own focal length"
        )
    if options.out is not None and options.out.suffix.lower() != ".png":
        raise CommandError(f"--out {options.out}: the result is a picture: name a .png file")
    first, second = given_cameras(options, 2)
    shots = read_shot(options.photo, first), read_shot(options.second, second)
    pixels = shots[0].rectified_pixels(options.match or [])
    asked: dict[Task, bool] = {"pose": options.pose, "correspondence": bool(options.match)}
    tasks = [task for task, is_asked in asked.items() if is_asked]
    with loaded_engines(options, *tasks) as engines:
        pose, matches = _answers(wrapped(engines, TolerantEngine), shots, pixels)
    if pose is not None:
        print(pose_text(pose, engines["pose"].profile.uncertainty))
    if matches is not None:
        matched = shots[1].photo_pixels(matches.pixels2)
        for line in match_lines(options.match, matched, matches.texts, matches.missing):
            print(line)
    has_match = matches is not None and matches.failures < len(matches.texts)
    if not has_match and not (pose is not None and pose.has_motion):
        raise NoAnswersError((pose_counts(pose) + match_counts(matches)).complaint())
    if options.out is not None:
        _draw(options, shots, pose, matches)
    return 0


def pose_text(pose: RelativePose, uncertainty: AnswerUncertainty | None = None) -> str:
    """Format the answers and their motion, in words and as a matrix.

    Args:
        pose: as answered.
        uncertainty: of the model; None for that of the authors' checkpoints.
    """
    from vlm3_ros.evaluation.pictures.pair import motion_words
    from vlm3_ros.tasks.verification import AUTHORS_UNCERTAINTY, angle_contradiction

    lines = [f"{part}: {text!r}" for part, text in pose.texts_by_part.items()]
    if not pose.has_motion:
        return "\n".join([*lines, *(f"no motion: {failure}" for failure in pose.failures)])
    lines += [f"not read: {failure}" for failure in pose.failures]
    contradiction = angle_contradiction(pose, uncertainty or AUTHORS_UNCERTAINTY)
    if contradiction is not None:
        lines.append(f"doubtful: {contradiction}")
    elif np.isfinite(pose.angle_deg):
        lines.append(
            f"the rotation angle of {pose.angle_deg:.1f}° agrees with yaw, pitch and roll "
            f"({pose.rotation_deg:.1f}°)"
        )
    T = pose.T_cam1_cam2
    spread = "" if np.isnan(pose.distance_std) else f", distance ± {pose.distance_std:.2f} m"
    x, y, z = T[:3, 3]
    rows = np.array2string(T, precision=4, suppress_small=True, sign=" ", prefix="  ")
    return "\n".join(
        [
            *lines,
            f"the camera moved {motion_words(T)}{spread}",
            f"second camera at ({x:.3f}, {y:.3f}, {z:.3f}) m in the first optical frame (x right, "
            "y down, z forward)",
            f"T_cam1_cam2 =\n  {rows}",
        ]
    )


def match_lines(
    asked: list[list[float]],
    matched: NDArray[np.float64],
    texts: tuple[str, ...],
    missing: tuple[Missing | None, ...],
) -> list[str]:
    """Format the match of each pixel, and the raw answer.

    Args:
        asked: (u, v) in the first photo.
        matched: (u, v) in the second photo, shape (n, 2), NaN if unanswered.
        texts: the raw answers.
        missing: why a pixel has no match, None if it has one.
    """
    lines = []
    for (u, v), (x, y), text, reason in zip(asked, matched, texts, missing, strict=True):
        where = (
            f"no match: {reason}"
            if reason is not None
            else f"({x:.1f}, {y:.1f}) in the second photo, answer {text!r}"
        )
        lines.append(f"pixel ({u:g}, {v:g}): {where}")
    return lines


def _answers(
    engines: Mapping[str, Engine], shots: tuple[Shot, Shot], pixels: NDArray[np.float64]
) -> tuple[RelativePose | None, Matches | None]:
    """Ask for the pose, the matches, or both, in one pass if one model answers both."""
    from vlm3_ros.tasks.correspondence import CORRESPONDENCE, ask_matches
    from vlm3_ros.tasks.learned import check_not_swapped
    from vlm3_ros.tasks.pose import POSE, ask_pose
    from vlm3_ros.tasks.two_view import ask_pair

    first, second = shots
    images, cameras = (first.image, second.image), (first.camera, second.camera)
    engine, match_engine = engines.get(POSE.name), engines.get(CORRESPONDENCE.name)
    if engine is None:
        assert match_engine is not None
        return None, ask_matches(match_engine, images, cameras, pixels)
    if match_engine is None:
        return ask_pose(engine, images, cameras), None
    check_not_swapped((engine, POSE), (match_engine, CORRESPONDENCE))
    return ask_pair(engine, images, cameras, pixels, match_engine)


def _draw(
    options: argparse.Namespace,
    shots: tuple[Shot, Shot],
    pose: RelativePose | None,
    matches: Matches | None,
) -> None:
    from vlm3_ros.evaluation.pictures.pair import PairFrame, draw_pair_frames

    nothing = np.empty((0, 2))
    frame = PairFrame(
        title="",
        images=(shots[0].image, shots[1].image),
        pixels1=nothing if matches is None else matches.pixels1,
        pixels2=nothing if matches is None else matches.pixels2,
        pixels2_true=None,
        motion=None if pose is None else pose.T_cam1_cam2,
        motion_true=None,
    )
    out: Path = options.out
    out.parent.mkdir(parents=True, exist_ok=True)
    draw_pair_frames([frame], out, f"{options.photo.name}, {options.second.name}")
    print(f"wrote {out}")
