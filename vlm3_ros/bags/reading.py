# SPDX-License-Identifier: Apache-2.0
"""Reading bags: rosbag2 (folder, .mcap, .db3) and ROS 1 (.bag)."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from rosbags.interfaces import Connection, ConnectionExtRosbag1, QosDurability
from rosbags.rosbag1 import Reader as Ros1Reader
from rosbags.rosbag2 import Reader as Ros2Reader

from vlm3_ros.bags.truncation import mcap_files, whole_part
from vlm3_ros.bags.types import MessageType, TypeProblem, message_type
from vlm3_ros.errors import BagError

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
CAMERA_INFO_TYPE = "sensor_msgs/msg/CameraInfo"


_SUFFIXES = (".mcap", ".db3", ".bag")

_ZSTD = b"\x28\xb5\x2f\xfd"
"""How data that zstd compressed begin."""


@dataclass(frozen=True)
class Topic:
    """A topic of a bag.

    `type`: name of the ROS 2 type. `count`: number of messages. `latched`: whether late subscribers
    get the last message (transient local in ROS 2, latched in ROS 1).
    """

    name: str
    type: str
    count: int
    latched: bool


class SerializedMessage(NamedTuple):
    """A message in serialized form.

    `stamp_ns`: time of recording. `cdr`: the bytes that rclpy's `deserialize_message` takes.
    """

    topic: str
    type: str
    stamp_ns: int
    cdr: bytes


class Message(NamedTuple):
    """A deserialized message: `content` is of rosbags' classes, see `vlm3_ros.messages`."""

    topic: str
    type: str
    stamp_ns: int
    content: Any


AnyMessage = TypeVar("AnyMessage", SerializedMessage, Message)


class Bag:
    """An open bag; see `open_bag`.

    Attributes:
        path: of the bag.
        topics: by name, without those in `left_out`.
        left_out: why the messages of a topic cannot be read, by topic.
        start_ns, end_ns: recording times of the first and the last message; 0 if the bag is empty.
    """

    def __init__(self, path: Path, reader: Ros1Reader | Ros2Reader) -> None:
        self.path = path
        self._reader = reader
        self._types: dict[int, MessageType] = {}
        self._types_of_topics: dict[tuple[str, str], MessageType] = {}
        self.left_out: dict[str, str] = {}
        readable: dict[str, list[Connection]] = {}
        for connection in reader.connections:
            try:
                kind = self._types[connection.id] = message_type(connection)
            except TypeProblem as problem:
                self.left_out[connection.topic] = str(problem)
            else:
                self._types_of_topics.setdefault((connection.topic, kind.name), kind)
                readable.setdefault(connection.topic, []).append(connection)
        self.topics = {
            name: _topic(name, connections, self._types)
            for name, connections in sorted(readable.items())
        }
        empty = reader.message_count == 0
        self.start_ns = 0 if empty else reader.start_time
        self.end_ns = 0 if empty else reader.end_time - 1

    def topic(self, name: str, types: Collection[str] = ()) -> Topic:
        """Look up a topic that has messages.

        Args:
            name: of the topic.
            types: accepted types; any if empty.

        Raises:
            BagError: if the topic is missing, empty or of another type; lists the topics.
        """
        topic = self.topics.get(name)
        if topic is None and name in self.left_out:
            raise BagError(f"{self.path}: topic '{name}' cannot be read: {self.left_out[name]}")
        if topic is None:
            raise BagError(f"{self.path}: no topic '{name}'; {self.contents()}")
        if types and topic.type not in types:
            raise BagError(
                f"{self.path}: topic '{name}' is of type {topic.type}, not {' or '.join(types)}"
            )
        if not topic.count:
            raise BagError(f"{self.path}: topic '{name}' has no messages; {self.contents()}")
        return topic

    def topics_of_type(self, *types: str) -> list[Topic]:
        """Topics of these types that have messages, sorted by name."""
        return [
            topic for _, topic in sorted(self.topics.items()) if topic.type in types and topic.count
        ]

    def contents(self) -> str:
        """List the topics in one line, for error messages."""
        if not self.topics and not self.left_out:
            return "the bag has no topics"
        listed = (f"{t.name} ({t.type}, {t.count})" for _, t in sorted(self.topics.items()))
        text = "the bag has " + (", ".join(listed) or "no topic that can be read")
        return f"{text}; left out: {self.left_out_text()}" if self.left_out else text

    def leave_out(self, topic: str, reason: str) -> None:
        """Treat a topic as one that cannot be read."""
        del self.topics[topic]
        self.left_out[topic] = reason

    def left_out_text(self, shown: int = 3) -> str:
        """Topics that cannot be read and why, in one line; only the first ones are named."""
        named = [f"'{topic}': {reason}" for topic, reason in list(self.left_out.items())[:shown]]
        more = len(self.left_out) - len(named)
        return "; ".join([*named, f"and {more} more topics"] if more else named)

    def serialized(self, topics: Collection[str] = ()) -> Iterator[SerializedMessage]:
        """Iterate over the messages of these topics (all if empty) in the order of recording.

        ROS 1 messages are converted to the ROS 2 type of the same name.

        Raises:
            BagError: if a topic is missing, if a ROS 1 type has no ROS 2 counterpart, or if the
                file is damaged; then it gives the number of messages before the damage.
        """
        for name in topics:
            self.topic(name)
        connections = [
            c
            for c in self._reader.connections
            if c.id in self._types and (not topics or c.topic in topics)
        ]
        if not connections:
            return
        for connection in connections:
            kind = self._types[connection.id]
            if kind.is_ros1 and not kind.is_in_ros2:
                raise BagError(
                    f"{self.path}: topic '{connection.topic}' has the ROS 1 type "
                    f"{connection.msgtype}, which has no counterpart in ROS 2; leave the topic out "
                    "or convert the bag first"
                )
        count = 0
        messages = self._reader.messages(connections)
        while True:
            # On a damaged file the parsers raise almost any exception.
            try:
                connection, stamp_ns, raw = next(messages)
                kind = self._types[connection.id]
                cdr = kind.to_cdr(raw)
            except StopIteration:
                return
            except Exception as error:
                raise BagError(
                    f"{self.path}: damaged after {count} messages: {_one_line(error)}"
                ) from error
            yield SerializedMessage(connection.topic, kind.name, stamp_ns, cdr)
            count += 1

    def messages(self, topics: Collection[str] = ()) -> Iterator[Message]:
        """As `serialized`, with deserialized messages.

        Raises:
            BagError: as `serialized`, or if the bytes do not fit the type.
        """
        return map(self.deserialized, self.serialized(topics))

    def deserialized(self, message: SerializedMessage) -> Message:
        """Deserialize a message of this bag.

        Raises:
            BagError: if the bytes do not fit the type.
        """
        topic, type_name, stamp_ns, cdr = message
        kind = self._types_of_topics[topic, type_name]
        try:
            return Message(topic, type_name, stamp_ns, kind.deserialize(cdr))
        except Exception as error:
            reason = _one_line(error)
            if cdr.startswith(_ZSTD):
                reason = (
                    "rosbag2 compressed it (compression mode message): give the bag's folder with "
                    "its metadata.yaml"
                )
            raise BagError(
                f"{self.path}: a message on '{topic}' at {stamp_ns / 1e9:.3f} s is not a "
                f"{type_name}: {reason}"
            ) from error


@contextmanager
def open_bag(path: Path | str) -> Iterator[Bag]:
    """Open a bag for reading.

    Args:
        path: a rosbag2 folder, an .mcap or .db3 file, or a ROS 1 .bag file.

    Raises:
        BagError: if it is missing, truncated, damaged or not a bag; for a truncated mcap the
            message says how much of it can be read.
    """
    path = Path(path)
    if not path.exists():
        raise BagError(f"{path}: there is no such bag")
    if path.is_dir() and not (path / "metadata.yaml").is_file():
        raise BagError(
            f"{path}: the folder has no metadata.yaml, so it is not a finished rosbag2; "
            "`ros2 bag reindex` restores it, or give the .mcap or .db3 file itself"
        )
    if path.is_dir() and path.suffix == ".bag":
        raise BagError(
            f"{path}: a folder whose name ends in .bag: rename it, .bag is the suffix of ROS 1 bags"
        )
    if path.is_file() and path.suffix in (".zstd", ".zst"):
        raise BagError(
            f"{path}: a compressed file: give the bag's folder with its metadata.yaml, or "
            "decompress it (`zstd -d`)"
        )
    if path.is_file() and path.name.endswith(".bag.active"):
        raise BagError(
            f"{path}: a recording that was not finished: `rosbag reindex` restores it, then rename "
            "it to .bag"
        )
    if path.is_file() and path.suffix not in _SUFFIXES:
        raise BagError(
            f"{path}: not a bag by its name: a rosbag2 folder, or a file that ends in "
            f"{', '.join(_SUFFIXES)} is read"
        )
    try:
        reader = Ros1Reader(path) if path.suffix == ".bag" else Ros2Reader(path)
        reader.open()
    except Exception as error:  # damaged files raise almost any exception
        raise BagError(_why_not_readable(path, error)) from error
    try:
        yield Bag(path, reader)
    finally:
        reader.close()


def up_to_damage(messages: Iterator[AnyMessage], damage: list[str]) -> Iterator[AnyMessage]:
    """Iterate over messages and stop at the first damage of the bag.

    The damage is appended to `damage` if that is empty: each topic reports it with another number
    of messages, and one report is enough.
    """
    try:
        yield from messages
    except BagError as error:
        if not damage:
            damage.append(str(error))


def _topic(name: str, connections: list[Connection], types: Mapping[int, MessageType]) -> Topic:
    kinds = {types[connection.id].name for connection in connections}
    return Topic(
        name,
        kinds.pop() if len(kinds) == 1 else "several types",
        sum(connection.msgcount for connection in connections),
        any(map(_is_latched, connections)),
    )


def _is_latched(connection: Connection) -> bool:
    if isinstance(connection.ext, ConnectionExtRosbag1):
        return bool(connection.ext.latching)
    return any(
        qos.durability == QosDurability.TRANSIENT_LOCAL
        for qos in connection.ext.offered_qos_profiles
    )


def _why_not_readable(path: Path, error: Exception) -> str:
    if path.is_file() and not path.stat().st_size:
        return f"{path}: the file is empty"
    if path.is_dir() and ("metadata" in str(error) or "YAML" in str(error)):
        return f"{path}: its metadata.yaml is damaged or empty: `ros2 bag reindex` restores it"
    for file in mcap_files(path):
        part = whole_part(file)
        if not part.whole_bytes:
            return f"{file}: not an mcap file, or its start is damaged"
        if part.truncated:
            return (
                f"{file}: the recording is truncated: {part}; "
                "`mcap recover` writes them to a new file"
            )
    has_no_index = path.suffix == ".bag" and "index" in str(error).lower()
    remedy = "; `rosbag reindex` may restore it" if has_no_index else ""
    return f"{path}: not a readable bag: {_one_line(error)}{remedy}"


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
