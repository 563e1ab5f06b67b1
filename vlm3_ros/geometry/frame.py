# SPDX-License-Identifier: Apache-2.0
"""A rectified image with its camera: what every task takes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.geometry.lens import LensCamera


@dataclass(frozen=True, eq=False, kw_only=True)
class RectifiedFrame:
    """A rectified image, its camera, and the part of it that shows something.

    Attributes:
        image: RGB, shape (camera.height, camera.width, 3), uint8.
        camera: of the rectified image.
        visible: False where rectification left the image black, shape (camera.height,
            camera.width).
        lens: of the image as it was taken; None if that image was rectified already.
        stereo_shift: metres that P adds to X and Y of points; not 0 for the second camera of a
            stereo pair, whose frame may be that of the first.
    """

    image: NDArray[np.uint8]
    camera: PinholeCamera
    visible: NDArray[np.bool_]
    lens: LensCamera | None = None
    stereo_shift: tuple[float, float] = (0.0, 0.0)


def rectified_frame(image: NDArray[np.uint8], lens: LensCamera) -> RectifiedFrame:
    """Rectify an image.

    Args:
        image: as it was taken, RGB, shape (lens.height, lens.width, 3), uint8.
        lens: its calibration; a pinhole camera if the image is rectified already.
    """
    if lens.is_pinhole:
        everything = np.broadcast_to(np.True_, image.shape[:2])
        return RectifiedFrame(
            image=image,
            camera=lens.rectified,
            visible=everything,
            stereo_shift=lens.stereo_shift,
        )
    return RectifiedFrame(
        image=lens.rectify(image),
        camera=lens.rectified,
        visible=lens.rectified_mask(),
        lens=lens,
        stereo_shift=lens.stereo_shift,
    )
