# SPDX-License-Identifier: Apache-2.0
"""Images of all kinds are read as RGB with 8 bits."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from vlm3_ros.datasets.files import read_image
from vlm3_ros.errors import DatasetError


@pytest.fixture
def grey() -> NDArray[np.uint8]:
    """All values from 0 to 255."""
    return np.arange(256, dtype=np.uint8).reshape(16, 16)


def test_grey_of_16_bits_is_as_bright_as_that_of_8(grey: NDArray[np.uint8], tmp_path: Path):
    file = tmp_path / "grey.png"
    cv2.imwrite(str(file), grey.astype(np.uint16) * 257)
    np.testing.assert_array_equal(read_image(file), np.stack([grey] * 3, -1))
    cv2.imwrite(str(file), np.stack([grey.astype(np.uint16) * 257] * 3, -1))
    np.testing.assert_array_equal(read_image(file), np.stack([grey] * 3, -1))


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "CMYK"])
def test_other_kinds_give_the_same_colours(grey: NDArray[np.uint8], mode: str, tmp_path: Path):
    file = tmp_path / ("grey.tif" if mode == "CMYK" else "grey.png")
    Image.fromarray(grey).convert("RGB").convert(mode).save(file)
    np.testing.assert_array_equal(read_image(file), np.stack([grey] * 3, -1))


def test_an_image_of_floats_is_refused(tmp_path: Path):
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(DatasetError, match=r"float.tif: it is not an image of 8 or 16 bits"):
        read_image(tmp_path / "float.tif")


def test_a_rotation_in_exif_is_left(tmp_path: Path):
    exif = Image.Exif()
    exif[0x112] = 6
    Image.new("RGB", (8, 4)).save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg").shape == (4, 8, 3)
