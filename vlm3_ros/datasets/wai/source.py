# SPDX-License-Identifier: Apache-2.0
"""Frames and pairs of a data set in the WAI format."""

from __future__ import annotations

from functools import lru_cache
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
from vlm3_ros.datasets.wai.matrices import covisible, is_covisible, matrix_file, open_matrix
from vlm3_ros.datasets.wai.scene_lists import read_scene_list
from vlm3_ros.datasets.wai.scene_meta import CAMERA_MODELS
from vlm3_ros.errors import DatasetError
from vlm3_ros.geometry.camera import GeometryError, PinholeCamera
from vlm3_ros.geometry.lens import LensCamera, lens_from_calibration
from vlm3_ros.geometry.motion import Transform, transform
from vlm3_ros.geometry.registration import rectified_depth

_OPEN_MATRICES = 16
"""Matrices that are kept open."""


class WaiSource(FrameSource):
    """Frames of the scenes of a data set; distorted images are rectified with their depth."""

    def __init__(self, root: Path, index: Index):
        self.name, self._root, self._index = str(root), root, index
        scene = index.frames["scene"]
        is_metric = np.array([scene.is_metric for scene in index.scenes], bool)
        no_depth = _scenes_without_depth(root, index)
        self._has_depth = index.frames["has_depth"] & ~np.isin(scene, no_depth)
        self.notes = [*index.notes, *_notes(index, no_depth)]
        nothing = np.zeros(len(scene), bool)
        self.contents = Contents(
            has_depth=self._has_depth & is_metric[scene],
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

    def frame_name(self, index: int) -> str:
        """Return the name of a frame, scene/frame as in scene_meta.json."""
        scene = self._index.scenes[self._index.frames["scene"][index]]
        return f"{scene.name}/{self._index.files_of(index).name}"

    @override
    def pairs(self) -> Pairs:
        """Return pairs by the scenes' matrices of covisibility, else by depth and poses."""
        scenes = self._index.scenes
        matrices = [matrix_file(self._root / s.folder, s.covisibility) for s in scenes]
        has_matrix = np.array([matrix is not None for matrix in matrices], bool)
        scene = self._index.frames["scene"]
        is_usable = self._has_depth & self.contents.has_pose
        is_sought = ~has_matrix[scene]
        sought = sought_pairs(self, np.where(is_usable & is_sought, scene, -1))
        listed = np.flatnonzero(is_usable & ~is_sought)
        starts = np.searchsorted(scene, np.arange(len(scenes) + 1))
        places = self._index.frames["place"]

        @lru_cache(_OPEN_MATRICES)
        def matrix(number: int) -> NDArray[np.floating]:
            path = matrices[number]
            assert path is not None
            return open_matrix(path, self._index.scenes[number].frames)

        def second(number: int, rng: np.random.Generator, read: Read) -> int | None:
            if number >= len(listed):
                return sought.second(number - len(listed), rng, read)
            first = int(listed[number])
            start, end = starts[scene[first]], starts[scene[first] + 1]
            shares, place = matrix(int(scene[first])), int(places[first])
            is_shown = np.isin(places[start:end], covisible(shares, place, MIN_COVISIBILITY))
            for mate in start + rng.permutation(np.flatnonzero(is_shown & is_usable[start:end])):
                if is_covisible(shares, int(places[mate]), place, MIN_COVISIBILITY):
                    return int(mate)
            return None

        return Pairs(np.concatenate([listed, sought.first]), second)


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
        names = read_scene_list(scene_list)
        if missing := [name for name in names if name not in set(folders)]:
            raise DatasetError(f"{scene_list}: {root} has no scene {some_of(missing)}")
        folders = names
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


def _notes(index: Index, no_depth: NDArray[np.intp]) -> list[str]:
    """What a reader of a report must know about scale and depth."""
    scenes = index.scenes
    lacking = {
        "have no depth: nothing is asked about them but what their poses say": [
            scenes[number].name for number in no_depth
        ],
        "have no metric scale (scale_type is not 'metric'): they serve for matches, rotations and "
        "directions, not for depth and distances": [s.name for s in scenes if not s.is_metric],
        "have depth that MVSAnywhere predicted": [s.name for s in scenes if s.is_predicted],
    }
    return [
        f"{len(names)} of {len(scenes)} scenes {what}: {some_of(names)}"
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
