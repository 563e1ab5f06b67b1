# SPDX-License-Identifier: Apache-2.0
"""How a user says which true depth a recording has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

DepthCamera = Literal["image", "rectified", "own"]
"""Whose camera depth belongs to: "image" that of the images as they were taken, "rectified" that of
the rectified images, "own" that of its CameraInfo at the place that TF gives it."""

DEPTH_CAMERAS = get_args(DepthCamera)


@dataclass(frozen=True)
class DepthOptions:
    """How true depth is found.

    `camera`: whose camera it belongs to; None for what CameraInfo and TF say. `max_offset`: most
    seconds between an image and its depth; None for half a period of the slower topic.
    """

    camera: DepthCamera | None = None
    max_offset: float | None = None
