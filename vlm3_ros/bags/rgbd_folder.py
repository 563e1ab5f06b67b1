# SPDX-License-Identifier: Apache-2.0
"""A folder of RGB-D frames with poses, and its conversion to a bag."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from vlm3_ros.bags.rgbd import OPTICAL_FRAME, RgbdFrame, write_rgbd_bag
from vlm3_ros.errors import BagError
from vlm3_ros.geometry.camera import GeometryError, PinholeCamera
from vlm3_ros.messages.classes import ROSBAGS
from vlm3_ros.messages.images import compressed_image_message

_FORMATS = {".jpg": "jpeg", ".jpeg": "jpeg", ".png": "png"}

_T_base_camera = np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]], dtype=float)
"""The base is at the camera: x forward, y left, z up (REP-103)."""

_R_odom_world = np.array([[0, 0, -1], [-1, 0, 0], [0, 1, 0]], dtype=float)
"""From a world with y up and z backward to one with z up and x forward."""


@dataclass(frozen=True)
class FolderFrame:
    """A frame of the folder. `T_world_camera`: (4, 4), optical frame to a world with y up."""

    image: Path
    depth: Path
    stamp_ns: int
    T_world_camera: NDArray[np.float64]


@dataclass(frozen=True)
class RgbdFolder:
    """The description of a folder. `depth_scale`: metres per unit of the depth images."""

    camera: PinholeCamera
    depth_scale: float
    frames: tuple[FolderFrame, ...]


def read_rgbd_folder(folder: Path | str, frame_rate: float = 30.0) -> RgbdFolder:
    """Read the description of a folder of RGB-D frames.

    The folder holds `rgb/ID.jpg` or `.png`, `depth/ID.png` (16 bit, 0 for unknown, registered to
    the image), `intrinsics.json` (fx, fy, cx, cy, width, height), `meta.json` (`depth_scale`) and
    `poses.txt` with lines `ID tx ty tz qx qy qz qw`: camera to world, optical axes, world y up. ID
    is the number of the frame in the recording.

    Args:
        folder: the folder.
        frame_rate: frames per second of the recording; the stamp of a frame is ID / frame_rate.

    Raises:
        BagError: if a file is missing or wrong; names it.
    """
    folder = Path(folder)
    intrinsics = _read_json(folder / "intrinsics.json")
    meta = _read_json(folder / "meta.json")
    try:
        camera = PinholeCamera(
            int(intrinsics["width"]),
            int(intrinsics["height"]),
            *(float(intrinsics[name]) for name in ("fx", "fy", "cx", "cy")),
        )
        depth_scale = float(meta["depth_scale"])
    except KeyError as error:
        raise BagError(f"{folder}: intrinsics.json or meta.json lacks {error}") from error
    except (TypeError, ValueError, GeometryError) as error:
        raise BagError(f"{folder}: intrinsics.json or meta.json: {error}") from error
    frames = tuple(_read_poses(folder, frame_rate))
    if len(frames) < 3:
        raise BagError(f"{folder / 'poses.txt'}: {len(frames)} poses, at least 3 are needed")
    return RgbdFolder(camera, depth_scale, frames)


def bag_from_rgbd(
    folder: Path | str,
    bag: Path | str,
    frame_rate: float = 30.0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Convert a folder of RGB-D frames (see `read_rgbd_folder`) to a rosbag2.

    Images keep their bytes. Depth becomes `compressedDepth` in millimetres. Poses become /tf (odom
    to base_link), /tf_static (base_link to the optical frame) and odometry in an odom frame with z
    up (REP-103, REP-105).

    Args:
        folder, frame_rate: see `read_rgbd_folder`.
        bag: folder of the new bag.
        progress: called with the number of frames written and the number of all frames.

    Returns:
        The number of frames.

    Raises:
        BagError: if a file of the folder is missing or wrong, or the bag cannot be written.
    """
    source = read_rgbd_folder(folder, frame_rate)
    total = len(source.frames)
    poses = np.stack([_T_odom_base(frame.T_world_camera) for frame in source.frames])
    stamps_ns = np.array([frame.stamp_ns for frame in source.frames])
    rotations, positions = Rotation.from_matrix(poses[:, :3, :3]), poses[:, :3, 3]
    twists = _twists(rotations, positions, stamps_ns)
    covariance = _jitter_covariance(rotations, positions)
    period = float(np.median(np.diff(stamps_ns))) / 1e9
    write_rgbd_bag(
        bag,
        source.camera,
        _T_base_camera,
        covariance,
        2 * covariance / period**2,
        _frames(source, poses, twists),
        lambda done: progress(done, total),
    )
    return total


def _frames(
    source: RgbdFolder, poses: NDArray[np.float64], twists: NDArray[np.float64]
) -> Iterator[RgbdFrame]:
    for frame, T_odom_base, twist in zip(source.frames, poses, twists, strict=True):
        image = compressed_image_message(
            ROSBAGS.header(frame.stamp_ns, OPTICAL_FRAME),
            _read_image(frame.image, source.camera),
            _FORMATS[frame.image.suffix.lower()],
        )
        depth = _read_depth(frame.depth, source.camera) * source.depth_scale
        yield RgbdFrame(image, depth, T_odom_base, twist)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BagError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise BagError(f"{path}: not JSON: {error}") from error


def _read_poses(folder: Path, frame_rate: float) -> Iterator[FolderFrame]:
    path = folder / "poses.txt"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise BagError(f"{path}: {error.strerror}") from error
    last = -1
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            frame_id, *values = line.split()
            tx, ty, tz, qx, qy, qz, qw = map(float, values)
            T_world_camera = np.eye(4)
            T_world_camera[:3, :3] = Rotation.from_quat([qx, qy, qz, qw]).as_matrix()
            T_world_camera[:3, 3] = tx, ty, tz
            stamp_ns = round(int(frame_id) * 1_000_000_000 / frame_rate)
        except ValueError as error:
            raise BagError(
                f"{path}, line {number}: expected 'ID tx ty tz qx qy qz qw', got '{line}'"
            ) from error
        if stamp_ns <= last:
            raise BagError(f"{path}, line {number}: frame {frame_id} is out of order")
        last = stamp_ns
        image = _existing(*(folder / "rgb" / f"{frame_id}{suffix}" for suffix in _FORMATS))
        depth = _existing(folder / "depth" / f"{frame_id}.png")
        yield FolderFrame(image, depth, stamp_ns, T_world_camera)


def _existing(*paths: Path) -> Path:
    for path in paths:
        if path.is_file():
            return path
    raise BagError(f"{paths[0]}: missing, but poses.txt names it")


def _read_image(path: Path, camera: PinholeCamera) -> bytes:
    data = path.read_bytes()
    _checked(path, cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), camera)
    return data


def _read_depth(path: Path, camera: PinholeCamera) -> NDArray[np.uint16]:
    pixels = _checked(path, cv2.imread(str(path), cv2.IMREAD_UNCHANGED), camera)
    if pixels.dtype != np.uint16 or pixels.ndim != 2:
        raise BagError(f"{path}: depth must be a 16-bit PNG with one channel")
    return pixels.astype(np.uint16, copy=False)


def _checked(path: Path, pixels: NDArray[Any] | None, camera: PinholeCamera) -> NDArray[Any]:
    """Check that an image could be decoded and has the size of the camera."""
    if pixels is None:
        raise BagError(f"{path}: not an image, or damaged")
    if pixels.shape[:2] != (camera.height, camera.width):
        raise BagError(
            f"{path}: {pixels.shape[1]}x{pixels.shape[0]}, "
            f"but intrinsics.json says {camera.width}x{camera.height}"
        )
    return pixels


def _T_odom_base(T_world_camera: NDArray[np.float64]) -> NDArray[np.float64]:
    T_odom_world = np.eye(4)
    T_odom_world[:3, :3] = _R_odom_world
    return T_odom_world @ T_world_camera @ np.linalg.inv(_T_base_camera)


def _twists(
    rotations: Rotation, positions: NDArray[np.float64], stamps_ns: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Velocities in base axes, (n, 6), from each pose to the next; the last one is repeated."""
    inverse = rotations[:-1].inv()
    linear = inverse.apply(np.diff(positions, axis=0))
    angular = (inverse * rotations[1:]).as_rotvec()
    twists = np.hstack([linear, angular]) / (np.diff(stamps_ns)[:, None] / 1e9)
    return np.vstack([twists, twists[-1:]])


def _jitter_covariance(rotations: Rotation, positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Covariance of the poses, (6, 6), from their distance to the middle of both neighbours.

    The tracker gives no covariance. The residuals contain its noise and the curvature of the
    motion, so they bound the noise from frame to frame from above (white noise of variance s gives
    residuals of variance 1.5 s). Drift is not included.
    """
    shift = positions[1:-1] - (positions[:-2] + positions[2:]) / 2
    half = Rotation.from_rotvec((rotations[:-2].inv() * rotations[2:]).as_rotvec() / 2)
    turn = ((rotations[:-2] * half).inv() * rotations[1:-1]).as_rotvec()
    residuals = np.hstack([shift, turn])
    # A trajectory without jitter must not claim to be exact.
    return np.diag(np.maximum(np.mean(residuals**2, axis=0) / 1.5, 1e-10))
