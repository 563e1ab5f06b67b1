# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from vlm3_ros.bags.reading import open_bag
from vlm3_ros.bags.writing import write_bag
from vlm3_ros.errors import BagError
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.messages.cameras import camera_info_message
from vlm3_ros.messages.classes import ROSBAGS, ros2_types, stamp_nanoseconds
from vlm3_ros.messages.images import image_message
from vlm3_ros.messages.motions import tf_message

CAMERA = PinholeCamera(64, 48, 50.0, 51.0, 31.0, 22.5)
STAMPS = [1_700_000_000_123_456_789 + i * 33_333_333 for i in range(40)]


def noise_image(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def big_image(seed: int) -> np.ndarray:
    """Noise, which cannot be compressed: several of these fill a chunk."""
    return np.random.default_rng(seed).integers(0, 256, (240, 320, 3), dtype=np.uint8)


@pytest.fixture
def camera_bag(tmp_path: Path) -> Path:
    path = tmp_path / "camera"
    with write_bag(path) as writer:
        static = tf_message(ROSBAGS.header(STAMPS[0], "base_link"), "camera", np.eye(4))
        writer.write("/tf_static", static, STAMPS[0])
        for index, stamp in enumerate(STAMPS):
            writer.write(
                "/camera_info", camera_info_message(ROSBAGS.header(stamp, "camera"), CAMERA), stamp
            )
            writer.write(
                "/image",
                image_message(ROSBAGS.header(stamp, "camera"), big_image(index)),
                stamp + 5,
            )
    return path


def test_messages_come_back_exactly(camera_bag: Path) -> None:
    with open_bag(camera_bag) as bag:
        images = list(bag.messages(["/image"]))
        infos = list(bag.messages(["/camera_info"]))
    assert [m.stamp_ns for m in images] == [s + 5 for s in STAMPS]
    assert [stamp_nanoseconds(m.content.header) for m in images] == STAMPS
    for index, message in enumerate(images):
        assert np.array_equal(
            np.asarray(message.content.data).reshape(240, 320, 3), big_image(index)
        )
        assert message.content.header.frame_id == "camera"
    assert all(np.array_equal(m.content.k.reshape(3, 3), CAMERA.K) for m in infos)


def test_topics_have_type_count_and_latching(camera_bag: Path) -> None:
    with open_bag(camera_bag) as bag:
        assert bag.topics["/image"].type == "sensor_msgs/msg/Image"
        assert bag.topics["/image"].count == len(STAMPS)
        assert not bag.topics["/image"].latched
        assert bag.topics["/tf_static"].latched
        assert (bag.start_ns, bag.end_ns) == (STAMPS[0], STAMPS[-1] + 5)


def test_all_topics_come_in_order_of_recording(camera_bag: Path) -> None:
    with open_bag(camera_bag) as bag:
        stamps = [message.stamp_ns for message in bag.serialized()]
    assert len(stamps) == 2 * len(STAMPS) + 1
    assert stamps == sorted(stamps)


def test_serialized_bytes_are_little_endian_cdr_of_the_type(camera_bag: Path) -> None:
    with open_bag(camera_bag) as bag:
        message = next(bag.serialized(["/camera_info"]))
    assert message.cdr[:4] == b"\x00\x01\x00\x00"
    sec, nanosec, frame_length = struct.unpack_from("<iII", message.cdr, 4)
    assert sec * 1_000_000_000 + nanosec == STAMPS[0]
    assert message.cdr[16 : 16 + frame_length] == b"camera\0"


def test_a_missing_topic_raises_with_the_list_of_topics(camera_bag: Path) -> None:
    with open_bag(camera_bag) as bag:
        with pytest.raises(
            BagError, match=r"no topic '/depth'.*/image \(sensor_msgs/msg/Image, 40"
        ):
            bag.topic("/depth")
        with pytest.raises(BagError, match="no topic '/depth'"):
            list(bag.messages(["/image", "/depth"]))
        with pytest.raises(BagError, match="'/image' is of type sensor_msgs/msg/Image, not"):
            bag.topic("/image", ["nav_msgs/msg/Odometry"])


@pytest.mark.parametrize("plugin", list(StoragePlugin))
@pytest.mark.parametrize(
    "mode", [CompressionMode.NONE, CompressionMode.FILE, CompressionMode.MESSAGE]
)
def test_every_rosbag2_storage_is_read(
    tmp_path: Path, plugin: StoragePlugin, mode: CompressionMode
) -> None:
    types, path = ros2_types(), tmp_path / "bag"
    writer = Writer(path, version=9, storage_plugin=plugin)
    writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        connection = writer.add_connection("/image", "sensor_msgs/msg/Image", typestore=types)
        for index, stamp in enumerate(STAMPS):
            message = image_message(ROSBAGS.header(stamp, "camera"), noise_image(index))
            writer.write(connection, stamp, types.serialize_cdr(message, connection.msgtype))
    with open_bag(path) as bag:
        found = list(bag.messages())
    assert [m.stamp_ns for m in found] == STAMPS
    assert np.array_equal(found[7].content.data, noise_image(7).ravel())
    if mode == CompressionMode.NONE:
        return
    (file,) = (part for part in path.iterdir() if part.name != "metadata.yaml")
    with pytest.raises(BagError, match="give the bag's folder with"), open_bag(file) as bag:
        list(bag.messages())


def test_a_storage_file_without_its_folder_is_read(camera_bag: Path) -> None:
    with open_bag(camera_bag / "camera.mcap") as bag:
        assert len(list(bag.serialized(["/image"]))) == len(STAMPS)


def test_a_ros1_bag_that_was_not_finished_names_reindex(tmp_path: Path) -> None:
    path = tmp_path / "ros1.bag"
    write_ros1_bag(path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(BagError, match=r"index.*; `rosbag reindex` may restore it"), open_bag(path):
        pass


def write_ros1_bag(path: Path) -> None:
    """As ROS 1 records it: headers with a sequence number, CameraInfo with K, D, R, P."""
    types = get_typestore(Stores.ROS1_NOETIC)
    types.register(get_types_from_msg("uint8 level\n", "own_msgs/msg/Fuel"))
    transforms = "geometry_msgs/TransformStamped[] transforms\n"
    types.register(get_types_from_msg(transforms, "tf/msg/tfMessage"))
    header = types.types["std_msgs/msg/Header"]
    time = types.types["builtin_interfaces/msg/Time"]
    roi = types.types["sensor_msgs/msg/RegionOfInterest"]
    with Ros1Writer(path) as writer:
        infos = writer.add_connection("/info", "sensor_msgs/msg/CameraInfo", typestore=types)
        images = writer.add_connection("/image", "sensor_msgs/msg/Image", typestore=types)
        fuel = writer.add_connection("/fuel", "own_msgs/msg/Fuel", typestore=types)
        tf = writer.add_connection("/tf", "tf/msg/tfMessage", typestore=types, latching=1)
        for seq, stamp in enumerate(STAMPS):
            stamped = header(seq=seq, stamp=time(*divmod(stamp, 10**9)), frame_id="optical")
            info = types.types["sensor_msgs/msg/CameraInfo"](
                header=stamped,
                height=48,
                width=64,
                distortion_model="plumb_bob",
                D=np.arange(5.0),
                K=CAMERA.K.ravel(),
                R=np.eye(3).ravel(),
                P=np.arange(12.0),
                binning_x=1,
                binning_y=2,
                roi=roi(x_offset=3, y_offset=4, height=5, width=6, do_rectify=True),
            )
            image = types.types["sensor_msgs/msg/Image"](
                header=stamped,
                height=48,
                width=64,
                encoding="rgb8",
                is_bigendian=0,
                step=192,
                data=noise_image(seq).ravel(),
            )
            writer.write(infos, stamp, types.serialize_ros1(info, infos.msgtype))
            writer.write(images, stamp, types.serialize_ros1(image, images.msgtype))
            level = types.types["own_msgs/msg/Fuel"](level=3)
            no_transform = types.types["tf/msg/tfMessage"](transforms=[])
            writer.write(tf, stamp, types.serialize_ros1(no_transform, tf.msgtype))
            writer.write(fuel, stamp, types.serialize_ros1(level, fuel.msgtype))


def test_a_ros1_bag_reads_as_ros2_messages(tmp_path: Path) -> None:
    path = tmp_path / "robot.bag"
    write_ros1_bag(path)
    with open_bag(path) as bag:
        info = next(bag.messages(["/info"])).content
        images = list(bag.messages(["/image"]))
    assert stamp_nanoseconds(info.header) == STAMPS[0]
    assert info.header.frame_id == "optical"
    assert np.array_equal(info.k, CAMERA.K.ravel())
    assert np.array_equal(info.p, np.arange(12.0))
    assert (info.binning_y, info.roi.width, info.roi.do_rectify) == (2, 6, True)
    assert np.array_equal(images[9].content.data, noise_image(9).ravel())


def test_the_older_name_of_tf_is_read_and_latching_kept(tmp_path: Path) -> None:
    path = tmp_path / "robot.bag"
    write_ros1_bag(path)
    with open_bag(path) as bag:
        assert bag.topic("/tf", ["tf2_msgs/msg/TFMessage"]).latched
        assert next(bag.messages(["/tf"])).content.transforms == []


def test_a_custom_ros1_type_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "robot.bag"
    write_ros1_bag(path)
    with open_bag(path) as bag, pytest.raises(BagError, match=r"'/fuel'.*own_msgs/msg/Fuel"):
        next(bag.messages(["/fuel"]))


def test_a_missing_bag_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(BagError, match="nowhere: there is no such bag"),
        open_bag(tmp_path / "nowhere"),
    ):
        pass


def test_a_folder_without_metadata_is_refused_with_the_command_that_restores_it(
    camera_bag: Path,
) -> None:
    (camera_bag / "metadata.yaml").unlink()
    with (
        pytest.raises(BagError, match=r"no metadata\.yaml.*ros2 bag reindex"),
        open_bag(camera_bag),
    ):
        pass


@pytest.mark.parametrize("content", [b"", b"not a bag at all" * 9])
@pytest.mark.parametrize("name", ["bag.mcap", "bag.db3", "bag.bag", "photo.jpg"])
def test_other_files_are_refused_by_name(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(BagError, match=name), open_bag(path):
        pass


def test_a_truncated_recording_is_refused_with_what_is_complete(camera_bag: Path) -> None:
    file = camera_bag / "camera.mcap"
    data = file.read_bytes()
    with open_bag(camera_bag) as bag:
        all_messages = sum(topic.count for topic in bag.topics.values())
    file.write_bytes(data[: len(data) * 2 // 3])
    truncated = r"camera\.mcap: the recording is truncated"
    with pytest.raises(BagError, match=truncated) as caught, open_bag(camera_bag):
        pass
    text = str(caught.value)
    messages = int(text.split(" messages")[0].rsplit(" ", 1)[1])
    assert 0.4 * all_messages < messages < 0.8 * all_messages
    assert f"of its {len(data) * 2 // 3:,} bytes" in text


def test_damage_inside_a_recording_ends_the_reading_with_a_count(camera_bag: Path) -> None:
    file = camera_bag / "camera.mcap"
    data = bytearray(file.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 200_000] = b"\xff" * 200_000
    file.write_bytes(data)
    damaged = pytest.raises(BagError, match=r"damaged after \d+ messages")
    with open_bag(camera_bag) as bag, damaged as caught:
        list(bag.messages())
    read = int(str(caught.value).split("after ")[1].split()[0])
    assert 0 < read < 2 * len(STAMPS)


def test_a_truncated_sqlite_bag_is_refused_or_ends_with_an_error(tmp_path: Path) -> None:
    types, path = ros2_types(), tmp_path / "bag"
    with Writer(path, version=9, storage_plugin=StoragePlugin.SQLITE3) as writer:
        connection = writer.add_connection("/image", "sensor_msgs/msg/Image", typestore=types)
        for index, stamp in enumerate(STAMPS):
            message = image_message(ROSBAGS.header(stamp, "camera"), noise_image(index))
            writer.write(connection, stamp, types.serialize_cdr(message, connection.msgtype))
    file = path / "bag.db3"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(BagError, match="bag"), open_bag(path) as bag:
        list(bag.messages())


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.mcap", b"", "a.mcap: the file is empty"),
        ("a.db3", b"", "a.db3: the file is empty"),
        ("a.bag", b"", "a.bag: the file is empty"),
        ("a.mcap", b"hello" * 100, "a.mcap: not an mcap file"),
        ("bag/metadata.yaml", b"", "bag: its metadata.yaml is damaged or empty"),
        ("bag/metadata.yaml", b"[1, 2", "bag: its metadata.yaml is damaged or empty"),
        ("bag/metadata.yaml/", b"", "metadata.yaml: not a bag by its name"),
        ("photo.jpg", b"abc", "photo.jpg: not a bag by its name"),
        ("a.bag.active", b"#ROSBAG V2.0\n", "a.bag.active: .* not finished: `rosbag reindex`"),
    ],
)
def test_what_is_no_bag_is_refused_by_what_it_is(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content)
    is_folder = file.parent != tmp_path and not name.endswith("/")
    path = file.parent if is_folder else file
    with pytest.raises(BagError, match=reason) as caught, open_bag(path):
        pass
    assert "\n" not in str(caught.value)
