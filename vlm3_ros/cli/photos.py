# SPDX-License-Identifier: Apache-2.0
"""Photos from files, and their cameras."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.errors import CommandError
from vlm3_ros.geometry.camera import PinholeCamera

if TYPE_CHECKING:
    from vlm3_ros.geometry.lens import LensCamera


@dataclass(frozen=True)
class Shot:
    """A rectified photo and its camera.

    Attributes:
        image: RGB, shape (camera.height, camera.width, 3), uint8.
        camera: camera of the rectified image.
        lens: camera of the photo as taken; None if the photo has no distortion.
    """

    image: NDArray[np.uint8]
    camera: PinholeCamera
    lens: LensCamera | None

    def rectified_pixels(self, pixels: Sequence[Sequence[float]]) -> NDArray[np.float64]:
        """Convert pixels (u, v) of the photo to pixels of the image, shape (n, 2).

        Raises:
            CommandError: if a pixel lies outside the image; names the first one.
        """
        rectified = np.array(pixels, dtype=float).reshape(-1, 2)
        if self.lens is not None:
            rectified = self.lens.rectify_pixels(rectified)
        width, height = self.camera.width, self.camera.height
        for (u, v), (x, y) in zip(pixels, rectified, strict=True):
            if not (-0.5 <= x < width - 0.5 and -0.5 <= y < height - 0.5):
                size = f"{width}x{height} image"
                where = size if self.lens is None else f"rectified {size}"
                raise CommandError(f"pixel ({u:g}, {v:g}) lies outside of the {where}")
        return rectified

    def photo_pixels(self, pixels: NDArray[np.float64]) -> NDArray[np.float64]:
        """Convert pixels of the image to pixels of the photo, shape (n, 2)."""
        return pixels if self.lens is None else self.lens.distort_pixels(pixels)


def add_camera_options(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Add the options that describe the camera of a photo."""
    camera = parser.add_mutually_exclusive_group(required=required)
    camera.add_argument(
        "--hfov",
        type=float,
        metavar="DEG",
        help="horizontal field of view of the photo, in degrees",
    )
    camera.add_argument(
        "--camera-info",
        type=Path,
        metavar="FILE",
        help="calibration of the camera, in camera_calibration's YAML format; photos are rectified",
    )


def read_shot(path: Path, options: argparse.Namespace) -> Shot:
    """Read and rectify a photo, with the camera given by the options.

    Raises:
        CommandError: if the photo cannot be read or does not fit its calibration.
        GeometryError: if the camera is impossible.
    """
    photo = read_photo(path)
    height, width = photo.shape[:2]
    if options.camera_info is None:
        return Shot(photo, PinholeCamera.from_hfov(width, height, options.hfov), None)
    from vlm3_ros.geometry.lens import load_camera_yaml

    lens = load_camera_yaml(options.camera_info)
    if (lens.width, lens.height) != (width, height):
        raise CommandError(
            f"{options.camera_info}: calibrates images of {lens.width}x{lens.height}, "
            f"but the photo is {width}x{height}"
        )
    return Shot(lens.rectify(photo), lens.rectified, lens)


def read_photo(path: Path | str) -> NDArray[np.uint8]:
    """Read a photo, rotated according to its EXIF orientation.

    Returns:
        RGB, shape (height, width, 3), uint8, C-contiguous.

    Raises:
        CommandError: if the file is missing, empty, not a picture or truncated.
    """
    # Not with OpenCV, which reads half a picture from half a JPEG without an error.
    from PIL import Image, ImageOps

    path = Path(path)
    if not path.is_file():
        raise CommandError(f"{path}: there is no such file")
    if not path.stat().st_size:
        raise CommandError(f"{path}: the file is empty")
    try:
        with Image.open(path) as picture:
            upright = ImageOps.exif_transpose(picture)
            if upright.mode.startswith("I"):  # 16-bit grey, which Pillow would clip at 255
                grey = np.asarray(upright).astype(np.uint16) >> 8
                return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)
            return np.array(upright.convert("RGB"))
    except Image.UnidentifiedImageError:
        raise CommandError(f"{path}: not a picture that Pillow can read") from None
    except Exception as error:  # decoders raise anything on broken files
        raise CommandError(f"{path}: the picture cannot be read: {error}") from error
