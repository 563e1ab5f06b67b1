# SPDX-License-Identifier: Apache-2.0
"""The table of faults, by node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from geometry_msgs.msg import PointStamped, PoseStamped
from nav_msgs.msg import Odometry
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from soak.camera_faults import CALIBRATIONS, CLOCKS, COMPRESSED_IMAGES, DRIVERS, IMAGES, TIMES
from soak.fault import Fault
from soak.node_faults import (
    ENDS,
    PARAMETERS,
    full_disk,
    looping_bag,
    resets,
    subscribers,
    transitions,
)
from soak.query_faults import NONSENSE, many_questions
from soak.server_faults import ModelServer, server_faults
from soak.stage import Setup

DEPTH = {"points": PointCloud2, "depth/image_rect": Image, "depth/camera_info": CameraInfo}
QUERY = {"clicked_point": PointStamped}
POSE = {"pose": PoseStamped, "odom": Odometry}

_QUICK = {
    "offline": True,
    "device": "cpu",
    "image_timeout": 0.5,
    "camera_info_timeout": 0.5,
}
_LOAD = {"offline": True, "device": "cpu"}
_GRID = {"grid_columns": 4, "grid_rows": 3}
_MOUNT = {"base_from_camera": "0 0 1 -0.5 0.5 -0.5 0.5"}


@dataclass(frozen=True)
class Extent:
    """The extent of a run.

    Attributes:
        load: the node of the long run, slower than its camera.
        images: of that camera.
        seconds: duration of each fault after it was reported.
        transitions: length of the sequences of transitions.
        subscribers, resets, loops, questions: numbers.
        all_nodes: whether every node gets all faults of operators; otherwise only the depth node.
    """

    load: Setup
    images: int
    seconds: float
    transitions: int
    subscribers: int
    resets: int
    loops: int
    questions: int
    all_nodes: bool


FULL = Extent(
    load=Setup("depth_node", DEPTH, _LOAD, rate=30.0),
    images=20_000,
    seconds=3.0,
    transitions=3,
    subscribers=200,
    resets=500,
    loops=5,
    questions=500,
    all_nodes=True,
)
# A slow camera and more questions: three images are then 0.6 s, which a busy machine needs.
SHORT = Extent(
    load=Setup("depth_node", DEPTH, {**_LOAD, "grid_columns": 32, "grid_rows": 24}, rate=5.0),
    images=60,
    seconds=0.1,
    transitions=2,
    subscribers=200,
    resets=50,
    loops=2,
    questions=100,
    all_nodes=False,
)


@dataclass(frozen=True)
class Group:
    """Faults that one node gets, one after another; `name` is the name of its log."""

    name: str
    setup: Setup
    faults: Sequence[Fault]


def groups(extent: Extent, folder: Path, server: ModelServer) -> list[Group]:
    """Return all faults.

    Args:
        extent: of the run.
        folder: for files of the nodes.
        server: of engine openai.
    """
    recording = folder / "recording.jsonl"
    recording.unlink(missing_ok=True)
    depth, pose = {**_QUICK, **_GRID}, {**_QUICK, **_MOUNT}
    operators = [
        PARAMETERS,
        transitions(extent.transitions),
        subscribers(extent.subscribers),
        *ENDS,
    ]
    others = operators if extent.all_nodes else [PARAMETERS]
    return [
        Group(
            "depth",
            Setup("depth_node", DEPTH, {**depth, "record_to": str(recording)}),
            [full_disk(recording), *IMAGES, *CALIBRATIONS, *TIMES, *DRIVERS, *operators],
        ),
        Group(
            "depth_compressed",
            Setup("depth_node", DEPTH, depth, is_compressed=True),
            COMPRESSED_IMAGES,
        ),
        Group(
            "depth_clock",
            Setup("depth_node", DEPTH, depth, is_simulated=True),
            CLOCKS,
        ),
        Group(
            "depth_server",
            Setup("depth_node", DEPTH, {**_QUICK, **_GRID, **server.parameters()}),
            server_faults(server),
        ),
        Group(
            "pose",
            Setup(
                "pose_node",
                POSE,
                pose,
                frame_id="odom",
                rate=10.0,
                is_compressed=True,
                is_simulated=True,
            ),
            [
                looping_bag(folder / "bag_player.log", extent.loops),
                *CLOCKS,
                resets(extent.resets),
                *others,
            ],
        ),
        Group(
            "query",
            Setup(
                "query_node",
                QUERY,
                {**_QUICK, "max_image_age": 1.0},
                rate=10.0,
                is_clicked=True,
            ),
            [
                *NONSENSE,
                many_questions(extent.questions),
                IMAGES[0],
                CALIBRATIONS[0],
                DRIVERS[0],
                *others,
            ],
        ),
    ]
