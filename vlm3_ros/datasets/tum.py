# SPDX-License-Identifier: Apache-2.0
"""Sequences of the TUM RGB-D benchmark, and others in its layout.

`rgb.txt` and `depth.txt` list stamps in seconds and files, `groundtruth.txt` stamps and
`tx ty tz qx qy qz qw` of the optical frame in the world, metres. Depth is registered to the images
as they were taken, 5000 units per metre. Source: the benchmark's pages on file formats and
intrinsics, https://cvg.cit.tum.de/data/datasets/rgbd-dataset.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from vlm3_ros.bags.timed_poses import TimedPoses
from vlm3_ros.datasets.files import read_image, table_rows
from vlm3_ros.datasets.rgbd import RgbdFile, RgbdScene, RgbdSource
from vlm3_ros.errors import BagError, DatasetError
from vlm3_ros.geometry.calibration_files import GivenCamera
from vlm3_ros.geometry.camera import GeometryError
from vlm3_ros.geometry.lens import LensCamera, lens_from_calibration
from vlm3_ros.geometry.motion import Transform, transform

UNITS_PER_METRE = 5000

CALIBRATIONS = {
    "freiburg1": (517.3, 516.5, 318.6, 255.3, (0.2624, -0.9531, -0.0054, 0.0026, 1.1633)),
    "freiburg2": (520.9, 521.0, 325.1, 249.7, (0.2312, -0.7849, -0.0033, -0.0001, 0.9172)),
    "freiburg3": (535.4, 539.2, 320.1, 247.6, ()),
}
"""fx, fy, cx, cy and distortion (plumb_bob) of the colour cameras, 640x480 px, as published.

The images of the third were undistorted before they were published.
"""


def read_tum(path: Path, camera: GivenCamera | None = None) -> RgbdSource:
    """Read the lists of a sequence.

    Args:
        path: folder of the sequence.
        camera: of the images; None for that of the benchmark whose name is in the folder's name.

    Raises:
        DatasetError: naming the file that is missing or wrong, or if the camera is unknown.
    """
    images, depths = _listed(path / "rgb.txt"), _listed(path / "depth.txt")
    depth_of, notes = _nearest(images, depths), []
    poses: list[Transform | None] = [None] * len(images)
    if (path / "groundtruth.txt").is_file():
        known = _poses(path / "groundtruth.txt").at([stamp for stamp, _ in images])
        poses = [pose if np.isfinite(pose).all() else None for pose in known]
    for what, missing in (
        ("depth", sum(file is None for file in depth_of)),
        ("pose", sum(pose is None for pose in poses)),
    ):
        if missing:
            notes.append(f"{missing} of {len(images)} images have no {what} at their time")
    files = [
        RgbdFile(image, depth, pose)
        for (_, image), depth, pose in zip(images, depth_of, poses, strict=True)
    ]
    lens = _lens(path, images[0][1], camera)
    name = path.resolve().name
    return RgbdSource(str(path), [RgbdScene(name, lens, 1 / UNITS_PER_METRE, files)], notes)


def _listed(path: Path) -> list[tuple[int, Path]]:
    """Stamps in nanoseconds and files, by time."""
    listed = []
    for source, words in table_rows(path):
        if len(words) != 2:
            raise DatasetError(f"{source}: expected a stamp and a file, found {' '.join(words)!r}")
        listed.append((_nanoseconds(words[0], source), path.parent / words[1]))
    if not listed:
        raise DatasetError(f"{path}: no file is listed in it")
    return sorted(listed)


def _nanoseconds(text: str, source: str) -> int:
    try:
        stamp = float(text)
    except ValueError:
        stamp = np.nan
    if not np.isfinite(stamp):
        raise DatasetError(f"{source}: {text!r} is no stamp in seconds")
    return round(stamp * 1e9)


def _nearest(images: list[tuple[int, Path]], depths: list[tuple[int, Path]]) -> list[Path | None]:
    """The depth of each image: the nearest in time, within half a period of the slower camera."""
    stamps, of_depth = (np.array([stamp for stamp, _ in listed]) for listed in (images, depths))
    limit = max(_period(stamps), _period(of_depth)) / 2
    after = np.searchsorted(of_depth, stamps).clip(0, len(of_depth) - 1)
    before = np.maximum(after - 1, 0)
    is_before = np.abs(of_depth[before] - stamps) <= np.abs(of_depth[after] - stamps)
    nearest = np.where(is_before, before, after)
    gaps = np.abs(of_depth[nearest] - stamps)
    return [
        depths[index][1] if gap <= limit else None for index, gap in zip(nearest, gaps, strict=True)
    ]


def _period(stamps: NDArray[np.int64]) -> float:
    return float(np.median(np.diff(stamps))) if len(stamps) > 1 else 1e8


def _poses(path: Path) -> TimedPoses:
    stamped = []
    for source, (stamp, *words) in table_rows(path):
        try:
            *shift, qx, qy, qz, qw = (float(word) for word in words)
            if len(shift) != 3 or not any((qx, qy, qz, qw)):
                raise ValueError
        except ValueError:
            raise DatasetError(
                f"{source}: expected 'stamp tx ty tz qx qy qz qw', found "
                f"{' '.join((stamp, *words))!r}"
            ) from None
        pose = transform(Rotation.from_quat([qx, qy, qz, qw]), shift)
        stamped.append((_nanoseconds(stamp, source), pose))
    if not stamped:
        raise DatasetError(f"{path}: there is no pose in it")
    try:
        return TimedPoses.from_stamped(stamped, f"{path}: poses")
    except BagError as error:
        raise DatasetError(str(error)) from error


def _lens(path: Path, image: Path, camera: GivenCamera | None) -> LensCamera:
    height, width = read_image(image).shape[:2]
    try:
        if camera is not None:
            return camera.lens(width, height)
        named = re.search("|".join(CALIBRATIONS), path.resolve().name)
        if named is None:
            raise DatasetError(
                f"{path}: its camera is unknown, as its name holds none of "
                f"{', '.join(CALIBRATIONS)}: give a calibration file or a field of view"
            )
        fx, fy, cx, cy, distortion = CALIBRATIONS[named.group()]
        if (width, height) != (640, 480):
            raise DatasetError(f"{image}: {width}x{height} px; {named.group()}'s are 640x480")
        K = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
        return lens_from_calibration(
            width, height, K, distortion, "plumb_bob", np.eye(3), np.zeros((3, 4))
        )
    except GeometryError as error:
        raise DatasetError(f"{path}: {error}") from error
