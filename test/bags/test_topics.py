# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlm3_ros.bags.reading import open_bag
from vlm3_ros.bags.topics import CameraTopics, find_camera_topics
from vlm3_ros.bags.writing import BagWriter, write_bag
from vlm3_ros.errors import BagError, MessageError
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.messages.cameras import camera_info_message
from vlm3_ros.messages.classes import ROSBAGS
from vlm3_ros.messages.depth_images import (
    DepthEncoding,
    check_depth_format,
    compressed_depth_message,
    depth_message,
)
from vlm3_ros.messages.images import (
    compressed_image_message,
    encode_image,
    image_message,
    jpeg_image_message,
)

IMAGE = np.zeros((6, 8, 3), np.uint8)
DEPTH = np.ones((6, 8))
CAMERA = PinholeCamera(8, 6, 5, 5, 3.5, 2.5)


def write_camera(writer: BagWriter, namespace: str) -> None:
    writer.write(f"{namespace}/image_raw", image_message(ROSBAGS.header(1, "c"), IMAGE), 1)
    writer.write(
        f"{namespace}/image_raw/compressed", jpeg_image_message(ROSBAGS.header(1, "c"), IMAGE), 1
    )
    writer.write(f"{namespace}/camera_info", camera_info_message(ROSBAGS.header(1, "c"), CAMERA), 1)


def test_colour_depth_and_calibration_are_found(tmp_path: Path) -> None:
    with write_bag(tmp_path / "bag") as writer:
        write_camera(writer, "/robot/front")
        writer.write("/aligned/image", depth_message(ROSBAGS.header(1, "c"), DEPTH, "16UC1"), 1)
        writer.write(
            "/aligned/image/compressedDepth",
            compressed_depth_message(ROSBAGS.header(1, "c"), DEPTH),
            1,
        )
        writer.write("/aligned/camera_info", camera_info_message(ROSBAGS.header(1, "c"), CAMERA), 1)
    with open_bag(tmp_path / "bag") as bag:
        assert find_camera_topics(bag) == CameraTopics(
            "/robot/front/image_raw", "/robot/front/camera_info", "/aligned/image"
        )
        chosen = find_camera_topics(bag, depth="/aligned/image/compressedDepth")
        assert chosen.depth == "/aligned/image/compressedDepth"


def test_a_bag_may_have_no_depth(tmp_path: Path) -> None:
    with write_bag(tmp_path / "bag") as writer:
        write_camera(writer, "/camera")
    with open_bag(tmp_path / "bag") as bag:
        assert find_camera_topics(bag) == CameraTopics(
            "/camera/image_raw", "/camera/camera_info", None
        )
        with pytest.raises(BagError, match="no topic '/depth'"):
            find_camera_topics(bag, depth="/depth")


def test_a_bag_without_images_lists_its_topics(tmp_path: Path) -> None:
    with write_bag(tmp_path / "bag") as writer:
        writer.write("/depth", depth_message(ROSBAGS.header(1, "c"), DEPTH, "32FC1"), 1)
    with (
        open_bag(tmp_path / "bag") as bag,
        pytest.raises(BagError, match=r"no image topic, only depth \(/depth\); the bag has"),
    ):
        find_camera_topics(bag)


def test_two_cameras_must_be_named(tmp_path: Path) -> None:
    with write_bag(tmp_path / "bag") as writer:
        write_camera(writer, "/left")
        write_camera(writer, "/right")
        writer.write("/depth", depth_message(ROSBAGS.header(1, "c"), DEPTH, "32FC1"), 1)
    with open_bag(tmp_path / "bag") as bag:
        several = r"several.*/left/image_raw, /right/image_raw; name one \(--image-topic\)"
        with pytest.raises(BagError, match=several):
            find_camera_topics(bag)
        found = find_camera_topics(bag, image="/right/image_raw/compressed")
        assert found.camera_info == "/right/camera_info"


def grey16(topic: str, frame: str = "thermal") -> tuple[str, Any]:
    return topic, image_message(ROSBAGS.header(1, frame), np.full((6, 8), 900, np.uint16), "mono16")


@pytest.mark.parametrize(
    ("topic", "frame", "is_depth"),
    [
        ("/thermal/image_raw", "thermal", False),
        ("/infra1/image_rect_raw", "infra1", False),
        ("/camera/depth/image", "camera", True),
        ("/camera/image", "camera_depth_optical_frame", True),
        ("/ir/image_raw", "depth_camera_link", False),  # Azure Kinect
    ],
)
def test_mono16_is_depth_only_where_it_is_called_so(
    tmp_path: Path, topic: str, frame: str, is_depth: bool
) -> None:
    with write_bag(tmp_path / "bag") as writer:
        write_camera(writer, "/rgb")
        writer.write(*grey16(topic, frame), 1)
    with open_bag(tmp_path / "bag") as bag:
        if is_depth:
            assert find_camera_topics(bag).depth == topic
        else:
            assert find_camera_topics(bag, image="/rgb/image_raw").depth is None
            assert find_camera_topics(bag, depth=topic).depth == topic
            with pytest.raises(BagError, match=f"several topics could be the image: .*{topic}"):
                find_camera_topics(bag)


@pytest.mark.parametrize("encoding", ["16UC1", "32FC1"])
@pytest.mark.parametrize(
    ("topic", "frame", "is_depth"),
    [
        ("/thermal/image_raw", "c", False),
        ("/front/image_raw", "thermal_optical", False),
        ("/zed/zed_node/depth/confidence_map", "zed_left_camera_frame_optical", False),
        ("/infra1/image_rect_raw", "camera_depth_optical_frame", False),
        ("/ir/depth/image_raw", "camera_ir_optical_frame", True),
        ("/first/image", "iris_optical_frame", True),  # not "ir"
        ("/depth_masked/image", "c", True),
    ],
)
def test_an_image_of_16_or_32_bits_is_no_depth_if_it_is_called_otherwise(
    tmp_path: Path, topic: str, frame: str, is_depth: bool, encoding: DepthEncoding
) -> None:
    with write_bag(tmp_path / "bag") as writer:
        write_camera(writer, "/rgb")
        writer.write(topic, depth_message(ROSBAGS.header(1, frame), DEPTH, encoding), 1)
    with open_bag(tmp_path / "bag") as bag:
        found = find_camera_topics(bag)
        assert found == CameraTopics("/rgb/image_raw", "/rgb/camera_info", topic * is_depth or None)
        assert find_camera_topics(bag, depth=topic).depth == topic


def test_a_png_of_16_bit_grey_is_depth_if_it_is_called_so(tmp_path: Path) -> None:
    png = encode_image(".png", np.full((6, 8), 900, np.uint16))
    with write_bag(tmp_path / "bag") as writer:
        write_camera(writer, "/rgb")
        for name in ("/depth/image", "/grey/image"):
            message = compressed_image_message(ROSBAGS.header(1, "c"), png, "png")
            writer.write(f"{name}/compressed", message, 1)
    with open_bag(tmp_path / "bag") as bag:
        found = find_camera_topics(bag, image="/rgb/image_raw")
        assert found.depth == "/depth/image/compressed"


@pytest.mark.parametrize(("dtype", "encoding"), [(np.float64, "64FC1"), (np.int32, "32SC1")])
def test_depth_in_another_encoding_is_found_to_be_refused_by_name(
    tmp_path: Path, dtype: type, encoding: str
) -> None:
    message = image_message(ROSBAGS.header(1, "c"), DEPTH.astype(dtype), encoding)
    with write_bag(tmp_path / "bag") as writer:
        write_camera(writer, "/rgb")
        writer.write("/depth/image", message, 1)
    with open_bag(tmp_path / "bag") as bag:
        assert find_camera_topics(bag).depth == "/depth/image"
    with pytest.raises(MessageError, match=f"'{encoding}' is not a depth image: use 32FC1"):
        check_depth_format(message)


def test_images_that_cannot_be_colour_are_none_beside_others(tmp_path: Path) -> None:
    labels = image_message(ROSBAGS.header(1, "c"), np.zeros((6, 8), np.int32), "32SC1")
    video = compressed_image_message(ROSBAGS.header(1, "c"), b"\0\0\0\1\x67", "h264")
    with write_bag(tmp_path / "bag") as writer:
        write_camera(writer, "/rgb")
        writer.write("/semantic_segmentation", labels, 1)
        writer.write("/rgb/image_raw/zstd", video, 1)
    with open_bag(tmp_path / "bag") as bag:
        assert find_camera_topics(bag).image == "/rgb/image_raw"
    with write_bag(tmp_path / "only") as writer:
        writer.write("/rgb/image_raw/compressed", video, 1)
    with open_bag(tmp_path / "only") as bag:  # the frames are refused with the reason
        assert find_camera_topics(bag, is_calibrated=True).image == "/rgb/image_raw/compressed"


def test_no_topic_is_both_the_image_and_its_depth(tmp_path: Path) -> None:
    with write_bag(tmp_path / "bag") as writer:
        write_camera(writer, "/camera")
        writer.write(*grey16("/depth/image", "depth"), 1)
        writer.write("/depth/camera_info", camera_info_message(ROSBAGS.header(1, "c"), CAMERA), 1)
    with open_bag(tmp_path / "bag") as bag:
        found = find_camera_topics(bag, image="/depth/image")
        assert found == CameraTopics("/depth/image", "/depth/camera_info", None)
        with pytest.raises(BagError, match="'/depth/image' is named as the image and as its true"):
            find_camera_topics(bag, image="/depth/image", depth="/depth/image")
        found = find_camera_topics(bag, depth="none")
        assert found == CameraTopics("/camera/image_raw", "/camera/camera_info", None)


def test_a_given_calibration_needs_no_camera_info(tmp_path: Path) -> None:
    with write_bag(tmp_path / "bag") as writer:
        writer.write("/image", image_message(ROSBAGS.header(1, "c"), IMAGE), 1)
    with open_bag(tmp_path / "bag") as bag:
        assert find_camera_topics(bag, is_calibrated=True) == CameraTopics("/image", None, None)
        with pytest.raises(BagError, match=r"no camera_info topic: .*--camera-info FILE.*--hfov"):
            find_camera_topics(bag)


def test_a_topic_whose_first_message_is_damaged_costs_itself(tmp_path: Path) -> None:
    with write_bag(tmp_path / "bag") as writer:
        write_camera(writer, "/camera")
        writer.write("/other/image", image_message(ROSBAGS.header(1, "c"), IMAGE), 1)
    with open_bag(tmp_path / "bag") as bag:
        messages = bag.messages

        def damaged(topics):
            if "/other/image" in topics:
                raise BagError(f"{bag.path}: damaged after 0 messages")
            return messages(topics)

        bag.messages = damaged
        assert find_camera_topics(bag).image == "/camera/image_raw"
        assert bag.left_out == {"/other/image": "damaged after 0 messages"}


def test_depth_that_can_be_read_comes_before_depth_that_is_lost(tmp_path: Path) -> None:
    """image_transport offers depth as `compressed` JPEG, too, of which 8 bits are left."""
    header = ROSBAGS.header(1, "c")
    jpeg = compressed_image_message(header, b"\xff\xd8", "16UC1; jpeg compressed ")
    with write_bag(tmp_path / "bag") as writer:
        write_camera(writer, "/camera")
        writer.write("/depth/image/compressed", jpeg, 1)
        writer.write("/depth/image/compressedDepth", compressed_depth_message(header, DEPTH), 1)
        writer.write("/camera/camera_info", camera_info_message(header, CAMERA), 1)
    with open_bag(tmp_path / "bag") as bag:
        assert find_camera_topics(bag).depth == "/depth/image/compressedDepth"
