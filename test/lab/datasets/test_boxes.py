# SPDX-License-Identifier: Apache-2.0
"""Boxes of objects: vision_msgs come with their definitions in the bag itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drives import CAMERA, EXACT, START_NS, STILL
from recordings import EVERYTHING, drive_of, float_depth
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from scipy.spatial.transform import Rotation

from vlm3_lab.datasets.making import make_dataset
from vlm3_ros.datasets.own import load_dataset
from vlm3_ros.geometry.motion import inverse, transform
from vlm3_ros.messages.cameras import camera_info_message
from vlm3_ros.messages.classes import ROSBAGS
from vlm3_ros.messages.images import jpeg_image_message
from vlm3_ros.messages.motions import odometry_message, tf_message

DEFINITIONS = {
    "vision_msgs/msg/ObjectHypothesis": "string class_id\nfloat64 score\n",
    "vision_msgs/msg/ObjectHypothesisWithPose": "ObjectHypothesis hypothesis\n"
    "geometry_msgs/PoseWithCovariance pose\n",
    "vision_msgs/msg/BoundingBox3D": "geometry_msgs/Pose center\ngeometry_msgs/Vector3 size\n",
    "vision_msgs/msg/Detection3D": "std_msgs/Header header\n"
    "vision_msgs/ObjectHypothesisWithPose[] results\nvision_msgs/BoundingBox3D bbox\nstring id\n",
    "vision_msgs/msg/Detection3DArray": "std_msgs/Header header\n"
    "vision_msgs/Detection3D[] detections\n",
}


def vision_types() -> Any:
    types = get_typestore(Stores.LATEST)
    for name, definition in DEFINITIONS.items():
        types.register(get_types_from_msg(definition, name))
    return types


def detection(types: Any, T_frame_box: np.ndarray, size: tuple, **scores: float) -> Any:
    def new(name: str, **fields: Any) -> Any:
        return types.types[name](**fields)

    x, y, z, w = Rotation.from_matrix(T_frame_box[:3, :3]).as_quat()
    pose = new(
        "geometry_msgs/msg/Pose",
        position=new(
            "geometry_msgs/msg/Point", **dict(zip("xyz", T_frame_box[:3, 3], strict=True))
        ),
        orientation=new("geometry_msgs/msg/Quaternion", x=x, y=y, z=z, w=w),
    )
    with_covariance = new(
        "geometry_msgs/msg/PoseWithCovariance", pose=pose, covariance=np.zeros(36)
    )
    return new(
        "vision_msgs/msg/Detection3D",
        header=ROSBAGS.header(START_NS, ""),
        results=[
            new(
                "vision_msgs/msg/ObjectHypothesisWithPose",
                hypothesis=new("vision_msgs/msg/ObjectHypothesis", class_id=kind, score=score),
                pose=with_covariance,
            )
            for kind, score in scores.items()
        ],
        bbox=new(
            "vision_msgs/msg/BoundingBox3D",
            center=pose,
            size=new("geometry_msgs/msg/Vector3", **dict(zip("xyz", size, strict=True))),
        ),
        id="",
    )


@pytest.mark.parametrize("frame", ["optical", "base", "odom", "map"])
def test_boxes_are_given_in_the_world(tmp_path: Path, frame: str) -> None:
    """The robot moves 0.4 m in 40 ms; the boxes are halfway."""
    types, drive = vision_types(), drive_of(2)
    (view, _) = drive.views(np.random.default_rng(0))
    T_odom_base = drive.path.T_world_base[0]
    halfway, after = (
        transform(Rotation.identity(), (metres, 0, 0)) @ T_odom_base for metres in (0.2, 0.4)
    )
    T_odom_frame = {
        "optical": halfway @ drive.T_base_camera,
        "base": halfway,
        "odom": np.eye(4),
        "map": np.eye(4),
    }[frame]
    T_odom_chair = transform(Rotation.from_euler("z", 30, degrees=True), (2.0, 1.0, 0.4))
    tilted = transform(Rotation.from_euler("x", 40, degrees=True), (0.0, 0.0, 1.0))
    boxes = types.types["vision_msgs/msg/Detection3DArray"](
        header=ROSBAGS.header(START_NS + 20_000_000, frame),
        detections=[
            detection(
                types, inverse(T_odom_frame) @ T_odom_chair, (0.5, 0.6, 0.8), table=0.2, chair=0.7
            ),
            detection(types, inverse(T_odom_frame) @ tilted, (1.0, 1.0, 1.0), plane=0.9),
            detection(types, np.eye(4), (1.0, 1.0, 1.0)),
        ],
    )
    messages = [
        (
            "/tf_static",
            tf_message(ROSBAGS.header(START_NS, "base"), "optical", drive.T_base_camera),
        ),
        (
            "/odom",
            odometry_message(
                ROSBAGS.header(START_NS, "odom"), "base", T_odom_base, EXACT, STILL, EXACT
            ),
        ),
        (
            "/odom",
            odometry_message(
                ROSBAGS.header(START_NS + 40_000_000, "odom"), "base", after, EXACT, STILL, EXACT
            ),
        ),
        ("/camera/camera_info", camera_info_message(ROSBAGS.header(START_NS, "optical"), CAMERA)),
        ("/camera/image", jpeg_image_message(ROSBAGS.header(START_NS, "optical"), view.image)),
        *float_depth(view, START_NS),
        ("/objects", boxes),
    ]
    with Writer(tmp_path / "bag", version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        connections = {
            topic: writer.add_connection(topic, message.__msgtype__, typestore=types)
            for topic, message in dict(messages).items()
        }
        for topic, message in messages:
            cdr = types.serialize_cdr(message, message.__msgtype__)
            writer.write(connections[topic], START_NS, cdr)
    part = make_dataset(tmp_path / "made", [tmp_path / "bag"], EVERYTHING)["bags"][0]
    assert part["topics"]["boxes"] == "/objects"
    objects = load_dataset(tmp_path / "made").read(0).objects
    if frame == "map":
        assert objects == ()
        assert part["left_out_boxes"] == {
            "boxes in 'map', which is neither the world 'odom' nor fixed to the camera by TF": 3
        }
        return
    (box,) = objects
    assert box.kind == "chair"
    np.testing.assert_allclose(box.centre, (2.0, 1.0, 0.4), atol=1e-9)
    np.testing.assert_allclose(box.size, (0.5, 0.6, 0.8))
    assert box.yaw == pytest.approx(np.radians(30))
    left_out = part["left_out_boxes"]
    assert left_out == {
        "boxes tilted by more than 10 degrees": 1,
        "boxes without a class": 1,
    }
