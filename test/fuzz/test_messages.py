# SPDX-License-Identifier: Apache-2.0
"""Messages and files with any content are read or raise the documented error."""

from __future__ import annotations

import io
import math
from array import array

import numpy as np
import pytest
from fuzzing import attempt, damaged, scratch_file
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image as Pillow
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, RegionOfInterest
from std_msgs.msg import Header

from vlm3_ros.errors import MessageError
from vlm3_ros.geometry.camera import GeometryError
from vlm3_ros.geometry.lens import LensCamera, load_camera_yaml
from vlm3_ros.messages.cameras import CalibrationHistory, lens_from_message
from vlm3_ros.messages.depth_images import depth_from_message
from vlm3_ros.messages.images import rgb_from_message
from vlm3_ros.nodes.pose_parameters import PoseParameters, given_mount
from vlm3_ros.parameters import ParameterError

PICTURE = np.arange(12 * 16 * 3, dtype=np.uint8).reshape(12, 16, 3)

ODD_YAML = (
    b"[" * 2000,
    b"{a: " * 2000,
    b"a: 2001-13-45",
    b"a: &a [*a]",
    b"? [a]\n: b",
    b"a: !!int b",
)

ENCODINGS = (
    *("rgb8", "bgr8", "rgba8", "bgra8", "rgb16", "bgr16", "rgba16", "bgra16", "mono8", "mono16"),
    *("bayer_rggb8", "bayer_bggr8", "bayer_gbrg8", "bayer_grbg8", "bayer_rggb16", "bayer_gbrg16"),
    *("yuv422", "yuv422_yuy2", "uyvy", "yuyv", "nv12", "nv21", "nv24", "nv61"),
    *("8UC1", "8UC3", "16UC1", "32FC1", "64FC4", "8SC2", "", "rgb", "RGB8"),
)

CAMERA_YAML = b"""\
image_width: 320
image_height: 256
camera_name: camera
camera_matrix: {rows: 3, cols: 3, data: [200, 0, 150, 0, 200, 130, 0, 0, 1]}
distortion_model: plumb_bob
distortion_coefficients: {rows: 1, cols: 5, data: [0, 0, 0, 0, 0]}
rectification_matrix: {rows: 3, cols: 3, data: [1, 0, 0, 0, 1, 0, 0, 0, 1]}
projection_matrix: {rows: 3, cols: 4, data: [200, 0, 150, 0, 0, 200, 130, 0, 0, 0, 1, 0]}
"""


LARGE_YAML = CAMERA_YAML.replace(b"320", b"3" * 30)


pytestmark = pytest.mark.slow


def saved(codec: str, picture: np.ndarray = PICTURE) -> bytes:
    buffer = io.BytesIO()
    Pillow.fromarray(picture).save(buffer, codec)
    return buffer.getvalue()


DEPTH_PNG = saved("PNG", np.arange(192, dtype=np.uint16).reshape(12, 16))
FILES = [saved(codec) for codec in ("PNG", "JPEG", "TIFF", "WEBP")] + [DEPTH_PNG]

unsigned = st.one_of(st.integers(0, 40), st.integers(0, 2**32 - 1))
number = st.one_of(
    st.sampled_from([0.0, 1.0, 100.0, -1.0, math.nan, math.inf, 1e-300, 1e300]), st.floats()
)


@st.composite
def images(draw: st.DrawFn) -> Image:
    """About half of them could be valid."""
    message = Image(
        encoding=draw(st.one_of(st.sampled_from(ENCODINGS), st.text(max_size=12))),
        width=draw(unsigned),
        height=draw(unsigned),
        step=draw(unsigned),
        is_bigendian=draw(st.integers(0, 255)),
    )
    size = draw(st.one_of(st.integers(0, 200), st.just(message.step * message.height)))
    content = draw(st.binary(min_size=1, max_size=40))
    size = min(size, 20_000)
    message.data = array("B", (content * (size // len(content) + 1))[:size])
    return message


@st.composite
def compressed_images(draw: st.DrawFn) -> CompressedImage:
    data = draw(damaged(*FILES, bytes(12) + DEPTH_PNG, b"\x00\x00\x00\x00" + DEPTH_PNG))
    formats = (
        *("jpeg", "png", "rgb8; jpeg compressed bgr8", "mono16; png compressed "),
        *("bayer_rggb8; png compressed ", "16UC1; compressedDepth png", "32FC1; compressedDepth"),
        *("16UC1; png compressed ", "32FC1; tiff compressed ", "16UC1", "zstd"),
    )
    message = CompressedImage(format=draw(st.one_of(st.sampled_from(formats), st.text(max_size=9))))
    message.data = array("B", data)
    return message


def matrix(*good: float) -> st.SearchStrategy[list[float]]:
    """As many numbers as given, each of them valid or arbitrary."""
    each = [st.one_of(st.just(value), st.just(value), number) for value in good]
    return st.one_of(st.just(list(good)), st.tuples(*each).map(list))


@st.composite
def camera_infos(draw: st.DrawFn) -> CameraInfo:
    models = ("plumb_bob", "rational_polynomial", "equidistant", "none", "", "thin_prism_fisheye")
    return CameraInfo(
        header=Header(frame_id=draw(st.sampled_from(["camera", "other", ""]))),
        width=draw(st.one_of(st.just(32), unsigned)),
        height=draw(st.one_of(st.just(24), unsigned)),
        distortion_model=draw(st.one_of(st.sampled_from(models), st.text(max_size=9))),
        d=draw(st.one_of(st.just([0.1, 0.0, 0.0, 0.0, 0.0]), st.lists(number, max_size=15))),
        k=draw(matrix(30.0, 0.0, 16.0, 0.0, 30.0, 12.0, 0.0, 0.0, 1.0)),
        r=draw(matrix(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)),
        p=draw(matrix(30.0, 0.0, 16.0, 0.0, 0.0, 30.0, 12.0, 0.0, 0.0, 0.0, 1.0, 0.0)),
        binning_x=draw(st.one_of(st.integers(0, 2), unsigned)),
        binning_y=draw(st.one_of(st.integers(0, 2), unsigned)),
        roi=RegionOfInterest(
            x_offset=draw(st.one_of(st.just(0), unsigned)),
            y_offset=draw(st.one_of(st.just(0), unsigned)),
            width=draw(st.one_of(st.just(0), unsigned)),
            height=draw(st.one_of(st.just(0), unsigned)),
        ),
    )


@given(images())
def test_images(message):
    rgb, _ = attempt((MessageError,), rgb_from_message, message)
    if rgb is not None:
        assert rgb.shape == (message.height or len(rgb), message.width, 3)
        assert rgb.dtype == np.uint8


@given(compressed_images())
def test_compressed_images(message):
    rgb, _ = attempt((MessageError,), rgb_from_message, message)
    if rgb is not None:
        assert rgb.ndim == 3 and rgb.shape[2] == 3 and rgb.dtype == np.uint8


@given(st.one_of(images(), compressed_images()))
def test_depth_images(message):
    depth, _ = attempt((MessageError,), depth_from_message, message)
    if depth is not None:
        assert depth.ndim == 2 and depth.dtype == np.float32
        assert not (depth <= 0).any() and not np.isinf(depth).any()


@given(camera_infos())
def test_camera_infos(message):
    lens, _ = attempt((GeometryError,), lens_from_message, message)
    if lens:
        assert_usable(lens)


@given(st.lists(camera_infos(), max_size=4), st.sampled_from(["camera", "other", ""]))
def test_calibration_histories(messages, frame_id):
    history = CalibrationHistory()
    for message in messages:
        history.add(message)
    found, refusal = attempt((GeometryError,), history.find, Header(frame_id=frame_id), (32, 24))
    assert bool(found or refusal) == bool(messages)
    if found:
        assert (found[1].width, found[1].height) == (32, 24)
        assert_usable(found[1])


@given(damaged(CAMERA_YAML, LARGE_YAML, *ODD_YAML))
@example(LARGE_YAML)
@example(ODD_YAML[0])
@example(ODD_YAML[2])
@example(b"a: !!int")
def test_calibration_files(content):
    path = scratch_file("camera.yaml", content)
    lens, refusal = attempt((GeometryError,), load_camera_yaml, path)
    if lens:
        assert_usable(lens)
    else:
        assert path.name in refusal


@given(damaged(b"0.1 0 0.8 -0.5 0.5 -0.5 0.5", b"[1,2,3,0,0,0,1]"))
def test_camera_mounts(content):
    def place(text: str) -> np.ndarray | None:
        return given_mount(PoseParameters(base_from_camera=text))

    T_base_camera, refusal = attempt((ParameterError,), place, content.decode("latin-1"))
    assert not refusal or "base_from_camera" in refusal
    if T_base_camera is not None:
        assert np.isfinite(T_base_camera).all()
        np.testing.assert_allclose(np.linalg.det(T_base_camera), 1, atol=1e-6)


def assert_usable(lens: LensCamera) -> None:
    for values in (lens.K, lens.D, lens.R, lens.P):
        assert np.isfinite(values).all()
    if lens.width * lens.height <= 32 * 24:
        image = np.zeros((lens.height, lens.width, 3), np.uint8)
        assert lens.rectify(image).shape == image.shape
        assert lens.rectified_mask().shape == image.shape[:2]
