"""Photos from files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.cli.errors import CommandError


def read_photo(path: Path | str) -> NDArray[np.uint8]:
    """A photo as it is meant to be seen: turned as its EXIF orientation says.

    Returns:
        RGB, shape (height, width, 3), uint8, C-contiguous.

    Raises:
        CommandError: when the file is missing, empty, no picture or cut off.
    """
    # Not OpenCV, which makes half a picture of half a JPEG without a word.
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
