# SPDX-License-Identifier: Apache-2.0
"""DepthLM's evaluation of metric depth: its data format and its protocol.

A data set is a text file of JSON lines, one per image:

- `image`: its file, relative to a folder.
- `intrinsics`: [fx, fy, cx, cy, width, height], pixels; the size may be left out. A focal length of
  0 is replaced by the other one.
- `pixel_coords`: [[x, y], ...], column and row from 0; [-1, -1] for none.
- `depth`: [...], metres, one per pixel. It is compared with depth along Z, which iBims-1 has. For
  some data sets DepthLM's own tools write the distance from the camera (NYUv2, SUN RGB-D, ETH3D,
  ScanNet++, Matterport3D), which is larger away from the centre.

Protocol: the image enters at the unified focal length, one pixel per question, greedy answers,
delta1 pooled over all pixels, unanswered ones wrong. DepthLM's script differs in two ways: it
points with a red arrow at one random pixel each time, until 128 are asked, and it leaves out
pixels at the border where no arrow fits; here all pixels are asked, in text. Source:
https://github.com/facebookresearch/DepthLM_Official (eval.py, utils/datasets.py, utils/metrics.py).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.engines.base import Engine
from vlm3_ros.errors import Vlm3Error
from vlm3_ros.evaluation.answer_counts import check_answered, total
from vlm3_ros.evaluation.result import Result
from vlm3_ros.evaluation.scores.base import Progress, TaskScores, no_progress, score_samples
from vlm3_ros.evaluation.scores.depth import (
    DepthSample,
    DepthScores,
    ScoredView,
    depth_scores,
    score_depth,
)
from vlm3_ros.evaluation.tolerance import TolerantEngine
from vlm3_ros.geometry.camera import GeometryError, PinholeCamera


class DatasetError(Vlm3Error):
    """A data set cannot be read; the message names the file and the line."""


@dataclass(frozen=True)
class LabelledImage:
    """A line of a data set.

    `source`: the file and the line, for messages. `image`: its file. `intrinsics`: fx, fy, cx and
    cy in px. `pixels`: (u, v), shape (n, 2). `depth`: metres, shape (n,).
    """

    source: str
    image: Path
    intrinsics: tuple[float, float, float, float]
    pixels: NDArray[np.float64]
    depth: NDArray[np.float64]


def read_dataset(path: Path, images: Path | None = None) -> list[LabelledImage]:
    """Read and check all lines of a data set.

    Args:
        path: the file of JSON lines.
        images: folder of the images; None for the folder of the file.

    Raises:
        DatasetError: naming the broken line and the reason, or if there is no line.
    """
    folder = path.parent if images is None else images
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: cannot be read as text: {error}") from error
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        source = f"{path}:{number}"
        try:
            found.append(_parse(json.loads(line), source, folder))
        except (ValueError, TypeError) as error:
            raise DatasetError(f"{source}: {error}") from error
    if not found:
        raise DatasetError(f"{path}: the file is empty")
    if not any(len(image.depth) for image in found):
        raise DatasetError(f"{path}: no line has a pixel")
    return found


def evaluate_dataset(
    engine: Engine,
    dataset: Sequence[LabelledImage],
    progress: Progress = no_progress,
    view_focal: float | None = None,
) -> DepthScores:
    """Ask for the depth of all pixels of all images, and score the answers.

    The protocol wants greedy answers: load the engine with `force_answers` off, otherwise the
    medians of its distributions are scored.

    Args:
        engine: answers.
        dataset: at least one pixel in all.
        progress: takes the number of images done, and of all.
        view_focal: focal length at which images enter the model, px; None for the checkpoint's.

    Raises:
        DatasetError: naming the line whose image cannot be read, does not hold its pixels, or
            does not fit its calibration.
        NoAnswersError: if too few questions were answered, see `AnswerCounts.is_void`.
    """
    engine = TolerantEngine(engine)

    def score(numbered: tuple[int, LabelledImage]) -> ScoredView:
        index, labelled = numbered
        try:
            return score_depth(engine, read_sample(index, labelled), view_focal)
        except GeometryError as error:
            raise DatasetError(f"{labelled.source}: {error}") from error

    views = score_samples(enumerate(dataset), len(dataset), score, progress)
    check_answered({"depth": total(view.answers for view in views)})
    return depth_scores(views)


def dataset_result(name: str, data: str, scores: DepthScores) -> Result:
    """Return the result of an evaluation.

    Args:
        name: of the checkpoint.
        data: name of the data set.
        scores: of `evaluate_dataset`.
    """
    return Result(
        models={"model": name},
        title=f"{name} on {data} by DepthLM's protocol",
        source={"kind": "jsonl", "name": data, "protocol": "DepthLM"},
        scores={"depth": TaskScores(scores)},
        answers={"depth": scores.answers},
    )


def read_sample(index: int, labelled: LabelledImage) -> DepthSample:
    """Read the image of a line.

    Raises:
        DatasetError: naming the line, if its image cannot be read or does not hold its pixels.
        GeometryError: if the intrinsics are those of no camera.
    """
    image = _read_image(labelled)
    height, width = image.shape[:2]
    camera = PinholeCamera(width, height, *labelled.intrinsics)
    return DepthSample(index, "", image, camera, labelled.pixels, labelled.depth)


def _parse(entry: Any, source: str, folder: Path) -> LabelledImage:
    if not isinstance(entry, dict):
        raise ValueError("not a JSON object")
    if missing := {"image", "intrinsics", "pixel_coords", "depth"} - set(entry):
        raise ValueError(f"missing {', '.join(sorted(missing))}")
    if not isinstance(entry["image"], str):
        raise ValueError("image is not a string")
    image = folder / entry["image"].lstrip("/")
    if not image.is_file():
        raise ValueError(f"no such image: {image}")
    intrinsics = np.array(entry["intrinsics"], dtype=float)
    if intrinsics.shape not in ((4,), (6,)) or not np.isfinite(intrinsics).all():
        raise ValueError("intrinsics are not [fx, fy, cx, cy, width, height]")
    fx, fy, cx, cy = intrinsics[:4].tolist()
    pixels = np.array(entry["pixel_coords"], dtype=float).reshape(-1, 2)
    depth = np.array(entry["depth"], dtype=float)
    if depth.shape != (len(pixels),):
        raise ValueError(f"{depth.size} depths for {len(pixels)} pixels")
    known = (pixels != -1).any(axis=1)
    pixels, depth = pixels[known], depth[known]
    if not (np.isfinite(depth) & (depth > 0)).all():
        raise ValueError("a depth is not finite and positive")
    if len(intrinsics) == 6:
        _check_inside(pixels, *intrinsics[4:].tolist())
    return LabelledImage(source, image, (fx or fy, fy or fx, cx, cy), pixels, depth)


def _read_image(labelled: LabelledImage) -> NDArray[np.uint8]:
    from PIL import Image

    try:
        with Image.open(labelled.image) as picture:
            image = np.array(picture.convert("RGB"))
    except Exception as error:  # decoders raise anything on broken files
        raise DatasetError(f"{labelled.source}: {labelled.image}: {error}") from error
    try:
        _check_inside(labelled.pixels, image.shape[1], image.shape[0])
    except ValueError as error:
        raise DatasetError(f"{labelled.source}: {labelled.image}: {error}") from error
    return image


def _check_inside(pixels: NDArray[np.float64], width: float, height: float) -> None:
    for u, v in pixels:
        if not (-0.5 <= u < width - 0.5 and -0.5 <= v < height - 0.5):
            raise ValueError(f"pixel [{u:g}, {v:g}] lies outside of {width:g}x{height:g} px")
