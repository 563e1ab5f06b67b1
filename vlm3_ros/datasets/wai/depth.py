# SPDX-License-Identifier: Apache-2.0
"""Depth of a frame with the masks that map-anything applies to it."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.datasets.exr import read_exr
from vlm3_ros.datasets.wai.scene_meta import FrameFiles
from vlm3_ros.errors import DatasetError

Pixel = TypeVar("Pixel", bound=np.generic)

WITHOUT_PREDICTED_MASK = frozenset(
    {
        "asev2",
        "dynamicreplica",
        "eth3d",
        "mvs_synth",
        "paralleldomain4d",
        "sailvos3d",
        "scannetppv2",
        "unrealstereo4k",
    }
)
"""Data sets whose depth map-anything uses without MoGe's mask of clear surfaces."""

WITH_HORIZON = frozenset(
    {"mvs_synth", "paralleldomain4d", "sailvos3d", "tav2_wb", "unrealstereo4k"}
)
"""Synthetic data sets whose farthest pixels map-anything drops."""

HORIZON = 95.0
"""Percentile of a frame's depth, with unknown depth as 0, beyond which it is the horizon."""

LEAST_CONFIDENCE = 0.25
"""Of depth that was predicted by MVSAnywhere, which is the share of views that agree with it."""

_SAME_ASPECT = 0.02
"""Largest relative difference of the aspect of a depth image and of its mask or image."""


def read_depth(
    folder: Path, files: FrameFiles, dataset: str, size: tuple[int, int]
) -> NDArray[np.float32]:
    """Read the depth of a frame at the size of its image; each pixel takes the nearest one.

    Args:
        folder: of the scene.
        files: of the frame; its depth is known.
        dataset: name of the data set.
        size: width and height of the image, px.

    Returns:
        Depth along Z, shape (height, width), NaN where unknown: not finite, not positive, masked,
        little confident or at the horizon.

    Raises:
        DatasetError: naming a file that is missing, broken or of another shape.
    """
    path = folder / files.depth
    depth = read_exr(path)
    if not depth.size:
        raise DatasetError(f"{path}: the depth image is empty")
    shape = depth.shape
    depth[~(np.isfinite(depth) & (depth > 0))] = np.nan
    if dataset in WITH_HORIZON:
        depth[depth > np.percentile(np.nan_to_num(depth), HORIZON)] = np.nan
    if files.confidence:
        confidence = _resampled(
            read_exr(folder / files.confidence), shape, folder / files.confidence
        )
        depth[~(confidence > LEAST_CONFIDENCE)] = np.nan
    if files.mask:
        depth[~_read_mask(folder / files.mask, shape)] = np.nan
    if files.sky_mask:
        depth[_read_mask(folder / files.sky_mask, shape)] = np.nan
    if files.predicted_mask and dataset not in WITHOUT_PREDICTED_MASK:
        depth[~_read_mask(folder / files.predicted_mask, shape)] = np.nan
    # MVSAnywhere squeezes every image to one size.
    return _resampled(depth, (size[1], size[0]), path, may_squeeze=bool(files.confidence))


def _read_mask(path: Path, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Read where a mask is white, at the shape of a depth image."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            mask = np.array(picture.convert("L")) > 127
    except FileNotFoundError:
        raise DatasetError(f"{path}: there is no such mask") from None
    except Exception as error:  # decoders raise anything on broken files
        raise DatasetError(f"{path}: the mask cannot be read: {error}") from error
    return _resampled(mask, shape, path)


def _resampled(
    image: NDArray[Pixel], shape: tuple[int, ...], path: Path, may_squeeze: bool = False
) -> NDArray[Pixel]:
    """Bring an image to another shape, (height, width); each pixel takes the nearest one.

    Raises:
        DatasetError: naming the file, if its aspect is another one: it would not show the same.
    """
    if image.shape == shape:
        return image
    (rows, columns), (height, width) = image.shape, shape
    if not may_squeeze and abs(columns * height / (rows * width) - 1) > _SAME_ASPECT:
        raise DatasetError(
            f"{path}: it has {columns}x{rows} px; {width}x{height} px, or the same aspect, are "
            "expected"
        )
    row = ((np.arange(height) + 0.5) * rows / height).astype(int)
    column = ((np.arange(width) + 0.5) * columns / width).astype(int)
    return image[row[:, None], column]
