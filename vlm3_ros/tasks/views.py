# SPDX-License-Identifier: Apache-2.0
"""Two images as a model sees them: both at its unified focal length (paper section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.engines.base import Engine
from vlm3_ros.geometry.camera import PinholeCamera, UnifiedCamera, unify_focal
from vlm3_ros.geometry.images import unify_image

ImagePair = tuple[NDArray[np.uint8], NDArray[np.uint8]]
CameraPair = tuple[PinholeCamera, PinholeCamera]


@dataclass(frozen=True)
class ViewPair:
    """How the first and the second image enter a model, and what it sees: RGB, uint8."""

    first: UnifiedCamera
    second: UnifiedCamera
    images: ImagePair


def view_pair(engine: Engine, images: ImagePair, cameras: CameraPair) -> ViewPair:
    """Unify the focal length of two images.

    Args:
        engine: whose focal length and limits count.
        images: rectified RGB, shape (camera.height, camera.width, 3) each, uint8.
        cameras: their intrinsics.

    Raises:
        GeometryError: when an image does not fit its camera or the engine's limits.
    """
    profile = engine.profile
    first, second = (
        unify_focal(camera, profile.focal, engine.limits, profile.fit) for camera in cameras
    )
    return ViewPair(first, second, (unify_image(images[0], first), unify_image(images[1], second)))
