# SPDX-License-Identifier: Apache-2.0
"""The message types of a bag's topics, each read by itself: one that is broken costs one topic."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from rosbags.convert.converter import is_same_wireformat
from rosbags.interfaces import (
    Connection,
    ConnectionExtRosbag1,
    MessageDefinition,
    MessageDefinitionFormat,
)
from rosbags.rosbag2 import storage_mcap
from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from vlm3_ros.errors import Vlm3Error
from vlm3_ros.messages.classes import ros2_types

_RENAMED = {"tf/msg/tfMessage": "tf2_msgs/msg/TFMessage"}
"""Older ROS 1 names of types, and their ROS 2 names."""

_IDL_SEPARATOR = "=" * 80 + "\n"

_NO_DEFINITION = MessageDefinition(MessageDefinitionFormat.NONE, "")

_FORMATS = {"ros1msg": MessageDefinitionFormat.MSG}
"""Encodings of mcap schemas that rosbags does not know."""


class TypeProblem(Vlm3Error):
    """A type whose messages cannot be read; the text says why."""


@dataclass(frozen=True)
class MessageType:
    """A message type as a bag defines it.

    `name`: in ROS 2's spelling, such as sensor_msgs/msg/Image. `is_ros1`: whether its messages are
    serialized as in ROS 1.
    """

    name: str
    is_ros1: bool
    _own_name: str
    _store: Typestore

    def to_cdr(self, raw: bytes | memoryview) -> bytes:
        """A message as ROS 2 serializes it.

        Raises:
            Exception: of any kind, if the bytes do not fit the type.
        """
        return bytes(ros2_types().ros1_to_cdr(raw, self.name) if self.is_ros1 else raw)

    def deserialize(self, cdr: bytes) -> Any:
        """Deserialize a message that `to_cdr` returned.

        Raises:
            Exception: of any kind, if the bytes do not fit the type.
        """
        store, name = (ros2_types(), self.name) if self.is_ros1 else (self._store, self._own_name)
        return store.deserialize_cdr(cdr, name)

    @property
    def is_in_ros2(self) -> bool:
        """Whether ROS 2 has a type of this name with the same fields."""
        known = ros2_types()
        return self.name in known.fielddefs and is_same_wireformat(
            self._store, known, self._own_name, self.name
        )


def message_type(connection: Connection) -> MessageType:
    """Read the type of a connection from the definition that the bag stores.

    Raises:
        TypeProblem: if the messages are in another serialization, the definition cannot be parsed,
            or the stored hash is that of another definition.
    """
    ext = connection.ext
    form = "ros1" if isinstance(ext, ConnectionExtRosbag1) else ext.serialization_format
    if form not in ("cdr", "ros1"):
        raise TypeProblem(f"its messages ({connection.msgtype}) are serialized as '{form}'")
    kind = _message_type(connection.msgtype, connection.msgdef, connection.digest, form == "ros1")
    if isinstance(kind, TypeProblem):
        raise kind
    return kind


@lru_cache(maxsize=1024)
def _message_type(
    written_name: str, definition: MessageDefinition, digest: str, of_ros1: bool
) -> MessageType | TypeProblem:
    own_name = _ros2_spelling(written_name)
    name = _RENAMED.get(own_name, own_name)
    if definition.format == MessageDefinitionFormat.NONE:
        if own_name.count("/") != 2:
            return TypeProblem(f"its type '{written_name}' is not one of ROS")
        return MessageType(name, of_ros1, name, ros2_types())
    store = get_typestore(Stores.EMPTY)
    try:
        store.register(_parsed(own_name, definition))
        computed = store.generate_msgdef(own_name)[1] if of_ros1 else store.hash_rihs01(own_name)
    except Exception as error:  # the parser raises almost anything on what is no definition
        reason = " ".join(str(error).split())
        return TypeProblem(
            f"the definition of its type {written_name} cannot be parsed "
            f"({type(error).__name__}: {reason[:80]})"
        )
    kind = MessageType(name, of_ros1, own_name, store)
    if kind.is_in_ros2:
        # Not the stored definition: a bag converted from ROS 1 may keep the names of its fields,
        # such as K for k.
        return MessageType(name, of_ros1, name, ros2_types())
    if digest in ("", "*", computed):
        return kind
    return TypeProblem(
        f"the stored hash of its type {written_name} ({digest[:20]}) is not that of the stored "
        f"definition ({computed[:20]})"
    )


def _parsed(name: str, definition: MessageDefinition) -> Any:
    if definition.format == MessageDefinitionFormat.MSG:
        return get_types_from_msg(definition.data, name)
    if not definition.data.startswith(f"{_IDL_SEPARATOR}IDL: "):
        return get_types_from_idl(definition.data)
    types = {}
    for part in definition.data.split(_IDL_SEPARATOR)[1:]:
        types.update(get_types_from_idl(part.split("\n", 1)[1]))
    return types


def _ros2_spelling(name: str) -> str:
    """sensor_msgs/msg/Image for sensor_msgs/Image, as ROS 1 and older tools write it."""
    return re.sub(r"^([^/]+)/([^/]+)$", r"\1/msg/\2", name)


def _definition(schema: storage_mcap.Schema | None) -> MessageDefinition:
    try:
        return _rosbags_definition(schema)
    except KeyError:
        assert schema is not None
        kind = _FORMATS.get(schema.encoding)
        return _NO_DEFINITION if kind is None else MessageDefinition(kind, schema.data)


# rosbags cannot open an mcap file with one schema of another encoding (protobuf, jsonschema).
_rosbags_definition = storage_mcap.get_msgdef
storage_mcap.get_msgdef = _definition
