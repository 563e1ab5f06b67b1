# SPDX-License-Identifier: Apache-2.0
"""Whose camera the depth of a bag belongs to, on a chequered wall known from every place.

Light squares of the wall are near, dark ones far: a depth of another pixel shows at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin, Writer
from scipy.spatial.transform import Rotation

from vlm3_ros.bags.reading import open_bag
from vlm3_ros.bags.writing import write_bag
from vlm3_ros.errors import BagError
from vlm3_ros.evaluation.bag.depth_options import DepthOptions
from vlm3_ros.evaluation.bag.evaluate import bag_source
from vlm3_ros.evaluation.bag.frames import BagFrame, camera_frame
from vlm3_ros.geometry.calibration_files import GivenCamera
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.geometry.lens import LensCamera, lens_from_calibration
from vlm3_ros.geometry.motion import transform
from vlm3_ros.messages.cameras import camera_info_message
from vlm3_ros.messages.classes import ROSBAGS
from vlm3_ros.messages.depth_images import depth_message
from vlm3_ros.messages.images import image_message
from vlm3_ros.messages.motions import tf_message

NEAR, FAR = 1.0, 3.0
EDGES = 0.06
"""Share of pixels at the edges of squares that a pixel of another size may give to either."""
START = 1_700_000_000_000_000_000
PERIOD = 33_333_333

D405 = [-0.0518, 0.0564, -0.0008, 0.0014, -0.0187]
STRONG = [-0.35, 0.12, -0.0008, 0.0014, 0.0]


def lens(D: Sequence[float] = (0.0,) * 5, f: float = 327.0, size: tuple[int, int] = (640, 360)):
    width, height = size
    K = [f, 0, width / 2 + 6, 0, f, height / 2 + 1, 0, 0, 1]
    return lens_from_calibration(width, height, K, D, "plumb_bob", np.eye(3), [0] * 12)


def seen_wall(camera: LensCamera) -> NDArray[np.bool_]:
    """Which raw pixels show a near square; squares have a tenth of the distance."""
    raw = PinholeCamera(camera.width, camera.height, 1, 1, 0, 0).pixel_grid()
    rays = camera.rectified.rays(camera.rectify_pixels(raw))
    return np.floor(rays[..., :2] / 0.1).sum(-1) % 2 == 0


@dataclass
class Bag:
    """A bag to write: cameras of the images and of depth, and what tells of them."""

    image: LensCamera = field(default_factory=lens)
    depth: LensCamera = field(default_factory=lens)
    info: LensCamera | None = None
    depth_topic: str = "/camera/aligned_depth_to_color/image_raw"
    depth_frame: str = "color"
    T_color_depth: tuple[float, float, float] | None = None
    offset_ns: int = 0
    frames: int = 3
    picture: NDArray[np.float64] | None = None

    def write(self, path: Path) -> Path:
        picture = np.where(seen_wall(self.image)[..., None], 230, 30).astype(np.uint8).repeat(3, -1)
        depth = self.picture
        if depth is None:
            depth = np.where(seen_wall(self.depth), NEAR, FAR)
        with write_bag(path) as writer:
            if self.T_color_depth is not None:
                mount = transform(Rotation.identity(), self.T_color_depth)
                static = tf_message(ROSBAGS.header(START, "color"), self.depth_frame, mount)
                writer.write("/tf_static", static, START)
            for index in range(self.frames):
                stamp = START + index * PERIOD
                header = ROSBAGS.header(stamp, "color")
                of_depth = ROSBAGS.header(stamp + self.offset_ns, self.depth_frame)
                for topic, message in (
                    ("/camera/color/image_raw", image_message(header, picture)),
                    ("/camera/color/camera_info", info_of(header, self.image)),
                    (self.depth_topic, depth_message(of_depth, depth, "16UC1")),
                ):
                    writer.write(topic, message, stamp)
                if self.info is not None:
                    beside = f"{self.depth_topic.rpartition('/')[0]}/camera_info"
                    writer.write(beside, info_of(of_depth, self.info), stamp)
        return path


def info_of(header, camera: LensCamera):
    """CameraInfo of a lens."""
    message = camera_info_message(header, camera.rectified)
    message.d, message.k = camera.D.copy(), camera.K.ravel().copy()
    message.p = camera.P.ravel().copy()
    return message


def frames_of(path: Path, options: DepthOptions | None = None, **chosen) -> list[BagFrame]:
    with bag_source(path, depth_options=options, **chosen) as source:
        return list(source.frames)


def other_surface(frame: BagFrame) -> float:
    """Share of pixels whose depth is that of another square."""
    assert frame.depth is not None
    grey = frame.image[..., 0]
    known = np.isfinite(frame.depth) & frame.visible & ((grey < 60) | (grey > 200))
    assert known.mean() > 0.5
    return float(((grey > 128) != (frame.depth < 2))[known].mean())


@pytest.mark.parametrize("D", [D405, STRONG])
def test_aligned_depth_of_a_distorted_camera_is_rectified_like_the_image(
    tmp_path: Path, D: list[float]
) -> None:
    """Drivers align depth to the colour image as it was taken, and its CameraInfo says so."""
    camera = lens(D)
    path = Bag(camera, camera, info=camera).write(tmp_path / "bag")
    with bag_source(path) as source:
        assert "rectified with its CameraInfo" in source.notes["true depth"]
        for frame in source.frames:
            assert other_surface(frame) < 0.001
            known = frame.depth[np.isfinite(frame.depth)]
            assert np.isclose(known[:, None], [NEAR, FAR], rtol=1e-6).any(axis=1).all()


@pytest.mark.parametrize("info", [True, False])
def test_depth_of_the_rectified_image_stays_as_it_is(tmp_path: Path, info: bool) -> None:
    camera = lens(STRONG)
    rectified = lens()
    bag = Bag(camera, rectified, rectified if info else None, "/camera/depth/image_rect")
    with bag_source(bag.write(tmp_path / "bag")) as source:
        assert source.notes == {}
        assert all(other_surface(frame) < EDGES for frame in source.frames)


def test_without_camera_info_depth_in_the_frame_of_distorted_images_is_rectified_like_them(
    tmp_path: Path,
) -> None:
    camera = lens(STRONG)
    path = Bag(camera, camera).write(tmp_path / "bag")
    with bag_source(path) as source:
        note = source.notes["true depth"]
        assert "rectified like the images" in note and "--depth-camera rectified" in note
        assert all(other_surface(frame) < 0.001 for frame in source.frames)
    (frame, *_) = frames_of(path, DepthOptions(camera="rectified"))
    assert other_surface(frame) > 0.05  # as told, though it is wrong


@pytest.mark.parametrize("frame", ["", "depth"])
def test_without_camera_info_depth_of_distorted_images_in_another_frame_must_be_told(
    tmp_path: Path, frame: str
) -> None:
    camera = lens(STRONG)
    path = Bag(camera, camera, depth_frame=frame).write(tmp_path / "bag")
    with pytest.raises(BagError, match=r"--depth-camera image or --depth-camera rectified.*none"):
        frames_of(path)
    frames = frames_of(path, DepthOptions(camera="image"))
    assert all(other_surface(frame) < 0.001 for frame in frames)
    assert frames_of(path, depth="none")[0].depth is None


def test_a_lens_that_hardly_distorts_needs_no_word(tmp_path: Path) -> None:
    camera = lens([1e-4, 0, 0, 0, 0])
    frames = frames_of(Bag(camera, camera).write(tmp_path / "bag"))
    assert all(other_surface(frame) < 0.001 for frame in frames)


BESIDE = Bag(
    depth=lens(f=220.0),
    info=lens(f=220.0),
    depth_topic="/camera/depth/image_rect_raw",
    depth_frame="depth",
)
"""A depth camera of its own with another focal length, as a RealSense without align_depth."""


def test_depth_of_another_camera_is_registered_by_tf(tmp_path: Path) -> None:
    path = replace(BESIDE, T_color_depth=(0.0, 0.0, 0.0)).write(tmp_path / "bag")
    with bag_source(path) as source:
        assert "registered from 'depth' to the images by" in source.notes["true depth"]
        for frame in source.frames:
            assert other_surface(frame) < EDGES


def test_registration_takes_depth_from_its_own_place(tmp_path: Path) -> None:
    """A block, 2 m before the depth camera, which is 0.3 m to the right of the images."""
    block = np.full((360, 640), np.nan)
    block[170:190, 300:320] = 2.0
    bag = replace(BESIDE, T_color_depth=(0.3, -0.1, 0.05), picture=block)
    (frame, *_) = frames_of(bag.write(tmp_path / "bag"))
    assert frame.depth is not None
    rows, columns = np.nonzero(np.isfinite(frame.depth))
    centre = BESIDE.depth.rectified.unproject([309.5, 179.5], 2.0) + np.array([0.3, -0.1, 0.05])
    expected = frame.camera.project(centre)
    np.testing.assert_allclose([columns.mean(), rows.mean()], expected, atol=0.5)
    np.testing.assert_allclose(frame.depth[rows, columns], 2.05, rtol=1e-6)


@pytest.mark.parametrize(
    ("bag", "reason"),
    [
        (BESIDE, r"f = 220 px at 640x360, that of the images f = 327 px at 640x360, and TF does"),
        (replace(BESIDE, depth_frame="color"), r"f = 220 px .* \(frames 'color' and 'color'\)"),
        (
            replace(BESIDE, depth=lens(f=220.0, size=(320, 180)), info=None),
            "the depth image is 320x180, the image 640x360: it is not registered",
        ),
        (
            replace(BESIDE, info=None, T_color_depth=(0.015, 0.0, 0.0)),
            r"'depth', 15 mm from 'color' of the images: it is probably not registered",
        ),
        (
            replace(BESIDE, info=lens(), T_color_depth=(0.015, 0.0, 0.0)),
            r"'depth', 15 mm from 'color' of the images: it is probably not registered",
        ),
    ],
)
def test_unregistered_depth_is_refused_before_any_work(
    tmp_path: Path, bag: Bag, reason: str
) -> None:
    path = bag.write(tmp_path / "bag")
    with pytest.raises(BagError, match=rf"depth on '{bag.depth_topic}': .*{reason}"):
        frames_of(path)
    assert frames_of(path, depth="none")[0].depth is None


@pytest.mark.parametrize("frame", ["color", "depth"])
def test_depth_of_the_other_camera_of_a_stereo_pair_is_refused(tmp_path: Path, frame: str) -> None:
    """A right camera has the left one's frame and K by custom; only P tells them apart."""
    left = lens()
    P = left.P.copy()
    P[0, 3] = -0.12 * P[0, 0]
    bag = Bag(replace(left, P=P), left, info=left, depth_frame=frame)
    path = bag.write(tmp_path / "bag")
    with pytest.raises(BagError, match=r"120 mm beside that of the images .*stereo pair"):
        frames_of(path)
    assert frames_of(path, depth=bag.depth_topic)[0].depth is not None
    of_right = replace(bag, depth=bag.image, info=bag.image).write(tmp_path / "right")
    assert frames_of(of_right)[0].depth is not None


def test_stamps_of_depth_that_were_not_set_are_named(tmp_path: Path) -> None:
    with write_bag(tmp_path / "bag") as writer:
        for stamp in (START, START + PERIOD):
            header, unset = ROSBAGS.header(stamp, "color"), ROSBAGS.header(0, "color")
            picture = np.zeros((360, 640, 3), np.uint8)
            depth = depth_message(unset, np.ones((360, 640)), "16UC1")
            writer.write("/color/image_raw", image_message(header, picture), stamp)
            writer.write("/color/camera_info", info_of(header, lens()), stamp)
            writer.write("/depth/image_raw", depth, stamp)
    with pytest.raises(BagError, match=r"stamp is 0 in all messages on '/depth.*--depth-topic n"):
        frames_of(tmp_path / "bag")


def test_images_called_rectified_beside_distortion_are_named(tmp_path: Path) -> None:
    """image_proc sends the raw camera's D beside its rectified images."""
    with write_bag(tmp_path / "bag") as writer:
        header = ROSBAGS.header(START, "color")
        picture = np.zeros((360, 640, 3), np.uint8)
        writer.write("/color/image_rect_color", image_message(header, picture), START)
        writer.write("/color/camera_info", info_of(header, lens(STRONG)), START)
    with bag_source(tmp_path / "bag") as source:
        assert "say --rectified" in source.notes["raw or rectified"]
    with bag_source(tmp_path / "bag", is_rectified=True) as source:
        assert source.notes == {}


def test_a_fault_of_the_lens_of_images_called_rectified_names_the_option(tmp_path: Path) -> None:
    with write_bag(tmp_path / "bag") as writer:
        header = ROSBAGS.header(START, "color")
        info = info_of(header, lens())
        info.d = np.array([1.0, 2.0, 3.0])
        picture = np.zeros((360, 640, 3), np.uint8)
        writer.write("/color/image_rect", image_message(header, picture), START)
        writer.write("/color/camera_info", info, START)
    with bag_source(tmp_path / "bag") as source:
        assert list(source.frames) == []
        (reason,) = source.frames.failed
        assert "D holds 3" in reason and "--rectified" in reason
    with bag_source(tmp_path / "bag", is_rectified=True) as source:
        assert len(list(source.frames)) == 1


def test_a_mount_that_changes_is_the_reason_why_depth_is_not_registered(tmp_path: Path) -> None:
    bag = replace(BESIDE, T_color_depth=(0.0, 0.0, 0.0))
    path = bag.write(tmp_path / "bag")
    with open_bag(path) as recorded, write_bag(tmp_path / "changed") as writer:
        for message in recorded.messages():
            writer.write(message.topic, message.content, message.stamp_ns)
        mount = transform(Rotation.identity(), (0.1, 0.0, 0.0))
        static = tf_message(ROSBAGS.header(START, "color"), "depth", mount)
        writer.write("/tf_static", static, START + 10 * PERIOD)
    with pytest.raises(BagError, match=r"TF does not tell its place .*'depth' changes its place"):
        frames_of(tmp_path / "changed")


def test_the_user_says_whose_camera_depth_belongs_to(tmp_path: Path) -> None:
    """The CameraInfo is that of the images, the frame another: either may be wrong."""
    same = Bag(info=lens(), depth_frame="depth", T_color_depth=(0.3, 0.0, 0.0))
    path = same.write(tmp_path / "bag")
    for chosen in ({"depth": same.depth_topic}, {"options": DepthOptions(camera="rectified")}):
        assert other_surface(frames_of(path, **chosen)[0]) < 0.001
    moved = frames_of(path, DepthOptions(camera="own"))[0]
    assert other_surface(moved) > 0.1


def test_depth_at_half_the_size_of_its_image_is_registered(tmp_path: Path) -> None:
    small = lens_from_calibration(
        320,
        180,
        lens().rectified.resized(320, 180).K,
        [0.0] * 5,
        "plumb_bob",
        np.eye(3),
        [0] * 12,
    )
    frames = frames_of(Bag(depth=small, info=small).write(tmp_path / "bag"))
    assert all(other_surface(frame) < EDGES for frame in frames)


@pytest.mark.parametrize(("offset", "matched"), [(0.0, 3), (0.015, 3), (0.0165, 3), (0.030, 2)])
def test_stamps_match_within_half_a_period(tmp_path: Path, offset: float, matched: int) -> None:
    """A camera of 30 Hz whose colour and depth are not triggered together."""
    path = Bag(offset_ns=round(offset * 1e9)).write(tmp_path / "bag")
    assert sum(frame.depth is not None for frame in frames_of(path)) == matched
    strict = frames_of(path, DepthOptions(max_offset=0.001))
    assert sum(frame.depth is not None for frame in strict) == (3 if offset == 0 else 0)


def test_more_is_allowed_by_the_user(tmp_path: Path) -> None:
    path = Bag(offset_ns=2_000_000_000).write(tmp_path / "bag")
    assert not any(frame.depth is not None for frame in frames_of(path))
    assert all(frame.depth is not None for frame in frames_of(path, DepthOptions(max_offset=3.0)))


def test_a_given_camera_takes_the_place_of_camera_info(tmp_path: Path) -> None:
    path = Bag().write(tmp_path / "bag")
    (frame, *_) = frames_of(path, camera=GivenCamera(hfov=90.0), depth="none")
    assert frame.camera.fx == pytest.approx(320.0)


def test_stamps_that_go_back_find_their_depth_and_are_named(tmp_path: Path) -> None:
    """Compressed images of several threads swap, and simulations start again."""
    order = [0, 2, 1, 3, 0, 1]
    depth = np.full((360, 640), 2.0)
    with write_bag(tmp_path / "bag") as writer:
        for recorded, index in enumerate(order):
            header = ROSBAGS.header(START + index * PERIOD, "color")
            picture = np.full((360, 640, 3), 10 * index, np.uint8)
            for topic, message in (
                ("/image", image_message(header, picture)),
                ("/camera_info", info_of(header, lens())),
                ("/depth", depth_message(header, depth + index, "16UC1")),
            ):
                writer.write(topic, message, recorded)
    with bag_source(tmp_path / "bag") as source:
        said = "stamps go back 2 times, by up to 0.1 s"
        assert source.notes == {
            "stamps of the images": f"on '/image' {said}",
            "stamps of the depth images": f"on '/depth' {said}",
        }
        for frame, index in zip(source.frames, order, strict=True):
            assert frame.depth is not None
            np.testing.assert_allclose(frame.depth, 2.0 + index, rtol=1e-6)


def test_images_without_stamps_are_refused(tmp_path: Path) -> None:
    with write_bag(tmp_path / "bag") as writer:
        for recorded in (1, 2):
            picture = np.zeros((36, 64, 3), np.uint8)
            writer.write("/image", image_message(ROSBAGS.header(0, "color"), picture), recorded)
    with pytest.raises(BagError, match=r"header\.stamp is 0 in all messages on '/image'"):
        frames_of(tmp_path / "bag", camera=GivenCamera(hfov=60.0))


def test_a_topic_that_cannot_be_read_is_named_and_costs_itself(tmp_path: Path) -> None:
    """Jazzy and later record the events of services (ros2/rosbag2#2365)."""
    path = Bag().write(tmp_path / "bag")
    with (
        AnyReader([path]) as reader,
        Writer(tmp_path / "all", version=9, storage_plugin=StoragePlugin.MCAP) as writer,
    ):
        event = {"msgdef": "uint8 mode\n---\nbool done\n", "rihs01": "RIHS01_" + "0" * 64}
        writer.add_connection("/set/_service_event", "my_msgs/srv/Set_Event", **event)
        written = {
            connection.id: writer.add_connection(
                connection.topic, connection.msgtype, typestore=reader.typestore
            )
            for connection in reader.connections
        }
        for connection, stamp, raw in reader.messages():
            writer.write(written[connection.id], stamp, raw)
    with bag_source(tmp_path / "all") as source:
        note = source.notes["topics that cannot be read"]
        assert note.startswith("'/set/_service_event': the definition of its type my_msgs/srv/Set")
        assert all(frame.depth is not None for frame in source.frames)


def test_an_image_without_a_frame_has_that_of_its_camera_info(tmp_path: Path) -> None:
    with write_bag(tmp_path / "bag") as writer:
        for index in range(2):
            stamp = START + index * PERIOD
            picture = image_message(ROSBAGS.header(stamp, ""), np.zeros((360, 640, 3), np.uint8))
            writer.write("/image", picture, stamp)
            info = info_of(ROSBAGS.header(stamp, "color"), lens())
            writer.write("/camera_info", info, stamp)
    with open_bag(tmp_path / "bag") as bag:
        assert camera_frame(bag, "/image", "/camera_info") == "color"
        assert camera_frame(bag, "/image") == ""
