# SPDX-License-Identifier: Apache-2.0
"""Depth at labelled pixels, in the format of DepthLM's data sets.

A text file of JSON lines, one per image:

- `image`: its file, relative to a folder.
- `intrinsics`: [fx, fy, cx, cy, width, height], pixels; the size may be left out. A focal length of
  0 is replaced by the other one.
- `pixel_coords`: [[x, y], ...], column and row from 0; [-1, -1] for none.
- `depth`: [...], metres, one per pixel. It is taken for depth along Z, which iBims-1 has. For some
  data sets DepthLM's own tools write the distance from the camera (NYUv2, SUN RGB-D, ETH3D,
  ScanNet++, Matterport3D), which is larger away from the centre.

Source: https://github.com/facebookresearch/DepthLM_Official (utils/datasets.py).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from vlm3_ros.datasets.files import read_image
from vlm3_ros.datasets.source import Contents, FrameSource
from vlm3_ros.datasets.views import Labels, View
from vlm3_ros.errors import DatasetError
from vlm3_ros.geometry.camera import GeometryError, PinholeCamera


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


class DepthLmFile(FrameSource):
    """A file in DepthLM's format. `lines`: its images."""

    def __init__(self, name: str, lines: Sequence[LabelledImage]):
        self.name, self.notes, self.lines = name, [], lines
        nothing = np.zeros(len(lines), bool)
        has_depth = np.array([bool(len(line.depth)) for line in lines])
        self.contents = Contents(has_depth, nothing, nothing, nothing)

    @override
    def frame_name(self, index: int) -> str:
        return self.lines[index].source

    @override
    def read(self, index: int) -> View:
        line = self.lines[index]
        image = _read_image(line)
        height, width = image.shape[:2]
        try:
            camera = PinholeCamera(width, height, *line.intrinsics)
        except GeometryError as error:
            raise DatasetError(f"{line.source}: {error}") from error
        depth = np.full((height, width), np.nan, np.float32)
        columns, rows = np.rint(line.pixels).astype(int).clip(0, (width - 1, height - 1)).T
        depth[rows, columns] = line.depth
        nowhere = np.full((4, 4), np.nan)
        return View(image, depth, camera, nowhere, "", labels=Labels(line.pixels, line.depth))


def read_depthlm(path: Path, images: Path | None = None) -> DepthLmFile:
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
    return DepthLmFile(str(path), found)


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
    try:
        image = read_image(labelled.image)
        _check_inside(labelled.pixels, image.shape[1], image.shape[0])
    except DatasetError as error:
        raise DatasetError(f"{labelled.source}: {error}") from error
    except ValueError as error:
        raise DatasetError(f"{labelled.source}: {labelled.image}: {error}") from error
    return image


def _check_inside(pixels: NDArray[np.float64], width: float, height: float) -> None:
    for u, v in pixels:
        if not (-0.5 <= u < width - 0.5 and -0.5 <= v < height - 0.5):
            raise ValueError(f"pixel [{u:g}, {v:g}] lies outside of {width:g}x{height:g} px")
