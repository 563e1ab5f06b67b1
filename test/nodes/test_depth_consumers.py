# SPDX-License-Identifier: Apache-2.0
"""docs/depth_consumers.md and its configurations are consistent with depth_node."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from rosbags.image import image_to_cvimage

from vlm3_ros.messages.cameras import lens_from_message
from vlm3_ros.nodes.depth_parameters import DepthParameters

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "config"

# Names and types as declared in rtabmap_ros (ros2, May 2026: CommonDataSubscriber.cpp,
# CoreWrapper.cpp), rtabmap (Parameters.h, July 2026) and isaac_ros_nvblox (March 2026:
# node_params.hpp, mapper_initialization.cpp, nvblox_base.yaml).
RTABMAP = {
    "frame_id": str,
    "odom_frame_id": str,
    "subscribe_depth": bool,
    "approx_sync": bool,
    "topic_queue_size": int,
    "sync_queue_size": int,
    "qos_image": int,
    "Rtabmap/DetectionRate": str,
    "Grid/RangeMax": str,
}
NVBLOX = {
    "global_frame": str,
    "num_cameras": int,
    "use_lidar": bool,
    "use_color": bool,
    "use_depth": bool,
    "voxel_size": float,
    "decay_tsdf_rate_hz": float,
    "map_clearing_frame_id": str,
    "static_mapper": dict,
}
NVBLOX_MAPPER = {
    "projective_integrator_max_integration_distance_m": float,
    "projective_integrator_truncation_distance_vox": float,
}
# As navigation2.ai's launch file reads them (launch/perception_pipeline.launch.py, March 2026).
PIPELINE = {
    "image_source": {"type", "package", "plugin", "parameters", "topics"},
    "image_preprocessor": {"enabled"},
    "depth_estimator": {"enabled"},
}
# What its stages subscribe to, without a leading slash.
PIPELINE_TOPICS = {"pipeline/image_raw", "pipeline/camera_info", "pipeline/points", "depth_image"}

LATENCY = 0.7
"""Seconds from an image to its depth, with vlm3-tiny beside pose_node (docs/navigation.md)."""
CAMERA_RATE = 30.0


def content(file: str) -> dict:
    return yaml.safe_load((CONFIG / file).read_text())


def node_parameters(file: str, node: str) -> dict:
    return content(file)[f"/**/{node}"]["ros__parameters"]


def types(values: dict) -> dict[str, type]:
    return {name: type(value) for name, value in values.items()}


def commands(program: str) -> list[dict[str, str]]:
    """Remappings of each command of the page that runs a program."""
    page = (ROOT / "docs" / "depth_consumers.md").read_text()
    blocks = re.findall(r"^```\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [
        dict(re.findall(r"-r (\S+):=(\S+)", line))
        for line in lines
        if line.startswith(f"ros2 run {program} ")
    ]


@pytest.fixture
def topics(make_rig, bench) -> dict[str, str]:
    """Topics of a depth node, relative to its namespace, and their types."""
    rig = make_rig(bench.WallEngine(), listen=[])
    rig.wait(lambda: rig.state() == "active", "activation")
    name, namespace = rig.node.get_name(), rig.namespace
    return {
        topic.removeprefix(f"{namespace}/"): kinds[0]
        for read in (
            rig.node.get_publisher_names_and_types_by_node,
            rig.node.get_subscriber_names_and_types_by_node,
        )
        for topic, kinds in read(name, namespace)
    }


def test_the_commands_connect_real_topics(topics):
    ours = commands("vlm3_ros depth_node")
    assert len(ours) == 4
    for remappings in ours:
        assert {"image", "camera_info"} <= set(remappings) <= set(topics)
        outputs = {n: t for n, t in remappings.items() if n not in ("image", "camera_info")}
        assert {target.removeprefix("/") for target in outputs.values()} <= PIPELINE_TOPICS
    (rtabmap,) = commands("rtabmap_slam rtabmap")
    (nvblox,) = commands("nvblox_ros nvblox_node")
    (rectify,) = commands("image_proc rectify_node")
    image, info = "sensor_msgs/msg/Image", "sensor_msgs/msg/CameraInfo"
    for remappings, names in (
        (rtabmap, {"depth/image": image, "rgb/camera_info": info}),
        (nvblox, {"camera_0/depth/image": image, "camera_0/depth/camera_info": info}),
    ):
        for name, kind in names.items():
            assert topics[remappings[name].removeprefix("/")] == kind
    # rtabmap's colours are the images that depth_node answers.
    assert rtabmap["rgb/image"] == rectify["image_rect"] == ours[2]["image"]


def test_the_consumers_declare_every_parameter():
    assert types(node_parameters("rtabmap.yaml", "rtabmap")) == RTABMAP
    nvblox = node_parameters("nvblox.yaml", "nvblox_node")
    assert types(nvblox) == NVBLOX
    assert types(nvblox["static_mapper"]) == NVBLOX_MAPPER


def test_the_pipeline_reads_every_key():
    pipeline = content("nav2_perception_pipeline.yaml")
    assert {stage: set(keys) for stage, keys in pipeline.items()} == PIPELINE
    source = pipeline["image_source"]
    assert source["type"] == "depth"
    assert set(source["topics"]) == {"output_topic", "camera_info_topic"}
    # The driver keeps its topics, and depth_node listens to them.
    remappings = commands("vlm3_ros depth_node")[1]
    assert not set(source["topics"].values()) & {remappings["image"], remappings["camera_info"]}
    assert not pipeline["image_preprocessor"]["enabled"]


def test_rtabmap_keeps_images_until_their_depth_comes():
    rtabmap = node_parameters("rtabmap.yaml", "rtabmap")
    depth = DepthParameters(**node_parameters("rtabmap.yaml", "depth_node"))
    assert not rtabmap["approx_sync"]
    for queue in ("topic_queue_size", "sync_queue_size"):
        assert LATENCY < depth.max_frame_age < rtabmap[queue] / CAMERA_RATE


@pytest.mark.parametrize("file", ["rtabmap.yaml", "nvblox.yaml"])
def test_depth_fits_its_image(make_rig, bench, file):
    """Equal stamps, sizes and frames, so that they can be synchronised exactly."""
    parameters = node_parameters(file, "depth_node") | {"max_uncertainty": 0.0}
    rig = make_rig(bench.WallEngine(unread=4), parameters=parameters)
    rig.wait_active()
    image = bench.rgb_message(bench.now())
    rig.send(image)
    outputs = {}
    for name in ("image_rect", "camera_info"):
        topic = f"depth_registered/{name}"
        rig.wait_for_stamp(bench.stamp_of(image), topic)
        outputs[name] = rig.received[topic][-1]
    for message in outputs.values():
        assert message.header == image.header
        assert (message.width, message.height) == (image.width, image.height)
    depth, info = outputs["image_rect"], outputs["camera_info"]
    assert not any(info.d)
    assert lens_from_message(info, (info.width, info.height)).rectified == bench.CAMERA
    values = image_to_cvimage(depth)
    if file == "nvblox.yaml":
        assert depth.encoding == "16UC1" and 0 in values
    else:
        assert depth.encoding == "32FC1" and np.isnan(values).any() and 0 not in values
