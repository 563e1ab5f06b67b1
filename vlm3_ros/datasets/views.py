# SPDX-License-Identifier: Apache-2.0
"""Images with their ground truth, the same for every source: recordings, data sets, scenes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from typing_extensions import Self

from vlm3_ros.datasets.covisibility import pixels_shown
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.geometry.motion import Transform, inverse
from vlm3_ros.tasks.conversations import RegionQuestion


@dataclass(frozen=True)
class SceneObject:
    """An object of a known kind with its upright box.

    `centre` and `size` (length, width, height) in metres; `yaw` in radians about world z.
    """

    kind: str
    centre: NDArray[np.float64]
    size: NDArray[np.float64]
    yaw: float


@dataclass(frozen=True)
class Labels:
    """Pixels that a data set chose, with their depth.

    `pixels`: (u, v), shape (n, 2). `depth`: metres along Z, shape (n,), finite and positive.
    """

    pixels: NDArray[np.float64]
    depth: NDArray[np.float64]


@dataclass(frozen=True)
class Conversation:
    """A question about regions of an image, and its true answer in the data set's words.

    The answer names the regions as the question does.
    """

    question: RegionQuestion
    answer: str


@dataclass(frozen=True)
class PairLabels:
    """Pixels of two views that show the same points, as a data set says.

    `pixels1`, `pixels2`: (u, v) in the first and in the second view, shape (n, 2) each.
    """

    pixels1: NDArray[np.float64]
    pixels2: NDArray[np.float64]


@dataclass(frozen=True)
class View:
    """An image with its ground truth.

    Attributes:
        image: rectified RGB, shape (camera.height, camera.width, 3), uint8.
        depth: metres along Z, same height and width, float32; NaN where unknown, inf in the sky.
        camera: its intrinsics.
        T_world_camera: shape (4, 4), takes points of the optical frame to the world of its scene;
            NaN if unknown.
        kind: of scene, or the name of the recording; scores are grouped by it.
        objects: boxes of objects in the world.
        is_metric: whether depth and T_world_camera are metres. Otherwise they have one unknown
            scale per scene, as structure from motion gives it.
        labels: the pixels that an evaluation asks about; None for any with depth.
        conversations: questions about regions in the data set's own words. Such a view has no
            mirrored variant: left and right are in the words.
    """

    image: NDArray[np.uint8]
    depth: NDArray[np.float32]
    camera: PinholeCamera
    T_world_camera: Transform
    kind: str
    objects: tuple[SceneObject, ...] = ()
    is_metric: bool = True
    labels: Labels | None = None
    conversations: tuple[Conversation, ...] = ()


@dataclass(frozen=True)
class ViewPair:
    """Two views of one scene whose depth is measured, with errors and holes.

    `labels`: the pixels that an evaluation asks about; None for any that both views show.
    """

    first: View
    second: View
    labels: PairLabels | None = None

    @property
    def is_metric(self) -> bool:
        """Whether T_cam1_cam2 is in metres; otherwise its distance has an unknown scale."""
        return self.first.is_metric and self.second.is_metric

    @property
    def T_cam1_cam2(self) -> Transform:
        """The motion of the camera between the views, shape (4, 4), metres if `is_metric`."""
        return inverse(self.first.T_world_camera) @ self.second.T_world_camera

    def matches(self, pixels1: ArrayLike) -> NDArray[np.float64]:
        """Return pixels of the second view that show the same points as pixels of the first one.

        Args:
            pixels1: (u, v) whole numbers in the first view, shape (n, 2).

        Returns:
            (u, v), shape (n, 2); NaN if the depth is unknown in a view, or differs between them.
        """
        return pixels_shown(
            (self.first.camera, self.second.camera),
            (self.first.depth, self.second.depth),
            self.T_cam1_cam2,
            pixels1,
            fills_holes=True,
        )

    def exchanged(self) -> Self:
        """Return the pair with the second view first."""
        labels = self.labels and PairLabels(self.labels.pixels2, self.labels.pixels1)
        return replace(self, first=self.second, second=self.first, labels=labels)
