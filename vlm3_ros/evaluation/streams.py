"""Scores of depth that was published frame by frame, against a bag that knows the truth."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlm3_ros.bags.errors import BagError
from vlm3_ros.bags.messages import depth_from_message
from vlm3_ros.bags.reading import Bag, header_stamp_ns
from vlm3_ros.evaluation.metrics import DepthMetrics, depth_metrics


def true_depths(bag: Bag, topic: str, pixels: ArrayLike) -> dict[int, NDArray[np.float32]]:
    """True depth at pixels in every depth image of a topic, by header stamp in nanoseconds.

    Args:
        bag: an open bag.
        topic: of depth images that are registered to the rectified image.
        pixels: (u, v), shape (n, 2); the nearest pixel counts.

    Returns:
        Shape (n,) each, metres along Z, NaN where there is none.

    Raises:
        BagError: when a depth image is damaged, or smaller than the pixels need.
    """
    u, v = np.rint(np.asarray(pixels, dtype=float)).astype(int).T
    depths = {}
    for message in bag.messages([topic]):
        depth = depth_from_message(message.content)
        if u.max() >= depth.shape[1] or v.max() >= depth.shape[0]:
            raise BagError(
                f"{bag.path}: the depth images on '{topic}' are {depth.shape[1]}x{depth.shape[0]}, "
                "smaller than the images: they are not registered to them"
            )
        depths[header_stamp_ns(message.content)] = depth[v, u]
    return depths


def depth_images(
    bag: Bag, topic: str, stamps_ns: Collection[int]
) -> dict[int, NDArray[np.float32]]:
    """The depth images of a topic with these header stamps, metres, NaN where there is none.

    Raises:
        BagError: when one is damaged.
    """
    return {
        stamp: depth_from_message(message.content)
        for message in bag.messages([topic])
        if (stamp := header_stamp_ns(message.content)) in stamps_ns
    }


def score_stream(
    predicted: Mapping[int, NDArray[np.floating]], truth: Mapping[int, NDArray[np.floating]]
) -> DepthMetrics:
    """Metrics of depths by stamp, on the pixels whose truth is known; one frame is one image.

    Args:
        predicted: shape (n,) each, metres, NaN where unanswered.
        truth: shape (n,) each, metres, NaN where unknown. Frames without are left out.

    Raises:
        BagError: when no truth is known for any of the frames.
    """
    known = {s: np.isfinite(truth[s]) for s in sorted(predicted) if s in truth}
    if not any(mask.any() for mask in known.values()):
        raise BagError("no depth image of the bag has the stamp of an answered frame")
    return depth_metrics(
        [predicted[s].ravel()[mask] for s, mask in known.items()],
        [truth[s][mask] for s, mask in known.items()],
    )
