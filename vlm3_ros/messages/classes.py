# SPDX-License-Identifier: Apache-2.0
"""The Python classes of ROS messages: those of rclpy or those of rosbags.

Nodes use rclpy's. Bags are read and written without a ROS installation, with the classes of
rosbags. Both have the fields of the ROS 2 definitions and read each other's serialized messages.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from rosbags.typesys.store import Typestore
    from std_msgs.msg import Header

_SECOND = 1_000_000_000

_Fields = Mapping[str, Any]
_Sequences = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class MessageClasses:
    """The message classes of one library."""

    _build: Callable[[str, _Fields, _Sequences], Any]

    def message(self, type_name: str, sequences: _Sequences | None = None, **fields: Any) -> Any:
        """Build a message from all its fields; rosbags' classes have no defaults.

        Args:
            type_name: such as "sensor_msgs/msg/Image".
            sequences: fields that are sequences of numbers, each of shape (n,) and of the dtype of
                the field.
            fields: the others. _Fields of fixed size, such as K or a covariance, are NumPy arrays.
        """
        return self._build(type_name, fields, sequences or {})

    def header(self, stamp_ns: int, frame_id: str) -> Header:
        """Build a std_msgs/Header."""
        sec, nanosec = divmod(stamp_ns, _SECOND)
        stamp = self.message("builtin_interfaces/msg/Time", sec=sec, nanosec=nanosec)
        return self.message("std_msgs/msg/Header", stamp=stamp, frame_id=frame_id)


def stamp_nanoseconds(header: Header) -> int:
    """Stamp of a header in nanoseconds: the time of the measurement itself."""
    return int(header.stamp.sec) * _SECOND + int(header.stamp.nanosec)


def classes_of(message: Any) -> MessageClasses:
    """The classes that a message belongs to."""
    return ROSBAGS if hasattr(message, "__msgtype__") else RCLPY


@cache
def ros2_types() -> Typestore:
    """The message types of the newest ROS 2 that rosbags knows."""
    from rosbags.typesys import Stores, get_typestore

    return get_typestore(Stores.LATEST)


def _build_rclpy(type_name: str, fields: _Fields, sequences: _Sequences) -> Any:
    message = _rclpy_class(type_name)(**fields)
    for name, values in sequences.items():
        # Only an `array` is taken without a check of each element, and only by the setter: the
        # constructor copies it element by element.
        packed: array[Any] = array(values.dtype.char)
        packed.frombytes(np.ascontiguousarray(values).view(np.uint8).data)
        setattr(message, name, packed)
    return message


@cache
def _rclpy_class(type_name: str) -> Any:
    package, _, name = type_name.split("/")
    return getattr(import_module(f"{package}.msg"), name)


def _build_rosbags(type_name: str, fields: _Fields, sequences: _Sequences) -> Any:
    return ros2_types().types[type_name](**fields, **sequences)


RCLPY = MessageClasses(_build_rclpy)
ROSBAGS = MessageClasses(_build_rosbags)
