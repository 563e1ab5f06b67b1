# SPDX-License-Identifier: Apache-2.0
"""The authors' `sample_data`: depths, a motion, matches and a question about objects.

The folder lies in https://github.com/facebookresearch/VLM3. It holds a label file for each
checkpoint, and the images that these name, already at the size at which the authors ask:

- `depth_labels.json`: `image`, `intrinsics_after_focal_normalization_to_1000` (fx, fy, cx, cy) and
  `samples`, each with `pixel_coord_resized` [x, y] and `depth_meters`. As in DepthLM's format, the
  depth is taken for depth along Z.
- `pose_labels.json`: `image_1`, `image_2`, `intrinsics_1_resized`, `intrinsics_2_resized`,
  `scale_type` and `ground_truth_pose`: `yaw_deg`, `pitch_deg`, `roll_deg`,
  `translation_unit_vector`, a text of three numbers with two decimals, and
  `translation_distance_m`.
- `pixel_corr_labels.json`: `image_1`, `image_2` and `correspondences`, each with
  `img1_pixel_in_resized` and `img2_pixel_in_resized`. There are no intrinsics: `VLM3-corr` needs
  none. For checkpoints that do, `ASSUMED_HFOV` is assumed.
- `spatialrgpt_labels.json`: `image`, `image_size_resized`,
  `intrinsics_after_focal_normalization_to_1000`, `bboxes`, each with `bbox_normalized_1000`
  (`bbox_resized_pixels` beside it is rounded, and would give other numbers), `qa_info.category`,
  and the question and its answer as in SpatialRGPT-Bench: `raw_user_msg`, `raw_assistant_msg`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from vlm3_ros.datasets.files import read_image, read_json
from vlm3_ros.datasets.source import Contents, FrameSource, Pairs, listed_pairs
from vlm3_ros.datasets.spatialrgpt import conversation_of
from vlm3_ros.datasets.views import Conversation, Labels, PairLabels, View
from vlm3_ros.errors import DatasetError
from vlm3_ros.geometry.camera import GeometryError, PinholeCamera
from vlm3_ros.geometry.motion import Transform, motion_from_parts

DEPTH, POSE, MATCHES, OBJECTS = (
    "depth_labels.json",
    "pose_labels.json",
    "pixel_corr_labels.json",
    "spatialrgpt_labels.json",
)

ASSUMED_HFOV = 60.0
"""Horizontal field of view of the pair with matches, degrees; the labels do not say it."""

Intrinsics = tuple[float, float, float, float]


@dataclass(frozen=True)
class SampleFrame:
    """An image of the sample.

    `image`: its file. `intrinsics`: fx, fy, cx, cy in px; None if unknown. Others: see `View`.
    """

    image: str
    kind: str
    intrinsics: Intrinsics | None
    T_world_camera: Transform | None = None
    is_metric: bool = True
    labels: Labels | None = None
    conversations: tuple[Conversation, ...] = ()


class AuthorsSample(FrameSource):
    """The sample; `frames` are its images."""

    def __init__(
        self,
        folder: Path,
        frames: list[SampleFrame],
        pairs: list[tuple[int, int, PairLabels | None]],
        notes: list[str],
    ):
        self.name, self.notes, self.frames = str(folder), notes, frames
        self._folder, self._listed = folder, pairs
        self.contents = Contents(
            has_depth=np.array([frame.labels is not None for frame in frames]),
            has_pose=np.array([frame.T_world_camera is not None for frame in frames]),
            has_objects=np.array([bool(frame.conversations) for frame in frames]),
            is_held_out=np.zeros(len(frames), bool),
        )
        self.has_conversations = bool(self.contents.has_objects.any())

    @override
    def frame_name(self, index: int) -> str:
        return self.frames[index].image

    @override
    def read(self, index: int) -> View:
        frame = self.frames[index]
        path = self._folder / frame.image
        image = read_image(path)
        height, width = image.shape[:2]
        depth = np.full((height, width), np.nan, np.float32)
        try:
            camera = (
                PinholeCamera.from_hfov(width, height, ASSUMED_HFOV)
                if frame.intrinsics is None
                else PinholeCamera(width, height, *frame.intrinsics)
            )
            if frame.labels is not None:
                columns, rows = np.rint(frame.labels.pixels).astype(int).T
                depth[rows, columns] = frame.labels.depth
        except (GeometryError, IndexError) as error:
            raise DatasetError(f"{path}, {width}x{height} px: {error}") from error
        pose = np.full((4, 4), np.nan) if frame.T_world_camera is None else frame.T_world_camera
        return View(
            image,
            depth,
            camera,
            pose,
            frame.kind,
            is_metric=frame.is_metric,
            labels=frame.labels,
            conversations=frame.conversations,
        )

    @override
    def pairs(self, min_covisibility: float | None = None) -> Pairs:
        listed = listed_pairs([(first, second) for first, second, _ in self._listed])
        return Pairs(listed.first, listed.second, lambda number: self._listed[number][2])


def read_authors(folder: Path) -> AuthorsSample:
    """Read the label files that are there.

    Raises:
        DatasetError: naming the file that is wrong, or if there is none.
    """
    frames: list[SampleFrame] = []
    pairs: list[tuple[int, int, PairLabels | None]] = []
    notes = []
    readers = {DEPTH: _depth, POSE: _pose, MATCHES: _matches, OBJECTS: _objects}
    for file, read in readers.items():
        if not (folder / file).is_file():
            notes.append(f"there is no {file}")
            continue
        try:
            added, labels = read(read_json(folder / file))
        except (KeyError, TypeError, ValueError) as error:
            raise DatasetError(f"{folder / file}: it cannot be used: {error!r}") from error
        if len(added) == 2:
            pairs.append((len(frames), len(frames) + 1, labels))
        frames += added
        if any(frame.intrinsics is None for frame in added):
            notes.append(f"{file} has no intrinsics: {ASSUMED_HFOV:g} degrees across are assumed")
    if not frames:
        raise DatasetError(
            f"{folder}: it holds none of {', '.join(readers)}: give the folder sample_data of "
            " https://github.com/facebookresearch/VLM3"
        )
    return AuthorsSample(folder, frames, pairs, notes)


Parsed = tuple[list[SampleFrame], PairLabels | None]
"""The images of a label file, and the matches of a pair."""


def _depth(content: Mapping[str, Any]) -> Parsed:
    samples = content["samples"]
    labels = Labels(
        _pixels(samples, "pixel_coord_resized"),
        np.array([sample["depth_meters"] for sample in samples], dtype=float),
    )
    if not (np.isfinite(labels.depth) & (labels.depth > 0)).all():
        raise ValueError("a depth is not finite and positive")
    intrinsics = _intrinsics(content["intrinsics_after_focal_normalization_to_1000"])
    return [SampleFrame(content["image"], "depth", intrinsics, labels=labels)], None


def _pose(content: Mapping[str, Any]) -> Parsed:
    truth = content["ground_truth_pose"]
    numbers = re.findall(r"[-+]?[\d.]+", truth["translation_unit_vector"])
    direction = np.array([float(number) for number in numbers])
    T_cam1_cam2 = motion_from_parts(
        float(truth["translation_distance_m"]),
        direction / np.linalg.norm(direction),  # two decimals make no unit vector
        [float(truth[f"{angle}_deg"]) for angle in ("yaw", "pitch", "roll")],
    )
    frames = [
        SampleFrame(
            content[f"image_{number}"],
            "pose",
            _intrinsics(content[f"intrinsics_{number}_resized"]),
            pose,
            content["scale_type"] == "metric",
        )
        for number, pose in ((1, np.eye(4)), (2, T_cam1_cam2))
    ]
    return frames, None


def _matches(content: Mapping[str, Any]) -> Parsed:
    pixels1, pixels2 = (
        _pixels(content["correspondences"], f"img{number}_pixel_in_resized") for number in (1, 2)
    )
    frames = [SampleFrame(content[f"image_{number}"], "matches", None) for number in (1, 2)]
    return frames, PairLabels(pixels1, pixels2)


def _objects(content: Mapping[str, Any]) -> Parsed:
    size = content["image_size_resized"]["width"], content["image_size_resized"]["height"]
    boxes = [np.array(box["bbox_normalized_1000"], dtype=float) for box in content["bboxes"]]
    conversation = conversation_of(
        content["raw_user_msg"],
        content["raw_assistant_msg"],
        [box * np.tile(size, 2) / 1000 for box in boxes],
        size,
        content["qa_info"]["category"],
    )
    intrinsics = _intrinsics(content["intrinsics_after_focal_normalization_to_1000"])
    frame = SampleFrame(content["image"], "objects", intrinsics, conversations=(conversation,))
    return [frame], None


def _pixels(entries: list[Mapping[str, Any]], key: str) -> NDArray[np.float64]:
    return np.array([entry[key] for entry in entries], dtype=float).reshape(len(entries), 2)


def _intrinsics(content: Mapping[str, float]) -> Intrinsics:
    fx, fy, cx, cy = (float(content[key]) for key in ("fx", "fy", "cx", "cy"))
    return fx, fy, cx, cy
