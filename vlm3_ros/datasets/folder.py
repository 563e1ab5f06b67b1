# SPDX-License-Identifier: Apache-2.0
"""Plain folders of RGB-D frames.

A folder holds

- `rgb/ID.jpg` or `.png`, and `depth/ID.png`: 16 bit, 0 where unknown, registered to the image;
- `intrinsics.json`: fx, fy, cx, cy, width, height of images without distortion;
- `meta.json`, if depth is not in millimetres: `depth_scale`, metres per unit;
- `poses.txt`, if poses are known: lines of ID and camera to world in optical axes, metres, as
  `tx ty tz qx qy qz qw` or as the 16 numbers of a matrix, row by row.

IDs of poses may lack leading zeros. A folder of such folders is read as one data set; each is a
scene.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from vlm3_ros.datasets.files import (
    IMAGE_SUFFIXES,
    MAX_MEDIAN_DEPTH,
    MIN_MEDIAN_DEPTH,
    read_json,
    read_png_depth,
    table_rows,
)
from vlm3_ros.datasets.rgbd import RgbdFile, RgbdScene, RgbdSource
from vlm3_ros.errors import DatasetError
from vlm3_ros.geometry.camera import GeometryError, PinholeCamera
from vlm3_ros.geometry.lens import LensCamera, lens_from_calibration
from vlm3_ros.geometry.motion import Transform, transform

INTRINSICS = "intrinsics.json"

_KEYS = ("fx", "fy", "cx", "cy", "width", "height")

_NOT_RIGID = 1e-3
"""Largest deviation of a rotation matrix from one, as of files with few digits."""


def read_folder(path: Path) -> RgbdSource:
    """Read the description of a folder of RGB-D frames, or of a folder of such folders.

    Raises:
        DatasetError: naming the file that is missing or wrong.
    """
    if not path.is_dir():
        raise DatasetError(f"{path}: there is no such folder")
    folders = (
        [path]
        if (path / INTRINSICS).is_file()
        else sorted(file.parent for file in path.glob(f"*/{INTRINSICS}"))
    )
    if not folders:
        raise DatasetError(
            f"{path}: neither it nor a folder in it has {INTRINSICS}: {', '.join(_KEYS)}"
        )
    notes: list[str] = []
    return RgbdSource(str(path), [_scene(folder, notes) for folder in folders], notes)


def _scene(folder: Path, notes: list[str]) -> RgbdScene:
    images: dict[str, Path] = {}
    for file in sorted((folder / "rgb").glob("*")):
        if file.suffix.lower() in IMAGE_SUFFIXES:
            if file.stem in images:
                raise DatasetError(f"{file}: {images[file.stem].name} has the same ID: delete one")
            images[file.stem] = file
    if not images:
        raise DatasetError(f"{folder / 'rgb'}: there is no image in it")
    poses = _poses(folder / "poses.txt") if (folder / "poses.txt").is_file() else {}
    files = []
    for name, image in images.items():
        depth = folder / "depth" / f"{name}.png"
        T_world_camera = poses.pop(name, None)
        if T_world_camera is None:
            T_world_camera = poses.pop(name.lstrip("0") or "0", None)
        files.append(RgbdFile(image, depth if depth.is_file() else None, T_world_camera))
    if poses:
        notes.append(f"{folder}: {len(poses)} poses have no image, such as {next(iter(poses))}")
    if without := sum(file.depth is None for file in files):
        notes.append(f"{folder}: {without} of {len(files)} images have no depth")
    scale = _scale(folder)
    notes += _doubts_about_scale(folder, scale, files)
    return RgbdScene(folder.resolve().name, _lens(folder, notes), scale, files)


def _lens(folder: Path, notes: list[str]) -> LensCamera:
    path = folder / INTRINSICS
    content = read_json(path)
    if not isinstance(content, Mapping):
        raise DatasetError(f"{path}: expected an object with {', '.join(_KEYS)}")
    if unread := sorted(set(content) - set(_KEYS)):
        notes.append(f"{path}: not read, as images must have no distortion: {', '.join(unread)}")
    try:
        camera = PinholeCamera(
            int(content["width"]),
            int(content["height"]),
            *(float(content[name]) for name in ("fx", "fy", "cx", "cy")),
        )
        return lens_from_calibration(
            camera.width, camera.height, camera.K, [], "none", np.eye(3), np.zeros((3, 4))
        )
    except KeyError as error:
        raise DatasetError(f"{path}: {error} is missing") from error
    except (TypeError, ValueError, GeometryError) as error:
        raise DatasetError(f"{path}: {error}") from error


def _scale(folder: Path) -> float:
    path = folder / "meta.json"
    content: Any = read_json(path) if path.is_file() else {}
    scale = content.get("depth_scale", 0.001) if isinstance(content, Mapping) else None
    if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not 0 < scale < np.inf:
        raise DatasetError(
            f"{path}: depth_scale is {scale!r}; it is metres per unit, such as 0.001"
        )
    return float(scale)


def _doubts_about_scale(folder: Path, scale: float, files: Sequence[RgbdFile]) -> list[str]:
    """Say if the depth of the first frame that has some is none that a depth camera measures."""
    for file in files:
        try:
            depth = read_png_depth(file.depth, scale) if file.depth else np.zeros(0)
        except DatasetError:  # named when the frame is read
            continue
        known = depth[np.isfinite(depth)]
        if len(known):
            median = float(np.median(known))
            if MIN_MEDIAN_DEPTH <= median <= MAX_MEDIAN_DEPTH:
                return []
            return [
                f"{folder}: the median depth of {file.image.name} is {median:.3g} m; if that is "
                f"wrong, correct depth_scale in meta.json, {scale:g} metres per unit now"
            ]
    return []


def _poses(path: Path) -> dict[str, Transform]:
    poses = {}
    for source, (name, *words) in table_rows(path):
        if name in poses:
            raise DatasetError(f"{source}: ID {name} has a second pose: delete one")
        try:
            poses[name] = _pose(np.array(words, float))
        except ValueError as error:
            raise DatasetError(f"{source}: {error}") from error
    return poses


def _pose(numbers: NDArray[np.float64]) -> Transform:
    """Raises: ValueError: if the numbers are no pose."""
    if not np.isfinite(numbers).all():
        raise ValueError("the pose is not finite")
    if len(numbers) == 7:
        if not numbers[3:].any():
            raise ValueError("the quaternion is zero")
        return transform(Rotation.from_quat(numbers[3:]), numbers[:3])
    if len(numbers) != 16:
        raise ValueError(f"{len(numbers)} numbers after the ID, instead of 7 or 16")
    matrix = numbers.reshape(4, 4)
    R = matrix[:3, :3]
    if np.abs(R @ R.T - np.eye(3)).max() > _NOT_RIGID or np.linalg.det(R) < 0:
        raise ValueError("the matrix is no rotation")
    return transform(Rotation.from_matrix(R), matrix[:3, 3])
