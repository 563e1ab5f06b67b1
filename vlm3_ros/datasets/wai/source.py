# SPDX-License-Identifier: Apache-2.0
"""Frames and pairs of a data set in the WAI format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from typing_extensions import override

from vlm3_ros.datasets.covisibility import MIN_COVISIBILITY
from vlm3_ros.datasets.files import read_image
from vlm3_ros.datasets.source import Contents, FrameSource, Pairs, Read, sought_pairs
from vlm3_ros.datasets.views import View
from vlm3_ros.datasets.wai.depth import read_depth
from vlm3_ros.datasets.wai.index import Index, load_index, scene_folders, some_of
from vlm3_ros.datasets.wai.matrices import Matrices, find_matrices
from vlm3_ros.datasets.wai.scene_lists import read_scene_list
from vlm3_ros.datasets.wai.scene_meta import CAMERA_MODELS
from vlm3_ros.errors import DatasetError
from vlm3_ros.geometry.camera import GeometryError, PinholeCamera
from vlm3_ros.geometry.lens import LensCamera, lens_from_calibration
from vlm3_ros.geometry.motion import Transform, transform
from vlm3_ros.geometry.registration import rectified_depth


class WaiSource(FrameSource):
    """Frames of the scenes of a data set; distorted images are rectified with their depth."""

    def __init__(self, root: Path, index: Index):
        self.name, self._root, self._index = str(root), root, index
        scene = index.frames["scene"]
        # Predicted depth is good enough for matches, but no truth about distances.
        is_true = np.array([s.is_metric and not s.is_predicted for s in index.scenes], bool)
        no_depth = _scenes_without_depth(root, index)
        self._has_depth = index.frames["has_depth"] & ~np.isin(scene, no_depth)
        files, wrong = find_matrices(root, index.scenes)
        self._matrices = Matrices(files, index.scenes)
        self.notes = [*index.notes, *_notes(index, no_depth, wrong)]
        nothing = np.zeros(len(scene), bool)
        self.contents = Contents(
            has_depth=self._has_depth & is_true[scene],
            has_pose=np.isfinite(index.frames["T_world_camera"][:, 0, 0]),
            has_objects=nothing,
            is_held_out=nothing,
        )

    @override
    def read(self, index: int) -> View:
        frame, files = self._index.frames[index], self._index.files_of(index)
        scene = self._index.scenes[frame["scene"]]
        folder = self._root / scene.folder
        image = read_image(folder / files.image)
        height, width = image.shape[:2]
        stated = tuple(frame["size"].tolist())
        if all(stated) and stated != (width, height):
            raise DatasetError(
                f"{folder / files.image}: {width}x{height} px, scene_meta.json says "
                f"{stated[0]}x{stated[1]}"
            )
        depth = np.full((height, width), np.nan, np.float32)
        if self._has_depth[index]:
            depth = read_depth(folder, files, scene.dataset, (width, height))
        try:
            lens = _lens(frame, width, height)
            if isinstance(lens, LensCamera):
                image, depth = lens.rectify(image), rectified_depth(depth, lens)
                lens = lens.rectified
        except GeometryError as error:
            raise DatasetError(f"{folder}, frame {files.name}: {error}") from error
        return View(image, depth, lens, _pose(frame), scene.name, is_metric=scene.is_metric)

    @override
    def frame_name(self, index: int) -> str:
        """Return scene/frame as in scene_meta.json."""
        scene = self._index.scenes[self._index.frames["scene"][index]]
        return f"{scene.name}/{self._index.files_of(index).name}"

    @override
    def pairs(self, min_covisibility: float | None = None) -> Pairs:
        """Return pairs by the scenes' matrices of covisibility, else by depth and poses."""
        least = MIN_COVISIBILITY if min_covisibility is None else min_covisibility
        scene, place = self._index.frames["scene"], self._index.frames["place"]
        is_usable = self._has_depth & self.contents.has_pose
        has_matrix = self._matrices.has[scene]
        sought = sought_pairs(self, np.where(is_usable & ~has_matrix, scene, -1), min_covisibility)
        firsts = np.flatnonzero(is_usable & has_matrix)
        starts = np.searchsorted(scene, np.arange(len(self._index.scenes) + 1))

        def second(number: int, rng: np.random.Generator, read: Read) -> int | None:
            if number >= len(firsts):
                return sought.second(number - len(firsts), rng, read)
            first = int(firsts[number])
            start, end = starts[scene[first]], starts[scene[first] + 1]
            mates = self._matrices.covisible(int(scene[first]), int(place[first]), least)
            is_mate = np.isin(place[start:end], mates) & is_usable[start:end]
            return int(start + rng.choice(np.flatnonzero(is_mate))) if is_mate.any() else None

        return Pairs(np.concatenate([firsts, sought.first]), second)


def read_wai(root: Path, scene_list: Path | None = None) -> WaiSource:
    """Open a data set, or one of its scenes.

    Args:
        root: its folder.
        scene_list: file with the names of the scenes to use, see `read_scene_list`; None for all.

    Raises:
        DatasetError: naming the folder or file, if no frame can be used.
    """
    folders = scene_folders(root)
    if scene_list is not None:
        known, folders = set(folders), read_scene_list(scene_list)
        if missing := [name for name in folders if name not in known]:
            raise DatasetError(f"{scene_list}: {root} has no scene {some_of(missing)}")
    return WaiSource(root, load_index(root, folders, str(scene_list or "")))


def _scenes_without_depth(root: Path, index: Index) -> NDArray[np.intp]:
    """Numbers of the scenes without depth, or without the folder that their depth lies in."""
    scene, has_depth = index.frames["scene"], index.frames["has_depth"]
    numbers, firsts = np.unique(scene[has_depth], return_index=True)
    with_folder = [
        number
        for number, frame in zip(numbers, np.flatnonzero(has_depth)[firsts], strict=True)
        if (root / index.scenes[number].folder / index.files_of(frame).depth).parent.is_dir()
    ]
    return np.setdiff1d(np.arange(len(index.scenes)), with_folder)


def _notes(index: Index, no_depth: NDArray[np.intp], wrong_matrix: list[str]) -> list[str]:
    """What a reader of a report must know about scale, depth and covisibility."""
    scenes = index.scenes
    lacking = {
        "without depth, which give no depth, matches and pairs": [
            scenes[number].name for number in no_depth
        ],
        "without metric scale (scale_type is not 'metric'), which give matches, rotations and "
        "directions, but no depth and distances": [s.name for s in scenes if not s.is_metric],
        "with depth that MVSAnywhere predicted, which serves for matches alone": [
            s.name for s in scenes if s.is_predicted
        ],
        "with a matrix of covisibility that is not of their frames; their pairs are sought by "
        "depth and poses": wrong_matrix,
    }
    return [
        f"scenes {what} ({len(names)} of {len(scenes)}: {some_of(names)})"
        for what, names in lacking.items()
        if names
    ]


def _lens(frame: NDArray[np.void], width: int, height: int) -> LensCamera | PinholeCamera:
    fx, fy, cx, cy = frame["intrinsics"].tolist()
    model, names = list(CAMERA_MODELS.items())[frame["camera_model"]]
    if not names:
        return PinholeCamera(width, height, fx, fy, cx, cy)
    fisheye = model == "OPENCV_FISHEYE"
    return lens_from_calibration(
        width,
        height,
        K=[fx, 0, cx, 0, fy, cy, 0, 0, 1],
        D=frame["distortion"][: len(names)],
        model="equidistant" if fisheye else "rational_polynomial",
        R=np.eye(3),
        P=np.zeros((3, 4)),
    )


def _pose(frame: NDArray[np.void]) -> Transform:
    pose = frame["T_world_camera"]
    if not np.isfinite(pose).all():
        return np.full((4, 4), np.nan)
    return transform(Rotation.from_matrix(pose[:, :3]), pose[:, 3])
