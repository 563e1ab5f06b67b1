# SPDX-License-Identifier: Apache-2.0
"""Frames of depth cameras: an image file, a depth image registered to it, and poses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from vlm3_ros.datasets.files import read_image, read_png_depth
from vlm3_ros.datasets.source import Contents, FrameSource, Pairs, sought_pairs
from vlm3_ros.datasets.views import View
from vlm3_ros.errors import DatasetError
from vlm3_ros.geometry.lens import LensCamera
from vlm3_ros.geometry.motion import Transform
from vlm3_ros.geometry.registration import rectified_depth


@dataclass(frozen=True)
class RgbdFile:
    """The files of a frame.

    Attributes:
        image: its file.
        depth: file of its depth image, registered to it; None if unknown.
        T_world_camera: of the camera as it took the image, shape (4, 4), metres; None if unknown.
    """

    image: Path
    depth: Path | None
    T_world_camera: Transform | None


@dataclass(frozen=True)
class RgbdScene:
    """Frames of one camera in one place.

    Attributes:
        name: for reports.
        lens: of images and depth as they were taken.
        metres_per_unit: of the depth images.
        frames: in the order in which they were taken.
    """

    name: str
    lens: LensCamera
    metres_per_unit: float
    frames: Sequence[RgbdFile]


class RgbdSource(FrameSource):
    """Scenes of RGB-D frames; images and depth are rectified."""

    def __init__(self, name: str, scenes: Sequence[RgbdScene], notes: list[str]):
        self.name, self.notes = name, notes
        self._scenes = scenes
        self._scene = np.repeat(np.arange(len(scenes)), [len(scene.frames) for scene in scenes])
        self._files = [file for scene in scenes for file in scene.frames]
        nothing = np.zeros(len(self._files), bool)
        self.contents = Contents(
            has_depth=np.array([file.depth is not None for file in self._files], bool),
            has_pose=np.array([file.T_world_camera is not None for file in self._files], bool),
            has_objects=nothing,
            is_held_out=nothing,
        )

    @override
    def pairs(self, min_covisibility: float | None = None) -> Pairs:
        scenes = np.where(self.contents.has_depth, self._scene, -1)
        return sought_pairs(self, scenes, min_covisibility)

    @override
    def frame_name(self, index: int) -> str:
        return f"{self._scenes[self._scene[index]].name}/{self._files[index].image.name}"

    @override
    def read(self, index: int) -> View:
        scene, file = self._scenes[self._scene[index]], self._files[index]
        lens = scene.lens
        depth = np.full((lens.height, lens.width), np.nan, np.float32)
        if file.depth is not None:
            depth = read_png_depth(file.depth, scene.metres_per_unit)
            _check_size(file.depth, depth, lens)
        image = read_image(file.image)
        _check_size(file.image, image, lens)
        T_world_camera = np.full((4, 4), np.nan)
        if file.T_world_camera is not None:
            T_world_camera = file.T_world_camera.copy()
            T_world_camera[:3, :3] = T_world_camera[:3, :3] @ lens.R.T
        return View(
            lens.rectify(image),
            rectified_depth(depth, lens),
            lens.rectified,
            T_world_camera,
            scene.name,
        )


def _check_size(path: Path, pixels: NDArray[np.generic], lens: LensCamera) -> None:
    height, width = pixels.shape[:2]
    if (width, height) != (lens.width, lens.height):
        raise DatasetError(
            f"{path}: {width}x{height} px, but its calibration is for {lens.width}x{lens.height}"
        )
