# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image

from vlm3_ros.cli.camera_options import add_camera_options, given_camera, given_cameras
from vlm3_ros.cli.photos import read_photo, read_shot
from vlm3_ros.errors import CommandError
from vlm3_ros.geometry.calibration_files import GivenCamera
from vlm3_ros.geometry.camera import GeometryError


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


def calibrated(tmp_path: Path, width: int, height: int) -> GivenCamera:
    file = tmp_path / "camera.yaml"
    file.write_text(
        f"image_width: {width}\nimage_height: {height}\n"
        "camera_matrix: {data: [30, 0, 20, 0, 30, 10, 0, 0, 1]}\n"
        "distortion_coefficients: {data: []}\n"
    )
    return GivenCamera(file=str(file))


@pytest.mark.parametrize(
    ("orientation", "size", "refusal"),
    [
        (1, (40, 20), ""),
        (6, (20, 40), ""),  # only the turned photo has this size
        (6, (40, 20), "calibrates images of 40x20, but the image is 20x40"),
        (3, (40, 20), r"EXIF turns or mirrors its pixels \(orientation 3\), and .*camera.yaml"),
        (2, (40, 20), r"\(orientation 2\).*store the photo upright, or give --hfov"),
    ],
)
def test_a_calibration_is_used_for_the_pixels_that_it_is_for(
    picture: Image.Image, tmp_path: Path, orientation: int, size: tuple[int, int], refusal: str
) -> None:
    path = tmp_path / "photo.jpg"
    picture.save(path, exif=exif(orientation))
    if not refusal:
        assert read_shot(path, calibrated(tmp_path, *size)).image.shape == (*size[::-1], 3)
        return
    with pytest.raises((CommandError, GeometryError), match=refusal):
        read_shot(path, calibrated(tmp_path, *size))
    assert read_shot(path, GivenCamera(hfov=60.0)).image is not None


def test_10_bits_in_a_16_bit_photo_are_named(tmp_path: Path) -> None:
    grey = np.linspace(0, 1023, 200).astype(np.uint16).reshape(10, 20)
    Image.fromarray(grey).save(tmp_path / "photo.png")
    with pytest.raises(CommandError, match=r"is black: its brightest value is 1023.*has 10 bits"):
        read_photo(tmp_path / "photo.png")


def test_10_bits_in_a_photo_of_16_bit_colours_are_named(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "photo.png"), np.full((4, 6, 3), 1000, np.uint16))
    with pytest.raises(CommandError, match=r"photo.png: the image is black"):
        read_photo(tmp_path / "photo.png")


def test_a_calibration_of_the_stored_pixels_of_a_turned_photo_is_named(
    picture: Image.Image, tmp_path: Path
) -> None:
    picture.save(tmp_path / "photo.jpg", exif=exif(6))
    with pytest.raises(GeometryError, match=r"photo.jpg is turned .* remove the EXIF orientation"):
        read_shot(tmp_path / "photo.jpg", calibrated(tmp_path, *picture.size))


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
    with pytest.raises(CommandError, match="a folder, not a photo"):
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


def exif(orientation: int = 1, taken: tuple[int, int] | None = None, **tags: object) -> Image.Exif:
    """EXIF data of a camera; `taken`: size in px at which it took the picture."""
    data = Image.Exif()
    data[ExifTags.Base.Orientation] = orientation
    of_camera = data.get_ifd(ExifTags.IFD.Exif)
    of_camera.update({ExifTags.Base[name].value: value for name, value in tags.items()})
    if taken is not None:
        of_camera[ExifTags.Base.ExifImageWidth], of_camera[ExifTags.Base.ExifImageHeight] = taken
    return data


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("taken", [None, (4000, 2000)])
def test_the_focal_length_in_exif_serves_and_is_told(
    picture: Image.Image,
    tmp_path: Path,
    orientation: int,
    taken: tuple[int, int] | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """26 mm of 35 mm film is an angle along the diagonal, so that it holds for all shapes."""
    path = tmp_path / "photo.jpg"
    picture.save(path, exif=exif(orientation, taken, FocalLengthIn35mmFilm=26))
    camera = read_shot(path, None).camera
    expected = 26 * np.hypot(40, 20) / np.hypot(36, 24)
    assert camera.fx == camera.fy == pytest.approx(expected)
    width = 40 if orientation == 1 else 20
    assert (camera.width, camera.cx) == (width, (width - 1) / 2)
    told = capsys.readouterr().err
    hfov = np.degrees(2 * np.arctan(width / 2 / expected))
    assert f"26 mm (35 mm equivalent): a horizontal field of view of {hfov:.1f} degrees" in told


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (exif(), "hold no focal length of 35 mm film"),
        (exif(FocalLengthIn35mmFilm=0), "hold no focal length of 35 mm film"),
        (exif(FocalLength=4.2), "hold no focal length of 35 mm film"),
        (exif(FocalLengthIn35mmFilm=1), r"say 1 mm \(35 mm equivalent\), which no lens has"),
        (exif(FocalLengthIn35mmFilm=65535), "65535 mm .* which no lens has"),
        (exif(FocalLengthIn35mmFilm=26, DigitalZoomRatio=2.0), "was zoomed by 2 digitally"),
        (exif(FocalLengthIn35mmFilm=26, taken=(4000, 3000)), "of 4000x3000 px: it was cropped"),
    ],
)
def test_a_photo_whose_field_of_view_nothing_tells_is_refused(
    picture: Image.Image, tmp_path: Path, data: Image.Exif, reason: str
) -> None:
    picture.save(tmp_path / "photo.jpg", exif=data)
    with pytest.raises(CommandError, match=f"give --hfov or --camera-info .*{reason}"):
        read_shot(tmp_path / "photo.jpg", None)


def test_the_focal_length_of_a_panorama_is_not_that_of_its_camera(
    picture: Image.Image, tmp_path: Path
) -> None:
    panorama = picture.resize((120, 20))
    panorama.save(tmp_path / "photo.jpg", exif=exif(FocalLengthIn35mmFilm=26))
    with pytest.raises(CommandError, match="120x20 px are a panorama or cropped"):
        read_shot(tmp_path / "photo.jpg", None)


def test_a_given_camera_needs_no_exif(
    picture: Image.Image, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture.save(tmp_path / "photo.jpg", exif=exif(FocalLengthIn35mmFilm=26))
    assert read_shot(tmp_path / "photo.jpg", GivenCamera(hfov=90.0)).camera.fx == pytest.approx(20)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("arguments", "photos", "cameras"),
    [
        ([], 2, [None, None]),
        (["--hfov", "60"], 1, [GivenCamera(hfov=60.0)]),
        (["--hfov", "60"], 2, [GivenCamera(hfov=60.0)] * 2),
        (["--hfov", "60", "--hfov", "70"], 2, [GivenCamera(hfov=60.0), GivenCamera(hfov=70.0)]),
        (
            ["--camera-info", "a.yaml", "--hfov", "70"],
            2,
            [GivenCamera(file="a.yaml"), GivenCamera(hfov=70.0)],
        ),
    ],
)
def test_photos_share_a_camera_or_have_one_each(
    arguments: list[str], photos: int, cameras: list[GivenCamera | None]
) -> None:
    parser = argparse.ArgumentParser()
    add_camera_options(parser, "EXIF")
    options = parser.parse_args(arguments)
    assert given_cameras(options, photos) == cameras


def test_more_cameras_than_photos_are_refused() -> None:
    parser = argparse.ArgumentParser()
    add_camera_options(parser, "EXIF")
    options = parser.parse_args(["--hfov", "60", "--hfov", "70"])
    with pytest.raises(CommandError, match="2 cameras are given for 1 photo: give --hfov"):
        given_cameras(options, 1)
    with pytest.raises(CommandError, match="2 cameras are given for 3 photos"):
        given_cameras(options, 3)
    with pytest.raises(CommandError, match="a recording has one camera"):
        given_camera(options)
