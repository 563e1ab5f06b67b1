# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from hypothesis import given
from hypothesis import strategies as st
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CameraInfo, RegionOfInterest
from std_msgs.msg import Header

from vlm3_ros.geometry.camera import GeometryError, PinholeCamera
from vlm3_ros.geometry.lens import UncalibratedError
from vlm3_ros.messages.cameras import (
    CalibrationHistory,
    camera_info_message,
    is_called_rectified,
    lens_from_message,
)
from vlm3_ros.messages.classes import RCLPY, ROSBAGS

SIZE = (640, 480)


def camera_info(
    focal: float = 500.0,
    stamp: float = 0.0,
    frame: str = "camera",
    size: tuple[int, int] = SIZE,
    **fields: object,
) -> CameraInfo:
    camera = PinholeCamera(*size, focal, focal, size[0] / 2, size[1] / 2)
    header = image_header(stamp, frame)
    message = camera_info_message(header, camera)
    for name, value in fields.items():
        setattr(message, name, value)
    return message


def image_header(stamp: float, frame: str = "camera") -> Header:
    seconds, fraction = divmod(stamp, 1)
    return Header(stamp=Time(sec=int(seconds), nanosec=round(fraction * 1e9)), frame_id=frame)


@given(
    width=st.integers(1, 4000),
    height=st.integers(1, 4000),
    fx=st.floats(0.1, 50),
    fy=st.floats(0.1, 50),
    cx=st.floats(-0.9, 1.9),
    cy=st.floats(-0.9, 1.9),
)
def test_a_camera_comes_back(width, height, fx, fy, cx, cy):
    camera = PinholeCamera(width, height, fx * width, fy * height, cx * width, cy * height)
    message = serialize_message(camera_info_message(image_header(1.5), camera))
    received = deserialize_message(message, CameraInfo)
    assert received.header == image_header(1.5)
    assert lens_from_message(received, (width, height)).rectified == camera
    assert lens_from_message(received).is_pinhole


@pytest.mark.parametrize("classes", [RCLPY, ROSBAGS], ids=["rclpy", "rosbags"])
def test_camera_info_holds_the_camera(classes):
    camera = PinholeCamera(640, 480, 500.0, 510.0, 320.5, 239.0)
    info = camera_info_message(classes.header(7, "optical"), camera)
    assert (info.width, info.height, info.distortion_model) == (640, 480, "plumb_bob")
    assert np.array_equal(info.k.reshape(3, 3), camera.K)
    assert np.array_equal(info.p.reshape(3, 4)[:, :3], camera.K)
    assert not info.p.reshape(3, 4)[:, 3].any()
    assert not any(info.d)


def test_every_field_reaches_the_lens():
    message = camera_info(
        d=[0.1, -0.05, 0.001, 0.002, 0.01],
        p=[400.0, 0.0, 300.0, 0.0, 0.0, 410.0, 230.0, 0.0, 0.0, 0.0, 1.0, 0.0],
        binning_x=2,
        binning_y=2,
        roi=RegionOfInterest(x_offset=40, y_offset=20, width=400, height=300),
    )
    lens = lens_from_message(message, (200, 150))
    assert lens.distortion_model == "plumb_bob"
    np.testing.assert_allclose(lens.D, message.d)
    assert (lens.K[0, 0], lens.K[0, 2], lens.K[1, 2]) == (250, (320 - 40) / 2, (240 - 20) / 2)
    assert lens.rectified == PinholeCamera(200, 150, 200, 205, 130, 105)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (camera_info(k=[0.0] * 9, p=[0.0] * 12), "uncalibrated"),
        (camera_info(size=(320, 240)), "320x240.* 640x480"),
        (camera_info(distortion_model="thin_prism"), "thin_prism"),
        (camera_info(d=[0.1, 0.2]), "coefficients"),
        (camera_info(focal=1.0), r"view of 179.6x179.5 degrees.*at 90 degrees across it is 320 px"),
        (CameraInfo(), "uncalibrated"),
    ],
)
def test_unusable_messages(message, text):
    with pytest.raises(GeometryError, match=text):
        lens_from_message(message, SIZE)


def test_a_camera_that_sends_one_pixel_for_unknown_is_uncalibrated():
    """image_publisher does; then fallback_intrinsics apply."""
    with pytest.raises(UncalibratedError):
        lens_from_message(camera_info(focal=1.0))


def test_the_distortion_of_the_raw_image_does_not_matter_to_a_rectified_one():
    message = camera_info(d=[0.1] * 3, distortion_model="thin_prism", k=[0.0] * 9)
    lens = lens_from_message(message, SIZE, is_rectified=True)
    assert lens.is_pinhole
    assert lens.rectified == PinholeCamera(*SIZE, 500, 500, 320, 240)
    history = CalibrationHistory()
    history.add(message)
    found = history.find(image_header(0), SIZE, is_rectified=True)
    assert found and found[1] == lens
    with pytest.raises(GeometryError, match="uncalibrated"):
        history.find(image_header(0), SIZE)


def test_a_calibration_without_a_size_takes_that_of_its_image():
    history = CalibrationHistory()
    history.add(camera_info(width=0, height=0))
    found = history.find(image_header(0), SIZE)
    assert found
    assert found[1].rectified == PinholeCamera(*SIZE, 500, 500, 320, 240)
    assert found[1].assumptions == (
        "the calibration has no image size: it is taken for the images' 640x480 px",
    )
    with pytest.raises(GeometryError, match=r"0x0, and the centre \(320, 240\) is not near"):
        history.find(image_header(0), (1280, 720))


def found_focal(history: CalibrationHistory, header: Header, size: tuple[int, int] = SIZE) -> float:
    found = history.find(header, size)
    assert found is not None
    message, lens = found
    assert lens.rectified.fx == message.p[0]
    return message.p[0]


def test_an_empty_history_finds_nothing():
    history = CalibrationHistory()
    assert history.is_empty
    assert history.find(image_header(0), SIZE) is None


def test_one_message_serves_all_times():
    history = CalibrationHistory()
    history.add(camera_info(500, stamp=10))
    assert not history.is_empty
    assert [found_focal(history, image_header(t)) for t in (0, 10, 1e6)] == [500] * 3


def test_images_find_the_calibration_of_their_time():
    history = CalibrationHistory()
    for stamp, focal in ((1, 500), (2, 500), (3, 600), (4, 600), (5, 700)):
        history.add(camera_info(focal, stamp))
    focals = [found_focal(history, image_header(t)) for t in (1, 2.9, 3, 4.9, 5, 99)]
    assert focals == [500, 500, 600, 600, 700, 700]


def test_a_recording_that_restarts():
    history = CalibrationHistory()
    for stamp, focal in ((1, 500), (5, 600), (1, 500)):
        history.add(camera_info(focal, stamp))
    assert found_focal(history, image_header(2)) == 500
    history.add(camera_info(600, 5))
    assert found_focal(history, image_header(6)) == 600


def test_images_find_the_calibration_of_their_size():
    history = CalibrationHistory()
    history.add(camera_info(500, stamp=1))
    history.add(camera_info(1000, stamp=2, size=(1280, 960)))
    assert found_focal(history, image_header(1.9)) == 500
    assert found_focal(history, image_header(2.1)) == 500
    assert found_focal(history, image_header(2.1), (1280, 960)) == 1000
    assert found_focal(history, image_header(1.9), (1280, 960)) == 1000
    with pytest.raises(GeometryError, match=r"1280x960.*800x600"):
        history.find(image_header(3), (800, 600))


def test_images_find_the_camera_of_their_frame():
    history = CalibrationHistory()
    history.add(camera_info(500, stamp=1, frame="left"))
    history.add(camera_info(600, stamp=2, frame="right"))
    assert found_focal(history, image_header(3, "left")) == 500
    assert found_focal(history, image_header(3, "right")) == 600
    assert found_focal(history, image_header(3, "other")) == 600


def test_a_camera_that_becomes_uncalibrated_is_refused_from_then_on():
    history = CalibrationHistory()
    history.add(camera_info(500, stamp=1))
    history.add(camera_info(stamp=2, k=[0.0] * 9, p=[0.0] * 12))
    assert not history.is_empty
    assert found_focal(history, image_header(1.5)) == 500
    with pytest.raises(UncalibratedError, match="uncalibrated"):
        history.find(image_header(2.5), SIZE)
    history.add(camera_info(600, stamp=3))
    assert found_focal(history, image_header(3.5)) == 600


def test_a_camera_whose_calibration_breaks_is_refused():
    history = CalibrationHistory()
    history.add(camera_info(500, stamp=1))
    history.add(camera_info(stamp=2, distortion_model="thin_prism"))
    with pytest.raises(GeometryError, match="thin_prism"):
        history.find(image_header(2.5), SIZE)


def test_an_older_fault_does_not_hide_the_wrong_size_of_the_newest():
    history = CalibrationHistory()
    history.add(camera_info(distortion_model="mystery"))
    history.add(camera_info(stamp=1, size=(320, 240)))
    with pytest.raises(GeometryError, match="320x240"):
        history.find(image_header(2), SIZE)


@pytest.mark.parametrize(
    "change",
    [
        {"d": [0.1, 0.0, 0.0, 0.0, 0.0]},
        {"binning_x": 1, "binning_y": 2},
        {"roi": RegionOfInterest(x_offset=1, y_offset=1, width=639, height=479)},
        {"r": [0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0]},
        {"d": [0.0] * 8, "distortion_model": "rational_polynomial"},
    ],
)
def test_a_change_of_any_field_is_kept(change):
    history = CalibrationHistory(size=2)
    changed = camera_info(500, stamp=2, **change)
    history.add(camera_info(500, stamp=1))
    history.add(changed)
    expected = lens_from_message(changed)
    found = history.find(image_header(3), (expected.width, expected.height))
    assert found is not None
    assert found[0] is changed


def test_repetitions_are_dropped():
    history = CalibrationHistory(size=2)
    history.add(camera_info(500, stamp=1))
    history.add(camera_info(600, stamp=2))
    for stamp in range(3, 50):
        history.add(camera_info(600, stamp))
    assert found_focal(history, image_header(1.5)) == 500


@pytest.mark.parametrize(
    ("topic", "expected"),
    [
        ("/camera/image_rect", True),
        ("/camera/image_rect_color", True),
        ("/zed/rgb/color/rect/image", True),
        ("image_rect", True),
        ("/camera/image_raw", False),
        ("/direct/image_raw", False),
        ("/rectangle/camera/image", False),
        ("image", False),
    ],
)
def test_topics_that_are_called_rectified(topic: str, expected: bool) -> None:
    assert is_called_rectified(topic) == expected
