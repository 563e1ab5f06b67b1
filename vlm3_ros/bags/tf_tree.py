# SPDX-License-Identifier: Apache-2.0
"""The TF tree of a bag."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from vlm3_ros.bags.reading import Bag, up_to_damage
from vlm3_ros.bags.timed_poses import TimedPoses
from vlm3_ros.errors import BagError, MessageError
from vlm3_ros.geometry.motion import Transform, inverse
from vlm3_ros.messages.classes import stamp_nanoseconds
from vlm3_ros.messages.motions import transform_from_message

TF_TYPE = "tf2_msgs/msg/TFMessage"

_SAME_METRES, _SAME_RADIANS = 1e-4, 1e-4
"""Largest change of a transform that is fixed but repeated: rounding, not motion."""


_Told = list[tuple[str, int, Transform]]
"""Parents, stamps in nanoseconds and T_parent_child of one frame, in the order of recording."""


class UnconnectedError(BagError):
    """TF does not connect two frames. `reason`: which chains it has, without the bag's path."""

    def __init__(
        self, bag: Bag, target: str, source: str, targets: Sequence[str], sources: Sequence[str]
    ) -> None:
        self.reason = (
            f"/tf_static lacks it (TF has {' < '.join(sources)} and {' < '.join(targets)})"
        )
        super().__init__(
            f"{bag.path}: TF does not connect '{source}' to '{target}': their chains are "
            f"{', '.join(sources)} and {', '.join(targets)}; /tf_static lacks a transform"
        )


class MovingError(BagError):
    """A frame moves between two others. `frame`: that frame."""

    def __init__(self, bag: Bag, target: str, source: str, frame: str) -> None:
        self.frame = frame
        super().__init__(f"{bag.path}: '{frame}' moves between '{source}' and '{target}'")


@dataclass(frozen=True)
class _Edge:
    """T_parent_child: over time if the child moves, else one transform."""

    parent: str
    T_parent_child: TimedPoses | Transform


class TfTree:
    """The transforms on /tf and /tf_static of a bag.

    Frame names have no leading slash: tf of ROS 1 wrote it, tf2 drops it. Transforms that are not
    rigid, or of a frame to itself or to one without a name, are skipped, as in tf2. A transform
    that never changes is fixed, whatever topic tells it: drivers and robot_state_publisher repeat
    fixed ones on /tf.

    Args:
        bag: an open bag.
        damage: gets a text if the bag is damaged; transforms before count.

    """

    def __init__(self, bag: Bag, damage: list[str]) -> None:
        self._path = bag.path
        self._edges: dict[str, _Edge] = {}
        self._faults: dict[str, BagError] = {}
        topics = [topic.name for topic in bag.topics_of_type(TF_TYPE)]
        if not topics:
            return
        fixed: defaultdict[str, _Told] = defaultdict(list)
        moving: defaultdict[str, _Told] = defaultdict(list)
        by_topic: defaultdict[str, defaultdict[str, dict[int, Transform]]]
        by_topic = defaultdict(lambda: defaultdict(dict))
        for message in up_to_damage(bag.messages(topics), damage):
            told = fixed if message.topic.endswith("tf_static") else moving
            for stamped in message.content.transforms:
                parent = stamped.header.frame_id.lstrip("/")
                child = stamped.child_frame_id.lstrip("/")
                if not parent or not child or parent == child:
                    continue
                try:
                    T_parent_child = transform_from_message(stamped.transform)
                except MessageError:
                    continue
                stamp_ns = stamp_nanoseconds(stamped.header)
                told[child].append((parent, stamp_ns, T_parent_child))
                if told is moving:
                    by_topic[child][message.topic][stamp_ns] = T_parent_child
        for child in {**moving, **fixed}:
            # A fault matters only to those who need this frame.
            reason = _contradiction(fixed.get(child, []), moving.get(child, []))
            if not reason and child not in fixed:
                reason = _disagreement(by_topic[child])
            if reason:
                self._faults[child] = BagError(f"{bag.path}: '{child}' {reason}")
            transforms = fixed.get(child) or moving[child]
            parent = transforms[-1][0]
            T_fixed = _fixed(transforms)
            if T_fixed is None and child in fixed:
                T_fixed = transforms[-1][2]
            if T_fixed is not None:
                self._edges[child] = _Edge(parent, T_fixed)
                continue
            what = f"{bag.path}: the transforms of '{child}' in TF"
            try:
                timed = TimedPoses.from_stamped(((stamp, T) for _, stamp, T in transforms), what)
            except BagError as error:
                timed = TimedPoses.from_stamped(())
                self._faults.setdefault(child, error)
            self._edges[child] = _Edge(parent, timed)

    def chain(self, frame: str) -> list[str]:
        """A frame and its ancestors up to the root.

        Raises:
            BagError: if there is no root, because the frames form a loop.
        """
        chain = [frame.lstrip("/")]
        while chain[-1] in self._edges:
            parent = self._edges[chain[-1]].parent
            if parent in chain:
                loop = " < ".join([*chain[chain.index(parent) :], parent])
                raise BagError(f"{self._path}: the frames of TF form a loop: {loop}")
            chain.append(parent)
        return chain

    def moving(self, frames: Sequence[str]) -> list[str]:
        """Those of the frames that move in their parents.

        Raises:
            BagError: if the stamps of one go back, see `TimedPoses.from_stamped`, or TF contradicts
                itself about one: two parents, or a mount on /tf_static that changes.
        """
        for frame in frames:
            if frame in self._faults:
                raise self._faults[frame]
        return [f for f in frames if isinstance(self._edges[f].T_parent_child, TimedPoses)]

    def stamps_ns(self, frame: str) -> NDArray[np.int64]:
        """Times of the transforms of a moving frame, shape (n,)."""
        poses = self._edges[frame].T_parent_child
        assert isinstance(poses, TimedPoses)
        return poses.stamps_ns

    def static(self, frames: Sequence[str]) -> Transform:
        """T_top_bottom, shape (4, 4), of a part of a chain in which no frame moves.

        Args:
            frames: from the bottom up, each the child of the next; top is the parent of the last.
        """
        return self.at(frames, np.zeros(1, np.int64))[0]

    def at(self, frames: Sequence[str], stamps_ns: NDArray[np.int64]) -> NDArray[np.float64]:
        """As `static` at each time, shape (n, 4, 4); frames may move. NaN where unknown."""
        T_top_bottom = np.tile(np.eye(4), (len(stamps_ns), 1, 1))
        for frame in frames:
            edge = self._edges[frame].T_parent_child
            step = edge.at(stamps_ns) if isinstance(edge, TimedPoses) else edge
            T_top_bottom = step @ T_top_bottom
        return T_top_bottom


def _fixed(transforms: _Told) -> Transform | None:
    """The first of some transforms if the others are the same; else None."""
    poses = np.stack([pose for _, _, pose in transforms])
    first = poses[0]
    shifts = np.linalg.norm(poses[:, :3, 3] - first[:3, 3], axis=1)
    turns = Rotation.from_matrix(first[:3, :3].T @ poses[:, :3, :3]).magnitude()
    is_fixed = shifts.max() <= _SAME_METRES and turns.max() <= _SAME_RADIANS
    return np.asarray(first) if is_fixed else None


def _contradiction(fixed: _Told, moving: _Told) -> str:
    """How TF contradicts itself about a frame; empty if it does not."""
    parents = sorted({parent for parent, _, _ in (*fixed, *moving)})
    if len(parents) > 1:
        return f"has several parents in TF ({', '.join(parents)}): record one tree"
    if fixed and _fixed(fixed) is None:
        return (
            f"changes its place in '{parents[0]}' on /tf_static, so it is unknown which one holds "
            "when: cut the recording there, or leave one of the publishers out"
        )
    if fixed and _fixed([*fixed, *moving]) is None:
        return f"is fixed to '{parents[0]}' on /tf_static, but elsewhere on /tf: record one of them"
    return ""


def _disagreement(by_topic: Mapping[str, Mapping[int, Transform]]) -> str:
    """How topics differ about a frame; empty if each repeats the first, as relays do."""
    first, *others = by_topic.values()
    if all(_repeats(first, other) for other in others):
        return ""
    return f"moves differently by {' and '.join(sorted(by_topic))}: record the TF of one robot"


def _repeats(one: Mapping[int, Transform], other: Mapping[int, Transform]) -> bool:
    shared = one.keys() & other.keys()
    return bool(shared) and all(
        _fixed([("", 0, one[stamp]), ("", 0, other[stamp])]) is not None for stamp in shared
    )


def static_transform(bag: Bag, target: str, source: str, damage: list[str]) -> Transform:
    """T_target_source of two frames that do not move relative to each other, shape (4, 4).

    Args:
        bag: an open bag.
        target, source: frames, such as those of a camera and a LiDAR on one robot.
        damage: gets a text if the bag is damaged.

    Raises:
        UnconnectedError: if TF does not connect the frames.
        MovingError: if one moves relative to the other.
    """
    tree = TfTree(bag, damage)
    targets, sources = tree.chain(target), tree.chain(source)
    common = next((frame for frame in sources if frame in targets), None)
    if common is None:
        tree.moving(targets[:-1] + sources[:-1])  # a contradiction is the better reason
        raise UnconnectedError(bag, target, source, targets, sources)
    below_target = targets[: targets.index(common)]
    below_source = sources[: sources.index(common)]
    if moving := tree.moving(below_target + below_source):
        raise MovingError(bag, target, source, moving[0])
    return inverse(tree.static(below_target)) @ tree.static(below_source)
