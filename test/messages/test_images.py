# SPDX-License-Identifier: Apache-2.0
"""Colour images of every encoding, byte order and step, and broken messages."""

from __future__ import annotations

import io
import struct
from array import array

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow
from sensor_msgs.msg import CompressedImage, Image

from vlm3_ros.errors import MessageError
from vlm3_ros.messages.classes import RCLPY, ROSBAGS
from vlm3_ros.messages.images import compressed_image_message, rgb_from_message

HEIGHT, WIDTH = 24, 32


def scene(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A smooth image whose three channels differ everywhere."""
    v, u = np.mgrid[:height, :width]
    channels = (u * 255 / (width - 1), v * 255 / (height - 1), 255 - u * 200 / (width - 1))
    return np.stack(channels, -1).astype(np.uint8)


def image_message(
    pixels: np.ndarray,
    encoding: str,
    *,
    height: int | None = None,
    padding: int = 0,
    big_endian: bool = False,
) -> Image:
    """A message with `padding` arbitrary bytes after each row."""
    if big_endian:
        pixels = pixels.byteswap()
    rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(len(pixels), -1)
    padding_bytes = np.full((len(rows), padding), 77, np.uint8)
    message = Image(
        height=height or len(rows),
        width=pixels.shape[1],
        encoding=encoding,
        step=rows.shape[1] + padding,
        is_bigendian=int(big_endian),
    )
    message.data = array("B", np.hstack([rows, padding_bytes]).tobytes())
    return message


def compressed_message(data: bytes, format_: str) -> CompressedImage:
    message = CompressedImage(format=format_)
    message.data = array("B", data)
    return message


def saved(picture: np.ndarray, codec: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Pillow.fromarray(picture).save(buffer, codec, **options)
    return buffer.getvalue()


def mosaic(rgb: np.ndarray, pattern: str) -> np.ndarray:
    """The image of a sensor with a Bayer filter; the pattern names its upper left 2x2 pixels."""
    grey = np.empty(rgb.shape[:2], rgb.dtype)
    for place, colour in enumerate(pattern):
        row, column = divmod(place, 2)
        grey[row::2, column::2] = rgb[row::2, column::2, "rgb".index(colour)]
    return grey


def luma(rgb: np.ndarray) -> np.ndarray:
    return rgb @ (0.299, 0.587, 0.114)


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("padding", [0, 1, 5])
@pytest.mark.parametrize(
    ("encoding", "order", "dtype"),
    [
        ("rgb8", [0, 1, 2], np.uint8),
        ("bgr8", [2, 1, 0], np.uint8),
        ("rgba8", [0, 1, 2, 0], np.uint8),
        ("bgra8", [2, 1, 0, 0], np.uint8),
        ("rgb16", [0, 1, 2], np.uint16),
        ("bgr16", [2, 1, 0], np.uint16),
        ("rgba16", [0, 1, 2, 0], np.uint16),
        ("bgra16", [2, 1, 0, 0], np.uint16),
    ],
)
def test_colours_survive_exactly(encoding, order, dtype, padding, big_endian):
    pixels = scene()[..., order].astype(dtype)
    if dtype == np.uint16:
        pixels *= 257
    message = image_message(pixels, encoding, padding=padding, big_endian=big_endian)
    rgb = rgb_from_message(message)
    assert rgb.dtype == np.uint8
    assert rgb.flags.c_contiguous
    np.testing.assert_array_equal(rgb, scene())


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize(("encoding", "dtype"), [("mono8", np.uint8), ("mono16", np.uint16)])
def test_grey_becomes_three_equal_channels(encoding, dtype, big_endian):
    grey = scene()[..., 0].astype(dtype)
    if dtype == np.uint16:
        grey *= 257
    rgb = rgb_from_message(image_message(grey, encoding, padding=3, big_endian=big_endian))
    np.testing.assert_array_equal(rgb, np.repeat(scene()[..., :1], 3, axis=-1))


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_patterns(pattern, bits):
    picture = scene(64, 96)
    grey = mosaic(picture, pattern).astype(f"uint{bits}")
    if bits == 16:
        grey *= 257
    message = image_message(grey, f"bayer_{pattern}{bits}", padding=2, big_endian=bits == 16)
    error = np.abs(rgb_from_message(message).astype(int) - picture)[2:-2, 2:-2]
    assert error.max() <= 8  # the image is smooth; a wrong pattern is off by up to 255


@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize("encoding", ["uyvy", "yuv422", "yuyv", "yuv422_yuy2", "nv12", "nv21"])
def test_yuv(encoding, padding):
    picture = scene(64, 96)
    ycrcb = cv2.cvtColor(picture, cv2.COLOR_RGB2YCrCb)
    # Video range (ITU-R BT.601), as these encodings have it.
    y = np.rint(16 + luma(picture) * 219 / 255).astype(np.uint8)
    v, u = (np.rint(128 + (ycrcb[..., i] - 128.0) * 224 / 255).astype(np.uint8) for i in (1, 2))
    height = len(picture)
    if encoding.startswith("nv"):
        first, second = (u, v) if encoding == "nv12" else (v, u)
        chroma = np.stack([first[::2, ::2], second[::2, ::2]], -1).reshape(height // 2, -1)
        pixels = np.vstack([y, chroma])
    else:
        chroma = np.where(np.arange(96) % 2 == 0, u, np.roll(v, 1, axis=1))
        pair = (chroma, y) if encoding in ("uyvy", "yuv422") else (y, chroma)
        pixels = np.stack(pair, -1)
    message = image_message(pixels, encoding, height=height, padding=padding)
    rgb = rgb_from_message(message)
    assert rgb.shape == picture.shape
    error = np.abs(rgb.astype(int) - picture)
    assert np.percentile(error, 95) <= 10


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    padding=st.integers(0, 64),
    surplus=st.integers(0, 64),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_step_and_surplus_data(height, width, padding, surplus, seed):
    picture = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    message = image_message(picture, "rgb8", padding=padding)
    message.data.extend([1] * surplus)
    np.testing.assert_array_equal(rgb_from_message(message), picture)


@pytest.mark.parametrize(
    ("codec", "options", "tolerance"),
    [
        ("PNG", {}, 0),
        ("JPEG", {"quality": 95}, 12),
        ("TIFF", {}, 0),
        ("WEBP", {"lossless": True}, 0),
    ],
)
def test_compressed_colour(codec, options, tolerance):
    message = compressed_message(
        saved(scene(), codec, **options), f"bgr8; {codec.lower()} compressed bgr8"
    )
    rgb = rgb_from_message(message)
    assert rgb.dtype == np.uint8
    assert rgb.flags.c_contiguous
    assert np.abs(rgb.astype(int) - scene()).max() <= tolerance


def test_compressed_as_opencv_writes_it():
    # compressed_image_transport hands blue-green-red to OpenCV's encoder.
    _, data = cv2.imencode(".png", scene()[..., ::-1])
    message = compressed_message(data.tobytes(), "rgb8; png compressed bgr8")
    np.testing.assert_array_equal(rgb_from_message(message), scene())


@pytest.mark.parametrize(("codec", "tolerance"), [("PNG", 0), ("JPEG", 8)])
def test_compressed_grey(codec, tolerance):
    grey = scene()[..., 0]
    rgb = rgb_from_message(compressed_message(saved(grey, codec), "mono8; compressed"))
    assert rgb.shape == (HEIGHT, WIDTH, 3)
    assert np.abs(rgb.astype(int) - grey[..., None]).max() <= tolerance


def test_compressed_grey_16_bit_is_scaled():
    grey = scene()[..., 0]
    message = compressed_message(
        saved(grey.astype(np.uint16) * 257, "PNG"), "mono16; png compressed"
    )
    np.testing.assert_array_equal(rgb_from_message(message)[..., 1], grey)


@pytest.mark.parametrize("library", [RCLPY, ROSBAGS], ids=["rclpy", "rosbags"])
def test_compressed_colour_of_both_libraries(library):
    message = compressed_image_message(
        library.header(0, "camera"), saved(scene(), "PNG"), "rgb8; png compressed bgr8"
    )
    np.testing.assert_array_equal(rgb_from_message(message), scene())


def test_a_compressed_bayer_pattern_becomes_colour():
    picture = scene(64, 96)
    data = saved(mosaic(picture, "grbg"), "PNG")
    rgb = rgb_from_message(compressed_message(data, "bayer_grbg8; png compressed "))
    assert np.abs(rgb.astype(int) - picture)[2:-2, 2:-2].max() <= 8


def test_transparency_and_palettes_become_rgb():
    rgba = np.dstack([scene(), np.full((HEIGHT, WIDTH), 255, np.uint8)])
    message = compressed_message(saved(rgba, "PNG"), "png")
    np.testing.assert_array_equal(rgb_from_message(message), scene())


@pytest.mark.parametrize("encoding", ["rgb8", "mono8", "yuv422_yuy2", "bgr16", "nv12"])
@pytest.mark.parametrize("unset", [{"step": 0}, {"height": 0}, {"step": 0, "height": 0}])
def test_what_a_driver_leaves_unset_is_told_by_the_length(encoding, unset):
    pixels = {
        "rgb8": scene(),
        "mono8": scene()[..., 0],
        "yuv422_yuy2": scene()[..., :2],
        "bgr16": scene().astype(np.uint16) * 257,
        "nv12": scene(HEIGHT + HEIGHT // 2)[..., 0],
    }[encoding]
    message = image_message(pixels, encoding, height=HEIGHT)
    expected = rgb_from_message(message)
    for name, value in unset.items():
        setattr(message, name, value)
    np.testing.assert_array_equal(rgb_from_message(message), expected)


@pytest.mark.parametrize("bits", [10, 12])
@pytest.mark.parametrize("encoding", ["mono16", "bayer_rggb16", "rgb16"])
def test_10_bits_in_16_are_refused_by_name(encoding, bits):
    """As 16 bits they are black, and no field says how many bits there are."""
    values = np.linspace(0, 2**bits - 1, HEIGHT * WIDTH * 3).astype(np.uint16)
    values = values.reshape(HEIGHT, WIDTH, 3)
    message = image_message(values if encoding == "rgb16" else values[..., 0], encoding)
    with pytest.raises(MessageError, match=f"is black.*of 65535. If the camera has {bits} bits"):
        rgb_from_message(message)


def test_compressed_10_bits_in_16_are_refused_by_name():
    values = scene()[..., 0].astype(np.uint16) * 4
    with pytest.raises(MessageError, match="brightest value is 1020 of 65535"):
        rgb_from_message(compressed_message(saved(values, "PNG"), "mono16; png compressed "))


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_compressed_colours_of_10_bits_in_16_are_refused_by_name(suffix):
    """Pillow keeps the upper 8 of 16 bits."""
    colours = scene().astype(np.uint16)
    image_format = f"rgb16; {suffix[1:]} compressed bgr16"
    full = cv2.imencode(suffix, colours[..., ::-1] * 257)[1].tobytes()
    np.testing.assert_array_equal(rgb_from_message(compressed_message(full, image_format)), scene())
    dark = cv2.imencode(suffix, colours * 4)[1].tobytes()
    with pytest.raises(MessageError, match=r"the image is black.*scale them to 16, or send 8"):
        rgb_from_message(compressed_message(dark, image_format))


def big_endian_tiff(grey: np.ndarray) -> bytes:
    """An uncompressed TIFF of 16-bit grey, with Motorola's byte order."""
    height, width = grey.shape
    data = grey.astype(">u2").tobytes()
    tags = [(256, 3, width), (257, 3, height), (258, 3, 16), (259, 3, 1), (262, 3, 1)]
    tags += [(273, 4, 8), (277, 3, 1), (278, 3, height), (279, 4, len(data))]
    entries = [
        struct.pack(">HHI", tag, kind, 1)
        + (struct.pack(">HH", value, 0) if kind == 3 else struct.pack(">I", value))
        for tag, kind, value in tags
    ]
    directory = struct.pack(">H", len(tags)) + b"".join(entries) + bytes(4)
    return b"MM\x00*" + struct.pack(">I", 8 + len(data)) + data + directory


def test_a_big_endian_tiff_of_16_bits_is_scaled():
    grey = scene()[..., 0]
    data = big_endian_tiff(grey.astype(np.uint16) * 257)
    rgb = rgb_from_message(compressed_message(data, "mono16; tiff compressed "))
    np.testing.assert_array_equal(rgb[..., 1], grey)


@pytest.mark.parametrize("orientation", [3, 6])
def test_an_exif_orientation_does_not_turn_the_sensor(orientation):
    """The calibration is that of the stored pixels; OpenCV's imdecode would turn them."""
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    data = saved(scene(), "JPEG", quality=95, exif=exif.tobytes())
    turned = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    rgb = rgb_from_message(compressed_message(data, "jpeg"))
    assert rgb.shape == scene().shape
    assert np.abs(rgb.astype(int) - scene()).max() <= 12
    assert turned.shape != rgb.shape or np.abs(turned.astype(int) - rgb).max() > 100


def broken_images() -> dict[str, tuple[Image, str]]:
    def message(**changes: object) -> Image:
        good = image_message(scene(), "rgb8")
        for name, value in changes.items():
            setattr(good, name, value)
        return good

    whole = image_message(scene(), "rgb8").data
    return {
        "no width": (message(width=0), r"empty \(0x24\)"),
        "no height, odd data": (message(height=0, data=whole[:-1]), r"empty \(32x0\)"),
        "no size": (message(width=0, height=0), r"empty \(0x0\)"),
        "no data": (message(data=array("B")), "cut off: 0 bytes of 2304"),
        "small step": (message(step=32), r"step of 32 bytes .* 32 px of rgb8 take 96 bytes"),
        "zero step, padded": (
            message(step=0, data=whole + array("B", [0] * HEIGHT)),
            "the step is 0, and 2328 bytes are not 32x24 px of rgb8 .* 2304 bytes: set the step",
        ),
        "truncated": (message(data=whole[:-1]), "cut off: 2303 bytes of 2304"),
        "huge": (message(height=2**31, step=96), "larger than"),
        "unknown encoding": (
            message(encoding="rgb9"),
            "encoding 'rgb9' is unknown: publish one of colour, such",
        ),
        "no encoding": (message(encoding=""), "encoding '' is unknown"),
        "depth image": (
            message(encoding="32FC1", step=128),
            "'32FC1' is that of a depth image: use the topic of the camera's colour images",
        ),
        "depth of 16 bits": (message(encoding="16UC1", step=64), "'16UC1' is that of a depth"),
        "no colour order": (
            message(encoding="8UC3"),
            "'8UC3' does not define colours: publish one of",
        ),
        "odd width": (message(encoding="uyvy", width=31), "31x24 is not a valid size for uyvy"),
        "odd width of planes": (
            message(encoding="nv12", width=31),
            "31x24 is not a valid size for nv12",
        ),
        "odd height": (message(encoding="nv21", height=23), "32x23 is not a valid size for nv21"),
    }


@pytest.mark.parametrize("case", broken_images())
def test_broken_image(case):
    message, text = broken_images()[case]
    with pytest.raises(MessageError, match=text):
        rgb_from_message(message)


def broken_compressed() -> dict[str, tuple[CompressedImage, str]]:
    jpeg, png = saved(scene(), "JPEG"), saved(scene(), "PNG")
    noise = bytes(np.random.default_rng(1).integers(0, 256, 500, np.uint8))
    return {
        "no data": (compressed_message(b"", "jpeg"), "empty"),
        "noise": (compressed_message(noise, "jpeg"), r"\(format 'jpeg'\) are none of JPEG, PNG"),
        "jpeg cut off": (
            compressed_message(jpeg[: len(jpeg) // 2], "jpeg"),
            "corrupt: .*[Tt]runcated",
        ),
        "jpeg header only": (compressed_message(jpeg[:30], "jpeg"), "jpeg"),
        "png cut off": (compressed_message(png[: len(png) // 2], "png"), "corrupt"),
        "png altered": (
            compressed_message(png[:60] + b"\xff\xff\xff" + png[63:], "png"),
            "corrupt",
        ),
        "depth": (
            compressed_message(png, "16UC1; compressedDepth png"),
            "that of a depth image: use the topic of the camera's colour images",
        ),
        "depth by `compressed`": (
            compressed_message(png, "16UC1; png compressed "),
            "'16UC1; png compressed ' is that of a depth image",
        ),
        "depth as TIFF": (
            compressed_message(saved(scene()[..., 0].astype(np.float32), "TIFF"), "tiff"),
            "one channel of 32 bits, not colour",
        ),
        "zstd": (compressed_message(noise, "zstd"), r"\(format 'zstd'\) are none of JPEG"),
    }


@pytest.mark.parametrize("case", broken_compressed())
def test_broken_compressed_image(case):
    message, text = broken_compressed()[case]
    with pytest.raises(MessageError, match=text):
        rgb_from_message(message)


def test_a_decompression_bomb_is_refused_before_it_is_decoded():
    buffer = io.BytesIO()
    Pillow.new("1", (20_000, 20_000)).save(buffer, "PNG")
    assert len(buffer.getvalue()) < 100_000
    with pytest.raises(MessageError, match="larger than"):
        rgb_from_message(compressed_message(buffer.getvalue(), "png"))


@given(data=st.binary(max_size=400), format_=st.text(max_size=30))
def test_any_bytes_decode_or_raise_a_message_error(data, format_):
    try:
        rgb = rgb_from_message(compressed_message(data, format_))
    except MessageError:
        return
    assert rgb.ndim == 3


@given(
    cut=st.integers(0, 3000),
    place=st.integers(0, 3000),
    value=st.integers(0, 255),
    codec=st.sampled_from(["JPEG", "PNG", "TIFF", "WEBP"]),
)
def test_damaged_files_decode_or_raise_a_message_error(cut, place, value, codec):
    data = bytearray(saved(scene(), codec))
    data[place % len(data)] = value
    data = data[: len(data) - cut % len(data)]
    try:
        rgb = rgb_from_message(compressed_message(bytes(data), codec))
    except MessageError:
        return
    assert rgb.ndim == 3
    assert rgb.shape[2] == 3


@pytest.mark.parametrize(
    "encoding",
    ["rgb8", "bgr8", "rgba8", "bgra8", "mono8", "rgb16", "mono16", "bayer_rggb8", "yuv422_yuy2"],
)
def test_parity_with_cv_bridge(encoding):
    cv_bridge = pytest.importorskip("cv_bridge", exc_type=ImportError)
    channels = {"rgb": 3, "bgr": 3, "yuv": 2}.get(encoding[:3], 1)
    channels = 4 if "a8" in encoding else channels
    dtype = np.uint16 if encoding.endswith("16") else np.uint8
    pixels = np.random.default_rng(3).integers(0, np.iinfo(dtype).max, (HEIGHT, WIDTH, channels))
    # cv_bridge shears images whose rows are not a whole number of pixels long.
    message = image_message(pixels.astype(dtype), encoding, padding=24)
    expected = cv_bridge.CvBridge().imgmsg_to_cv2(message, "rgb8")
    assert np.abs(rgb_from_message(message).astype(int) - expected).max() <= 1
