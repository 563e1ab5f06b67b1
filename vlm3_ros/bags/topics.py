# SPDX-License-Identifier: Apache-2.0
"""Finds the topics of a bag that hold colour, depth and calibration."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vlm3_ros.bags.reading import CAMERA_INFO_TYPE, IMAGE_TYPES, Bag
from vlm3_ros.errors import BagError, MessageError
from vlm3_ros.messages.depth_images import check_depth_format, is_depth_message
from vlm3_ros.messages.images import check_colour_format, is_16_bit_grey

_TRANSPORTS = ("compressed", "compressedDepth")

_OTHER_QUANTITIES = re.compile(
    r"(?<![a-z])(infra|thermal|confidence|disparity|semantic|segmentation"
    r"|(ir\d*|lwir|intensity|amplitude|labels?|masks?)(?![a-z]))"
)
"""What images of 16 or 32 bits show by their names, if not depth."""


NO_DEPTH = "none"
"""Name that stands for no topic of depth."""


@dataclass(frozen=True)
class CameraTopics:
    """Topic names of a camera.

    `camera_info` is None if the user gives the calibration, `depth` if the bag has none.
    """

    image: str
    camera_info: str | None
    depth: str | None


def find_camera_topics(
    bag: Bag,
    image: str | None = None,
    camera_info: str | None = None,
    depth: str | None = None,
    is_calibrated: bool = False,
) -> CameraTopics:
    """Check the given topics and find the others by type and content.

    The encoding of a topic's first message separates depth from colour. Grey of 16 bits is depth
    only if the topic or its frame is named so; 16UC1 and 32FC1 are not if they are named otherwise,
    such as thermal or confidence. The calibration is the `camera_info` next to the image, as
    image_transport names it, else the only CameraInfo topic.

    Args:
        bag: an open bag.
        image, camera_info, depth: topics; None to find them. `NO_DEPTH` for none.
        is_calibrated: whether the calibration is known, so that no CameraInfo is needed.

    Raises:
        BagError: if a topic is missing, several are possible, or one is to be both image and depth;
            lists the topics.
    """
    has_names = image is not None and depth is not None
    if has_names and base_topic(str(image)) == base_topic(str(depth)):
        raise BagError(
            f"{bag.path}: '{image}' is named as the image and as its true depth: name two topics"
        )
    colours, depths = _image_topics(bag)
    if depth is not None:
        colours = [name for name in colours if base_topic(name) != base_topic(depth)]
    if image is None and not colours and depths:
        raise BagError(
            f"{bag.path}: no image topic, only depth ({', '.join(depths)}); {bag.contents()}"
        )
    image = _choose(bag, "image", colours, image)
    depths = [name for name in depths if base_topic(name) != base_topic(image)]
    if depth == NO_DEPTH:
        depth = None
    elif depth is not None or depths:
        depth = _choose(bag, "depth", depths, depth)
    if camera_info is None and not is_calibrated:
        infos = [topic.name for topic in bag.topics_of_type(CAMERA_INFO_TYPE)]
        camera_info = info_beside(bag, image) or _choose(bag, "camera_info", infos, None)
    if camera_info is not None:
        bag.topic(camera_info, [CAMERA_INFO_TYPE])
    return CameraTopics(image, camera_info, depth)


def info_beside(bag: Bag, topic: str) -> str | None:
    """The `camera_info` next to an image topic, with messages; None if there is none."""
    sibling = f"{base_topic(topic).rpartition('/')[0]}/camera_info"
    infos = (info.name for info in bag.topics_of_type(CAMERA_INFO_TYPE))
    return sibling if sibling in infos else None


def base_topic(topic: str) -> str:
    """The topic without its image_transport suffix."""
    base, _, last = topic.rpartition("/")
    return base if last in _TRANSPORTS else topic


def _image_topics(bag: Bag) -> tuple[list[str], list[str]]:
    """Topics of colour and of depth images: one per base topic, uncompressed if possible.

    Depth that cannot be read, such as JPEG or 64FC1, comes last. Images that cannot be colour, such
    as those of labels or video, count only if there are no others.
    """
    colours: dict[str, str] = {}
    others: dict[str, str] = {}
    depths: dict[str, str] = {}
    unreadable: dict[str, str] = {}
    for topic in bag.topics_of_type(*IMAGE_TYPES):
        try:
            first = next(bag.messages([topic.name])).content
        except BagError as error:
            bag.leave_out(topic.name, str(error).removeprefix(f"{bag.path}: "))
            continue
        if _is_depth(topic.name, first):
            kind = depths if _passes(check_depth_format, first) else unreadable
        elif is_depth_message(first):
            continue
        else:
            kind = colours if _passes(check_colour_format, first) else others
        kind.setdefault(base_topic(topic.name), topic.name)
    return list((colours or others).values()), list({**unreadable, **depths}.values())


def _is_depth(topic: str, message: Any) -> bool:
    """Whether an image is depth by its encoding and by what is named last in its topic or frame."""
    name = f"{message.header.frame_id} {topic}".lower()
    others = [match.start() for match in _OTHER_QUANTITIES.finditer(name)]
    named_depth, named_other = name.rfind("depth"), max(others, default=-1)
    if is_depth_message(message):
        return named_depth >= named_other
    if named_depth <= named_other:
        return False
    return is_16_bit_grey(message) or not _passes(check_colour_format, message)


def _passes(check: Callable[[Any], None], message: Any) -> bool:
    try:
        check(message)
    except MessageError:
        return False
    return True


def _choose(bag: Bag, what: str, candidates: list[str], given: str | None) -> str:
    if given is not None:
        return bag.topic(given, [CAMERA_INFO_TYPE] if what == "camera_info" else IMAGE_TYPES).name
    if len(candidates) == 1:
        return candidates[0]
    if not candidates and what == "camera_info":
        raise BagError(
            f"{bag.path}: no camera_info topic: give the calibration (--camera-info FILE) or the "
            f"field of view (--hfov DEG); {bag.contents()}"
        )
    if not candidates:
        raise BagError(f"{bag.path}: no {what} topic; {bag.contents()}")
    raise BagError(
        f"{bag.path}: several topics could be the {what}: {', '.join(candidates)}; name one "
        f"(--{what.replace('_', '-')}-topic)"
    )
