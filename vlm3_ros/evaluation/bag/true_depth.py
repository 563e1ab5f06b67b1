# SPDX-License-Identifier: Apache-2.0
"""True depth of a bag: whose camera its depth images belong to, and how they are registered.

Depth belongs to the camera that its CameraInfo names. Aligned depth of a distorted camera carries
the distortion of the colour image, so it is rectified alike. Depth of another camera is shown from
the place of the image if both cameras and their transform are known.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from vlm3_ros.bags.nearest import half_period, header_stamps
from vlm3_ros.bags.reading import Bag
from vlm3_ros.bags.tf_tree import UnconnectedError, static_transform
from vlm3_ros.bags.topics import CameraTopics, base_topic, info_beside
from vlm3_ros.errors import BagError, MessageError
from vlm3_ros.evaluation.bag.depth_options import DepthCamera, DepthOptions
from vlm3_ros.evaluation.metrics.trajectories import ASSOCIATION_SECONDS
from vlm3_ros.geometry.camera import GeometryError, PinholeCamera
from vlm3_ros.geometry.frame import RectifiedFrame
from vlm3_ros.geometry.lens import LensCamera
from vlm3_ros.geometry.motion import Transform, rotation_angle, transform
from vlm3_ros.geometry.registration import rectified_depth, registered_depth
from vlm3_ros.messages.cameras import CalibrationHistory, is_called_rectified
from vlm3_ros.messages.depth_images import depth_from_message

LONGEST_OFFSET = 0.1
"""Most seconds between an image and its depth if the user names no limit."""

_SAME_METRES, _SAME_RADIANS = 0.001, 0.002
"""Largest distance and angle between the frames of depth images and images that are registered."""

_SAME_FOCAL, _SAME_CENTRE = 2e-3, 0.5
"""Largest difference of two focal lengths (relative) and centres (px) of one camera."""

_SMALL_SHIFT = 0.5
"""Displacement by a lens, px, below which it does not matter which image depth belongs to."""

_FIRST = 5
"""Messages at the start of a topic of which one must be readable."""


class DepthError(MessageError):
    """A depth image that cannot be registered to its image."""


@dataclass(frozen=True)
class DepthRule:
    """What is known about the depth images of a bag.

    Attributes:
        topic: of the depth images.
        info: topic of their CameraInfo; None if the bag has none.
        seconds: most between an image and its depth.
        camera: as in `DepthOptions`.
        is_named: whether the user named the topic.
        frames: TF frames of the images and of the depth images.
        T_image_depth: takes points of the depth's optical frame to that of the images, shape
            (4, 4); None if TF does not fix them to each other.
        tf_fault: why TF does not, as the end of a sentence; empty if it lacks a transform.
    """

    topic: str
    info: str | None
    seconds: float
    camera: DepthCamera | None
    is_named: bool
    frames: tuple[str, str]
    T_image_depth: Transform | None
    tf_fault: str = ""

    def registered(
        self, message: Any, calibrations: CalibrationHistory, frame: RectifiedFrame
    ) -> tuple[NDArray[np.float32], str]:
        """Decode a depth image and register it to a rectified image.

        Args:
            message: of the topic.
            calibrations: of the topic `info`.
            frame: the rectified image.

        Returns:
            Metres along Z, shape (frame.camera.height, frame.camera.width), NaN where unknown; and
            what was done to it, in words; empty if nothing.

        Raises:
            MessageError: if the message cannot be decoded; DepthError if it cannot be registered.
        """
        depth = depth_from_message(message)
        if self.camera == "rectified":
            return self._as_rectified(depth, frame), ""
        if self.camera == "image":
            return self._as_taken(depth, frame)
        lens = self._lens(message, calibrations, (depth.shape[1], depth.shape[0]))
        self._check_stereo(lens, frame)
        if lens is None:
            if self.camera == "own":
                raise DepthError(f"there is no CameraInfo beside it{self._remedy()}")
            return self._unknown(depth, frame)
        done = "" if lens.is_pinhole else "rectified with its CameraInfo"
        depth = rectified_depth(depth, lens)
        T_rectified = self._between_rectified(lens, frame)
        is_same_camera = _is_same_camera(lens.rectified, frame.camera)
        if is_same_camera and self.camera is None:
            if T_rectified is None or _is_same_place(T_rectified) or self.is_named:
                return depth, self._with_frames(done)
            raise DepthError(self._elsewhere())
        if self.camera is None and not is_same_camera:
            self._check_own(lens.rectified, frame.camera)
        if T_rectified is None:
            image, own = self.frames
            raise DepthError(
                f"TF does not fix '{own}' to '{image}' of the images{self.tf_fault}{self._remedy()}"
            )
        moved = f"registered from '{self.frames[1]}' to the images by CameraInfo and TF (z-buffer)"
        warped = registered_depth(depth, lens.rectified, T_rectified, frame.camera)
        return warped, f"{done}, then {moved}" if done else moved

    @property
    def _is_called_rectified(self) -> bool:
        return is_called_rectified(base_topic(self.topic))

    def _lens(
        self, message: Any, calibrations: CalibrationHistory, size: tuple[int, int]
    ) -> LensCamera | None:
        """The lens of a depth image; None if no CameraInfo fits it."""
        try:
            found = calibrations.find(message.header, size, self._is_called_rectified)
        except GeometryError:
            return None
        return None if found is None else found[1]

    def _unknown(
        self, depth: NDArray[np.float32], frame: RectifiedFrame
    ) -> tuple[NDArray[np.float32], str]:
        """Depth without CameraInfo: it can only be of the images' own size and place.

        In the frame of distorted images it is depth that their driver aligned to them as they were
        taken.
        """
        T = self.T_image_depth
        if T is not None and not _is_same_place(T) and not self.is_named:
            raise DepthError(self._elsewhere())
        if self._is_called_rectified or _largest_shift(frame) < _SMALL_SHIFT:
            return self._as_rectified(depth, frame), self._with_frames("")
        if T is not None and _is_same_place(T):
            done = (
                f"rectified like the images, as it is in their place ('{self.frames[1]}') and has "
                "no CameraInfo of its own; if it belongs to the rectified images, say "
                "--depth-camera rectified"
            )
            return self._as_taken(depth, frame)[0], done
        self._as_rectified(depth, frame)  # another size is the greater fault
        raise DepthError(
            "the images are distorted, and neither a CameraInfo beside it nor its frame "
            f"'{self.frames[1]}' says whether it belongs to them as they were taken or rectified: "
            "say so with --depth-camera image or --depth-camera rectified"
        )

    def _as_rectified(
        self, depth: NDArray[np.float32], frame: RectifiedFrame
    ) -> NDArray[np.float32]:
        if depth.shape != (frame.camera.height, frame.camera.width):
            raise DepthError(
                f"the depth image is {depth.shape[1]}x{depth.shape[0]}, the image "
                f"{frame.camera.width}x{frame.camera.height}: it is not registered to it"
            )
        return depth

    def _as_taken(
        self, depth: NDArray[np.float32], frame: RectifiedFrame
    ) -> tuple[NDArray[np.float32], str]:
        depth = self._as_rectified(depth, frame)
        if frame.lens is None:
            return depth, ""
        return rectified_depth(depth, frame.lens), "rectified like the images"

    def _between_rectified(self, lens: LensCamera, frame: RectifiedFrame) -> Transform | None:
        """T_image_depth of the rectified cameras."""
        if self.T_image_depth is None:
            return None
        T_depth = transform(Rotation.from_matrix(lens.R.T), np.zeros(3))
        T_image = np.eye(4)
        if frame.lens is not None:
            T_image[:3, :3] = frame.lens.R
        return T_image @ self.T_image_depth @ T_depth

    def _check_stereo(self, lens: LensCamera | None, frame: RectifiedFrame) -> None:
        """Refuse depth of the other camera of a stereo pair, unless TF tells their places."""
        own = (0.0, 0.0) if lens is None else lens.stereo_shift
        metres = float(np.hypot(*np.subtract(frame.stereo_shift, own)))
        told_by_tf = self.frames[0] != self.frames[1] and self.T_image_depth is not None
        if metres <= _SAME_METRES or told_by_tf or self.is_named or self.camera is not None:
            return
        raise DepthError(
            f"P of the CameraInfo puts its camera {1000 * metres:.0f} mm beside that of the images "
            "(the other one of a stereo pair): use the images of that camera (--image-topic), or "
            "name this topic (--depth-topic) if it is registered"
        )

    def _check_own(self, own: PinholeCamera, image: PinholeCamera) -> None:
        """Refuse another camera in the frame of the images: its place is not told.

        A larger or smaller image of the same camera is fine.
        """
        if self.frames[0] != self.frames[1] and self.T_image_depth is not None:
            return
        resized = own.resized(image.width, image.height)
        is_resized = abs(own.width * image.height - own.height * image.width) <= max(
            own.width, image.width
        )
        if self.T_image_depth is not None and is_resized and _is_same_camera(resized, image, 2.0):
            return
        raise DepthError(
            f"it is not registered to the images: its CameraInfo says {_camera_text(own)}, that of "
            f"the images {_camera_text(image)}, and TF does not tell its place (frames "
            f"'{self.frames[1]}' and '{self.frames[0]}'{self.tf_fault}){self._remedy()}"
        )

    def _elsewhere(self) -> str:
        assert self.T_image_depth is not None
        metres = float(np.linalg.norm(self.T_image_depth[:3, 3]))
        return (
            f"it is in frame '{self.frames[1]}', {1000 * metres:.0f} mm from '{self.frames[0]}' of "
            "the images: it is probably not registered to them; record registered depth, or name "
            "this topic (--depth-topic) if it is registered"
        )

    def _with_frames(self, done: str) -> str:
        image, own = self.frames
        if image == own:
            return done
        note = (
            f"depth is in frame '{own}', images in '{image}': depth was taken as registered to "
            "them, as the sizes are equal"
        )
        return f"{done}; {note}" if done else note

    @staticmethod
    def _remedy() -> str:
        return (
            ": record registered depth, or say whose camera it belongs to (--depth-camera "
            "rectified if it is registered to the rectified images)"
        )


def depth_rule(
    bag: Bag,
    topics: CameraTopics,
    options: DepthOptions,
    is_named: bool,
    frames: tuple[str, str],
    damage: list[str],
) -> DepthRule:
    """Find whose camera the depth images of a bag belong to.

    Args:
        bag: an open bag.
        topics: of its camera, with depth.
        options: of the user.
        is_named: whether the user named the topic of depth.
        frames: TF frames of the images and of the depth images.
        damage: gets a text if the bag is damaged.
    """
    assert topics.depth is not None
    image, own = (frame.lstrip("/") for frame in frames)
    T_image_depth: Transform | None = np.eye(4)
    tf_fault = ""
    if image != own:
        try:
            T_image_depth = static_transform(bag, image, own, damage)
        except UnconnectedError:
            T_image_depth = None
        except BagError as error:
            T_image_depth, tf_fault = None, f": {str(error).removeprefix(f'{bag.path}: ')}"
    elif not image:
        T_image_depth = None
    return DepthRule(
        topics.depth,
        info_beside(bag, topics.depth),
        seconds=_longest_offset(bag, topics, damage)
        if options.max_offset is None
        else options.max_offset,
        camera=options.camera,
        is_named=is_named,
        frames=(image, own),
        T_image_depth=T_image_depth,
        tf_fault=tf_fault,
    )


def first_messages(bag: Bag, topic: str) -> Iterator[Any]:
    """The first messages of a topic, of which one should be readable."""
    for count, message in enumerate(bag.messages([topic]), 1):
        yield message.content
        if count == _FIRST:
            return


def _longest_offset(bag: Bag, topics: CameraTopics, damage: list[str]) -> float:
    """Half a period of the slower topic, within sensible limits."""
    assert topics.depth is not None
    slower = max(
        half_period(header_stamps(bag, topic, damage)) for topic in (topics.image, topics.depth)
    )
    return min(max(slower, ASSOCIATION_SECONDS), LONGEST_OFFSET)


def _is_same_camera(
    one: PinholeCamera, other: PinholeCamera, centre_tolerance: float = _SAME_CENTRE
) -> bool:
    return (
        (one.width, one.height) == (other.width, other.height)
        and abs(one.fx / other.fx - 1) < _SAME_FOCAL
        and abs(one.fy / other.fy - 1) < _SAME_FOCAL
        and abs(one.cx - other.cx) < centre_tolerance
        and abs(one.cy - other.cy) < centre_tolerance
    )


def _is_same_place(T: Transform) -> bool:
    near = float(np.linalg.norm(T[:3, 3])) <= _SAME_METRES
    return near and rotation_angle(T) <= _SAME_RADIANS


def _largest_shift(frame: RectifiedFrame) -> float:
    """Most px between a raw pixel and its rectified one, on a coarse grid; 0 without a lens."""
    lens = frame.lens
    if lens is None:
        return 0.0
    columns, rows = np.linspace(0, lens.width - 1, 16), np.linspace(0, lens.height - 1, 12)
    pixels = np.stack(np.meshgrid(columns, rows), -1)
    shifts = np.linalg.norm(lens.distort_pixels(pixels) - pixels, axis=-1)
    return float(np.nanmax(shifts, initial=0.0))


def _camera_text(camera: PinholeCamera) -> str:
    return f"f = {camera.fx:.0f} px at {camera.width}x{camera.height}"
