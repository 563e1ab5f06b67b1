# SPDX-License-Identifier: Apache-2.0
"""The depth node over DDS: what it publishes, when, and with which settings."""

from __future__ import annotations

import threading
from array import array

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosbags.image import image_to_cvimage
from sensor_msgs.msg import CompressedImage, Image

from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.messages.cameras import camera_info_message, lens_from_message
from vlm3_ros.tasks.dense import densify
from vlm3_ros.tasks.depth import uniform_grid
from vlm3_ros.tasks.sampling import adaptive_pixels

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR

CLOUD = np.dtype([("xyz", "<f4", 3), ("rgb", "u1", 4), ("uncertainty", "<f4")])


def cloud_of(message):
    return np.frombuffer(message.data, CLOUD)


def last(rig, topic):
    rig.wait(lambda: rig.received[topic], topic)
    return rig.received[topic][-1]


def test_one_frame_is_published_on_all_topics(make_rig, bench):
    rig = make_rig(bench.WallEngine())
    rig.wait_active()
    stamp = bench.now()
    image = bench.picture()
    rig.send(bench.rgb_message(stamp, image))
    for topic in bench.OUTPUTS:
        rig.wait_for_stamp(stamp, topic)
        assert last(rig, topic).header.frame_id == bench.FRAME

    # The grid of 4 x 3 cells, computed by hand: 80 px wide, 256 / 3 px high.
    u = np.array([39.5, 119.5, 199.5, 279.5])
    v = (np.arange(3) + 0.5) * 256 / 3 - 0.5
    depth = bench.wall_depth((u + 0.5) / 320 * 2000)
    sparse = image_to_cvimage(last(rig, "depth/image_rect"))
    np.testing.assert_allclose(sparse, np.tile(depth, (3, 1)), rtol=1e-6)

    cloud = cloud_of(last(rig, "points"))
    x = (u - 150) / 300 * depth
    y = (v[:, None] - 130) / 300 * depth
    expected = np.stack([np.tile(x, (3, 1)), y, np.tile(depth, (3, 1))], -1).reshape(-1, 3)
    np.testing.assert_allclose(cloud["xyz"], expected, rtol=1e-5)
    rows, columns = np.meshgrid(np.rint(v).astype(int), np.rint(u).astype(int), indexing="ij")
    np.testing.assert_array_equal(cloud["rgb"][:, 2::-1], image[rows, columns].reshape(-1, 3))
    np.testing.assert_allclose(cloud["uncertainty"], 0.25)

    # The same points as depth_image_proc computes them: from the small image and its camera.
    camera = lens_from_message(last(rig, "depth/camera_info"), (4, 3)).rectified
    again = camera.unproject(camera.pixel_grid(), sparse).reshape(-1, 3)
    np.testing.assert_allclose(again, cloud["xyz"], rtol=1e-5, atol=1e-6)

    dense = image_to_cvimage(last(rig, "depth_registered/image_rect"))
    pixels = uniform_grid(bench.CAMERA, 4, 3)
    np.testing.assert_allclose(dense, densify(image, pixels, sparse.ravel()), rtol=1e-5)
    assert np.isfinite(dense).all()
    full = lens_from_message(last(rig, "depth_registered/camera_info"), (320, 256)).rectified
    assert full == bench.CAMERA


def test_depth_images_in_millimetres(make_rig, bench):
    """REP-118's other form: 0 is unknown, and so is what 16 bits cannot hold."""

    class FarCorner(bench.WallEngine):
        def ask(self, *arguments):
            far = bench.depth_answer(self.profile.prompts[bench.DepthWording], 65.6)
            return [*super().ask(*arguments)[:-1], bench.Answer(far)]

    rig = make_rig(FarCorner(unread=4), parameters={"depth_encoding": "16UC1"})
    rig.wait_active()
    stamp = rig.send_good()
    for topic in bench.OUTPUTS:
        rig.wait_for_stamp(stamp, topic)
    sparse, dense = (last(rig, f"{name}/image_rect") for name in ("depth", "depth_registered"))
    for message, width in ((sparse, 4), (dense, bench.CAMERA.width)):
        assert (message.encoding, message.width, message.step) == ("16UC1", width, 2 * width)
    wall = 1000 * bench.wall_depth(np.array([250, 750, 1250, 1750]))
    np.testing.assert_array_equal(image_to_cvimage(sparse), [[0] * 4, wall, [*wall[:3], 0]])
    # The unread row leaves the top of the image unknown, and nothing else is.
    spread = image_to_cvimage(dense)
    assert (spread[0] == 0).all() and (spread[128, :240] > 0).all()
    assert cloud_of(last(rig, "points"))["xyz"][-1, 2] == np.float32(65.6)

    assert rig.set_parameters(depth_encoding="32FC1").successful
    rig.wait_for_stamp(rig.send_good(), "depth_registered/image_rect")
    assert last(rig, "depth_registered/image_rect").encoding == "32FC1"
    assert not rig.set_parameters(depth_encoding="mono16").successful


def test_the_model_sees_the_picture(make_rig, bench):
    engine = bench.WallEngine()
    rig = make_rig(engine)
    rig.wait_active()
    image = bench.picture(seed=3)
    stamp = bench.now()
    rig.send(bench.rgb_message(stamp, image))
    rig.wait_for_stamp(stamp)
    np.testing.assert_array_equal(engine.images[-1], image)


def test_outputs_are_reliable_and_the_image_is_best_effort(make_rig, bench):
    rig = make_rig(bench.WallEngine())
    rig.wait_active()
    for topic in bench.OUTPUTS:
        (output,) = rig.peer.get_publishers_info_by_topic(f"{rig.namespace}/{topic}")
        assert output.qos_profile.reliability == ReliabilityPolicy.RELIABLE
        assert output.qos_profile.durability == DurabilityPolicy.VOLATILE
    (image,) = rig.peer.get_subscriptions_info_by_topic(f"{rig.namespace}/image")
    assert image.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT


def test_qos_can_be_overridden(make_rig, bench):
    rig = make_rig(
        bench.WallEngine(),
        qos_overrides={
            ("image", "subscription", "reliability"): "reliable",
            ("points", "publisher", "reliability"): "best_effort",
            ("points", "publisher", "depth"): 2,
        },
        listen=["depth/image_rect"],
    )
    rig.wait_active()
    (image,) = rig.peer.get_subscriptions_info_by_topic(f"{rig.namespace}/image")
    assert image.qos_profile.reliability == ReliabilityPolicy.RELIABLE
    (points,) = rig.peer.get_publishers_info_by_topic(f"{rig.namespace}/points")
    assert points.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT


def test_an_override_does_not_reach_other_nodes_of_the_process(make_rig, bench):
    overrides = {("image", "subscription", "reliability"): "reliable"}
    overridden = make_rig(bench.WallEngine(), qos_overrides=overrides)
    other = make_rig(bench.WallEngine())
    expected = {overridden: ReliabilityPolicy.RELIABLE, other: ReliabilityPolicy.BEST_EFFORT}
    for rig, reliability in expected.items():
        rig.wait_active()
        (image,) = rig.peer.get_subscriptions_info_by_topic(f"{rig.namespace}/image")
        assert image.qos_profile.reliability == reliability


@pytest.mark.parametrize("reliability", list(ReliabilityPolicy)[1:3])
def test_cameras_of_either_reliability_are_received(make_rig, bench, reliability):
    rig = make_rig(bench.WallEngine(), qos=QoSProfile(depth=5, reliability=reliability))
    rig.wait_active()
    rig.wait_for_stamp(rig.send_good())


@pytest.mark.parametrize("remap", [None, "image:=camera/image_raw", "image/compressed:=jpegs"])
def test_compressed_images(make_rig, bench, remap):
    topic = {
        None: "image/compressed",
        "image:=camera/image_raw": "camera/image_raw/compressed",
        "image/compressed:=jpegs": "jpegs",
    }[remap]
    engine = bench.WallEngine()
    rig = make_rig(
        engine,
        parameters={"image_transport": "compressed"},
        image_type=CompressedImage,
        image_topic=topic,
        remaps=[remap] if remap else [],
    )
    rig.wait_active()
    stamp = bench.now()
    rig.send(bench.png_message(stamp))
    rig.wait_for_stamp(stamp)
    np.testing.assert_array_equal(engine.images[-1], bench.picture())


@pytest.mark.parametrize(
    ("encoding", "channels", "big_endian", "padding"),
    [
        ("bgr8", [2, 1, 0], False, 7),
        ("rgb16", [0, 1, 2], True, 2),
        ("bgra8", [2, 1, 0, 0], True, 5),
    ],
)
def test_odd_images_over_dds(make_rig, bench, encoding, channels, big_endian, padding):
    engine = bench.WallEngine()
    rig = make_rig(engine)
    rig.wait_active()
    stamp = bench.now()
    pixels = bench.picture()[..., channels]
    if encoding.endswith("16"):
        pixels = (pixels.astype(np.uint16) * 257).astype(">u2" if big_endian else "<u2")
    rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(256, -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=99)
    message = Image(
        header=bench.header(stamp),
        height=256,
        width=320,
        encoding=encoding,
        step=rows.shape[1],
        is_bigendian=int(big_endian),
    )
    message.data = array("B", rows.tobytes())
    rig.send(message)
    rig.wait_for_stamp(stamp)
    np.testing.assert_array_equal(engine.images[-1], bench.picture())


def test_newest_frame_wins(make_rig, bench):
    engine = bench.WallEngine(gate=threading.Semaphore(0))
    rig = make_rig(engine)
    rig.wait_active()
    first = rig.send_good()
    engine.entered.acquire()
    while_busy = [rig.send_counted() for _ in range(5)]
    assert rig.report().dropped == 4
    engine.gate.release(10)
    rig.wait_for_stamp(while_busy[-1])
    assert rig.stamps("points") == [first, while_busy[-1]]
    rig.wait(lambda: rig.report().answered == 2, "the second answer's count")


def test_every_frame_for_replay(make_rig, bench):
    engine = bench.WallEngine(gate=threading.Semaphore(0))
    rig = make_rig(engine, parameters={"process_every_frame": True})
    rig.wait_active()
    stamps = [rig.send_counted() for _ in range(8)]
    engine.gate.release(10)
    rig.wait_for_stamp(stamps[-1])
    assert rig.stamps("points") == stamps
    assert rig.report().dropped == 0


def test_a_full_queue_is_reported(make_rig, bench):
    engine = bench.WallEngine(gate=threading.Semaphore(0))
    rig = make_rig(engine, parameters={"process_every_frame": True, "queue_size": 2})
    rig.wait_active()
    first = rig.send_good()
    engine.entered.acquire()
    stamps = [rig.send_counted() for _ in range(5)]
    rig.wait_for_status("frames", WARN, "dropped 3 of 6 frames.*queue_size")
    engine.gate.release(10)
    rig.wait_for_stamp(stamps[-1])
    assert rig.stamps("points") == [first, *stamps[-2:]]


def test_without_listeners_the_model_is_not_asked(make_rig, bench):
    engine = bench.WallEngine()
    rig = make_rig(engine, listen=[])
    rig.wait(lambda: rig.image.get_subscription_count(), "subscription")
    rig.wait(lambda: rig.camera_info.get_subscription_count(), "subscription")
    rig.send_good()
    rig.wait_for_status("frames", OK, "idle: nobody subscribes")
    rig.wait(lambda: rig.report().skipped == 1, "the skipped frame's count")
    assert not engine.images
    rig.listen("points")
    rig.wait(rig.node.has_listeners, "discovery of the listener")
    rig.wait_for_stamp(rig.send_good())
    assert len(engine.images) == 1


def test_without_listeners_the_model_is_asked_if_not_lazy(make_rig, bench):
    engine = bench.WallEngine()
    rig = make_rig(engine, listen=[], parameters={"lazy": False})
    rig.wait(lambda: rig.image.get_subscription_count(), "subscription")
    rig.wait(lambda: rig.camera_info.get_subscription_count(), "subscription")
    rig.send_good()
    rig.wait(lambda: rig.report().answered == 1, "an answer")


def test_dense_depth_only_while_subscribed(make_rig, bench):
    rig = make_rig(bench.WallEngine(), listen=["points", "depth_registered/camera_info"])
    rig.wait_active()
    rig.wait_for_stamp(rig.send_good())
    rig.listen("depth_registered/image_rect")
    rig.wait(lambda: rig.node._dense.get_subscription_count(), "discovery of the listener")
    stamp = rig.send_good()
    rig.wait_for_stamp(stamp, "depth_registered/camera_info")
    rig.wait_for_stamp(stamp, "depth_registered/image_rect")
    assert rig.stamps("depth_registered/camera_info") == [stamp]


def test_adaptive_pixels_on_every_topic(make_rig, bench):
    rig = make_rig(
        bench.WallEngine(), parameters={"grid_columns": 8, "grid_rows": 6, "max_depth": 5.0}
    )
    rig.wait_active()
    rig.wait_for_stamp(rig.send_good())
    rig.set_parameters(pixel_choice="adaptive")
    image, stamp = bench.picture(seed=5), bench.now()
    rig.send(bench.rgb_message(stamp, image))
    for topic in bench.OUTPUTS:
        rig.wait_for_stamp(stamp, topic)

    pixels = adaptive_pixels(image, 48)
    depth = bench.wall_depth((pixels[:, 0] + 0.5) / 320 * 2000)
    depth[depth > 5] = np.nan
    assert 0 < np.isnan(depth).sum() < 24
    cloud = cloud_of(last(rig, "points"))
    published = np.isfinite(depth)
    points = bench.CAMERA.unproject(pixels, depth)[published]
    np.testing.assert_allclose(cloud["xyz"], points, rtol=1e-5, atol=1e-6)
    u, v = pixels[published].astype(int).T
    np.testing.assert_array_equal(cloud["rgb"][:, 2::-1], image[v, u])

    dense = image_to_cvimage(last(rig, "depth_registered/image_rect"))
    expected = densify(image, pixels, depth.astype(np.float32))
    expected[expected > 5] = np.nan
    np.testing.assert_allclose(dense, expected, rtol=1e-5)
    small = image_to_cvimage(last(rig, "depth/image_rect"))
    columns, rows = np.rint(uniform_grid(bench.CAMERA, 8, 6)).astype(int).T
    np.testing.assert_array_equal(small.ravel(), dense[rows, columns])
    camera = lens_from_message(last(rig, "depth/camera_info"), (8, 6)).rectified
    assert camera == bench.CAMERA.resized(8, 6)


def test_the_grid_changes_at_run_time(make_rig, bench):
    rig = make_rig(bench.WallEngine())
    rig.wait_active()
    rig.wait_for_stamp(rig.send_good())
    assert rig.set_parameters(grid_columns=7, grid_rows=5).successful
    stamp = rig.send_good()
    rig.wait_for_stamp(stamp, "depth/camera_info")
    rig.wait_for_stamp(stamp)
    depth, info = last(rig, "depth/image_rect"), last(rig, "depth/camera_info")
    assert (depth.width, depth.height, info.width, info.height) == (7, 5, 7, 5)
    assert last(rig, "points").width == 35


def test_depths_out_of_range_are_not_published(make_rig, bench):
    rig = make_rig(bench.WallEngine(), parameters={"min_depth": 2.0, "max_depth": 4.0})
    rig.wait_active()
    stamp = rig.send_good()
    rig.wait_for_stamp(stamp)
    rig.wait_for_stamp(stamp, "depth/image_rect")
    columns = bench.wall_depth(np.array([250, 750, 1250, 1750]))
    expected = np.where((columns >= 2) & (columns <= 4), columns, np.nan)
    assert 0 < np.isnan(expected).sum() < 4
    sparse = image_to_cvimage(last(rig, "depth/image_rect"))
    np.testing.assert_array_equal(sparse, np.tile(expected, (3, 1)))
    assert last(rig, "points").width == 3 * np.isfinite(expected).sum()
    result = rig.set_parameters(min_depth=5.0)
    assert not result.successful
    assert "'min_depth' (5) must be smaller than 'max_depth' (4)" in result.reason


def distorted_info(header):
    info = camera_info_message(header, PinholeCamera(320, 256, 300.0, 300.0, 150.0, 130.0))
    info.d = [-0.3, 0.1, 0.0, 0.0, 0.0]
    info.p[0] = info.p[5] = 240.0
    return info


def test_a_raw_image_is_rectified(make_rig, bench):
    engine = bench.WallEngine()
    rig = make_rig(engine)
    rig.wait_active()
    stamp = bench.now()
    message = bench.rgb_message(stamp)
    info = distorted_info(message.header)
    rig.send(message, info)
    rig.wait_for_stamp(stamp)
    K, D = np.array(info.k).reshape(3, 3), np.array(info.d)
    new_K = np.array(info.p).reshape(3, 4)[:, :3]
    expected = cv2.undistort(bench.picture(), K, D, None, new_K)
    seen = engine.images[-1]
    # The image enters at a focal length of 300 px, not 240: 400 x 320 px, in multiples of 32.
    assert seen.shape == (320, 384, 3) or seen.shape == (320, 416, 3)
    back = cv2.resize(seen, (320, 256), interpolation=cv2.INTER_AREA)
    difference = np.abs(back.astype(int) - expected)[10:-10, 10:-10]
    assert np.median(difference) <= 2
    camera = lens_from_message(last(rig, "depth/camera_info"), (4, 3)).rectified
    assert camera.fx == pytest.approx(240 * 4 / 320)


def test_a_rectified_image_is_not_rectified_again(make_rig, bench):
    engine = bench.WallEngine()
    rig = make_rig(engine, parameters={"image_is_rectified": True})
    rig.wait_active()
    stamp = bench.now()
    message = bench.rgb_message(stamp)
    info = distorted_info(message.header)
    info.p[0] = info.p[5] = 300.0
    rig.send(message, info)
    rig.wait_for_stamp(stamp)
    np.testing.assert_array_equal(engine.images[-1], bench.picture())


def test_pixels_that_rectification_leaves_black_are_not_asked(make_rig, bench):
    engine = bench.WallEngine()
    rig = make_rig(engine, parameters={"grid_columns": 20, "grid_rows": 16})
    rig.wait_active()
    message = bench.rgb_message(bench.now(), np.full((256, 320, 3), 200, np.uint8))
    info = distorted_info(message.header)
    info.p[0] = info.p[5] = 150.0  # twice the view of the raw image: black around it
    rig.send(message, info)
    rig.wait_for_stamp(bench.stamp_of(message), "depth/image_rect")
    rig.wait_for_stamp(bench.stamp_of(message))
    cloud = cloud_of(last(rig, "points"))
    assert 0 < len(cloud) < 320
    assert (cloud["rgb"][:, :3] > 150).all()
    depth = image_to_cvimage(last(rig, "depth/image_rect"))
    assert np.isnan(depth[[0, 0, -1, -1], [0, -1, 0, -1]]).all()
    assert np.isfinite(depth).sum() == len(cloud)
    rig.wait(lambda: rig.report().questions == len(cloud), "the count of questions")
    rig.wait_for_status("answers", OK, f"{len(cloud)} published, .* 0 unanswered")


def test_a_change_of_calibration_takes_effect(make_rig, bench):
    rig = make_rig(bench.WallEngine())
    rig.wait_active()
    rig.wait_for_stamp(rig.send_good())
    zoomed = PinholeCamera(320, 256, 600.0, 600.0, 150.0, 130.0)
    message = bench.rgb_message(bench.now())
    rig.send(message, camera_info_message(message.header, zoomed))
    rig.wait_for_stamp(bench.stamp_of(message), "depth/camera_info")
    assert last(rig, "depth/camera_info").k[0] == pytest.approx(600 * 4 / 320)


def test_diagnostics_of_a_working_node(make_rig, bench):
    rig = make_rig(bench.WallEngine())
    rig.wait_active()
    stamp = rig.send_good()
    rig.wait_for_stamp(stamp)
    rig.wait(lambda: rig.value("frames answered") == "1", "the answer's count")
    status = rig.wait_for_status("frames", OK, "Hz")
    values = {pair.key: pair.value for pair in status.values}
    assert status.hardware_id == f"{rig.namespace}/image"
    assert values["frames received"] == "1"
    assert values["questions"] == "12"
    assert values["unread answers"] == "0"
    assert float(values["rate (Hz)"]) > 0
    assert 0 < float(values["latency p50 (ms)"]) <= float(values["latency p95 (ms)"])
    assert 0 <= float(values["frame age (s)"]) < bench.PATIENCE
    model = rig.wait_for_status("model", OK, "wall is loaded")
    assert ("device memory (MB)", "123") in [(pair.key, pair.value) for pair in model.values]


def test_old_frames_are_reported(make_rig, bench):
    rig = make_rig(bench.WallEngine())
    rig.wait_active()
    stamp = round(bench.now() - 3600, 6)
    rig.send(bench.rgb_message(stamp))
    rig.wait_for_stamp(stamp)
    rig.wait_for_status("frames", WARN, "more than 10 s after the frame's stamp.*use_sim_time")


def test_ages_are_measured_on_simulated_time(make_rig, bench):
    rig = make_rig(bench.WallEngine(), parameters={"use_sim_time": True})
    rig.wait_active()
    rig.set_clock(5000.5)
    stamp = 5000.0
    rig.send(bench.rgb_message(stamp))
    rig.wait_for_stamp(stamp)
    rig.wait(lambda: rig.value("frame age (s)") == "0.500", "an age of 0.5 s")
    rig.wait_for_status("frames", OK, "Hz")


def test_frames_older_than_max_frame_age_are_refused(make_rig, bench):
    rig = make_rig(bench.WallEngine(), parameters={"max_frame_age": 60.0})
    rig.wait_active()
    rig.send(bench.rgb_message(round(bench.now() - 3600, 6)))
    rig.wait_for_status("frames", ERROR, r"/image: .* older than max_frame_age \(60 s\)")
    stamp = rig.send_good()
    rig.wait_for_stamp(stamp)
    assert rig.stamps("points") == [stamp]
