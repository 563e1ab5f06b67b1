# SPDX-License-Identifier: Apache-2.0
"""Ground-truth poses in a bag: from odometry, from a pose topic or from TF."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from vlm3_ros.bags.reading import Bag, up_to_damage
from vlm3_ros.bags.tf_tree import (
    TF_TYPE,
    MovingError,
    TfTree,
    UnconnectedError,
    static_transform,
)
from vlm3_ros.bags.timed_poses import MAX_GAP, TimedPoses
from vlm3_ros.errors import BagError, MessageError
from vlm3_ros.geometry.motion import Transform
from vlm3_ros.messages.classes import stamp_nanoseconds
from vlm3_ros.messages.motions import pose_from_message

_ODOMETRY_TYPE = "nav_msgs/msg/Odometry"
_POSE_TYPE = "geometry_msgs/msg/PoseStamped"


@dataclass(frozen=True)
class TruePoses:
    """The true poses of a robot.

    `source`: description for reports. `world`: frame of the poses. `base`: T_world_base over time.
    `T_base_camera`: of the camera's optical frame.
    """

    source: str
    world: str
    base: TimedPoses
    T_base_camera: Transform


def find_true_poses(
    bag: Bag, camera_frame: str, ground_truth: str | None, damage: list[str]
) -> TruePoses:
    """Find the ground truth of a bag.

    With nav_msgs/Odometry the base is the child frame, which TF must fix to the camera, directly or
    through a frame that carries both. geometry_msgs/PoseStamped does not name its body: it counts
    as the camera's optical frame. With TF the base is the lowest moving frame above the camera.

    Args:
        bag: an open bag.
        camera_frame: frame_id of the images.
        ground_truth: a topic of one of these types, or the TF frame that poses are given in. None:
            the only topic of odometry, else the only one of poses, else the root frame of TF.
        damage: gets a text if the bag is damaged; poses before count.

    Raises:
        BagError: if no source is found, several are possible, or the frames are not connected.
    """
    topic = _find_topic(bag, ground_truth)
    if topic is None:
        return _poses_from_tf(bag, camera_frame, ground_truth, damage)
    messages = [m.content for m in up_to_damage(bag.messages([topic]), damage)]
    base = TimedPoses.from_stamped(_stamped_poses(messages), f"{bag.path}: the stamps on '{topic}'")
    if not len(base.stamps_ns):
        raise BagError(f"topic '{topic}' holds no pose that could be read")
    if len(messages) > 1 and not base.stamps_ns.any():
        raise BagError(
            f"{bag.path}: header.stamp is 0 in all messages on '{topic}': set it in its publisher"
        )
    parent = messages[0].header.frame_id
    if bag.topic(topic).type == _POSE_TYPE:
        source = f"{topic} (PoseStamped of the camera in '{parent}')"
        return TruePoses(source, parent, base, np.eye(4))
    child = messages[0].child_frame_id
    source = f"{topic} (Odometry, '{child}' in '{parent}')"
    return TruePoses(source, parent, base, _camera_mount(bag, topic, child, camera_frame, damage))


def _find_topic(bag: Bag, ground_truth: str | None) -> str | None:
    """The topic of poses; None for TF."""
    if ground_truth is not None:
        if ground_truth not in bag.topics and not ground_truth.startswith("/"):
            return None
        topic = bag.topic(ground_truth, (_ODOMETRY_TYPE, _POSE_TYPE, TF_TYPE))
        return None if topic.type == TF_TYPE else topic.name
    for kind in (_ODOMETRY_TYPE, _POSE_TYPE):
        names = [topic.name for topic in bag.topics_of_type(kind)]
        if len(names) > 1:
            raise BagError(
                f"{bag.path}: several topics could be the ground truth: {', '.join(names)}; name "
                "one (--gt)"
            )
        if names:
            return names[0]
    if not bag.topics_of_type(TF_TYPE):
        raise BagError(
            f"{bag.path}: no ground truth of poses (Odometry, PoseStamped or TF); {bag.contents()}"
        )
    return None


def _stamped_poses(messages: Iterable[Any]) -> Iterator[tuple[int, Transform]]:
    """Stamps and poses of Odometry or PoseStamped; invalid poses are skipped."""
    for message in messages:
        pose = message.pose.pose if hasattr(message, "child_frame_id") else message.pose
        try:
            T_world_body = pose_from_message(pose)
        except MessageError:
            continue
        yield stamp_nanoseconds(message.header), T_world_body


def _camera_mount(bag: Bag, topic: str, body: str, camera: str, damage: list[str]) -> Transform:
    """T_body_camera of the body whose poses a topic holds; TF must fix it to the camera."""
    body, camera = body.lstrip("/"), camera.lstrip("/")
    if not body:
        raise BagError(
            f"{bag.path}: child_frame_id is empty on '{topic}', so it is unknown whose poses these "
            "are: name another topic or a TF frame as ground truth (--gt)"
        )
    if body == camera:
        return np.eye(4)
    try:
        return static_transform(bag, body, camera, damage)
    except UnconnectedError as error:
        raise BagError(
            f"{bag.path}: no transform from '{body}', whose poses are known, to the camera "
            f"'{camera}': {error.reason}"
        ) from error
    except MovingError as error:
        raise BagError(
            f"{bag.path}: '{error.frame}' moves between '{body}', whose poses are known, and the "
            f"camera '{camera}': name a TF frame as ground truth (--gt)"
        ) from error


def _poses_from_tf(bag: Bag, camera: str, world: str | None, damage: list[str]) -> TruePoses:
    tree = TfTree(bag, damage)
    chain = tree.chain(camera)
    if world is not None and world not in bag.topics:
        if world not in chain:
            tree.moving(chain[:-1])  # a contradiction is the better reason
            raise BagError(
                f"{bag.path}: '{world}' is neither a topic nor a TF frame above '{camera}' "
                f"(frames above it: {', '.join(chain[1:]) or 'none'})"
            )
        chain = chain[: chain.index(world) + 1]
    moving = tree.moving(chain[:-1])
    if not moving:
        raise BagError(
            f"{bag.path}: nothing moves in TF above '{camera}' (frames: {', '.join(chain)})"
        )
    base, root = moving[0], chain[-1]
    stamps_ns = tree.stamps_ns(base)
    poses = tree.at(chain[chain.index(base) : -1], stamps_ns)
    known = np.isfinite(poses).all(axis=(1, 2))
    if not known.any():
        raise BagError(
            f"{bag.path}: TF never connects '{base}' to '{root}': the transforms of the chain "
            f"({', '.join(chain)}) do not overlap in time or are more than {MAX_GAP:g} s apart; "
            "name a frame further down (--gt)"
        )
    timed = TimedPoses(stamps_ns[known], poses[known])
    T_base_camera = tree.static(chain[: chain.index(base)])
    return TruePoses(f"TF ('{base}' in '{root}')", root, timed, T_base_camera)
