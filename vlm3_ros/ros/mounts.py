# SPDX-License-Identifier: Apache-2.0
"""The pose of a camera on its robot, from a parameter."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from vlm3_ros.geometry.motion import Transform, transform
from vlm3_ros.parameters import ParameterError


def mount_from_text(name: str, text: str) -> Transform | None:
    """Parse a transform `x y z qx qy qz qw`, shape (4, 4), metres; None for an empty text.

    Args:
        name: of the parameter.
        text: its value.

    Raises:
        ParameterError: if the text is no translation and unit quaternion.
    """
    if not text.strip():
        return None
    try:
        numbers = np.array([float(part) for part in text.replace(",", " ").strip("[] ").split()])
    except ValueError:
        numbers = np.empty(0)
    if numbers.shape != (7,) or not np.isfinite(numbers).all():
        raise ParameterError(
            f"parameter '{name}' is {text!r}; it takes the seven numbers x y z qx qy qz qw, or "
            "nothing"
        )
    if abs(np.linalg.norm(numbers[3:]) - 1) > 0.01:
        raise ParameterError(
            f"parameter '{name}': the quaternion {numbers[3:].tolist()} has a length of "
            f"{np.linalg.norm(numbers[3:]):.3g}, it must be 1"
        )
    return transform(Rotation.from_quat(numbers[3:]), numbers[:3])


def check_frame_name(name: str, frame: str) -> None:
    """Refuse a name that tf2 does not accept for a frame.

    Raises:
        ParameterError: naming the parameter.
    """
    if not frame or frame.startswith("/"):
        raise ParameterError(
            f"parameter '{name}' is {frame!r}; it must name a frame, without a leading '/'"
        )
