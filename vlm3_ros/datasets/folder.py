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

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from vlm3_ros.datasets.files import read_json, table_rows
from vlm3_ros.datasets.rgbd import RgbdFile, RgbdScene, RgbdSource
from vlm3_ros.errors import DatasetError
from vlm3_ros.geometry.camera import GeometryError, PinholeCamera
from vlm3_ros.geometry.lens import LensCamera, lens_from_calibration
from vlm3_ros.geometry.motion import Transform, transform

INTRINSICS = "intrinsics.json"

_SUFFIXES = (".jpg", ".jpeg", ".png")

_NOT_RIGID = 1e-3
"""Largest deviation of a rotation matrix from one, as of files with few digits."""


def read_folder(path: Path) -> RgbdSource:
    """Read the description of a folder of RGB-D frames, or of a folder of such folders.

    Raises:
        DatasetError: naming the file that is missing or wrong.
    """
    folders = (
        [path]
        if (path / INTRINSICS).is_file()
        else sorted(file.parent for file in path.glob(f"*/{INTRINSICS}"))
    )
    if not folders:
        raise DatasetError(
            f"{path}: neither it nor a folder in it has {INTRINSICS}: fx, fy, cx, cy, width, height"
        )
    notes: list[str] = []
    return RgbdSource(str(path), [_scene(folder, notes) for folder in folders], notes)


def _scene(folder: Path, notes: list[str]) -> RgbdScene:
    images = {
        file.stem: file
        for file in sorted((folder / "rgb").glob("*"))
        if file.suffix.lower() in _SUFFIXES
    }
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
    return RgbdScene(folder.name, _lens(folder), _scale(folder), files)


def _lens(folder: Path) -> LensCamera:
    path = folder / INTRINSICS
    content = read_json(path)
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
    if not isinstance(scale, (int, float)) or not 0 < scale < np.inf:
        raise DatasetError(
            f"{path}: depth_scale is {scale!r}; it is metres per unit, such as 0.001"
        )
    return float(scale)


def _poses(path: Path) -> dict[str, Transform]:
    poses = {}
    for source, (name, *words) in table_rows(path):
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
