# SPDX-License-Identifier: Apache-2.0
"""The bag player with real bags, listeners and the depth node, over DDS."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image
from tf2_msgs.msg import TFMessage

from vlm3_ros.bags.reading import open_bag
from vlm3_ros.bags.writing import write_bag
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.messages.cameras import camera_info_message
from vlm3_ros.messages.classes import ROSBAGS
from vlm3_ros.messages.images import image_message
from vlm3_ros.messages.motions import tf_message
from vlm3_ros.nodes.bag_player import BagPlayer
from vlm3_ros.ros.running import spinning

pytestmark = pytest.mark.slow

START = 1_700_000_000_000_000_000
STEP = 50_000_000  # ns
FRAMES = 10
CAMERA = PinholeCamera(320, 256, 300.0, 300.0, 150.0, 130.0)
LATCHED = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)


@pytest.fixture(scope="module")
def bag_path(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("bags") / "short"
    picture = np.random.default_rng(0).integers(0, 256, (256, 320, 3), np.uint8)
    with write_bag(path) as bag:
        static = tf_message(ROSBAGS.header(START, "base_link"), "camera", np.eye(4))
        bag.write("/tf_static", static, START)
        for i in range(FRAMES):
            stamp = START + i * STEP
            pose = np.eye(4)
            pose[0, 3] = i
            bag.write("/tf", tf_message(ROSBAGS.header(stamp, "odom"), "base_link", pose), stamp)
            info = camera_info_message(ROSBAGS.header(stamp, "camera"), CAMERA)
            bag.write("/camera/camera_info", info, stamp)
            bag.write(
                "/camera/image_raw", image_message(ROSBAGS.header(stamp, "camera"), picture), stamp
            )
    return path


class Theatre:
    """A player and a listener, spinning in the background."""

    def __init__(self, number: int, bag: Path | str, **parameters: object) -> None:
        namespace = f"/theatre{number}"
        self.topics = {name: f"{namespace}{name}" for name in TOPICS}
        self.clocks: list[int] = []
        self.received: dict[str, list] = {name: [] for name in TOPICS}
        self.statuses: list[int] = []
        self.listener = Node("listener", namespace=namespace)
        self.listener.create_subscription(Clock, "/clock", self._on_clock, 1000)
        remaps = [part for name in TOPICS for part in ("-r", f"{name}:={self.topics[name]}")]
        self.player = BagPlayer(
            self.statuses.append,
            namespace=namespace,
            cli_args=["--ros-args", *remaps],
            parameter_overrides=[
                Parameter(name, value=value)
                for name, value in {"bag": str(bag), **parameters}.items()
            ],
        )
        self._spinning = spinning(self.listener, self.player)
        self._spinning.__enter__()

    def listen(self, name: str, qos: QoSProfile | None = None) -> None:
        self.listener.create_subscription(
            TOPICS[name], self.topics[name], self.received[name].append, qos or QoSProfile(depth=99)
        )

    def wait_for_end(self) -> int:
        wait(lambda: self.statuses, "the end of the bag")
        return self.statuses[0]

    def close(self) -> None:
        self._spinning.__exit__(None, None, None)
        self.player.destroy_node()
        self.listener.destroy_node()

    def _on_clock(self, message: Clock) -> None:
        self.clocks.append(message.clock.sec * 10**9 + message.clock.nanosec)


TOPICS = {
    "/tf": TFMessage,
    "/tf_static": TFMessage,
    "/camera/camera_info": CameraInfo,
    "/camera/image_raw": Image,
}


def wait(condition, what: str) -> None:
    end = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.005)


@pytest.fixture
def open_theatre(ros):
    theatres = []

    def make(bag: Path | str, **parameters: object) -> Theatre:
        theatres.append(Theatre(id(theatres) % 10**6 + len(theatres), bag, **parameters))
        return theatres[-1]

    yield make
    for theatre in theatres:
        theatre.close()
    assert not [t for t in threading.enumerate() if t.name.endswith("player")]


def test_all_messages_arrive_as_recorded(open_theatre, bag_path):
    theatre = open_theatre(bag_path)
    for name in TOPICS:
        theatre.listen(name, LATCHED if name == "/tf_static" else None)
    assert theatre.wait_for_end() == 0
    wait(lambda: len(theatre.received["/camera/image_raw"]) == FRAMES, "all images")
    recorded = {name: [] for name in TOPICS}
    with open_bag(bag_path) as bag:
        for message in bag.serialized():
            content = deserialize_message(message.cdr, TOPICS[message.topic])
            recorded[message.topic].append(content)
    assert theatre.received == recorded


def test_clock_runs_with_the_recording(open_theatre, bag_path):
    theatre = open_theatre(bag_path)
    theatre.listen("/camera/image_raw")
    theatre.wait_for_end()
    end = START + (FRAMES - 1) * STEP
    wait(lambda: theatre.clocks[-1:] == [end], "the last clock")
    assert theatre.clocks == sorted(theatre.clocks)
    assert theatre.clocks[0] >= START
    assert set(range(START, end + 1, STEP)) <= set(theatre.clocks)
    assert len(theatre.clocks) > FRAMES + 5  # it ticks between the messages, too


def test_slow(open_theatre, bag_path):
    begin = time.monotonic()
    open_theatre(bag_path, rate=0.25, wait_for_subscribers=False).wait_for_end()
    assert time.monotonic() - begin >= (FRAMES - 1) * STEP / 1e9 / 0.25


def test_fast(open_theatre, tmp_path):
    with write_bag(tmp_path / "ten_minutes") as bag:
        for stamp in range(START, START + 600 * 10**9, 60 * 10**9):
            info = camera_info_message(ROSBAGS.header(stamp, "camera"), CAMERA)
            bag.write("/camera/camera_info", info, stamp)
    theatre = open_theatre(tmp_path / "ten_minutes", rate=1000.0)
    theatre.listen("/camera/camera_info")
    assert theatre.wait_for_end() == 0  # in real time this would take ten minutes
    wait(lambda: len(theatre.received["/camera/camera_info"]) == 10, "all messages")


def test_late_subscribers_get_static_transforms(open_theatre, bag_path):
    theatre = open_theatre(bag_path)
    theatre.listen("/camera/image_raw")
    theatre.wait_for_end()
    theatre.listen("/tf_static", LATCHED)
    wait(lambda: theatre.received["/tf_static"], "the static transform")
    assert theatre.received["/tf_static"][0].transforms[0].child_frame_id == "camera"


def test_qos_is_that_of_a_sensor(open_theatre, bag_path):
    theatre = open_theatre(bag_path, paused=True)
    expected = dict.fromkeys(TOPICS, DurabilityPolicy.VOLATILE)
    expected["/tf_static"] = DurabilityPolicy.TRANSIENT_LOCAL
    for name, durability in expected.items():
        wait(lambda n=name: theatre.listener.count_publishers(theatre.topics[n]), "discovery")
        (info,) = theatre.listener.get_publishers_info_by_topic(theatre.topics[name])
        assert info.qos_profile.reliability == ReliabilityPolicy.RELIABLE
        assert info.qos_profile.durability == durability


def test_waits_for_a_subscriber(open_theatre, bag_path):
    theatre = open_theatre(bag_path)
    theatre.listen("/tf")
    time.sleep(1.5)
    assert not theatre.received["/tf"]
    assert not theatre.clocks
    theatre.listen("/camera/image_raw")
    assert theatre.wait_for_end() == 0
    wait(lambda: len(theatre.received["/tf"]) == FRAMES, "all transforms")


def test_plays_without_subscribers_if_wanted(open_theatre, bag_path):
    assert open_theatre(bag_path, wait_for_subscribers=False).wait_for_end() == 0


def test_pause(open_theatre, bag_path):
    theatre = open_theatre(bag_path, paused=True)
    theatre.listen("/camera/image_raw")
    wait(lambda: len(theatre.clocks) > 5, "a clock that stands")
    assert set(theatre.clocks) == {START}
    assert len(theatre.received["/camera/image_raw"]) <= 1  # the first image of the bag
    (result,) = theatre.player.set_parameters([Parameter("paused", value=False)])
    assert result.successful
    assert theatre.wait_for_end() == 0
    wait(lambda: len(theatre.received["/camera/image_raw"]) == FRAMES, "all images")


def test_loop(open_theatre, bag_path):
    theatre = open_theatre(bag_path, loop=True, rate=5.0)
    theatre.listen("/camera/image_raw")
    wait(lambda: len(theatre.received["/camera/image_raw"]) > 2 * FRAMES, "the third round")
    assert not theatre.statuses
    stamps = [m.header.stamp.nanosec for m in theatre.received["/camera/image_raw"]]
    assert stamps[: 2 * FRAMES] == 2 * [i * STEP for i in range(FRAMES)]
    theatre.player.set_parameters([Parameter("loop", value=False)])
    assert theatre.wait_for_end() == 0


def test_a_bag_through_the_depth_node(open_theatre, bag_path, make_rig, bench):
    theatre = open_theatre(bag_path, paused=True)
    topics = theatre.topics
    rig = make_rig(
        bench.WallEngine(),
        parameters={"use_sim_time": True, "process_every_frame": True},
        remaps=[
            f"image:={topics['/camera/image_raw']}",
            f"camera_info:={topics['/camera/camera_info']}",
        ],
    )
    # The player begins when the node listens; the CameraInfo of a stamp may come after its image.
    wait(lambda: theatre.player.count_subscribers(topics["/camera/image_raw"]), "the node")
    theatre.player.set_parameters([Parameter("paused", value=False)])
    assert theatre.wait_for_end() == 0
    last = round((START + (FRAMES - 1) * STEP) / 1e9, 6)
    rig.wait_for_stamp(last)
    rig.wait(lambda: rig.report().answered + rig.report().skipped == FRAMES, "every frame's count")
    report = rig.report()
    assert report.received == FRAMES
    assert report.answered >= FRAMES - 1
    assert 0 <= report.age < 5
    assert rig.stamps("points") == sorted(rig.stamps("points"))


def run_player(*parameters: str) -> subprocess.CompletedProcess[str]:
    arguments = [part for parameter in parameters for part in ("-p", parameter)]
    return subprocess.run(
        [sys.executable, "-m", "vlm3_ros.nodes.bag_player", "--ros-args", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        check=False,
    )


def test_the_executable_ends_with_the_bag(bag_path):
    result = run_player(f"bag:={bag_path}", "wait_for_subscribers:=false")
    assert result.returncode == 0, result.stdout
    assert "played 31 messages" in result.stdout
    assert "Traceback" not in result.stdout


@pytest.mark.parametrize(
    ("damage", "text"),
    [("missing", "there is no such bag"), ("truncated", "truncated|not a readable bag")],
)
def test_an_unusable_bag_ends_the_process_with_one_line(bag_path, tmp_path, damage, text):
    path = tmp_path / "damaged.mcap"
    if damage == "truncated":
        (whole,) = bag_path.glob("*.mcap")
        path.write_bytes(whole.read_bytes()[:5000])
    result = run_player(f"bag:={path}", "wait_for_subscribers:=false")
    assert result.returncode == 1
    assert re.search(f"'bag': {re.escape(str(path))}.*({text})", result.stdout)
    assert "Traceback" not in result.stdout
    assert len(result.stdout.strip().splitlines()) == 1


def test_an_empty_bag(tmp_path):
    with write_bag(tmp_path / "empty"):
        pass
    result = run_player(f"bag:={tmp_path / 'empty'}")
    assert result.returncode == 1
    assert "nothing to play; the bag has no topics" in result.stdout
