# SPDX-License-Identifier: Apache-2.0
"""A bag as a source of training frames: its topics and stamps, and images with ground truth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlm3_lab.datasets.ground_truth import (
    BOXES_TYPE,
    SCAN_SECONDS,
    boxes_from_message,
    projected_depth,
)
from vlm3_ros.bags.nearest import NearestMessages, header_stamps
from vlm3_ros.bags.poses import TruePoses
from vlm3_ros.bags.reading import Bag, open_bag
from vlm3_ros.bags.tf_tree import static_transform
from vlm3_ros.bags.topics import NO_DEPTH
from vlm3_ros.datasets.views import SceneObject
from vlm3_ros.errors import BagError, MessageError
from vlm3_ros.evaluation.bag.depth_options import DepthCamera, DepthOptions
from vlm3_ros.evaluation.bag.evaluate import bag_source
from vlm3_ros.evaluation.bag.frames import BagFrames, camera_frame
from vlm3_ros.geometry.calibration_files import GivenCamera
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.geometry.motion import Transform, inverse
from vlm3_ros.messages.classes import stamp_nanoseconds
from vlm3_ros.messages.clouds import CLOUD_TYPE, points_from_message


@dataclass(frozen=True)
class TopicOptions:
    """Topics of a bag; those that are None are found by type and content.

    `ground_truth`: a topic or a TF frame, see `find_true_poses`. `is_rectified`: the images are
    already rectified. `camera`: instead of CameraInfo. `depth_camera`, `max_offset`: see
    `DepthOptions`; the latter is for LiDAR scans, too.
    """

    image: str | None = None
    camera_info: str | None = None
    depth: str | None = None
    lidar: str | None = None
    ground_truth: str | None = None
    is_rectified: bool = False
    camera: GivenCamera | None = None
    depth_camera: DepthCamera | None = None
    max_offset: float | None = None


@dataclass(frozen=True)
class DepthSource:
    """Where depth comes from: a topic of depth images, or of LiDAR scans.

    `seconds`: largest time between depth and an image. `T_camera_lidar`: for scans, shape (4, 4).
    """

    topic: str
    seconds: float
    T_camera_lidar: Transform | None = None


@dataclass(frozen=True)
class TrainingFrame:
    """A rectified image with its ground truth.

    `image`: RGB, shape (camera.height, camera.width, 3), uint8. `depth`: metres along Z, same
    height and width, NaN where unknown. `T_world_camera`: shape (4, 4); None if unknown.
    """

    stamp_ns: int
    image: NDArray[np.uint8]
    camera: PinholeCamera
    depth: NDArray[np.float32]
    T_world_camera: Transform | None
    objects: tuple[SceneObject, ...]


@dataclass(frozen=True)
class Recording:
    """A bag to take frames from; `open_recording` opens it.

    `path`: as given. `optical`: the TF frame of the images. `no_poses`: why there are no poses, or
    "". `boxes`: topic of boxes of objects. `stamps_ns`, `depth_ns`: stamps of all images and of all
    depth, ascending. `notes`: remarks for the report. `left_out_boxes`: skipped boxes by reason.
    """

    path: Path
    frames: BagFrames
    depth: DepthSource
    poses: TruePoses | None
    no_poses: str
    boxes: str | None
    optical: str
    stamps_ns: NDArray[np.int64]
    depth_ns: NDArray[np.int64]
    left_out_boxes: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def poses_at(self, stamps_ns: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """T_world_camera at these times, shape (n, 4, 4), NaN if unknown; None without poses."""
        if self.poses is None:
            return None
        return self.poses.base.at(stamps_ns) @ self.poses.T_base_camera

    def with_depth(self) -> tuple[NDArray[np.int64], Counter[str]]:
        """The stamps of images with depth, and the number of images without it by reason.

        Raises:
            BagError: if no image has depth; says how far apart images and depth are.
        """
        gaps = _nearest_seconds(self.stamps_ns, self.depth_ns)
        lost = gaps > self.depth.seconds
        if not lost.any():
            return self.stamps_ns, Counter()
        far = (
            f"within {self.depth.seconds:.3g} s: the nearest on '{self.depth.topic}' is "
            f"{np.median(gaps[lost]):.3f} s away (median, at most {gaps[lost].max():.3f} s)"
        )
        if lost.all():
            raise BagError(
                f"{self.path}: none of the {len(gaps)} images has depth {far}; record both with "
                "the clock of one machine, choose another topic (--depth-topic) or allow more "
                "(--max-offset)"
            )
        return self.stamps_ns[~lost], Counter({f"no depth {far}": int(lost.sum())})

    def read(self, stamps_ns: Collection[int], depth_scale: float) -> Iterator[TrainingFrame]:
        """Read the frames at these stamps that can be decoded and have depth.

        Resets the counts: `self.frames` counts other frames, `self.left_out_boxes` skipped boxes.
        """
        self.left_out_boxes.clear()
        with open_bag(self.frames.path) as scans_bag, open_bag(self.frames.path) as boxes_bag:
            lidar = self.depth.topic if self.depth.T_camera_lidar is not None else None
            scans = NearestMessages(scans_bag, lidar, self.frames.damage)
            boxes = NearestMessages(boxes_bag, self.boxes, self.frames.damage)
            T_camera_frame: dict[str, Transform | None] = {}
            for frame in self.frames.at(frozenset(stamps_ns)):
                stamp, depth = frame.stamp_ns, frame.depth
                if lidar is not None:
                    depth = self._scanned(scans, stamp, frame.camera)
                if depth is None:
                    continue
                depth = np.where(frame.visible, depth * np.float32(depth_scale), np.float32(np.nan))
                poses = self.poses_at(np.array([stamp]))
                pose = poses[0] if poses is not None and np.isfinite(poses).all() else None
                objects: tuple[SceneObject, ...] = ()
                message = boxes.at(stamp, SCAN_SECONDS)
                if message is not None and pose is not None:
                    objects = self._boxes(message, T_camera_frame)
                yield TrainingFrame(stamp, frame.image, frame.camera, depth, pose, objects)

    def _boxes(
        self, message: Any, T_camera_frame: dict[str, Transform | None]
    ) -> tuple[SceneObject, ...]:
        """The boxes of a message in the world of the poses, as of the message's stamp.

        `T_camera_frame` caches transforms from TF by frame; None if TF does not fix the frame.
        """
        assert self.poses is not None
        name = message.header.frame_id.lstrip("/")
        if name == self.poses.world.lstrip("/"):
            return boxes_from_message(message, np.eye(4), self.left_out_boxes)
        if name not in T_camera_frame:
            with open_bag(self.frames.path) as bag:
                T_camera_frame[name] = _fixed(bag, self.optical, name, self.frames.damage)
        T_fixed = T_camera_frame[name]
        if T_fixed is None:
            self.left_out_boxes[
                f"boxes in '{name}', which is neither the world '{self.poses.world}' nor fixed to "
                "the camera by TF"
            ] += len(message.detections)
            return ()
        T_world_camera = (
            self.poses.base.at([stamp_nanoseconds(message.header)])[0] @ self.poses.T_base_camera
        )
        return boxes_from_message(message, T_world_camera @ T_fixed, self.left_out_boxes)

    def _scanned(
        self, scans: NearestMessages, stamp_ns: int, camera: PinholeCamera
    ) -> NDArray[np.float32] | None:
        """Depth from a scan, seen from the camera's pose at the image's stamp."""
        scan = scans.at(stamp_ns, self.depth.seconds)
        if scan is None:
            return None
        try:
            points = points_from_message(scan)
        except MessageError as error:
            self.frames.without_depth[f"{self.depth.topic}: {error}"] += 1
            return None
        assert self.depth.T_camera_lidar is not None
        T_camera_points = self.depth.T_camera_lidar
        poses = self.poses_at(np.array([stamp_ns, stamp_nanoseconds(scan.header)]))
        if poses is not None and np.isfinite(poses).all():
            T_camera_points = inverse(poses[0]) @ poses[1] @ T_camera_points
        return projected_depth(points, T_camera_points, camera)


@contextmanager
def open_recording(path: Path, topics: TopicOptions) -> Iterator[Recording]:
    """Open a bag and find its images, depth, poses and boxes; skip what is damaged.

    Raises:
        BagError: if the bag cannot be read, has no images, CameraInfo or depth, lacks a named
            topic, or several topics match.
    """
    with bag_source(
        path,
        topics.image,
        topics.camera_info,
        topics.depth if topics.lidar is None else NO_DEPTH,
        topics.ground_truth,
        topics.is_rectified,
        topics.camera,
        DepthOptions(topics.depth_camera, topics.max_offset),
    ) as source:
        frames, notes = source.frames, [*source.notes.values()]
        with open_bag(frames.path) as bag:
            optical = camera_frame(bag, frames.topics.image, frames.topics.camera_info)
            depth = _depth_source(bag, frames, topics, optical)
            boxes = [topic.name for topic in bag.topics_of_type(BOXES_TYPE)]
            if len(boxes) > 1:
                notes.append(f"objects come from '{boxes[0]}', not from {', '.join(boxes[1:])}")
            if boxes and source.poses is None:
                notes.append("boxes of objects are skipped: they need poses")
            stamps = np.unique(header_stamps(bag, frames.topics.image, frames.damage))
            depth_ns = np.unique(header_stamps(bag, depth.topic, frames.damage))
        if len(stamps) < source.images and not frames.damage:
            notes.append(f"{source.images - len(stamps)} images repeat the stamp of another one")
        yield Recording(
            path=path,
            frames=frames,
            depth=depth,
            poses=source.poses,
            no_poses=source.no_poses,
            boxes=boxes[0] if boxes and source.poses is not None else None,
            optical=optical,
            stamps_ns=stamps,
            depth_ns=depth_ns,
            notes=notes,
        )


def _depth_source(bag: Bag, frames: BagFrames, topics: TopicOptions, optical: str) -> DepthSource:
    """Choose depth images if there are any and no LiDAR is named, else LiDAR scans."""
    if frames.depth_rule is not None:
        return DepthSource(frames.depth_rule.topic, frames.depth_rule.seconds)
    seconds = SCAN_SECONDS if topics.max_offset is None else topics.max_offset
    clouds = [topic.name for topic in bag.topics_of_type(CLOUD_TYPE)]
    if topics.lidar is not None:
        clouds = [bag.topic(topics.lidar, [CLOUD_TYPE]).name]
    if not clouds:
        raise BagError(
            f"{bag.path}: neither depth images nor point clouds of a LiDAR: depth is unknown; "
            f"{bag.contents()}"
        )
    if len(clouds) > 1:
        raise BagError(
            f"{bag.path}: several topics could be the LiDAR: {', '.join(clouds)}; name one "
            "(--lidar-topic)"
        )
    lidar_frame = camera_frame(bag, clouds[0])
    if lidar_frame.lstrip("/") == optical.lstrip("/"):
        return DepthSource(clouds[0], seconds, np.eye(4))
    T_camera_lidar = static_transform(bag, optical, lidar_frame, frames.damage)
    return DepthSource(clouds[0], seconds, T_camera_lidar)


def _fixed(bag: Bag, target: str, source: str, damage: list[str]) -> Transform | None:
    """T_target_source; None if TF does not fix the two frames to each other."""
    try:
        return static_transform(bag, target, source, damage)
    except BagError:
        return None


def _nearest_seconds(
    stamps_ns: NDArray[np.int64], others_ns: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Seconds from each stamp to the nearest of `others_ns`; infinite if there are none."""
    if not len(others_ns):
        return np.full(len(stamps_ns), np.inf)
    after = np.searchsorted(others_ns, stamps_ns).clip(0, len(others_ns) - 1)
    before = np.maximum(after - 1, 0)
    gaps = np.minimum(np.abs(others_ns[after] - stamps_ns), np.abs(others_ns[before] - stamps_ns))
    return np.asarray(gaps / 1e9)
