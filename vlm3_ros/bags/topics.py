# SPDX-License-Identifier: Apache-2.0
"""Finds the topics of a bag that hold colour, depth and calibration."""

from __future__ import annotations

from dataclasses import dataclass

from vlm3_ros.bags.reading import CAMERA_INFO_TYPE, IMAGE_TYPES, Bag
from vlm3_ros.errors import BagError
from vlm3_ros.messages.depth_images import is_depth_message

_TRANSPORTS = ("compressed", "compressedDepth")


@dataclass(frozen=True)
class CameraTopics:
    """Topic names of a camera; `depth`, registered to the image, is None if the bag has none."""

    image: str
    camera_info: str
    depth: str | None


def find_camera_topics(
    bag: Bag, image: str | None = None, camera_info: str | None = None, depth: str | None = None
) -> CameraTopics:
    """Check the given topics and find the others by type and content.

    The encoding of a topic's first message separates depth from colour. The calibration is the
    `camera_info` next to the image, as image_transport names it, else the only CameraInfo topic.

    Raises:
        BagError: if a topic is missing or several are possible; lists the topics.
    """
    colours, depths = _image_topics(bag)
    image = _choose(bag, "image", colours, image)
    if depth is not None or depths:
        depth = _choose(bag, "depth", depths, depth)
    if camera_info is None:
        sibling = f"{base_topic(image).rpartition('/')[0]}/camera_info"
        infos = [topic.name for topic in bag.topics_of_type(CAMERA_INFO_TYPE)]
        camera_info = sibling if sibling in infos else _choose(bag, "camera_info", infos, None)
    bag.topic(camera_info, [CAMERA_INFO_TYPE])
    return CameraTopics(image, camera_info, depth)


def base_topic(topic: str) -> str:
    """The topic without its image_transport suffix."""
    base, _, last = topic.rpartition("/")
    return base if last in _TRANSPORTS else topic


def _image_topics(bag: Bag) -> tuple[list[str], list[str]]:
    """Topics of colour and of depth images: one per base topic, uncompressed if possible."""
    colours: dict[str, str] = {}
    depths: dict[str, str] = {}
    for topic in bag.topics_of_type(*IMAGE_TYPES):
        first = next(bag.messages([topic.name])).content
        kind = depths if is_depth_message(first) else colours
        kind.setdefault(base_topic(topic.name), topic.name)
    return list(colours.values()), list(depths.values())


def _choose(bag: Bag, what: str, candidates: list[str], given: str | None) -> str:
    if given is not None:
        return bag.topic(given, [CAMERA_INFO_TYPE] if what == "camera_info" else IMAGE_TYPES).name
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        raise BagError(f"{bag.path}: no {what} topic; {bag.contents()}")
    raise BagError(
        f"{bag.path}: several topics could be the {what}: {', '.join(candidates)}; name one "
        f"(--{what.replace('_', '-')}-topic)"
    )
