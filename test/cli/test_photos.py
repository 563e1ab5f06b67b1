# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlm3_ros.cli.photos import read_photo
from vlm3_ros.errors import CommandError


def corners(image: np.ndarray) -> list[int]:
    """Return the brightness at upper left, upper right, lower left, lower right."""
    grey = image.mean(axis=2)
    return [round(float(grey[y, x])) for y in (2, -3) for x in (2, -3)]


@pytest.fixture
def picture() -> Image.Image:
    """40 px wide, 20 px high; each quarter has a different brightness."""
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:10, 20:], pixels[10:, :20], pixels[10:, 20:] = 80, 160, 240
    return Image.fromarray(pixels)


# https://exiftool.org/TagNames/EXIF.html: 3 rotate 180, 6 rotate 90 clockwise, 8 counterclockwise
@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        (1, [0, 80, 160, 240]),
        (3, [240, 160, 80, 0]),
        (6, [160, 0, 240, 80]),
        (8, [80, 240, 0, 160]),
    ],
)
def test_photos_are_rotated_by_exif(
    picture: Image.Image, tmp_path: Path, orientation: int, expected: list[int]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(tmp_path / "photo.png", exif=exif)
    image = read_photo(tmp_path / "photo.png")
    assert image.shape == ((20, 40, 3) if orientation in (1, 3) else (40, 20, 3))
    assert corners(image) == expected


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_every_mode_becomes_rgb(picture: Image.Image, tmp_path: Path, mode: str) -> None:
    picture.convert(mode).save(tmp_path / "photo.tiff")
    image = read_photo(tmp_path / "photo.tiff")
    assert image.shape == (20, 40, 3)
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous


def test_16_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    grey = np.linspace(0, 65535, 200).astype(np.uint16).reshape(10, 20)
    Image.fromarray(grey).save(tmp_path / "photo.png")
    image = read_photo(tmp_path / "photo.png")
    np.testing.assert_allclose(image, np.repeat((grey / 257)[..., None], 3, 2), atol=1)


def test_invalid_photos_are_named(picture: Image.Image, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"nowhere\.jpg: there is no such file"):
        read_photo(tmp_path / "nowhere.jpg")
    with pytest.raises(CommandError, match="there is no such file"):
        read_photo(tmp_path)
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(CommandError, match=r"empty\.jpg: the file is empty"):
        read_photo(tmp_path / "empty.jpg")
    (tmp_path / "text.jpg").write_text("not a picture")
    with pytest.raises(CommandError, match=r"text\.jpg: not a picture"):
        read_photo(tmp_path / "text.jpg")
    picture.resize((400, 300)).save(tmp_path / "photo.jpg")
    data = (tmp_path / "photo.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(CommandError, match=r"cut\.jpg: the picture cannot be read"):
        read_photo(tmp_path / "cut.jpg")
