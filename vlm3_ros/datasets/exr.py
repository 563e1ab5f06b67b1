# SPDX-License-Identifier: Apache-2.0
"""OpenEXR files of one channel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.errors import DatasetError


def read_exr(path: Path) -> NDArray[np.float32]:
    """Read an image of one channel, whatever its name: half, float or whole numbers.

    Returns:
        Values as stored, shape (height, width), float32.

    Raises:
        DatasetError: naming the file that is missing, broken or has several channels, or if the
            OpenEXR package is missing.
    """
    try:
        import OpenEXR
    except ImportError as error:
        raise DatasetError(
            f"{path}: reading EXR files needs the OpenEXR package: "
            "python3 -m pip install 'OpenEXR>=3.3'"
        ) from error
    if not path.is_file():
        raise DatasetError(f"{path}: there is no such EXR file")
    try:
        with OpenEXR.File(str(path), separate_channels=True) as file:
            channels = {name: channel.pixels for name, channel in file.channels().items()}
            is_cropped = not np.array_equal(
                file.header()["dataWindow"], file.header()["displayWindow"]
            )
    except Exception as error:  # the library raises anything on broken files
        raise DatasetError(f"{path}: the EXR file cannot be read: {error}") from error
    if is_cropped:
        raise DatasetError(f"{path}: the EXR file holds a part of its image")
    if len(channels) != 1:
        names = ", ".join(sorted(channels)) or "none"
        raise DatasetError(f"{path}: the EXR file must have one channel, it has {names}")
    (pixels,) = channels.values()
    if pixels is None or pixels.ndim != 2:
        raise DatasetError(f"{path}: the EXR file holds no image of one channel")
    return np.asarray(pixels, dtype=np.float32)
