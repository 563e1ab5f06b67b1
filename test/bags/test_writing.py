# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vlm3_ros.bags.reading import open_bag
from vlm3_ros.bags.writing import write_bag
from vlm3_ros.errors import BagError
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.messages.cameras import camera_info_message
from vlm3_ros.messages.classes import ROSBAGS
from vlm3_ros.messages.images import image_message


def test_chunks_are_compressed(tmp_path: Path) -> None:
    flat = np.full((480, 640, 3), 90, np.uint8)
    with write_bag(tmp_path / "bag") as writer:
        for stamp in range(10):
            writer.write("/image", image_message(ROSBAGS.header(stamp, "camera"), flat), stamp)
    assert (tmp_path / "bag" / "bag.mcap").stat().st_size < flat.nbytes
    with open_bag(tmp_path / "bag") as bag:
        assert all(not (m.content.data != 90).any() for m in bag.messages())


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "bag").mkdir()
    with pytest.raises(BagError, match="exists already"), write_bag(tmp_path / "bag"):
        pass


def test_a_rosbag2_cannot_have_the_suffix_of_ros1(tmp_path: Path) -> None:
    with (
        pytest.raises(BagError, match=r"\.bag is the suffix of ROS 1 bags"),
        write_bag(tmp_path / "robot.bag"),
    ):
        pass
    with write_bag(tmp_path / "robot"):
        pass
    (tmp_path / "robot").rename(tmp_path / "robot.bag")
    with pytest.raises(BagError, match="rename it"), open_bag(tmp_path / "robot.bag"):
        pass


def test_an_unfinished_bag_is_removed(tmp_path: Path) -> None:
    def interrupted() -> None:
        with write_bag(tmp_path / "bag") as writer:
            image = np.zeros((3, 4, 3), np.uint8)
            writer.write("/image", image_message(ROSBAGS.header(0, "camera"), image), 0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not (tmp_path / "bag").exists()


def test_a_path_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    bag = write_bag(tmp_path / "file" / "bag")
    with pytest.raises(BagError, match="file/bag: cannot be written"), bag:
        pass


def test_a_topic_keeps_its_type(tmp_path: Path) -> None:
    info = camera_info_message(ROSBAGS.header(0, "camera"), PinholeCamera(4, 3, 2, 2, 1, 1))
    image = image_message(ROSBAGS.header(0, "camera"), np.zeros((3, 4, 3), np.uint8))
    with write_bag(tmp_path / "bag") as writer:
        writer.write("/a", info, 0)
        with pytest.raises(BagError, match="'/a' holds sensor_msgs/msg/CameraInfo"):
            writer.write("/a", image, 1)
