# SPDX-License-Identifier: Apache-2.0
"""Photos from files, and their cameras."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.errors import CommandError, MessageError
from vlm3_ros.geometry.camera import GeometryError, PinholeCamera

if TYPE_CHECKING:
    from vlm3_ros.geometry.calibration_files import GivenCamera
    from vlm3_ros.geometry.lens import LensCamera

_FILM_DIAGONAL = math.hypot(36, 24)
"""Of 35 mm film, mm."""

_FOCALS = (4.0, 5000.0)
"""Shortest and longest focal length of 35 mm film that is believed, mm."""

_WIDEST = 2.5
"""Largest ratio of the sides of a picture that is no panorama."""

_SAME_ASPECT = 0.01
"""Largest difference in the ratio of the sides of a picture that was not cropped."""


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


def read_shot(path: Path, camera: GivenCamera | None) -> Shot:
    """Read and rectify a photo.

    Args:
        path: of the photo.
        camera: that took it; None for the focal length in its EXIF data, which is told on stderr.

    Raises:
        CommandError: if the photo cannot be read, does not fit its calibration, or nothing tells
            its field of view.
        GeometryError: if the camera is impossible.
    """
    photo = read_photo(path)
    height, width = photo.shape[:2]
    if camera is None:
        pinhole = _exif_camera(path, width, height)
        return Shot(photo, pinhole, None)
    is_turned = _check_orientation(path, width, height, camera)
    try:
        lens = camera.lens(width, height)
    except GeometryError as error:
        if not is_turned:
            raise
        raise GeometryError(
            f"{error} ({path} is turned as its EXIF data say: if the calibration is for the stored "
            "pixels, remove the EXIF orientation)"
        ) from error
    for assumption in lens.assumptions:
        print(f"{camera}: {assumption}", file=sys.stderr)
    if camera.file is None:
        return Shot(photo, lens.rectified, None)
    return Shot(lens.rectify(photo), lens.rectified, lens)


def _check_orientation(path: Path, width: int, height: int, camera: GivenCamera) -> bool:
    """Refuse a photo whose size does not tell whether its calibration is of the turned pixels.

    Return whether EXIF swaps the sides of a photo with a calibration. OpenCV turns by EXIF what a
    calibration program reads, drivers and image_transport do not.
    """
    from PIL import ExifTags, Image

    with Image.open(path) as picture:
        orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
    swaps_sides = orientation in (5, 6, 7, 8)
    if camera.file is None or orientation not in range(2, 9):
        return False
    if swaps_sides and width != height:
        return True
    raise CommandError(
        f"{path}: EXIF turns or mirrors its pixels (orientation {orientation}), and {camera.file} "
        "does not tell whether it is for the turned ones: store the photo upright, or give --hfov"
    )


def _exif_camera(path: Path, width: int, height: int) -> PinholeCamera:
    """The camera of a photo by the focal length that EXIF gives as of 35 mm film.

    Such a focal length stands for the same angle along the diagonal (CIPA DCG-001).
    """
    focal, reason = _exif_focal(path, width, height)
    if reason:
        raise CommandError(
            f"{path}: its camera is unknown: give --hfov or --camera-info ({reason})"
        )
    fx = focal * math.hypot(width, height) / _FILM_DIAGONAL
    camera = PinholeCamera(width, height, fx, fx, (width - 1) / 2, (height - 1) / 2)
    hfov = math.degrees(2 * math.atan(width / 2 / fx))
    print(
        f"{path}: its EXIF data say {focal:g} mm (35 mm equivalent): a horizontal field of view of "
        f"{hfov:.1f} degrees; --hfov or --camera-info overrides it",
        file=sys.stderr,
    )
    return camera


def _exif_focal(path: Path, width: int, height: int) -> tuple[float, str]:
    """Focal length in mm of 35 mm film, and why there is none."""
    from PIL import ExifTags, Image

    with Image.open(path) as picture:
        tags = picture.getexif().get_ifd(ExifTags.IFD.Exif)
    try:
        focal = float(tags.get(ExifTags.Base.FocalLengthIn35mmFilm, 0))
        zoom = float(tags.get(ExifTags.Base.DigitalZoomRatio, 0))
        taken = [
            float(tags.get(tag, 0))
            for tag in (ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight)
        ]
    except (TypeError, ValueError, ZeroDivisionError):
        focal, zoom, taken = 0.0, 0.0, [0.0, 0.0]
    if not focal > 0:
        return 0.0, "its EXIF data hold no focal length of 35 mm film"
    if not _FOCALS[0] <= focal <= _FOCALS[1]:
        return 0.0, f"its EXIF data say {focal:g} mm (35 mm equivalent), which no lens has"
    if zoom > 1:
        # Some cameras include it, others do not.
        return 0.0, f"it was zoomed by {zoom:g} digitally, and EXIF leaves open what that changed"
    if max(width, height) > _WIDEST * min(width, height):
        return 0.0, f"{width}x{height} px are a panorama or cropped"
    shown = sorted((width, height))
    if all(taken) and abs(min(taken) / max(taken) - shown[0] / shown[1]) > _SAME_ASPECT:
        return 0.0, (
            f"its EXIF data are of a picture of {taken[0]:.0f}x{taken[1]:.0f} px: it was cropped"
        )
    return focal, ""


def read_photo(path: Path | str) -> NDArray[np.uint8]:
    """Read a photo, rotated according to its EXIF orientation.

    Returns:
        RGB, shape (height, width, 3), uint8, C-contiguous.

    Raises:
        CommandError: if the file is missing, empty, not a picture or truncated.
    """
    # Not with OpenCV, which reads half a picture from half a JPEG without an error.
    from PIL import Image, ImageOps

    from vlm3_ros.messages.images import check_16_bit_colours, check_brightness

    path = Path(path)
    if path.is_dir():
        raise CommandError(f"{path}: a folder, not a photo")
    if not path.is_file():
        raise CommandError(f"{path}: there is no such file")
    if not path.stat().st_size:
        raise CommandError(f"{path}: the file is empty")
    try:
        with Image.open(path) as picture:
            check_16_bit_colours(picture)
            upright = ImageOps.exif_transpose(picture)
            if upright.mode.startswith("I"):  # 16-bit grey, which Pillow would clip at 255
                grey = np.asarray(upright).astype(np.uint16)
                check_brightness(grey, "scale them to 16, or store 8")
                return np.repeat((grey >> 8).astype(np.uint8)[..., None], 3, axis=2)
            return np.array(upright.convert("RGB"))
    except Image.UnidentifiedImageError:
        raise CommandError(
            f"{path}: not a picture that Pillow can read: convert it to JPEG or PNG"
        ) from None
    except MessageError as error:
        raise CommandError(f"{path}: {error}") from None
    except Exception as error:  # decoders raise anything on broken files
        raise CommandError(f"{path}: the picture cannot be read: {error}") from error
