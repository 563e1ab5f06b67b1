# SPDX-License-Identifier: Apache-2.0
"""Cameras of photos that a data set gives no intrinsics for.

The user names a horizontal field of view, a calibration file, or a file of JSON lines with the
intrinsics of each image, in DepthLM's words:

    {"image": "0a1b.jpg", "intrinsics": [fx, fy, cx, cy, width, height]}

`image` is the path in the data set. Such a file is made once, for example by
`vlm3 intrinsics FOLDER`, and may hold millions of lines.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlm3_ros.engines.anycalib import Calibrator
from vlm3_ros.errors import DatasetError
from vlm3_ros.geometry.calibration_files import GivenCamera
from vlm3_ros.geometry.camera import GeometryError, PinholeCamera, check_field_of_view

LINES = ".jsonl"
"""Suffix of files with the intrinsics of each image."""

ADVICE = (
    "its camera is unknown: give a field of view (--hfov; in YAML hfov), or a calibration or a "
    ".jsonl of intrinsics (--camera-info; in YAML camera), or let the package anycalib estimate it "
    "(installed, or by `vlm3 intrinsics`)"
)


@dataclass(frozen=True)
class Intrinsics:
    """Intrinsics by the names of images: 32 bytes per image.

    `keys`: hashes of the names, sorted, shape (n,). `values`: fx, fy, cx, cy, width and height in
    px, shape (n, 6).
    """

    path: Path
    keys: NDArray[np.uint64]
    values: NDArray[np.float32]

    def camera(self, name: str) -> PinholeCamera | None:
        """Return the camera of an image; None if the file does not name it.

        Raises:
            GeometryError: if it is impossible.
        """
        key = _key(name)
        place = int(np.searchsorted(self.keys, key))
        if place == len(self.keys) or self.keys[place] != key:
            return None
        fx, fy, cx, cy, width, height = self.values[place].tolist()
        return PinholeCamera(round(width), round(height), fx, fy, cx, cy)


def read_intrinsics(path: Path) -> Intrinsics:
    """Read a file of JSON lines with intrinsics.

    Raises:
        DatasetError: naming the line that cannot be read.
    """
    keys, values = array("Q"), array("f")
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    content = json.loads(line)
                    numbers = [float(value) for value in content["intrinsics"]]
                    if len(numbers) != 6:
                        raise ValueError("intrinsics are not [fx, fy, cx, cy, width, height]")
                    keys.append(int(_key(content["image"])))
                    values.extend(numbers)
                except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
                    reason = f"it has no {error}" if isinstance(error, KeyError) else error
                    raise DatasetError(f"{path}:{number}: {reason}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: cannot be read as text: {error}") from error
    if not keys:
        raise DatasetError(f"{path}: no line has intrinsics")
    order = np.argsort(np.frombuffer(keys, np.uint64), kind="stable")
    table = np.frombuffer(values, np.float32).reshape(-1, 6)
    return Intrinsics(path, np.frombuffer(keys, np.uint64)[order], table[order])


def _key(name: str) -> np.uint64:
    digest = hashlib.blake2b(name.lstrip("/").encode(), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little"))


class PhotoCameras:
    """Cameras of the images of a data set: as the user says, as the data set says, or estimated.

    Args:
        given: by the user; for all images, or a file of JSON lines.
        calibrator: loads what estimates the cameras of images for which nothing else is known.

    Raises:
        DatasetError: if the file of JSON lines cannot be read.
    """

    def __init__(
        self,
        given: GivenCamera | None = None,
        calibrator: Callable[[], Calibrator] | None = None,
    ):
        is_table = given is not None and given.file is not None and given.file.endswith(LINES)
        self._given = None if is_table else given
        self._table = read_intrinsics(Path(str(given.file))) if given and is_table else None
        self._calibrator = cache(calibrator) if calibrator is not None else None
        self._estimated: dict[str, PinholeCamera] = {}  # an image may have many questions

    @property
    def knows_all(self) -> bool:
        """Whether no data set needs to say its cameras."""
        return bool(self._given or self._table or self._calibrator)

    def camera(
        self, name: str, image: NDArray[np.uint8], K: ArrayLike | None = None
    ) -> PinholeCamera:
        """Return the camera of an image.

        Args:
            name: path of the image in the data set.
            image: RGB, shape (height, width, 3), uint8.
            K: intrinsic matrix by the data set, shape (3, 3); None if it gives none.

        Raises:
            DatasetError: if it is unknown, impossible, for another size, or has distortion.
        """
        height, width = image.shape[:2]
        try:
            camera = self._camera(name, image, K)
            check_field_of_view(camera)
        except GeometryError as error:
            raise DatasetError(f"{name}: {error}") from error
        if (camera.width, camera.height) != (width, height):
            raise DatasetError(
                f"{name}: its intrinsics are for {camera.width}x{camera.height} px, the image is "
                f"{width}x{height} px"
            )
        return camera

    def _camera(self, name: str, image: NDArray[np.uint8], K: ArrayLike | None) -> PinholeCamera:
        height, width = image.shape[:2]
        if self._given is not None:
            return _without_distortion(self._given, width, height)
        camera = self._table.camera(name) if self._table is not None else None
        if camera is not None:
            return camera
        if K is not None:
            return _from_matrix(K, width, height)
        if self._calibrator is not None:
            if name not in self._estimated:
                self._estimated[name] = self._calibrator()(image)
            return self._estimated[name]
        if self._table is not None:
            raise GeometryError(f"{self._table.path} does not name it")
        raise GeometryError(ADVICE)


def _without_distortion(given: GivenCamera, width: int, height: int) -> PinholeCamera:
    lens = given.lens(width, height)
    if not lens.is_pinhole:
        raise GeometryError(
            f"{given} has distortion, and the boxes are in the images as stored: rectify images "
            "and boxes first"
        )
    return lens.rectified


def _from_matrix(K: Any, width: int, height: int) -> PinholeCamera:
    try:
        matrix = np.asarray(K, dtype=float)
    except (TypeError, ValueError) as error:
        raise GeometryError(f"its K is no matrix: {error}") from error
    if matrix.shape != (3, 3):
        raise GeometryError("its K is no 3x3 matrix")
    (fx, _, cx), (_, fy, cy), _ = matrix.tolist()
    return PinholeCamera(width, height, fx, fy, cx, cy)
