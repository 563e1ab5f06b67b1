# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vlm3_ros.bags.poses import TruePoses, find_true_poses
from vlm3_ros.bags.reading import open_bag
from vlm3_ros.bags.timed_poses import MAX_GAP, TimedPoses
from vlm3_ros.bags.writing import BagWriter, write_bag
from vlm3_ros.errors import BagError
from vlm3_ros.geometry.motion import inverse, transform
from vlm3_ros.messages.classes import ROSBAGS
from vlm3_ros.messages.images import image_message
from vlm3_ros.messages.motions import odometry_message, pose_message, tf_message

SECOND = 1_000_000_000
T_BASE_CAMERA = transform(Rotation.from_euler("xyz", [0.1, -0.4, 0.7]), [0.2, 0.1, 0.9])
EXACT = np.diag(np.full(6, 1e-10))


def pose(seconds: float) -> np.ndarray:
    """Moves 1 m/s along x and turns a tenth of a revolution per second about z."""
    return transform(Rotation.from_rotvec([0, 0, 0.2 * np.pi * seconds]), [seconds, 0, 0])


def write_odometry(
    writer: BagWriter, topic: str = "/odom", child: str = "base", later: int = 0
) -> None:
    """A second of odometry, recorded `later` nanoseconds after its stamps."""
    for stamp in range(0, SECOND + 1, SECOND // 10):
        message = odometry_message(
            ROSBAGS.header(stamp, "odom"), child, pose(stamp / SECOND), EXACT, np.zeros(6), EXACT
        )
        writer.write(topic, message, stamp + later)


def found(bag: Path, ground_truth: str | None = None, camera: str = "optical") -> TruePoses:
    with open_bag(bag) as opened:
        return find_true_poses(opened, camera, ground_truth, [])


def assert_same_motion(poses: TruePoses) -> None:
    """The camera moves as expected, also between two messages, in any world frame."""
    stamps = [0, SECOND // 4, SECOND]
    first, between, last = poses.base.at(stamps) @ poses.T_base_camera
    expected = [pose(stamp / SECOND) @ T_BASE_CAMERA for stamp in stamps]
    np.testing.assert_allclose(inverse(first) @ last, inverse(expected[0]) @ expected[2], atol=1e-9)
    np.testing.assert_allclose(
        inverse(first) @ between, inverse(expected[0]) @ expected[1], atol=1e-9
    )


def test_odometry_of_a_base_that_carries_the_camera(tmp_path: Path) -> None:
    with write_bag(tmp_path / "bag") as writer:
        # Two transforms, as on most robots.
        mast = transform(Rotation.identity(), [0, 0, 0.5])
        writer.write("/tf_static", tf_message(ROSBAGS.header(0, "base"), "mast", mast), 0)
        rest = inverse(mast) @ T_BASE_CAMERA
        writer.write("/tf_static", tf_message(ROSBAGS.header(0, "mast"), "optical", rest), 0)
        write_odometry(writer)
    poses = found(tmp_path / "bag")
    np.testing.assert_allclose(poses.T_base_camera, T_BASE_CAMERA, atol=1e-12)
    assert "/odom" in poses.source
    assert_same_motion(poses)


@pytest.mark.parametrize("child", ["optical", "/optical"])  # the latter as in ROS 1
def test_odometry_of_the_camera_itself_needs_no_tf(tmp_path: Path, child: str) -> None:
    with write_bag(tmp_path / "bag") as writer:
        write_odometry(writer, child=child)
    np.testing.assert_array_equal(found(tmp_path / "bag").T_base_camera, np.eye(4))


def test_odometry_without_a_transform_to_the_camera_is_refused(tmp_path: Path) -> None:
    with write_bag(tmp_path / "bag") as writer:
        write_odometry(writer)
    with pytest.raises(BagError, match=r"no transform from 'base'.*'optical'.*/tf_static"):
        found(tmp_path / "bag")


def test_a_joint_between_base_and_camera_is_refused(tmp_path: Path) -> None:
    with write_bag(tmp_path / "bag") as writer:
        write_odometry(writer)
        for stamp, T in enumerate((T_BASE_CAMERA, T_BASE_CAMERA @ pose(0.01))):
            writer.write("/tf", tf_message(ROSBAGS.header(stamp, "base"), "optical", T), stamp)
    with pytest.raises(BagError, match=r"'optical' moves between 'base'"):
        found(tmp_path / "bag")


@pytest.mark.parametrize("topic", ["/tf", "/tf_static", "/robot/tf"])
def test_a_transform_that_never_changes_is_fixed_whatever_topic_tells_it(
    tmp_path: Path, topic: str
) -> None:
    """static_transform_publisher of ROS 1, and drivers, repeat it; rounding is no motion."""
    jitter = transform(Rotation.from_rotvec([1e-6, 0, 0]), [0, 2e-6, 0])
    with write_bag(tmp_path / "bag") as writer:
        write_odometry(writer)
        for stamp in range(0, SECOND, SECOND // 5):
            T = T_BASE_CAMERA if stamp % 2 else T_BASE_CAMERA @ jitter
            writer.write(topic, tf_message(ROSBAGS.header(stamp, "base"), "optical", T), stamp)
    poses = found(tmp_path / "bag")
    np.testing.assert_allclose(poses.T_base_camera, T_BASE_CAMERA, atol=1e-5)
    assert "/odom" in poses.source


def test_the_world_may_be_fixed_to_a_frame_above_it_on_tf(tmp_path: Path) -> None:
    """Such as an identity from map to odom, repeated while nothing localises."""
    with write_bag(tmp_path / "bag") as writer:
        write_tf(writer)
        for stamp in (0, SECOND):
            earth = tf_message(ROSBAGS.header(stamp, "earth"), "map", T_BASE_CAMERA)
            writer.write("/tf", earth, stamp)
    poses = found(tmp_path / "bag")
    assert poses.source == "TF ('base' in 'earth')"
    assert len(poses.base.stamps_ns) == 11


@pytest.mark.parametrize("body", ["lidar", "base", "footprint"])
def test_odometry_of_a_body_beside_the_camera(tmp_path: Path, body: str) -> None:
    """The poses of any frame that is fixed to the camera serve, by the frame that carries both."""
    T_base_lidar = transform(Rotation.from_euler("z", 0.4), [0.1, 0, 0.5])
    T_base_footprint = transform(Rotation.identity(), [0, 0, -0.06])
    mounts = {"lidar": T_base_lidar, "base": np.eye(4), "footprint": T_base_footprint}
    with write_bag(tmp_path / "bag") as writer:
        for child, T in (("optical", T_BASE_CAMERA), *mounts.items()):
            if child != "base":
                writer.write("/tf_static", tf_message(ROSBAGS.header(0, "base"), child, T), 0)
        for stamp in range(0, SECOND + 1, SECOND // 10):
            T_odom_body = pose(stamp / SECOND) @ mounts[body]
            message = odometry_message(
                ROSBAGS.header(stamp, "odom"), body, T_odom_body, EXACT, np.zeros(6), EXACT
            )
            writer.write("/odom", message, stamp)
    poses = found(tmp_path / "bag")
    stamps = [0, 3 * SECOND // 10]
    for camera, stamp in zip(poses.base.at(stamps) @ poses.T_base_camera, stamps, strict=True):
        np.testing.assert_allclose(camera, pose(stamp / SECOND) @ T_BASE_CAMERA, atol=1e-9)


def test_an_empty_child_frame_is_named(tmp_path: Path) -> None:
    with write_bag(tmp_path / "bag") as writer:
        write_odometry(writer, child="")
    with pytest.raises(BagError, match=r"child_frame_id is empty on '/odom'.*\(--gt\)"):
        found(tmp_path / "bag")


def test_odometry_without_stamps_is_named(tmp_path: Path) -> None:
    message = odometry_message(
        ROSBAGS.header(0, "odom"), "optical", pose(0), EXACT, np.zeros(6), EXACT
    )
    with write_bag(tmp_path / "bag") as writer:
        for stamp in range(3):
            writer.write("/odom", message, stamp)
    with pytest.raises(BagError, match=r"header.stamp is 0 in all messages on '/odom': set it"):
        found(tmp_path / "bag")


@pytest.mark.parametrize(("other", "is_refused"), [(pose, False), (lambda s: pose(-s), True)])
def test_the_tf_of_two_robots_is_not_mixed(tmp_path: Path, other: Any, is_refused: bool) -> None:
    """Both say 'base' in 'odom'; a relay says the same twice."""
    with write_bag(tmp_path / "bag") as writer:
        writer.write("/tf_static", tf_message(ROSBAGS.header(0, "base"), "optical", np.eye(4)), 0)
        for stamp in range(SECOND, 2 * SECOND, SECOND // 10):
            for topic, place in (("/one/tf", pose), ("/two/tf", other)):
                T = place(stamp / SECOND)
                writer.write(topic, tf_message(ROSBAGS.header(stamp, "odom"), "base", T), stamp)
    if not is_refused:
        assert found(tmp_path / "bag").source == "TF ('base' in 'odom')"
        return
    with pytest.raises(BagError, match="'base' moves differently by /one/tf and /two/tf: record"):
        found(tmp_path / "bag")


def test_a_clock_that_starts_again_is_named(tmp_path: Path) -> None:
    """Two poses of one time have no motion between them."""
    with write_bag(tmp_path / "bag") as writer:
        write_odometry(writer, child="optical")
        write_odometry(writer, child="optical", later=2 * SECOND)
    again = (
        r"stamps on '/odom' go back in time, from 1.000 s to 0.[01]00 s: the clock started again"
    )
    with pytest.raises(BagError, match=again):
        found(tmp_path / "bag")


def test_a_frame_of_tf_that_goes_back_costs_only_those_who_need_it(tmp_path: Path) -> None:
    with write_bag(tmp_path / "bag") as writer:
        write_tf(writer)
        for recorded, stamp in enumerate((0, SECOND, SECOND // 10)):
            for child in ("arm", "cart"):
                T = transform(Rotation.identity(), [0, 0, recorded])
                parent = "base" if child == "arm" else "odom"
                message = tf_message(ROSBAGS.header(stamp, parent), child, T)
                writer.write("/tf", message, 2 * SECOND + recorded)
        in_cart = tf_message(ROSBAGS.header(0, "cart"), "passenger", T_BASE_CAMERA)
        writer.write("/tf_static", in_cart, 0)
    assert found(tmp_path / "bag").source == "TF ('base' in 'map')"
    with pytest.raises(BagError, match=r"transforms of 'cart' in TF go back in time"):
        found(tmp_path / "bag", camera="passenger")


def static(parent: str, child: str, x: float = 0.0):
    mount = transform(Rotation.identity(), [x, 0, 0])
    return tf_message(ROSBAGS.header(0, parent), child, mount)


@pytest.mark.parametrize(
    ("topic", "message", "reason"),
    [
        ("/tf_static", static("base", "optical", 0.3), "'optical' changes its place in 'base'"),
        ("/tf_static", static("mast", "optical"), r"'optical' has several parents in TF \(base, m"),
        ("/tf", static("mast", "optical"), "'optical' has several parents in TF"),
        ("/tf", static("base", "optical", 0.3), "'optical' is fixed to 'base' on /tf_static, but"),
        ("/tf_static", static("optical", "base"), "form a loop: base < optical < base"),
    ],
)
def test_a_tree_that_contradicts_itself_is_refused_by_the_name_of_the_frame(
    tmp_path: Path, topic: str, message, reason: str
) -> None:
    with write_bag(tmp_path / "bag") as writer:
        writer.write("/tf_static", static("base", "optical"), 0)
        write_odometry(writer)
        writer.write(topic, message, SECOND // 2)
    with pytest.raises(BagError, match=reason):
        found(tmp_path / "bag")


def test_what_tf2_ignores_and_what_is_of_other_frames_does_no_harm(tmp_path: Path) -> None:
    with write_bag(tmp_path / "bag") as writer:
        mount = tf_message(ROSBAGS.header(0, "base"), "optical", T_BASE_CAMERA)
        for topic, message in (
            ("/tf_static", mount),
            ("/tf", mount),
            ("/tf", static("optical", "optical")),
            ("/tf", static("", "optical")),
            ("/tf_static", static("base", "")),
            ("/tf_static", static("base", "arm", 1.0)),
            ("/tf_static", static("base", "arm", 2.0)),
        ):
            writer.write(topic, message, 0)
        write_odometry(writer)
    assert_same_motion(found(tmp_path / "bag"))


def test_stamps_that_were_not_set_are_left_out() -> None:
    stamps = [SECOND, 2 * SECOND, 0, 3 * SECOND]
    timed = TimedPoses.from_stamped((stamp, np.eye(4)) for stamp in stamps)
    assert timed.stamps_ns.tolist() == [SECOND, 2 * SECOND, 3 * SECOND]


def test_poses_of_the_camera(tmp_path: Path) -> None:
    with write_bag(tmp_path / "bag") as writer:
        for stamp in range(0, SECOND + 1, SECOND // 10):
            message = pose_message(
                ROSBAGS.header(stamp, "mocap"), pose(stamp / SECOND) @ T_BASE_CAMERA
            )
            writer.write("/truth", message, stamp)
    poses = found(tmp_path / "bag")
    np.testing.assert_array_equal(poses.T_base_camera, np.eye(4))
    expected = pose(0.3) @ T_BASE_CAMERA
    np.testing.assert_allclose(poses.base.at([3 * SECOND // 10])[0], expected, atol=1e-12)


def write_tf(writer: BagWriter) -> None:
    """A map that moves slowly relative to odom; one topic has the leading slashes of ROS 1."""
    writer.write("/tf_static", tf_message(ROSBAGS.header(0, "base"), "optical", T_BASE_CAMERA), 0)
    for stamp in (0, SECOND // 2, SECOND):
        T_map_odom = transform(Rotation.identity(), [0, stamp / SECOND, 0])
        writer.write("/tf", tf_message(ROSBAGS.header(stamp, "/map"), "/odom", T_map_odom), stamp)
    for stamp in range(0, SECOND + 1, SECOND // 10):
        writer.write(
            "/tf", tf_message(ROSBAGS.header(stamp, "odom"), "base", pose(stamp / SECOND)), stamp
        )


def test_tf_is_followed_to_its_root_or_to_the_given_frame(tmp_path: Path) -> None:
    with write_bag(tmp_path / "bag") as writer:
        write_tf(writer)
    for ground_truth in (None, "/tf", "map"):
        poses = found(tmp_path / "bag", ground_truth)
        assert poses.source == "TF ('base' in 'map')"
        expected = pose(0.3)
        expected[1, 3] += 0.3
        np.testing.assert_allclose(poses.base.at([3 * SECOND // 10])[0], expected, atol=1e-12)
    assert_same_motion(found(tmp_path / "bag", "odom"))
    with pytest.raises(BagError, match=r"'world' is neither.*base, odom, map"):
        found(tmp_path / "bag", "world")
    with pytest.raises(BagError, match="nothing moves in TF above 'other'"):
        found(tmp_path / "bag", None, camera="other")


def test_tf_with_transforms_too_far_apart_is_refused(tmp_path: Path) -> None:
    with write_bag(tmp_path / "bag") as writer:
        writer.write(
            "/tf_static", tf_message(ROSBAGS.header(0, "base"), "optical", T_BASE_CAMERA), 0
        )
        for stamp in (0, SECOND):
            drift = transform(Rotation.identity(), [0, 0, 0.01 * stamp / SECOND])
            writer.write("/tf", tf_message(ROSBAGS.header(stamp, "map"), "odom", drift), stamp)
        for stamp in range(SECOND // 10, SECOND, SECOND // 10):
            message = tf_message(ROSBAGS.header(stamp, "odom"), "base", pose(stamp / SECOND))
            writer.write("/tf", message, stamp)
    with pytest.raises(BagError, match=r"base, odom, map.*more than 0.5 s apart; name a frame"):
        found(tmp_path / "bag")
    assert found(tmp_path / "bag", "odom").source == "TF ('base' in 'odom')"


def test_several_sources_must_be_named(tmp_path: Path) -> None:
    with write_bag(tmp_path / "bag") as writer:
        write_odometry(writer, "/wheels", "optical")
        write_odometry(writer, "/lidar", "optical")
    with pytest.raises(BagError, match=r"several topics.*/lidar, /wheels; name one \(--gt\)"):
        found(tmp_path / "bag")
    assert "/wheels" in found(tmp_path / "bag", "/wheels").source


def test_a_bag_without_poses_lists_its_topics(tmp_path: Path) -> None:
    with write_bag(tmp_path / "bag") as writer:
        image = image_message(ROSBAGS.header(1, "optical"), np.zeros((2, 2, 3), np.uint8))
        writer.write("/image", image, 1)
    with pytest.raises(BagError, match=r"no ground truth of poses .*; the bag has /image"):
        found(tmp_path / "bag")
    with pytest.raises(BagError, match=r"'/image' is of type"):
        found(tmp_path / "bag", "/image")


def test_invalid_poses_are_skipped(tmp_path: Path) -> None:
    with write_bag(tmp_path / "bag") as writer:
        for stamp in range(5):
            message = pose_message(ROSBAGS.header(stamp, "mocap"), pose(stamp))
            if stamp == 2:
                message.pose.orientation.w = message.pose.orientation.z = 0.0
            if stamp == 3:
                message.pose.position.x = np.nan
            writer.write("/truth", message, stamp)
    np.testing.assert_array_equal(found(tmp_path / "bag").base.stamps_ns, [0, 1, 4])


def test_poses_are_unknown_outside_their_times_and_in_long_gaps() -> None:
    gap = round(MAX_GAP * SECOND)
    stamps = np.array([10, 10 + gap, 11 + 2 * gap])
    timed = TimedPoses(stamps, np.stack([pose(s / SECOND) for s in stamps]))
    wanted = np.array([9, 10, 11, 10 + gap, 12 + gap, 11 + 2 * gap, 12 + 2 * gap])
    known = np.isfinite(timed.at(wanted)).all(axis=(1, 2))
    assert known.tolist() == [False, True, True, True, False, True, False]
    single = TimedPoses(stamps[:1], np.eye(4)[None])
    assert np.isfinite(single.at([9, 10, 11])).all(axis=(1, 2)).tolist() == [False, True, False]
