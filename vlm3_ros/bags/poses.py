# SPDX-License-Identifier: Apache-2.0
"""Ground-truth poses in a bag: of odometry, of a pose topic, or of TF."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from vlm3_ros.bags.reading import Bag, up_to_damage
from vlm3_ros.errors import BagError
from vlm3_ros.geometry.motion import Transform, inverse, transform
from vlm3_ros.messages.classes import stamp_nanoseconds

ODOMETRY, POSE, TF = (
    "nav_msgs/msg/Odometry",
    "geometry_msgs/msg/PoseStamped",
    "tf2_msgs/msg/TFMessage",
)

MAX_GAP = 0.5
"""Seconds between two poses over which nothing is interpolated: who knows what happened there."""


@dataclass(frozen=True)
class TimedPoses:
    """Poses over time: `stamps_ns`, shape (n,), int64, ascending; `poses`, shape (n, 4, 4)."""

    stamps_ns: NDArray[np.int64]
    poses: NDArray[np.float64]

    def at(self, stamps_ns: ArrayLike, max_gap: float = MAX_GAP) -> NDArray[np.float64]:
        """Poses interpolated at these times, shape (m, 4, 4).

        NaN before the first and after the last one, and between two that are more than `max_gap`
        seconds apart.
        """
        wanted = np.asarray(stamps_ns, dtype=np.int64)
        after = np.searchsorted(self.stamps_ns, wanted).clip(0, len(self.stamps_ns) - 1)
        is_exact = self.stamps_ns[after] == wanted
        before = np.where(is_exact, after, np.maximum(after - 1, 0))
        start, end = self.stamps_ns[before], self.stamps_ns[after]
        gap = np.maximum(end - start, 1)
        share = (wanted - start) / gap
        first, last = self.poses[before], self.poses[after]
        turn = Rotation.from_matrix(first[:, :3, :3])
        rest = turn.inv() * Rotation.from_matrix(last[:, :3, :3])
        poses = np.tile(np.eye(4), (len(wanted), 1, 1))
        poses[:, :3, :3] = (
            turn * Rotation.from_rotvec(share[:, None] * rest.as_rotvec())
        ).as_matrix()
        poses[:, :3, 3] = first[:, :3, 3] + share[:, None] * (last[:, :3, 3] - first[:, :3, 3])
        is_known = is_exact | ((start < wanted) & (wanted < end) & (gap <= max_gap * 1e9))
        poses[~is_known] = np.nan
        return poses


@dataclass(frozen=True)
class TruePoses:
    """Where a robot truly was.

    `source`: in words. `base`: T_world_base over time; `world` is the name of the frame that the
    bag tells poses in. `T_base_camera`: of the camera's optical frame on the base.
    """

    source: str
    world: str
    base: TimedPoses
    T_base_camera: Transform


def find_true_poses(
    bag: Bag, camera_frame: str, ground_truth: str | None, damage: list[str]
) -> TruePoses:
    """The ground truth of a bag.

    Of nav_msgs/Odometry the base is the child frame, which must have a static transform to the
    camera. geometry_msgs/PoseStamped does not say whose pose it is: it is taken for the camera's
    optical frame. Of TF the base is the last frame on the way to the camera that moves.

    Args:
        bag: an open bag.
        camera_frame: frame_id of the images.
        ground_truth: a topic of one of these types, or a TF frame, in which poses are told. None:
            the only topic of odometry, else the only one of poses, else TF's root frame.
        damage: is told where the bag is damaged; poses before count.

    Raises:
        BagError: when there is none, when several would do, or when the frames are not connected.
    """
    topic = _find_topic(bag, ground_truth)
    if topic is None:
        return _poses_of_tf(bag, camera_frame, ground_truth, damage)
    messages = [m.content for m in up_to_damage(bag.messages([topic]), damage)]
    stamps = [stamp_nanoseconds(message.header) for message in messages]
    if bag.topic(topic).type == POSE:
        base = _timed(topic, stamps, [_pose(message.pose) for message in messages])
        parent = messages[0].header.frame_id
        source = f"{topic} (PoseStamped of the camera in '{parent}')"
        return TruePoses(source, parent, base, np.eye(4))
    base = _timed(topic, stamps, [_pose(message.pose.pose) for message in messages])
    parent, child = messages[0].header.frame_id, messages[0].child_frame_id
    T_base_camera = _static_transform(bag, child, camera_frame, damage)
    source = f"{topic} (Odometry, '{child}' in '{parent}')"
    return TruePoses(source, parent, base, T_base_camera)


def static_transform(bag: Bag, target: str, source: str, damage: list[str]) -> Transform:
    """T_target_source of two frames that are fixed to one another, shape (4, 4).

    Args:
        bag: an open bag.
        target, source: names of frames, such as those of a camera and of a LiDAR on one robot.
        damage: is told where the bag is damaged.

    Raises:
        BagError: when TF does not connect them, or when one moves against the other.
    """
    edges = _read_tf(bag, damage)
    chains = [_chain(edges, frame) for frame in (target, source)]
    common = next((frame for frame in chains[1] if frame in chains[0]), None)
    if common is None:
        raise BagError(
            f"{bag.path}: TF does not connect '{source}' to '{target}': above them are "
            f"{', '.join(chains[1])} and {', '.join(chains[0])}; the bag lacks it on /tf_static"
        )
    below = [chain[: chain.index(common)] for chain in chains]
    moving = [frame for frame in below[0] + below[1] if edges[frame].moving is not None]
    if moving:
        raise BagError(f"{bag.path}: '{moving[0]}' moves between '{source}' and '{target}'")
    T_common_target, T_common_source = (_chained(edges, frames, None) for frames in below)
    return inverse(T_common_target) @ T_common_source


def _find_topic(bag: Bag, ground_truth: str | None) -> str | None:
    """The topic of poses; None for TF."""
    if ground_truth is not None:
        if ground_truth not in bag.topics and not ground_truth.startswith("/"):
            return None
        topic = bag.topic(ground_truth, (ODOMETRY, POSE, TF))
        return None if topic.type == TF else topic.name
    for kind in (ODOMETRY, POSE):
        names = [topic.name for topic in bag.topics_of_type(kind)]
        if len(names) > 1:
            raise BagError(
                f"{bag.path}: several topics could be the ground truth: {', '.join(names)}; name "
                "one (--gt)"
            )
        if names:
            return names[0]
    if not bag.topics_of_type(TF):
        raise BagError(
            f"{bag.path}: no ground truth of poses (Odometry, PoseStamped or TF); {bag.contents()}"
        )
    return None


@dataclass(frozen=True)
class _Edge:
    """A frame in its parent: T_parent_child, over time or for ever."""

    parent: str
    moving: TimedPoses | None
    static: Transform


def _poses_of_tf(bag: Bag, camera: str, fixed: str | None, damage: list[str]) -> TruePoses:
    edges = _read_tf(bag, damage)
    fixed = None if fixed in bag.topics else fixed
    chain = _chain(edges, camera)
    if fixed is not None:
        if fixed not in chain:
            raise BagError(
                f"{bag.path}: '{fixed}' is neither a topic nor a TF frame above '{camera}' "
                f"(these are: {', '.join(chain[1:]) or 'none'})"
            )
        chain = chain[: chain.index(fixed) + 1]
    moves = [frame for frame in chain[:-1] if edges[frame].moving is not None]
    if not moves:
        raise BagError(
            f"{bag.path}: nothing moves in TF above '{camera}' (frames: {', '.join(chain)})"
        )
    base = moves[0]
    T_base_camera = _chained(edges, chain[: chain.index(base)], None)
    moving = edges[base].moving
    assert moving is not None
    poses = _chained(edges, chain[chain.index(base) : -1], moving.stamps_ns)
    known = np.isfinite(poses).all(axis=(1, 2))
    if not known.any():
        raise BagError(
            f"{bag.path}: TF knows '{base}' in '{chain[-1]}' at no time: the parts of the chain "
            f"({', '.join(chain)}) do not overlap, or are more than {MAX_GAP:g} s apart; name a "
            "frame further down (--gt)"
        )
    timed = TimedPoses(moving.stamps_ns[known], poses[known])
    return TruePoses(f"TF ('{base}' in '{chain[-1]}')", chain[-1], timed, T_base_camera)


def _static_transform(bag: Bag, base: str, camera: str, damage: list[str]) -> Transform:
    base, camera = base.lstrip("/"), camera.lstrip("/")
    if base == camera:
        return np.eye(4)
    edges = _read_tf(bag, damage)
    chain = _chain(edges, camera)
    if base not in chain:
        raise BagError(
            f"{bag.path}: no transform from '{base}', whose poses are known, to the camera "
            f"'{camera}': the bag lacks it on /tf_static"
        )
    below = chain[: chain.index(base)]
    moving = [frame for frame in below if edges[frame].moving is not None]
    if moving:
        raise BagError(
            f"{bag.path}: '{moving[0]}' moves between '{base}', whose poses are known, and the "
            f"camera '{camera}': name a TF frame as ground truth (--gt)"
        )
    return np.asarray(_chained(edges, below, None))


def _read_tf(bag: Bag, damage: list[str]) -> dict[str, _Edge]:
    """By child frame."""
    static: dict[str, _Edge] = {}
    parents: dict[str, str] = {}
    moving: dict[str, tuple[list[int], list[Transform]]] = {}
    topics = [topic.name for topic in bag.topics_of_type(TF)]
    if not topics:
        return static
    for message in up_to_damage(bag.messages(topics), damage):
        is_static = message.topic.endswith("tf_static")
        for stamped in message.content.transforms:
            # tf2 takes leading slashes off, which tf of ROS 1 still had.
            parent, child = stamped.header.frame_id.lstrip("/"), stamped.child_frame_id.lstrip("/")
            T_parent_child = _transform(stamped.transform)
            if is_static:
                static[child] = _Edge(parent, None, T_parent_child)
            else:
                parents[child] = parent
                stamps, poses = moving.setdefault(child, ([], []))
                stamps.append(stamp_nanoseconds(stamped.header))
                poses.append(T_parent_child)
    edges = {
        child: _Edge(parents[child], _timed("/tf", stamps, poses), np.eye(4))
        for child, (stamps, poses) in moving.items()
    }
    return {**edges, **static}


def _chain(edges: dict[str, _Edge], frame: str) -> list[str]:
    """A frame and all above it."""
    chain = [frame.lstrip("/")]
    while chain[-1] in edges and edges[chain[-1]].parent not in chain:
        chain.append(edges[chain[-1]].parent)
    return chain


def _chained(
    edges: dict[str, _Edge], frames: Sequence[str], stamps_ns: NDArray[np.int64] | None
) -> NDArray[np.float64]:
    """T_top_bottom of frames from the bottom up, `top` being the parent of the last one.

    Shape (4, 4) of static ones; (n, 4, 4) at times.
    """
    result = np.eye(4) if stamps_ns is None else np.tile(np.eye(4), (len(stamps_ns), 1, 1))
    for frame in frames:
        edge = edges[frame]
        if edge.moving is None:
            result = edge.static @ result
        else:
            assert stamps_ns is not None
            result = edge.moving.at(stamps_ns) @ result
    return result


def _timed(topic: str, stamps: Sequence[int], poses: Sequence[Transform]) -> TimedPoses:
    """Poses in the order of their stamps, the last one of equal stamps; without senseless ones."""
    last = {
        stamp: pose for stamp, pose in zip(stamps, poses, strict=True) if np.isfinite(pose).all()
    }
    if not last:
        raise BagError(f"topic '{topic}' holds no pose that could be read")
    ordered = sorted(last)
    return TimedPoses(np.array(ordered, dtype=np.int64), np.stack([last[s] for s in ordered]))


def _pose(pose: Any) -> Transform:
    return _rigid(pose.position, pose.orientation)


def _transform(message: Any) -> Transform:
    return _rigid(message.translation, message.rotation)


def _rigid(place: Any, quaternion: Any) -> Transform:
    q = np.array([quaternion.x, quaternion.y, quaternion.z, quaternion.w])
    values = np.array([place.x, place.y, place.z])
    if not np.isfinite(values).all() or not np.isfinite(q).all() or not q.any():
        return np.full((4, 4), np.nan)
    return transform(Rotation.from_quat(q), values)
