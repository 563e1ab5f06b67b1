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

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from vlm3_ros.datasets.files import read_image
from vlm3_ros.datasets.json_entries import JsonEntries, open_entries
from vlm3_ros.datasets.source import Contents, FrameSource
from vlm3_ros.datasets.views import Labels, View
from vlm3_ros.errors import DatasetError
from vlm3_ros.geometry.camera import GeometryError, PinholeCamera


@dataclass(frozen=True)
class LabelledImage:
    """A line of a data set.

    `image`: its file. `intrinsics`: fx, fy, cx and
    cy in px. `pixels`: (u, v), shape (n, 2). `depth`: metres, shape (n,).
    """

    image: Path
    intrinsics: tuple[float, float, float, float]
    pixels: NDArray[np.float64]
    depth: NDArray[np.float64]


class DepthLmFile(FrameSource):
    """A file in DepthLM's format, whose lines are read one at a time: it may hold millions."""

    def __init__(self, entries: JsonEntries, folder: Path):
        self.name, self.notes = str(entries.path), []
        self._entries, self._folder = entries, folder
        nothing = np.zeros(len(entries), bool)
        self.contents = Contents(~nothing, nothing, nothing, nothing)

    @override
    def frame_name(self, index: int) -> str:
        return self._entries.name(index)

    @override
    def read(self, index: int) -> View:
        line = self.line(index)
        name = self.frame_name(index)
        try:
            image = read_image(line.image)
            height, width = image.shape[:2]
            _check_inside(line.pixels, width, height)
            camera = PinholeCamera(width, height, *line.intrinsics)
        except (DatasetError, GeometryError) as error:
            raise DatasetError(f"{name}: {error}") from error
        except ValueError as error:
            raise DatasetError(f"{name}: {line.image}: {error}") from error
        depth = np.full((height, width), np.nan, np.float32)
        columns, rows = np.rint(line.pixels).astype(int).clip(0, (width - 1, height - 1)).T
        depth[rows, columns] = line.depth
        nowhere = np.full((4, 4), np.nan)
        return View(image, depth, camera, nowhere, "", labels=Labels(line.pixels, line.depth))

    def line(self, index: int) -> LabelledImage:
        """Read a line, without its image.

        Raises:
            DatasetError: naming the line, if it is wrong.
        """
        entry = self._entries.read(index)
        try:
            return _parse(entry, self._folder)
        except (ValueError, TypeError) as error:
            raise DatasetError(f"{self.frame_name(index)}: {error}") from error


def read_depthlm(path: Path, images: Path | None = None) -> DepthLmFile:
    """Open a data set.

    Args:
        path: the file of JSON lines, or of one list.
        images: folder of the images; None for the folder of the file.

    Raises:
        DatasetError: if the file cannot be read or is empty, or its first line is wrong.
    """
    source = DepthLmFile(open_entries(path), path.parent if images is None else images)
    source.line(0)
    return source


def _parse(entry: dict[str, Any], folder: Path) -> LabelledImage:
    if missing := {"image", "intrinsics", "pixel_coords", "depth"} - set(entry):
        raise ValueError(f"missing {', '.join(sorted(missing))}")
    if not isinstance(entry["image"], str):
        raise ValueError("image is not a string")
    image = folder / entry["image"].lstrip("/")
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
    return LabelledImage(image, (fx or fy, fy or fx, cx, cy), pixels, depth)


def _check_inside(pixels: NDArray[np.float64], width: float, height: float) -> None:
    for u, v in pixels:
        if not (-0.5 <= u < width - 0.5 and -0.5 <= v < height - 0.5):
            raise ValueError(f"pixel [{u:g}, {v:g}] lies outside of {width:g}x{height:g} px")
