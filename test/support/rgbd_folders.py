# SPDX-License-Identifier: Apache-2.0
"""RGB-D frames of procedural scenes as files: a plain folder, and a sequence in TUM's layout."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from vlm3_lab.scenes.sequences import sample_sequence
from vlm3_ros.datasets.views import View
from vlm3_ros.geometry.camera import PinholeCamera


def drive_views(count: int, camera: PinholeCamera, seed: int = 0) -> list[View]:
    """Views along a drive through a room, 0.2 s apart."""
    rng = np.random.default_rng(seed)
    drive = sample_sequence(rng, camera, kind="room", duration=count / 5, rate=5.0)
    return [drive.view(index, rng) for index in range(count)]


def write_folder(folder: Path, views: Sequence[View], as_matrix: bool = False) -> None:
    """Write views as a plain folder; poses with IDs without leading zeros."""
    for name in ("rgb", "depth"):
        (folder / name).mkdir(parents=True)
    poses = []
    for index, view in enumerate(views):
        write_image(folder / f"rgb/{index:05}.png", view.image)
        write_depth(folder / f"depth/{index:05}.png", view.depth, 1000)
        pose = view.T_world_camera.ravel() if as_matrix else pose_numbers(view)
        poses.append(f"{index} {' '.join(f'{number:.9f}' for number in pose)}")
    camera = views[0].camera
    intrinsics = {key: getattr(camera, key) for key in ("fx", "fy", "cx", "cy", "width", "height")}
    (folder / "intrinsics.json").write_text(json.dumps(intrinsics))
    (folder / "poses.txt").write_text("# ID and pose\n" + "\n".join(poses))


def write_tum(folder: Path, views: Sequence[View], lag: float = 0.015) -> None:
    """Write views in TUM's layout; depth is stamped `lag` seconds later than its image."""
    for name in ("rgb", "depth"):
        (folder / name).mkdir(parents=True)
    lists: dict[str, list[str]] = {"rgb": [], "depth": [], "groundtruth": []}
    for index, view in enumerate(views):
        stamp = 1305031102.175304 + index / 5
        write_image(folder / f"rgb/{stamp:.6f}.png", view.image)
        write_depth(folder / f"depth/{stamp + lag:.6f}.png", view.depth, 5000)
        lists["rgb"].append(f"{stamp:.6f} rgb/{stamp:.6f}.png")
        lists["depth"].append(f"{stamp + lag:.6f} depth/{stamp + lag:.6f}.png")
        lists["groundtruth"].append(
            f"{stamp:.6f} {' '.join(f'{n:.9f}' for n in pose_numbers(view))}"
        )
    for name, lines in lists.items():
        (folder / f"{name}.txt").write_text("\n".join([f"# {name}", "# timestamp", *lines]) + "\n")


def pose_numbers(view: View) -> NDArray[np.float64]:
    """tx ty tz qx qy qz qw of the optical frame."""
    T = view.T_world_camera
    return np.concatenate([T[:3, 3], Rotation.from_matrix(T[:3, :3]).as_quat()])


def write_image(path: Path, image: NDArray[np.uint8]) -> None:
    cv2.imwrite(str(path), image[..., ::-1])


def write_depth(path: Path, depth: NDArray[np.float32], units_per_metre: float) -> None:
    units = np.where(np.isfinite(depth), depth * units_per_metre, 0)
    cv2.imwrite(str(path), np.where(units < 65535, np.rint(units), 0).astype(np.uint16))
