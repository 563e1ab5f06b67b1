# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vlm3_ros.bags.reading import open_bag
from vlm3_ros.bags.rgbd import DEPTH_TOPIC, IMAGE_TOPIC, ODOM_TOPIC
from vlm3_ros.bags.rgbd_folder import bag_from_rgbd
from vlm3_ros.bags.topics import find_camera_topics
from vlm3_ros.errors import BagError
from vlm3_ros.messages.classes import stamp_nanoseconds
from vlm3_ros.messages.depth_images import depth_from_message

IDS = (3, 6, 9, 13)


def camera_looking(heading_deg: float) -> Rotation:
    """R_world_camera of an upright camera in a world with y up (optical: x right, y down)."""
    upright = Rotation.from_matrix([[1, 0, 0], [0, -1, 0], [0, 0, -1]])
    return Rotation.from_euler("y", heading_deg, degrees=True) * upright


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Moves by 0.1 m per frame along world -z and turns left by 3 degrees per frame."""
    path = tmp_path / "recording"
    (path / "rgb").mkdir(parents=True)
    (path / "depth").mkdir()
    rng, lines = np.random.default_rng(1), ["# frame_id tx ty tz qx qy qz qw"]
    for index in IDS:
        image = rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)
        depth = rng.integers(0, 9000, (12, 16), dtype=np.uint16)
        cv2.imwrite(str(path / "rgb" / f"{index:05d}.jpg"), image)
        cv2.imwrite(str(path / "depth" / f"{index:05d}.png"), depth)
        quaternion = " ".join(f"{v:.12f}" for v in camera_looking(3.0 * index).as_quat())
        lines.append(f"{index:05d} 0 1.5 {-0.1 * index} {quaternion}")
    (path / "poses.txt").write_text("\n".join(lines) + "\n")
    intrinsics = {"fx": 14.0, "fy": 14.5, "cx": 7.5, "cy": 5.0, "width": 16, "height": 12}
    (path / "intrinsics.json").write_text(json.dumps(intrinsics))
    (path / "meta.json").write_text(json.dumps({"depth_scale": 0.0005}))
    return path


def test_stamps_images_and_depth_are_those_of_the_folder(folder: Path, tmp_path: Path) -> None:
    assert bag_from_rgbd(folder, tmp_path / "bag") == len(IDS)
    with open_bag(tmp_path / "bag") as bag:
        found = find_camera_topics(bag)
        assert (found.image, found.depth) == (IMAGE_TOPIC, DEPTH_TOPIC)
        images = list(bag.messages([found.image]))
        depths = list(bag.messages([found.depth]))
        info = next(bag.messages([found.camera_info])).content
    expected = [100_000_000, 200_000_000, 300_000_000, 433_333_333]
    assert [stamp_nanoseconds(m.content.header) for m in images] == expected
    assert [stamp_nanoseconds(m.content.header) for m in depths] == expected
    assert info.k[4] == 14.5
    for index, image, depth in zip(IDS, images, depths, strict=True):
        assert bytes(image.content.data) == (folder / "rgb" / f"{index:05d}.jpg").read_bytes()
        stored = cv2.imread(str(folder / "depth" / f"{index:05d}.png"), cv2.IMREAD_UNCHANGED)
        metres = np.where(stored > 1, stored * 0.0005, np.nan)
        found_metres = depth_from_message(depth.content)
        np.testing.assert_allclose(found_metres, metres, atol=0.000_51)


def test_poses_follow_rep_103_and_105(folder: Path, tmp_path: Path) -> None:
    bag_from_rgbd(folder, tmp_path / "bag")
    with open_bag(tmp_path / "bag") as bag:
        odometry = [m.content for m in bag.messages([ODOM_TOPIC])]
        transforms = [m.content.transforms[0] for m in bag.messages(["/tf"])]
        static = next(bag.messages(["/tf_static"])).content.transforms[0]
    for index, odom, transform in zip(IDS, odometry, transforms, strict=True):
        position = odom.pose.pose.position
        np.testing.assert_allclose(
            [position.x, position.y, position.z], [0.1 * index, 0, 1.5], atol=1e-9
        )
        q = odom.pose.pose.orientation
        yaw, pitch, roll = Rotation.from_quat([q.x, q.y, q.z, q.w]).as_euler("ZYX", degrees=True)
        np.testing.assert_allclose([yaw, pitch, roll], [3.0 * index, 0, 0], atol=1e-6)
        assert transform.transform.translation.x == position.x
        assert (transform.header.frame_id, transform.child_frame_id) == ("odom", "base_link")
    # The optical axes in base: right is -y, down is -z, ahead is x.
    q = static.transform.rotation
    np.testing.assert_allclose(
        Rotation.from_quat([q.x, q.y, q.z, q.w]).as_matrix(),
        [[0, 0, 1], [-1, 0, 0], [0, -1, 0]],
        atol=1e-12,
    )


def test_twist_is_in_base_and_no_covariance_is_zero(folder: Path, tmp_path: Path) -> None:
    bag_from_rgbd(folder, tmp_path / "bag")
    with open_bag(tmp_path / "bag") as bag:
        first = next(bag.messages([ODOM_TOPIC])).content
    # 0.1 m and 3 degrees per frame at 30 frames per second, along the x axis of odom; base is
    # turned left by 9 degrees.
    speed, heading = 3.0, np.radians(9)
    linear, angular = first.twist.twist.linear, first.twist.twist.angular
    np.testing.assert_allclose(
        [linear.x, linear.y, linear.z],
        [speed * np.cos(heading), -speed * np.sin(heading), 0],
        atol=1e-6,
    )
    np.testing.assert_allclose([angular.x, angular.y, angular.z], [0, 0, np.radians(90)], atol=1e-6)
    for covariance in (first.pose.covariance, first.twist.covariance):
        assert (np.linalg.eigvalsh(np.reshape(covariance, (6, 6))) > 0).all()


def test_errors_name_the_wrong_file(folder: Path, tmp_path: Path) -> None:
    def refused(match: str) -> None:
        with pytest.raises(BagError, match=match):
            bag_from_rgbd(folder, tmp_path / "bag")
        if (tmp_path / "bag").exists():
            pytest.fail("an unfinished bag was left")

    poses = (folder / "poses.txt").read_text()
    (folder / "poses.txt").write_text(poses + "00020 1 2 3\n")
    refused("poses.txt, line 6: expected 'ID tx ty tz")
    (folder / "poses.txt").write_text(poses + poses.splitlines()[1] + "\n")
    refused("line 6: frame 00003 is out of order")
    (folder / "poses.txt").write_text(poses)
    (folder / "depth" / "00009.png").rename(folder / "depth" / "away.png")
    refused(r"00009\.png: missing, but poses.txt names it")
    (folder / "depth" / "00009.png").write_bytes(b"no picture")
    refused(r"00009\.png: not an image")
    cv2.imwrite(str(folder / "depth" / "00009.png"), np.zeros((5, 5), np.uint16))
    refused(r"00009\.png: 5x5, but intrinsics.json says 16x12")
    (folder / "meta.json").write_text("{}")
    refused("meta.json lacks 'depth_scale'")
    (folder / "meta.json").unlink()
    refused(r"meta\.json: No such file")
