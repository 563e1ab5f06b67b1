# SPDX-License-Identifier: Apache-2.0
"""Reading bags: rosbag2 (folder, .mcap, .db3) and ROS 1 (.bag)."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rosbags.convert.converter import is_same_wireformat
from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection, ConnectionExtRosbag1, QosDurability

from vlm3_ros.bags.truncation import mcap_files, whole_part
from vlm3_ros.errors import BagError
from vlm3_ros.messages.classes import ros2_types

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
CAMERA_INFO_TYPE = "sensor_msgs/msg/CameraInfo"

_RENAMED = {"tf/msg/tfMessage": "tf2_msgs/msg/TFMessage"}
"""Types that older ROS 1 bags have under another name."""


@dataclass(frozen=True)
class Topic:
    """A topic of a bag.

    `type` is the name of its ROS 2 type, `count` its number of messages; `latched` says that late
    subscribers get the last message (transient local in ROS 2, latched in ROS 1).
    """

    name: str
    type: str
    count: int
    latched: bool


class SerializedMessage(NamedTuple):
    """A message as it lies in the bag.

    `cdr` is what rclpy's `deserialize_message` takes, `stamp_ns` the time of the recording.
    """

    topic: str
    type: str
    stamp_ns: int
    cdr: bytes


class Message(NamedTuple):
    """A message as an object with the fields of its ROS 2 definition; arrays are NumPy's."""

    topic: str
    type: str
    stamp_ns: int
    content: Any


class Bag:
    """An open bag; `open_bag` makes it.

    Attributes:
        path: as given.
        topics: by name.
        start_ns, end_ns: recording time of the first and of the last message (0 when empty).
    """

    def __init__(self, path: Path, reader: AnyReader) -> None:
        self.path = path
        self._reader = reader
        self.topics = {
            name: Topic(
                name,
                _ros2_name(info.msgtype or "several types"),
                info.msgcount,
                any(map(_is_latched, info.connections)),
            )
            for name, info in reader.topics.items()
        }
        empty = reader.message_count == 0
        self.start_ns = 0 if empty else reader.start_time
        self.end_ns = 0 if empty else reader.end_time - 1

    def topic(self, name: str, types: Collection[str] = ()) -> Topic:
        """A topic that holds messages, of one of these types (any where none is given).

        Raises:
            BagError: when the bag lacks it, it is empty or of another type; lists the topics.
        """
        found = self.topics.get(name)
        if found is None:
            raise BagError(f"{self.path}: no topic '{name}'; {self.contents()}")
        if types and found.type not in types:
            raise BagError(
                f"{self.path}: topic '{name}' is of type {found.type}, not {' or '.join(types)}"
            )
        if not found.count:
            raise BagError(f"{self.path}: topic '{name}' has no messages; {self.contents()}")
        return found

    def topics_of_type(self, *types: str) -> list[Topic]:
        """The topics of these types that hold messages, in order of their names."""
        return [
            topic for _, topic in sorted(self.topics.items()) if topic.type in types and topic.count
        ]

    def contents(self) -> str:
        """One line that says what the bag has."""
        if not self.topics:
            return "the bag has no topics"
        listed = (f"{t.name} ({t.type}, {t.count})" for _, t in sorted(self.topics.items()))
        return "the bag has " + ", ".join(listed)

    def serialized(self, topics: Collection[str] = ()) -> Iterator[SerializedMessage]:
        """Messages of these topics (all where none is given) in the order of recording.

        Messages of a ROS 1 bag come in the layout of the ROS 2 type of the same name.

        Raises:
            BagError: when a topic is missing, when a ROS 1 type has no ROS 2 counterpart, or
                where the file is damaged: says after how many messages.
        """
        for name in topics:
            self.topic(name)
        connections = [c for c in self._reader.connections if not topics or c.topic in topics]
        if not connections:
            return
        if not self._reader.is2:
            for connection in connections:
                self._check_ros1_type(connection)
        count = 0
        messages = self._reader.messages(connections)
        while True:
            # A damaged file makes the parsers underneath raise nearly anything.
            try:
                connection, stamp_ns, raw = next(messages)
                type_name = _ros2_name(connection.msgtype)
                cdr = raw if self._reader.is2 else ros2_types().ros1_to_cdr(raw, type_name)
            except StopIteration:
                return
            except Exception as error:
                raise BagError(
                    f"{self.path}: damaged after {count} messages: {_one_line(error)}"
                ) from error
            yield SerializedMessage(connection.topic, type_name, stamp_ns, bytes(cdr))
            count += 1

    def messages(self, topics: Collection[str] = ()) -> Iterator[Message]:
        """As `serialized`, with the messages taken apart.

        Raises:
            BagError: as `serialized`, or when the bytes do not fit the type.
        """
        types = self._reader.typestore if self._reader.is2 else ros2_types()
        for topic, type_name, stamp_ns, cdr in self.serialized(topics):
            try:
                content = types.deserialize_cdr(cdr, type_name)
            except Exception as error:
                raise BagError(
                    f"{self.path}: a message on '{topic}' at {stamp_ns / 1e9:.3f} s is not a "
                    f"{type_name}: {_one_line(error)}"
                ) from error
            yield Message(topic, type_name, stamp_ns, content)

    def _check_ros1_type(self, connection: Connection) -> None:
        ros1_name, known = connection.msgtype, ros2_types()
        name = _ros2_name(ros1_name)
        if name not in known.fielddefs or not is_same_wireformat(
            self._reader.typestore, known, ros1_name, name
        ):
            raise BagError(
                f"{self.path}: topic '{connection.topic}' has the ROS 1 type {ros1_name}, which "
                "has no counterpart in ROS 2; leave the topic out or convert the bag first"
            )


@contextmanager
def open_bag(path: Path | str) -> Iterator[Bag]:
    """Open a bag for reading.

    Args:
        path: a rosbag2 folder, an .mcap or .db3 file, or a ROS 1 .bag file.

    Raises:
        BagError: when it is missing, truncated, damaged or no bag; for a truncated mcap the
            message says how much of it could be read.
    """
    path = Path(path)
    if not path.exists():
        raise BagError(f"{path}: there is no such bag")
    if path.is_dir() and not (path / "metadata.yaml").is_file():
        raise BagError(
            f"{path}: the folder has no metadata.yaml, so it is no finished rosbag2; "
            "`ros2 bag reindex` restores it, or give the .mcap or .db3 file itself"
        )
    if path.is_dir() and path.suffix == ".bag":
        raise BagError(
            f"{path}: a folder whose name ends in .bag: rename it, only ROS 1 bags are called so"
        )
    try:
        reader = AnyReader([path], default_typestore=ros2_types())
        reader.open()
    except Exception as error:  # damaged files raise nearly anything
        raise BagError(_why_not_readable(path, error)) from error
    try:
        yield Bag(path, reader)
    finally:
        reader.close()


def up_to_damage(messages: Iterator[Message], damage: list[str]) -> Iterator[Message]:
    """Messages up to where the bag is damaged, which is added to `damage` if nothing was before.

    Each topic ends there after another number of messages; one of them says it.
    """
    try:
        yield from messages
    except BagError as error:
        if not damage:
            damage.append(str(error))


def _ros2_name(type_name: str) -> str:
    return _RENAMED.get(type_name, type_name)


def _is_latched(connection: Connection) -> bool:
    if isinstance(connection.ext, ConnectionExtRosbag1):
        return bool(connection.ext.latching)
    return any(
        qos.durability == QosDurability.TRANSIENT_LOCAL
        for qos in connection.ext.offered_qos_profiles
    )


def _why_not_readable(path: Path, error: Exception) -> str:
    for file in mcap_files(path):
        part = whole_part(file)
        if part.truncated:
            return (
                f"{file}: the recording is truncated: {part}; "
                "`mcap recover` writes them to a new file"
            )
    return f"{path}: not a readable bag: {_one_line(error)}"


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
