# SPDX-License-Identifier: Apache-2.0
"""Bad input of every kind: it is reported, nothing is published, and the node continues."""

from __future__ import annotations

import io
import re
import threading
from array import array
from collections.abc import Iterator

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from PIL import Image as Pillow
from rclpy.context import Context
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rosbags.image import image_to_cvimage
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from vlm3_ros.engines.base import EngineError
from vlm3_ros.geometry.camera import ImageLimits, PinholeCamera
from vlm3_ros.messages.cameras import camera_info_message
from vlm3_ros.ros.fallback import FallbackIntrinsics

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR

BAD_IMAGES = {
    "empty frame_id": ({"header.frame_id": ""}, "header.frame_id is empty"),
    "no size": ({"width": 0, "height": 0}, r"the image is empty \(0x0\)"),
    "small step": ({"step": 320}, "the step of 320 bytes is smaller than a row"),
    "unknown encoding": ({"encoding": "rgb24"}, "the encoding 'rgb24' is unknown"),
    "depth": ({"encoding": "32FC1", "width": 240}, "'32FC1' is that of a depth image"),
    "truncated": ({"data": array("B", [0] * 1000)}, "cut off: 1000 bytes of 245760"),
    "no data": ({"data": array("B")}, "cut off: 0 bytes"),
    "big-endian and cut off": (
        {"encoding": "mono16", "is_bigendian": 1, "step": 640, "data": array("B", [0] * 640)},
        "cut off: 640 bytes of 163840",
    ),
    "too large": ({"width": 2**16, "height": 2**16, "step": 2**18}, "65536x65536 is larger"),
}


def assert_only(rig, *stamps):
    """Check that only these frames were answered."""
    for topic in rig.received:
        assert set(rig.stamps(topic)) <= set(stamps), topic


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_bad_image(make_rig, bench, case):
    changes, text = BAD_IMAGES[case]
    engine = bench.WallEngine()
    rig = make_rig(engine)
    rig.wait_active()
    good = rig.send_good()
    rig.wait_for_stamp(good)
    message = bench.rgb_message(bench.now())
    for name, value in changes.items():
        *path, last = name.split(".")
        setattr(getattr(message, path[0]) if path else message, last, value)
    rig.image.publish(message)
    rig.wait_for_status("frames", ERROR, f"^{rig.namespace}/image: .*{text}")
    rig.image.publish(message)
    rig.wait(lambda: rig.report().failed == 2, "the second failure")
    rig.wait(lambda: rig.log_lines(text), "a line in the log")
    assert len(rig.log_lines(text)) == 1  # throttled
    again = rig.send_good()
    rig.wait_for_stamp(again)
    rig.wait_for_status("frames", OK, "Hz")
    assert re.search(text, rig.value("last error"))
    assert_only(rig, good, again)
    assert len(engine.images) == 2


def jpeg() -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (256, 320, 3), np.uint8)
    Pillow.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (jpeg()[:5000], "corrupt: .*truncated"),
        (jpeg()[1000:], "are none of JPEG"),
        (b"", "the data are empty"),
    ],
)
def test_bad_jpeg(make_rig, bench, data, text):
    rig = make_rig(
        bench.WallEngine(),
        parameters={"image_transport": "compressed"},
        image_type=CompressedImage,
        image_topic="image/compressed",
    )
    rig.wait_active()

    def send(content: bytes) -> float:
        stamp = bench.now()
        message = CompressedImage(header=bench.header(stamp), format="rgb8; jpeg compressed bgr8")
        message.data = array("B", content)
        rig.send(message)
        return stamp

    send(data)
    rig.wait_for_status("frames", ERROR, f"{rig.namespace}/image/compressed: .*{text}")
    good = send(jpeg())
    rig.wait_for_stamp(good)
    rig.wait_for_status("frames", OK, "Hz")
    assert_only(rig, good)


def info_of(bench, **fields):
    info = camera_info_message(bench.header(bench.now()), bench.CAMERA)
    for name, value in fields.items():
        setattr(info, name, value)
    return info


BAD_INFOS = {
    "uncalibrated": ({"k": [0.0] * 9, "p": [0.0] * 12, "d": []}, r"uncalibrated \(K is all zero\)"),
    "another size": ({"width": 640, "height": 480}, "640x480.*320x256"),
    "unknown lens": ({"distortion_model": "thin_prism"}, "thin_prism"),
    "not finite": ({"k": [float("nan")] * 9}, "not finite"),
    "one pixel for unknown": (
        {"k": [1.0, 0, 160.0, 0, 1.0, 128.0, 0, 0, 1.0]},
        "K: focal lengths of 1 and 1 px in images of 320x256 px mean a field of view of 179[.]",
    ),
    "negative focal length": ({"k": [-300.0, 0, 150.0, 0, 300.0, 130.0, 0, 0, 1.0]}, "focal"),
}


@pytest.mark.parametrize("case", BAD_INFOS)
def test_bad_camera_info(make_rig, bench, case):
    fields, text = BAD_INFOS[case]
    rig = make_rig(bench.WallEngine())
    rig.wait_active()
    good = rig.send_good()
    rig.wait_for_stamp(good)
    info = info_of(bench, **fields)
    rig.send(bench.rgb_message(bench.now()), info)
    if case == "another size":  # the previous calibration fits
        rig.wait(lambda: len(rig.stamps("points")) == 2, "a cloud from the older calibration")
        return
    rig.wait_for_status("frames", ERROR, f"^{rig.namespace}/camera_info: .*{text}")
    again = rig.send_good()
    rig.wait_for_stamp(again)
    rig.wait_for_status("frames", OK, "Hz")
    assert_only(rig, good, again)


@pytest.mark.parametrize("case", BAD_INFOS)
def test_bad_camera_info_from_the_start(make_rig, bench, case):
    fields, text = BAD_INFOS[case]
    engine = bench.WallEngine()
    rig = make_rig(engine)
    rig.wait_active()
    rig.send(bench.rgb_message(bench.now()), info_of(bench, **fields))
    rig.wait_for_status("frames", ERROR, f"^{rig.namespace}/camera_info: .*{text}")
    assert not engine.images
    good = rig.send_good()
    rig.wait_for_stamp(good)
    rig.wait_for_status("frames", OK, "Hz")
    assert_only(rig, good)


def test_no_camera_info(make_rig, bench):
    engine = bench.WallEngine()
    rig = make_rig(engine, parameters={"camera_info_timeout": 0.5})
    rig.wait_active()
    rig.image.publish(bench.rgb_message(bench.now()))
    text = f"no CameraInfo on {rig.namespace}/camera_info: check the topic"
    rig.wait_for_status("frames", WARN, text)
    rig.wait(lambda: rig.log_lines(text), "a line in the log")
    assert rig.report().skipped == 1
    assert not engine.images
    good = rig.send_good()
    rig.wait_for_stamp(good)
    rig.wait_for_status("frames", OK, "Hz")
    assert_only(rig, good)


def test_no_image(make_rig, bench):
    rig = make_rig(bench.WallEngine(), parameters={"image_timeout": 0.5})
    rig.wait_active()
    text = f"no image on {rig.namespace}/image for 0.5 s"
    rig.wait_for_status("frames", WARN, text + ": 1 publish it; compare their QoS")
    rig.wait(lambda: rig.log_lines(text), "a line in the log")
    rig.peer.destroy_publisher(rig.image)
    rig.wait_for_status("frames", WARN, text + ": nobody publishes it")


def test_only_the_compressed_topic_is_published(make_rig, bench):
    rig = make_rig(
        bench.WallEngine(),
        parameters={"image_timeout": 0.5},
        image_type=CompressedImage,
        image_topic="image/compressed",
    )
    topic = f"{rig.namespace}/image"
    text = f"only {topic}/compressed is published: set image_transport:=compressed"
    rig.wait_for_status("frames", WARN, f"no image on {topic} for 0.5 s: {text}")
    rig.wait(lambda: rig.log_lines(text), "a line in the log")


@pytest.fixture
def elsewhere() -> Iterator[Node]:
    """A node of another process, so to speak: in one, a topic has one type."""
    context = Context()
    context.init()
    node = Node("elsewhere", context=context)
    yield node
    node.destroy_node()
    context.try_shutdown()


@pytest.mark.parametrize(
    ("transport", "image", "kind", "published", "text"),
    [
        ("compressed", "a", Image, "a", "only {ns}/a is published: set image_transport:=raw"),
        (
            "compressed",
            "a/compressed",
            CompressedImage,
            "a/compressed",
            "{ns}/a/compressed is compressed: remap image to {ns}/a",
        ),
        (
            "raw",
            "a",
            CompressedImage,
            "a",
            "it carries sensor_msgs/msg/CompressedImage, not sensor_msgs/msg/Image: remap image",
        ),
        (
            "raw",
            "a/compressed",
            CompressedImage,
            "a/compressed",
            "remap image to {ns}/a, and set image_transport:=compressed",
        ),
        ("raw", "a", CompressedImage, "a/zstd", "only {ns}/a/zstd is published, which is not read"),
    ],
)
def test_another_transport_is_published(
    make_rig, bench, elsewhere, transport, image, kind, published, text
):
    rig = make_rig(
        bench.WallEngine(),
        parameters={"image_timeout": 0.5, "image_transport": transport},
        remaps=[f"image:={image}"],
    )
    elsewhere.create_publisher(kind, f"{rig.namespace}/{published}", 1)
    rig.wait_for_status("frames", WARN, text.format(ns=rig.namespace))


def test_a_camera_with_eight_coefficients_is_used(make_rig, bench):
    """Orbbec cameras send plumb_bob with 8, of which the last three are zero."""
    rig = make_rig(bench.WallEngine())
    rig.wait_active()
    stamp = bench.now()
    info = info_of(bench, d=[-0.03, 0.035, -1e-4, -1e-4, -0.012, 0, 0, 0])
    rig.send(bench.rgb_message(stamp), info)
    rig.wait_for_stamp(stamp)
    size = "320x256 px, 80 tokens"
    rig.wait(lambda: rig.value("image for depth") == size, "the size on /diagnostics")
    rig.wait_for_status("frames", OK, "Hz")


def test_a_rectified_image_needs_p_alone(make_rig, bench):
    rig = make_rig(bench.WallEngine(), parameters={"image_is_rectified": True})
    rig.wait_active()
    stamp = bench.now()
    rig.send(bench.rgb_message(stamp), info_of(bench, d=[0.1] * 3, distortion_model="mei"))
    rig.wait_for_stamp(stamp)


def test_a_camera_that_sends_one_pixel_uses_the_fallback(make_rig, bench):
    rig = make_rig(bench.WallEngine(), parameters={"fallback_intrinsics": "hfov"})
    rig.wait_active()
    stamp = bench.now()
    rig.send(bench.rgb_message(stamp), info_of(bench, k=[1.0, 0, 160.0, 0, 1.0, 128.0, 0, 0, 1.0]))
    rig.wait_for_stamp(stamp)
    rig.wait_for_status("frames", WARN, "the camera is uncalibrated: .*hfov 60 degrees")


def test_what_a_calibration_leaves_open_is_said(make_rig, bench):
    rig = make_rig(bench.WallEngine())
    rig.wait_active()
    stamp = bench.now()
    info = info_of(bench, width=0, height=0, distortion_model="", d=[0.1, 0.0, 0.0, 0.0, 0.01])
    rig.send(bench.rgb_message(stamp), info)
    rig.wait_for_stamp(stamp)
    rig.wait_for_status(
        "frames",
        WARN,
        "no image size: it is taken for .* 320x256 px; .*model is empty: .*plumb_bob",
    )
    rig.wait_for_stamp(rig.send_good())
    rig.wait_for_status("frames", OK, "Hz")


def test_a_stamp_of_zero_is_said(make_rig, bench):
    rig = make_rig(bench.WallEngine())
    rig.wait_active()
    rig.send(bench.rgb_message(0))
    rig.wait_for_stamp(0)
    rig.wait_for_status(
        "frames", WARN, f"{rig.namespace}/image: header.stamp is 0, so nobody knows"
    )
    assert rig.set_parameters(max_frame_age=5.0).successful
    rig.send(bench.rgb_message(0))
    text = r"header.stamp is 0, so max_frame_age \(5 s\) cannot be checked: set it in the driver"
    rig.wait_for_status("frames", ERROR, text)


def test_images_called_rectified_beside_distortion_are_said(make_rig, bench):
    """image_proc sends the raw camera's D beside its rectified images."""
    rig = make_rig(bench.WallEngine(), image_topic="image_rect", remaps=["image:=image_rect"])
    rig.wait_active()
    stamp = bench.now()
    info = camera_info_message(bench.header(stamp), bench.CAMERA)
    info.d = [-0.1, 0.0, 0.0, 0.0, 0.0]
    rig.send(bench.rgb_message(stamp), info)
    text = f"{rig.namespace}/image_rect is called rectified.*set image_is_rectified"
    rig.wait_for_status("frames", WARN, text)


def test_an_image_that_the_models_limit_shrinks_is_said_once(make_rig, bench):
    engine = bench.WallEngine(limits=ImageLimits(32, 1024, 320 * 256))
    rig = make_rig(engine)
    rig.wait_active()
    for _ in range(2):
        wide = camera_info_message(
            bench.header(stamp := bench.now()), PinholeCamera(320, 256, 100.0, 100.0, 159.5, 127.5)
        )
        rig.send(bench.rgb_message(stamp), wide)
        rig.wait_for_stamp(stamp)
    text = "depth: an image of 116x104 degrees enters .* 100 px instead of 300 px"
    rig.wait(lambda: rig.log_lines(text), "a line in the log")
    assert len(rig.log_lines(text)) == 1


def test_incompatible_qos(make_rig, bench):
    rig = make_rig(
        bench.WallEngine(),
        qos=QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT),
        qos_overrides={("image", "subscription", "reliability"): "reliable"},
        parameters={"image_timeout": 0.5},
    )
    rig.wait_for_status("frames", WARN, f"no image on {rig.namespace}/image.*QoS")
    rig.wait(lambda: rig.log_lines("incompatible QoS.*RELIABILITY"), "rclpy's line in the log")


def test_camera_info_of_another_frame_is_reported(make_rig, bench):
    rig = make_rig(bench.WallEngine())
    rig.wait_active()
    info = info_of(bench)
    info.header.frame_id = "camera_link"
    stamp = bench.now()
    rig.send(bench.rgb_message(stamp), info)
    rig.wait_for_stamp(stamp)
    assert rig.received["points"][-1].header.frame_id == bench.FRAME
    rig.wait(lambda: rig.log_lines(f"'camera_link'.*'{bench.FRAME}', which is used"), "a line")


@pytest.mark.parametrize("info", [None, CameraInfo(width=320, height=256)])
def test_fallback_to_a_field_of_view(make_rig, bench, info):
    rig = make_rig(
        bench.WallEngine(),
        parameters={
            "fallback_intrinsics": "hfov",
            "fallback_hfov": 90.0,
            "camera_info_timeout": 0.2,
        },
    )
    rig.wait_active()
    if info:
        rig.send_info(info)

    def answered() -> bool:
        rig.image.publish(bench.rgb_message(bench.now()))
        return bool(rig.received["depth/camera_info"])

    rig.wait(answered, "an answer")
    K = rig.received["depth/camera_info"][-1].k
    assert K[0] == pytest.approx(160 * 4 / 320)
    reason = "no CameraInfo on" if info is None else "the camera is uncalibrated"
    used = r"fallback_intrinsics \(hfov 90 degrees; f = 160 px\) are used"
    rig.wait_for_status("frames", WARN, f"{reason}.*{used}")
    assert "hfov 90" in rig.value("intrinsics")


def test_fallback_to_anycalib(make_rig, bench, monkeypatch):
    """How the node uses the answers of AnyCalib, which are made up here."""
    monkeypatch.setattr("vlm3_ros.engines.anycalib.is_installed", lambda: True)
    cameras = [PinholeCamera(320, 256, f, f, 159.5, 127.5) for f in (280.0, 900, 300, 310, 290)]
    rig = make_rig(bench.WallEngine(), parameters={"fallback_intrinsics": "anycalib"})
    rig.node.camera.fallback = FallbackIntrinsics(
        lambda device, offline: lambda image: cameras.pop()
    )
    rig.wait_active()
    rig.send_info(CameraInfo(width=320, height=256))
    while len(cameras) > 1:
        before, left = rig.report().skipped, len(cameras)
        rig.image.publish(bench.rgb_message(bench.now()))
        rig.wait(lambda n=before: rig.report().skipped > n, "a skipped image")
        assert len(cameras) == left - 1
    rig.wait_for_status("frames", WARN, "anycalib has looked at 4 of 5 images")
    assert not rig.received["points"]
    stamp = bench.now()
    rig.image.publish(bench.rgb_message(stamp))
    rig.wait_for_stamp(stamp, "depth/camera_info")
    assert rig.received["depth/camera_info"][-1].k[0] == pytest.approx(300 * 4 / 320)
    rig.wait_for_status("frames", WARN, r"anycalib, 5 images; f = 300 px\) are used")


CALIBRATION = """\
image_width: {width}
image_height: 256
camera_name: camera
camera_matrix: {{rows: 3, cols: 3, data: [200, 0, 150, 0, 200, 130, 0, 0, 1]}}
distortion_model: plumb_bob
distortion_coefficients: {{rows: 1, cols: 5, data: [0, 0, 0, 0, 0]}}
rectification_matrix: {{rows: 3, cols: 3, data: [1, 0, 0, 0, 1, 0, 0, 0, 1]}}
projection_matrix: {{rows: 3, cols: 4, data: [200, 0, 150, 0, 0, 200, 130, 0, 0, 0, 1, 0]}}
"""


def test_fallback_to_a_file(make_rig, bench, tmp_path):
    path, narrow = tmp_path / "camera.yaml", tmp_path / "narrow.yaml"
    path.write_text(CALIBRATION.format(width=320))
    narrow.write_text(CALIBRATION.format(width=300))
    rig = make_rig(
        bench.WallEngine(),
        parameters={"fallback_intrinsics": "file", "fallback_file": str(narrow)},
    )
    rig.wait_active()
    rig.send(bench.rgb_message(bench.now()), CameraInfo(width=320, height=256))
    rig.wait_for_status("frames", ERROR, f"{narrow}: is for images of 300x256, not 320x256")
    missing = rig.set_parameters(fallback_file=str(tmp_path / "none.yaml"))
    assert not missing.successful
    assert "'fallback_file'" in missing.reason
    assert "none.yaml" in missing.reason
    assert rig.set_parameters(fallback_file=str(path)).successful
    stamp = bench.now()
    rig.image.publish(bench.rgb_message(stamp))
    rig.wait_for_stamp(stamp, "depth/camera_info")
    assert rig.received["depth/camera_info"][-1].k[0] == pytest.approx(200 * 4 / 320)
    assert_only(rig, stamp)


def test_a_part_of_the_answers_cannot_be_read(make_rig, bench):
    rig = make_rig(bench.WallEngine(unread=5))
    rig.wait_active()
    stamp = rig.send_good()
    rig.wait_for_status("frames", WARN, "5 of 12 answers about the last frame cannot be read")
    rig.wait(lambda: rig.log_lines("5 of 12 answers.*'somewhere over there'"), "a line in the log")
    rig.wait_for_stamp(stamp, "depth/image_rect")
    depth = image_to_cvimage(rig.received["depth/image_rect"][-1]).ravel()
    assert np.isnan(depth[:5]).all()
    assert np.isfinite(depth[5:]).all()
    assert rig.received["points"][-1].width == 7
    assert rig.report().unread == 5


def test_no_answer_can_be_read(make_rig, bench):
    engine = bench.WallEngine(unread=12)
    rig = make_rig(engine)
    rig.wait_active()
    rig.send_good()
    rig.wait_for_status("frames", ERROR, "12 of 12 answers about the last frame cannot be read")
    assert all(message.width == 0 for message in rig.received["points"])
    assert all(
        np.isnan(image_to_cvimage(message)).all()
        for topic in ("depth/image_rect", "depth_registered/image_rect")
        for message in rig.received[topic]
    )
    engine.unread = 0
    rig.wait_for_stamp(rig.send_good())
    rig.wait_for_status("frames", OK, "Hz")


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (EngineError("out of device memory: ask less"), "^out of device memory: ask less"),
        (ZeroDivisionError("never thought of"), "ZeroDivisionError: never thought of"),
    ],
)
def test_an_engine_that_fails(make_rig, bench, fault, text):
    engine = bench.WallEngine(fault=fault)
    rig = make_rig(engine)
    rig.wait_active()
    rig.send_good()
    rig.wait_for_status("frames", ERROR, text)
    rig.send_good()
    rig.wait(lambda: rig.report().failed == 2, "the second failure")
    message = text.strip("^").rpartition(": ")[2]
    rig.wait(lambda: rig.log_lines(message), "the message, which arrives on another topic")
    assert len(rig.log_lines(message)) == 1
    assert bool(rig.log_lines("Traceback")) == isinstance(fault, ZeroDivisionError)
    engine.fault = None
    good = rig.send_good()
    rig.wait_for_stamp(good)
    rig.wait_for_status("frames", OK, "Hz")
    assert_only(rig, good)


def test_an_image_that_the_model_cannot_take(make_rig, bench):
    engine = bench.WallEngine()
    rig = make_rig(engine)
    rig.wait_active()
    thin = PinholeCamera(320, 1, 300.0, 3.0, 150.0, 0.0)
    message = bench.rgb_message(bench.now(), np.zeros((1, 320, 3), np.uint8))
    rig.send(message, camera_info_message(message.header, thin))
    rig.wait(lambda: rig.report().received == 1, "arrival")
    rig.wait_for_stamp(rig.send_good())


def test_rubbish_does_not_stop_the_worker(make_rig, bench):
    """Many bad frames of every kind, from several threads of the executor, then a good one."""
    rig = make_rig(bench.WallEngine(), parameters={"process_every_frame": True})
    rig.wait_active()
    rig.send_info(info_of(bench))
    random = np.random.default_rng(0)
    for _ in range(60):
        changes, _ = BAD_IMAGES[random.choice(list(BAD_IMAGES))]
        message = bench.rgb_message(bench.now())
        for name, value in changes.items():
            if "." not in name:
                setattr(message, name, value)
        if "header.frame_id" in changes:
            message.header.frame_id = ""
        rig.image.publish(message)
    good = rig.send_good()
    rig.wait_for_stamp(good)
    assert_only(rig, good)
    assert sum(thread.name.endswith("worker") for thread in threading.enumerate()) == 1
