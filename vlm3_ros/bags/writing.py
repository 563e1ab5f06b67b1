# SPDX-License-Identifier: Apache-2.0
"""Writing bags: rosbag2 with mcap."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from rosbags.interfaces import (
    Connection,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer, WriterError

from vlm3_ros.errors import BagError
from vlm3_ros.messages.classes import ros2_types

_VERSION: Literal[8] = 8
"""Version of the metadata. Iron wrote it, and every later release reads it."""


class BagWriter:
    """A bag open for writing; see `write_bag`."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._connections: dict[str, Connection] = {}

    def write(self, topic: str, message: Any, stamp_ns: int) -> None:
        """Append a message.

        /tf_static is latched for late subscribers (transient local).

        Args:
            topic: name of the topic.
            message: of rosbags' classes, see `vlm3_ros.messages.classes`.
            stamp_ns: time of recording.

        Raises:
            BagError: if the topic has messages of another type.
        """
        connection = self._connections.get(topic)
        if connection is None:
            connection = self._writer.add_connection(
                topic,
                message.__msgtype__,
                typestore=ros2_types(),
                offered_qos_profiles=[_offered_qos(latched=topic == "/tf_static")],
            )
            self._connections[topic] = connection
        if connection.msgtype != message.__msgtype__:
            raise BagError(
                f"{self._writer.path}: topic '{topic}' holds {connection.msgtype}, "
                f"not {message.__msgtype__}"
            )
        cdr = ros2_types().serialize_cdr(message, connection.msgtype)
        self._writer.write(connection, stamp_ns, cdr)


@contextmanager
def write_bag(path: Path | str) -> Iterator[BagWriter]:
    """Create a rosbag2 folder with an mcap file, its chunks compressed with zstd.

    The unfinished bag is removed if the body of the `with` raises.

    Raises:
        BagError: if `path` exists or cannot be written.
    """
    path = Path(path)
    if path.exists():
        raise BagError(f"{path}: exists already; remove it or choose another name")
    if path.suffix == ".bag":
        raise BagError(f"{path}: .bag is the suffix of ROS 1 bags; choose another name")
    writer = Writer(path, version=_VERSION, storage_plugin=StoragePlugin.MCAP)
    writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
    try:
        writer.open()
    except (OSError, WriterError) as error:
        raise BagError(f"{path}: cannot be written: {error}") from error
    try:
        yield BagWriter(writer)
        writer.close()
    except BaseException as error:
        writer.abort()
        shutil.rmtree(path, ignore_errors=True)
        if isinstance(error, OSError):
            raise BagError(f"{path}: cannot be written: {error}") from error
        raise


def _offered_qos(latched: bool) -> Qos:
    forever = QosTime(9223372036, 854775807)  # RMW_DURATION_INFINITE
    return Qos(
        history=QosHistory.KEEP_LAST,
        depth=1 if latched else 10,
        reliability=QosReliability.RELIABLE,
        durability=QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
        deadline=forever,
        lifespan=forever,
        liveliness=QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=forever,
        avoid_ros_namespace_conventions=False,
    )
