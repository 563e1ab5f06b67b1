# SPDX-License-Identifier: Apache-2.0
"""The sample configurations of Nav2 and robot_localization are consistent with the nodes."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from rclpy.node import Node

from vlm3_ros.evaluation.metrics import occupancy
from vlm3_ros.nodes.depth_node import DepthNode
from vlm3_ros.nodes.depth_parameters import DepthParameters
from vlm3_ros.nodes.pose_node import PoseNode
from vlm3_ros.nodes.pose_parameters import PoseParameters
from vlm3_ros.ros.frame_worker import TF_BUFFER

CONFIG = Path(__file__).parents[2] / "config"

# Names and types as nav2_costmap_2d declares them (costmap_2d_ros.cpp, plugins/obstacle_layer.cpp,
# voxel_layer.cpp, inflation_layer.cpp; branches jazzy and main, August 2026). The costmap of 1.4.2
# (kilted) loads the file without a warning.
COSTMAP = {
    "global_frame": str,
    "robot_base_frame": str,
    "rolling_window": bool,
    "width": int,
    "height": int,
    "resolution": float,
    "update_frequency": float,
    "publish_frequency": float,
    "transform_tolerance": float,
    "plugins": list,
}
VOXEL_LAYER = {
    "plugin": str,
    "enabled": bool,
    "origin_z": float,
    "z_resolution": float,
    "z_voxels": int,
    "mark_threshold": int,
    "min_obstacle_height": float,
    "max_obstacle_height": float,
    "observation_sources": str,
}
SOURCE = {
    "topic": str,
    "data_type": str,
    "marking": bool,
    "clearing": bool,
    "min_obstacle_height": float,
    "max_obstacle_height": float,
    "obstacle_min_range": float,
    "obstacle_max_range": float,
    "raytrace_min_range": float,
    "raytrace_max_range": float,
    "observation_persistence": float,
    "expected_update_rate": float,
}
INFLATION_LAYER = {"plugin": str, "inflation_radius": float, "cost_scaling_factor": float}
# As robot_localization declares them (ros_filter.cpp; branch ros2, August 2026). ekf_node of 3.6.0
# loads the file without a warning.
EKF = {
    "frequency": float,
    "two_d_mode": bool,
    "publish_tf": bool,
    "odom_frame": str,
    "base_link_frame": str,
    "world_frame": str,
    "smooth_lagged_data": bool,
    "predict_to_current_time": bool,
    "sensor_timeout": float,
    "odom0": str,
    "odom0_queue_size": int,
    "odom0_config": list,
    "odom0_differential": bool,
    "odom0_relative": bool,
}


def parameters_of(file: str, *path: str) -> dict:
    content = yaml.safe_load((CONFIG / file).read_text())
    for part in path:
        content = content[part]
    return content["ros__parameters"]


@pytest.fixture(scope="module")
def costmap() -> dict:
    return parameters_of("nav2_vlm3.yaml", "local_costmap", "local_costmap")


@pytest.fixture(scope="module")
def layer(costmap: dict) -> dict:
    return costmap["vlm3_layer"]


@pytest.fixture(scope="module")
def sources(layer: dict) -> list[dict]:
    return [layer[name] for name in layer["observation_sources"].split()]


@pytest.fixture(scope="module")
def ekf() -> dict:
    return parameters_of("robot_localization.yaml", "/**/ekf_filter_node")


def assert_declared(values: dict, declared: dict[str, type], inner: tuple[str, ...] = ()) -> None:
    plain = {name: value for name, value in values.items() if name not in inner}
    assert {name: type(value) for name, value in plain.items()} == {
        name: declared.get(name) for name in plain
    }


def test_nav2_declares_every_parameter(costmap: dict, layer: dict, sources: list[dict]) -> None:
    assert_declared(costmap, COSTMAP, tuple(costmap["plugins"]))
    assert_declared(layer, VOXEL_LAYER, tuple(layer["observation_sources"].split()))
    for source in sources:
        assert_declared(source, SOURCE)
    assert_declared(costmap["inflation_layer"], INFLATION_LAYER)
    assert set(costmap["plugins"]) == {
        name for name, value in costmap.items() if isinstance(value, dict)
    }


def test_robot_localization_declares_every_parameter(ekf: dict) -> None:
    assert_declared(ekf, EKF)
    assert len(ekf["odom0_config"]) == 15
    assert {type(is_used) for is_used in ekf["odom0_config"]} == {bool}


def test_the_layer_listens_to_what_the_node_publishes(make_rig, bench, sources) -> None:
    rig = make_rig(bench.WallEngine(), listen=[])
    rig.wait(lambda: rig.state() == "active", "activation")
    published = dict(
        rig.node.get_publisher_names_and_types_by_node(rig.node.get_name(), rig.namespace)
    )
    for source in sources:
        assert published[rig.namespace + source["topic"]] == [
            f"sensor_msgs/msg/{source['data_type']}"
        ]


def test_ages_and_rates_are_consistent(sources: list[dict]) -> None:
    depth = DepthParameters(**parameters_of("nav2_vlm3.yaml", "/**/depth_node"))
    for source in sources:
        # Nav2 removes older observations, by the stamp of the image.
        assert 0 < depth.max_frame_age < source["observation_persistence"]
        assert depth.max_frame_age < source["expected_update_rate"]
    assert source["observation_persistence"] < TF_BUFFER


def test_ranges_and_heights_are_consistent(costmap, layer, sources) -> None:
    marks, clears = sources
    assert marks["marking"] and not marks["clearing"]
    assert clears["clearing"] and not clears["marking"]
    # A mark beyond the range of the clearing rays would stay forever.
    assert marks["obstacle_max_range"] < clears["raytrace_max_range"]
    # Without far answers, which the node would withhold, nothing in front of them is cleared.
    depth = DepthParameters(**parameters_of("nav2_vlm3.yaml", "/**/depth_node"))
    assert depth.max_depth == DepthParameters().max_depth
    assert clears["raytrace_max_range"] * 2 > costmap["width"] == costmap["height"]
    assert marks["obstacle_max_range"] <= costmap["width"] / 2
    band = (marks["min_obstacle_height"], marks["max_obstacle_height"])
    assert band == (layer["min_obstacle_height"], layer["max_obstacle_height"])
    assert band == (DepthParameters().scan_min_height, DepthParameters().scan_max_height)
    assert band == (occupancy.MIN_HEIGHT, occupancy.MAX_HEIGHT)
    assert layer["z_voxels"] <= 16
    assert layer["origin_z"] + layer["z_voxels"] * layer["z_resolution"] >= band[1]
    assert clears["min_obstacle_height"] < layer["origin_z"] < band[0]


def test_the_filter_uses_measured_motions_only(ekf: dict) -> None:
    pose, twist, acceleration = (ekf["odom0_config"][i : i + 6] for i in (0, 6, 12))
    assert not any(pose) and all(twist) and not any(acceleration)
    pose_node = PoseParameters(**parameters_of("robot_localization.yaml", "/**/pose_node"))
    assert not pose_node.publish_tf and ekf["publish_tf"]
    assert ekf["world_frame"] == ekf["odom_frame"] == pose_node.odom_frame
    assert ekf["base_link_frame"] == pose_node.base_frame
    assert ekf["odom0"] == "odom"
    assert "odom (nav_msgs/Odometry)" in PoseNode.__doc__


def test_the_filter_starts_under_simulated_time(ekf: dict) -> None:
    """With smooth_lagged_data, periodicUpdate() computes (last measurement) - history_length.

    Before the first measurement that is the time at the node's start, 0 before its first /clock.
    rclcpp throws at a time below 0: ekf_node 3.6.0 aborts, even if /clock ran before it started.
    """
    assert not ekf["smooth_lagged_data"] and "history_length" not in ekf


@pytest.mark.parametrize(
    ("file", "node_class", "name", "value"),
    [
        ("nav2_vlm3.yaml", DepthNode, "max_frame_age", 1.5),
        ("robot_localization.yaml", PoseNode, "publish_tf", False),
    ],
)
def test_ros_reads_the_files(
    ros: None, file: str, node_class: type[Node], name: str, value: object
) -> None:
    arguments = ["--ros-args", "--params-file", str(CONFIG / file), "-p", "autostart:=false"]
    node = node_class(cli_args=arguments)
    try:
        assert node.get_parameter(name).value == value
    finally:
        node.destroy_node()
