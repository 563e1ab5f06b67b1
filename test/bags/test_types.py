# SPDX-License-Identifier: Apache-2.0
"""Topics whose type cannot be read cost themselves, not the bag."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer, storage_mcap
from rosbags.typesys import Stores, get_typestore

from vlm3_ros.bags.reading import open_bag
from vlm3_ros.errors import BagError
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.messages.cameras import camera_info_message, lens_from_message
from vlm3_ros.messages.classes import ROSBAGS, ros2_types
from vlm3_ros.messages.images import image_message

IMAGE = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
ZERO_HASH = "RIHS01_" + "0" * 64


def write(
    path: Path,
    plugin: StoragePlugin = StoragePlugin.MCAP,
    name: str = "sensor_msgs/msg/Image",
    others: dict[str, tuple[str, dict]] | None = None,
    **definition: str,
) -> None:
    """A bag of one image; `others`: topics without messages, their types and definitions."""
    types = ros2_types()
    with Writer(path, version=9, storage_plugin=plugin) as writer:
        for topic, (kind, own) in (others or {}).items():
            writer.add_connection(topic, kind, **own)
        definition = definition or {"typestore": types}
        connection = writer.add_connection("/image", name, **definition)
        message = image_message(ROSBAGS.header(1, "camera"), IMAGE)
        writer.write(connection, 1, types.serialize_cdr(message, "sensor_msgs/msg/Image"))


def assert_image_is_read(path: Path, left_out: dict[str, str]) -> None:
    with open_bag(path) as bag:
        assert list(bag.topics) == ["/image"]
        assert bag.topics["/image"].type == "sensor_msgs/msg/Image"
        (message,) = bag.messages(["/image"])
        assert message.type == "sensor_msgs/msg/Image"
        np.testing.assert_array_equal(message.content.data, IMAGE.ravel())
        assert bag.left_out.keys() == left_out.keys()
        for topic, part in left_out.items():
            assert part in bag.left_out[topic]
            with pytest.raises(BagError, match=f"topic '{topic}' cannot be read: "):
                bag.topic(topic)
            assert topic in bag.contents()


@pytest.mark.parametrize("plugin", list(StoragePlugin))
@pytest.mark.parametrize(
    "text", ["uint8 mode\n---\nbool done\n", "ServiceEventInfo info\n", "\x00\x01", "uint8 a b c\n"]
)
def test_a_definition_that_cannot_be_parsed(
    tmp_path: Path, plugin: StoragePlugin, text: str
) -> None:
    """rosbag2 writes the text of a .srv for a service's events (ros2/rosbag2#2365)."""
    event = ("my_msgs/srv/SetMode_Event", {"msgdef": text, "rihs01": ZERO_HASH})
    write(tmp_path / "bag", plugin, others={"/set_mode/_service_event": event})
    reason = "the definition of its type my_msgs/srv/SetMode_Event cannot be parsed"
    assert_image_is_read(tmp_path / "bag", {"/set_mode/_service_event": reason})


def test_a_definition_with_the_hash_of_another(tmp_path: Path) -> None:
    fuel = ("my_msgs/msg/Fuel", {"msgdef": "uint8 level\n", "rihs01": ZERO_HASH})
    write(tmp_path / "bag", others={"/fuel": fuel})
    assert_image_is_read(tmp_path / "bag", {"/fuel": "stored hash of its type my_msgs/msg/Fuel"})


@pytest.mark.parametrize("plugin", list(StoragePlugin))
def test_a_wrong_hash_of_a_known_definition_does_no_harm(
    tmp_path: Path, plugin: StoragePlugin
) -> None:
    text, _ = ros2_types().generate_msgdef("sensor_msgs/msg/Image", ros_version=2)
    write(tmp_path / "bag", plugin, msgdef=text, rihs01=ZERO_HASH)
    assert_image_is_read(tmp_path / "bag", {})


@pytest.mark.parametrize("plugin", list(StoragePlugin))
def test_a_definition_with_the_field_names_of_ros1(tmp_path: Path, plugin: StoragePlugin) -> None:
    # As rosbags-convert writes it by default.
    ros1, ros2 = get_typestore(Stores.ROS1_NOETIC), ros2_types()
    kind = "sensor_msgs/msg/CameraInfo"
    text = ros1.generate_msgdef(kind, ros_version=2)[0]
    assert "float64[9] K" in text
    camera = PinholeCamera(8, 6, 5, 5, 3.5, 2.5)
    message = camera_info_message(ROSBAGS.header(1, "camera"), camera)
    with Writer(tmp_path / "bag", version=9, storage_plugin=plugin) as writer:
        connection = writer.add_connection("/info", kind, msgdef=text, rihs01=ZERO_HASH)
        writer.write(connection, 1, ros2.serialize_cdr(message, kind))
    with open_bag(tmp_path / "bag") as bag:
        (read,) = bag.messages(["/info"])
    assert lens_from_message(read.content).rectified == camera


def test_two_topics_may_define_a_type_differently(tmp_path: Path) -> None:
    """Header of ROS 1 in one, of ROS 2 in the other: neither decides for the other."""
    header = "=" * 80 + "\nMSG: std_msgs/Header\nuint32 seq\nstring frame_id\n"
    text = "std_msgs/Header header\n" + header
    own = ("my_msgs/msg/Old", {"msgdef": text, "rihs01": "*"})
    for order in ("/first", "/zlast"):
        write(tmp_path / order[1:], others={order: own})
        with open_bag(tmp_path / order[1:]) as bag:
            (message,) = bag.messages(["/image"])
            assert message.content.header.frame_id == "camera"


@pytest.mark.parametrize("plugin", list(StoragePlugin))
def test_type_names_as_ros1_writes_them(tmp_path: Path, plugin: StoragePlugin) -> None:
    text, _ = ros2_types().generate_msgdef("sensor_msgs/msg/Image", ros_version=2)
    write(tmp_path / "bag", plugin, name="sensor_msgs/Image", msgdef=text, rihs01="*")
    assert_image_is_read(tmp_path / "bag", {})


@pytest.mark.parametrize("form", ["protobuf", "json"])
def test_an_mcap_file_with_channels_of_other_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    written = storage_mcap.write_schema

    def write_schema(bio, schema) -> None:
        foreign = schema.name == "foxglove.Grid"
        written(bio, schema._replace(encoding="protobuf") if foreign else schema)

    monkeypatch.setattr(storage_mcap, "write_schema", write_schema)
    grid = ("foxglove.Grid", {"msgdef": "x", "rihs01": "*", "serialization_format": form})
    write(tmp_path / "bag", others={"/grid": grid})
    path = next((tmp_path / "bag").glob("*.mcap"))
    assert_image_is_read(path, {"/grid": f"(foxglove.Grid) are serialized as '{form}'"})


def test_an_mcap_file_of_ros1_messages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `mcap convert` makes them of .bag files."""
    ros1 = get_typestore(Stores.ROS1_NOETIC)
    text, _ = ros1.generate_msgdef("sensor_msgs/msg/Image", ros_version=1)
    written = storage_mcap.write_schema
    monkeypatch.setattr(
        storage_mcap,
        "write_schema",
        lambda bio, schema: written(bio, schema._replace(encoding="ros1msg")),
    )
    message = image_message(ROSBAGS.header(1, "camera"), IMAGE)
    header = ros1.types["std_msgs/msg/Header"](seq=3, **vars(message.header))
    content = ros1.types["sensor_msgs/msg/Image"](**{**vars(message), "header": header})
    with Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection(
            "/image", "sensor_msgs/Image", msgdef=text, rihs01="*", serialization_format="ros1"
        )
        writer.write(connection, 1, ros1.serialize_ros1(content, "sensor_msgs/msg/Image"))
    assert_image_is_read(next((tmp_path / "bag").glob("*.mcap")), {})


def test_a_definition_as_idl(tmp_path: Path) -> None:
    idl = "module my_msgs { module msg { struct Level { double level; }; }; };"
    text = f"{'=' * 80}\nIDL: my_msgs/msg/Level\n{idl}\n"
    level = ("my_msgs/msg/Level", {"msgdef": text, "rihs01": "*"})
    with Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection("/level", level[0], **level[1])
        writer.write(connection, 1, b"\0\1\0\0" + np.float64(2.5).tobytes())
    with open_bag(tmp_path / "bag") as bag:
        (message,) = bag.messages()
    assert message.content.level == 2.5
