# SPDX-License-Identifier: Apache-2.0
"""Figure: all tasks in one picture, as figure 3 of the paper: clouds, matches, motion, objects."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vlm3_lab.scenes import KINDS
from vlm3_lab.studies.tasks.depth import evaluation_view
from vlm3_lab.studies.tasks.objects import evaluate_objects, object_frame
from vlm3_lab.studies.tasks.pairs import evaluate_pairs, pair_frame
from vlm3_ros.engines.base import Engine
from vlm3_ros.errors import BagError
from vlm3_ros.evaluation.bag.evaluate import BagSource
from vlm3_ros.evaluation.bag.frames import BagFrame
from vlm3_ros.evaluation.bag.output import evenly
from vlm3_ros.evaluation.bag.truth import true_matches, true_motions
from vlm3_ros.evaluation.metrics.depth import abs_rel, within_delta
from vlm3_ros.evaluation.pictures.cloud import CloudFrame, draw_clouds
from vlm3_ros.evaluation.pictures.object import ObjectFrame, draw_object_frames
from vlm3_ros.evaluation.pictures.pair import PairFrame, draw_pair_frames
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.tasks.correspondence import CORRESPONDENCE
from vlm3_ros.tasks.dense import densify
from vlm3_ros.tasks.depth import DEPTH, ask_depth, uniform_grid
from vlm3_ros.tasks.learned import has_learned
from vlm3_ros.tasks.objects import OBJECTS
from vlm3_ros.tasks.pose import POSE
from vlm3_ros.tasks.two_view import ask_pair

GRID = (32, 24)
"""Columns and rows of the pixels to ask for depth."""

MATCH_GRID = (4, 3)
"""Columns and rows of the pixels to ask for a match."""

PAIR_SECONDS = 0.5
"""Least time between the two images of a bag that make a pair."""

_QUESTIONS, _MATCHES = 10, 10
_SHOWN_WIDTH = 480  # px; larger images are shrunk to it
_SPACE = 24  # px between sections


def draw_figure(
    path: Path | str,
    clouds: Sequence[CloudFrame],
    pairs: Sequence[PairFrame],
    objects: Sequence[ObjectFrame],
) -> None:
    """Draw the sections that have frames, one below the other, as a PNG.

    Args:
        path: of the PNG.
        clouds: for metric depth.
        pairs: for correspondence and camera pose.
        objects: for object-level understanding.
    """
    from PIL import Image

    drawn: list[Image.Image] = []

    def add(draw: Callable[..., None], frames: Sequence[object], title: str) -> None:
        if frames:
            content = io.BytesIO()
            draw(frames, content, title)
            drawn.append(Image.open(content).convert("RGB"))

    add(draw_clouds, clouds, "Metric depth")
    add(draw_pair_frames, pairs, "Pixel correspondence and camera pose")
    add(draw_object_frames, objects, "Objects")
    width = max(section.width for section in drawn)
    height = sum(section.height for section in drawn) + _SPACE * (len(drawn) - 1)
    page = Image.new("RGB", (width, height), "white")
    top = 0
    for section in drawn:
        page.paste(section, (0, top))
        top += section.height + _SPACE
    page.save(path)


def cloud_frame(
    engine: Engine,
    name: str,
    image: NDArray[np.uint8],
    camera: PinholeCamera,
    truth: NDArray[np.floating[Any]] | None = None,
    view_focal: float | None = None,
) -> CloudFrame:
    """Ask for the depth of a grid of pixels, and interpolate it.

    Args:
        engine: answers about depth.
        name: title of the row; scores follow it if the truth is known.
        image: rectified RGB, shape (camera.height, camera.width, 3), uint8.
        camera: its intrinsics.
        truth: metres, same height and width, not finite where unknown or in the sky.
        view_focal: as in `ask_depth`.

    Raises:
        GeometryError, EngineError: as `ask_depth`.
    """
    pixels = uniform_grid(camera, *GRID)
    answers = ask_depth(engine, image, camera, pixels, view_focal)
    title = name
    if truth is not None:
        u, v = np.rint(pixels).astype(int).T
        true = truth[v, u]
        known = np.isfinite(true) & (true > 0)
        delta1 = within_delta(answers.depth[known], true[known]).mean() if known.any() else np.nan
        title += f"\nδ1 {delta1:.2f}, AbsRel {abs_rel(answers.depth[known], true[known]):.2f}"
    scale = min(1.0, _SHOWN_WIDTH / camera.width)
    shown = camera.resized(round(camera.width * scale), max(1, round(camera.height * scale)))
    size = (shown.width, shown.height)
    image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    dense = densify(image, (pixels + 0.5) * scale - 0.5, answers.depth)
    if truth is not None:
        truth = np.asarray(cv2.resize(truth, size, interpolation=cv2.INTER_NEAREST), float)
        dense = np.where(np.isfinite(truth), dense, np.nan)  # nothing to show in the sky
    return CloudFrame(title, image, shown, dense, truth)


def synthetic_figure(
    engines: Mapping[str, Engine], seed: int, rows: int, view_focal: float | None = None
) -> tuple[list[CloudFrame], list[PairFrame], list[ObjectFrame]]:
    """Ask about the first procedural views of an evaluation seed, evenly over the kinds of scene.

    Args:
        engines: by the name of their task; pairs and objects are skipped if they were not learned.
        seed: of the evaluation.
        rows: in each section, at most one per kind of scene.
        view_focal: as in `ask_depth`.

    Returns:
        The sections for `draw_figure`.
    """
    shown = np.unique(np.linspace(0, len(KINDS) - 1, rows).astype(int)).tolist()
    count = shown[-1] + 1
    clouds = []
    for index in shown:
        view, _ = evaluation_view(seed, index)
        name = f"{view.kind} {index}"
        clouds.append(
            cloud_frame(engines[DEPTH.name], name, view.image, view.camera, view.depth, view_focal)
        )
    pairs, objects = [], []
    if has_learned_pairs(engines):
        match_engine = engines[CORRESPONDENCE.name]
        scored = evaluate_pairs(engines[POSE.name], count, seed, match_engine=match_engine).pairs
        pairs = [pair_frame(seed, f"seed {seed}", scored[index]) for index in shown]
    if has_learned(engines[OBJECTS.name], OBJECTS):
        views = evaluate_objects(engines[OBJECTS.name], count, seed, _QUESTIONS).overall.views
        objects = [object_frame(seed, f"seed {seed}", views[index]) for index in shown]
    return clouds, pairs, objects


def has_learned_pairs(engines: Mapping[str, Engine]) -> bool:
    """Whether motions and matches were learned."""
    return all(has_learned(engines[task.name], task) for task in (POSE, CORRESPONDENCE))


def bag_figure(
    engines: Mapping[str, Engine],
    source: BagSource,
    rows: int,
    view_focal: float | None = None,
) -> tuple[list[CloudFrame], list[PairFrame]]:
    """Ask about frames of a bag, evenly over time, and about pairs `PAIR_SECONDS` apart.

    Args:
        engines: by the name of their task; pairs are skipped if they were not learned.
        source: the bag.
        rows: in each section.
        view_focal: as in `ask_depth`.

    Returns:
        The first two sections for `draw_figure`.

    Raises:
        BagError: if none of its images can be used.
    """
    stamps = sorted(frame.stamp_ns for frame in source.frames)
    if not stamps:
        reasons = "; ".join([*source.frames.failed, *source.frames.damage])
        raise BagError(f"{source.path}: none of its images can be used: {reasons}")
    # One more is chosen and dropped: the last frame has no later one.
    first = list(evenly(stamps, rows + 1))[:rows] or stamps[:1]
    second = [next((s for s in stamps if s - t >= PAIR_SECONDS * 1e9), stamps[-1]) for t in first]
    frames = {frame.stamp_ns: frame for frame in source.frames.at({*first, *second})}
    clouds, pairs = [], []
    for one, other in zip(first, second, strict=True):
        frame = frames[one]
        seconds = (one - stamps[0]) / 1e9
        clouds.append(
            cloud_frame(
                engines[DEPTH.name],
                f"{seconds:.1f} s",
                frame.image,
                frame.camera,
                frame.depth,
                view_focal,
            )
        )
        if one != other and has_learned_pairs(engines):
            title = f"{seconds:.1f} s and {(other - one) / 1e9:.1f} s later"
            pairs.append(_bag_pair(engines, title, frame, frames[other], source))
    return clouds, pairs


def asked_pair(
    engines: Mapping[str, Engine],
    title: str,
    images: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    cameras: tuple[PinholeCamera, PinholeCamera],
    pixels: NDArray[np.float64] | None = None,
) -> PairFrame:
    """Ask for the motion and for matches; the truth stays unknown.

    Args:
        engines: by the name of their task.
        title: of the frame.
        images: RGB, uint8.
        cameras: of the images.
        pixels: (u, v) in the first image, shape (n, 2), to ask for matches; None for `MATCH_GRID`.

    Raises:
        GeometryError, EngineError: as `ask_pair`.
    """
    if pixels is None:
        pixels = uniform_grid(cameras[0], *MATCH_GRID)
    pose, matches = ask_pair(
        engines[POSE.name], images, cameras, pixels, engines[CORRESPONDENCE.name]
    )
    return PairFrame(title, images, pixels, matches.pixels2, None, pose.T_cam1_cam2, None)


def _bag_pair(
    engines: Mapping[str, Engine], title: str, first: BagFrame, second: BagFrame, source: BagSource
) -> PairFrame:
    images, cameras = (first.image, second.image), (first.camera, second.camera)
    if source.poses is None:
        return asked_pair(engines, title, images, cameras)
    T_cam1_cam2 = true_motions(source.poses, [(first.stamp_ns, second.stamp_ns)])[0]
    if not np.isfinite(T_cam1_cam2).all():
        return asked_pair(engines, title, images, cameras)
    if first.depth is None or second.depth is None:
        return replace(asked_pair(engines, title, images, cameras), motion_true=T_cam1_cam2)
    pixels = uniform_grid(first.camera, *(2 * side for side in MATCH_GRID))
    true = true_matches(first, second, T_cam1_cam2, pixels)
    known = np.flatnonzero(np.isfinite(true).all(axis=1))
    chosen = known[np.linspace(0, len(known) - 1, min(len(known), _MATCHES)).astype(int)]
    asked = asked_pair(engines, title, images, cameras, pixels[chosen])
    return replace(asked, motion_true=T_cam1_cam2, pixels2_true=true[chosen])
