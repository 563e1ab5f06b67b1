# SPDX-License-Identifier: Apache-2.0
"""Depth and odometry of two cameras at once, in namespaces and with remapped topics."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from rclpy.parameter import Parameter
from rosbags.image import image_to_cvimage
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from tf2_msgs.msg import TFMessage
from truth import TruthEngine

from vlm3_lab.scenes.sequences import sample_sequence
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.messages.cameras import camera_info_message
from vlm3_ros.nodes.depth_node import DepthNode
from vlm3_ros.nodes.pose_node import PoseNode
from vlm3_ros.ros.running import spinning
from vlm3_ros.tasks.depth import uniform_grid

SIDES = ("left", "right")
PERIOD = 0.1


class Side:
    """A camera with its own drive, its two nodes and their outputs."""

    def __init__(self, name: str, seed: int, peer: Node, start: float) -> None:
        rng = np.random.default_rng(seed)
        camera = PinholeCamera(240, 180, 150.0 + 20 * seed, 160.0, 119.5, 89.5)
        drive = sample_sequence(rng, camera, kind="room", duration=0.5, rate=1 / PERIOD)
        self.name, self.frame = name, f"{name}_optical"
        self.views = list(drive.views(rng))
        self.stamps = [round(start + 0.01 * seed + i * PERIOD, 6) for i in range(len(self.views))]
        engine = TruthEngine(self.views)
        topics = {"image": f"/cameras/{name}/image_raw", "camera_info": f"/cameras/{name}/info"}
        remaps = [part for topic in topics.items() for part in ("-r", ":=".join(topic))]
        common = {
            "namespace": f"/two/{name}",
            "engine_loader": lambda settings, progress: engine,
            "cli_args": ["--ros-args", *remaps],
        }
        few = {"grid_columns": 4, "grid_rows": 3, "process_every_frame": True}
        frames = {
            "odom_frame": f"{name}_odom",
            "base_frame": f"{name}_base",
            "base_from_camera": "0 0 1 -0.5 0.5 -0.5 0.5",
            # A predicted transform of an image would leave out the later poses of earlier ones.
            "max_prediction": 0.0,
            "process_every_frame": True,
        }
        self.depth = DepthNode(parameter_overrides=parameters(few), **common)
        self.pose = PoseNode(parameter_overrides=parameters(frames), **common)
        self.points: list[PointCloud2] = []
        self.depths: list[Image] = []
        self.poses: list[PoseStamped] = []
        for kind, topic, received in (
            (PointCloud2, "points", self.points),
            (Image, "depth/image_rect", self.depths),
            (PoseStamped, "pose", self.poses),
        ):
            peer.create_subscription(kind, f"/two/{name}/{topic}", received.append, 50)
        self.image = peer.create_publisher(Image, topics["image"], 50)
        self.info = peer.create_publisher(CameraInfo, topics["camera_info"], 50)

    def is_connected(self) -> bool:
        """Whether both nodes receive from the camera, and the peer from both nodes."""
        return (
            self.image.get_subscription_count() == self.info.get_subscription_count() == 2
            and self.depth._outputs
            and self.pose._outputs
            and self.depth._outputs[0].get_subscription_count() == 1
            and self.pose._outputs[0].get_subscription_count() == 1
        )

    def knows_camera(self) -> bool:
        return not (
            self.depth.camera.calibrations.is_empty or self.pose.camera.calibrations.is_empty
        )


def parameters(values: dict[str, object]) -> list[Parameter]:
    return [Parameter(name, value=value) for name, value in values.items()]


@pytest.fixture
def two(ros, bench) -> Iterator[tuple[Node, list[Side]]]:
    peer = Node("peer")
    sides = [Side(name, seed, peer, bench.now()) for seed, name in enumerate(SIDES)]
    nodes = [node for side in sides for node in (side.depth, side.pose)]
    with spinning(peer, *nodes):
        yield peer, sides
    for node in (*nodes, peer):
        node.destroy_node()


def test_each_camera_is_answered_in_its_own_names(two, bench):
    peer, sides = two

    def wait(condition: Callable[[], object], what: str) -> None:
        bench.wait_until(condition, what, lambda: str(sorted(statuses)))

    transforms, statuses = [], {}
    peer.create_subscription(TFMessage, "/tf", lambda m: transforms.extend(m.transforms), 100)
    peer.create_subscription(
        DiagnosticArray,
        "/diagnostics",
        lambda m: statuses.update({s.name: s for s in m.status}),
        50,
    )
    wait(lambda: all(side.is_connected() for side in sides), "connections")
    for side in sides:
        info = camera_info_message(bench.header(side.stamps[0], side.frame), side.views[0].camera)
        wait(lambda s=side, i=info: s.info.publish(i) or s.knows_camera(), "the calibration")
    for index, side in itertools.product(range(len(sides[0].views)), sides):
        message = bench.rgb_message(side.stamps[index], side.views[index].image, side.frame)
        side.image.publish(message)
    wait(lambda: all(len(side.points) >= len(side.stamps) for side in sides), "all clouds")
    wait(lambda: all(len(side.poses) >= len(side.stamps) for side in sides), "all poses")
    wait(lambda: len(transforms) >= sum(len(side.stamps) for side in sides), "all transforms")

    for side in sides:
        assert [bench.stamp_of(cloud) for cloud in side.points] == side.stamps
        assert {cloud.header.frame_id for cloud in side.points} == {side.frame}
        assert [bench.stamp_of(pose) for pose in side.poses] == side.stamps
        assert {pose.header.frame_id for pose in side.poses} == {f"{side.name}_odom"}
        own = [t for t in transforms if t.child_frame_id == f"{side.name}_base"]
        assert [bench.stamp_of(t) for t in own] == side.stamps
        assert {t.header.frame_id for t in own} == {f"{side.name}_odom"}
        view = side.views[0]
        u, v = np.rint(uniform_grid(view.camera, 4, 3)).astype(int).T
        truth, answered = view.depth[v, u], image_to_cvimage(side.depths[0]).ravel()
        both = np.isfinite(truth) & np.isfinite(answered)
        assert both.sum() > 6
        np.testing.assert_allclose(answered[both], truth[both], rtol=0.05)
        for node in ("depth_node", "pose_node"):
            name = f"two/{side.name}/{node}: frames"
            wait(lambda n=name: n in statuses, f"the status {name}")
            assert statuses[name].hardware_id == f"/cameras/{side.name}/image_raw"
    assert len(transforms) == sum(len(side.stamps) for side in sides)
