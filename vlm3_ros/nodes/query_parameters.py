# SPDX-License-Identifier: Apache-2.0
"""Parameters of the query node."""

from __future__ import annotations

from dataclasses import dataclass

from vlm3_ros.nodes.ground_parameters import GroundParameters
from vlm3_ros.parameters import parameter
from vlm3_ros.ros.node_parameters import CameraModelParameters
from vlm3_ros.tasks.located import QUESTIONS

QUESTION_DEPTH = 1000
"""Queue depth in DDS: no message is lost before question_queue, which reports what it refuses."""


@dataclass(frozen=True)
class QueryParameters(GroundParameters, CameraModelParameters):
    """Parameters of the query node."""

    recent_images: int = parameter(
        30,
        "Images that are kept for clicks, questions and detections with the stamp of an image; 30 "
        "raw images of 640x480 take 28 MB.",
        minimum=1,
        maximum=1000,
    )
    max_image_age: float = parameter(
        5.0,
        "Refuse questions about an image that arrived longer ago than this, in seconds, because "
        "the camera has stopped. 0 for any age.",
        minimum=0.0,
        maximum=1e6,
    )
    question_queue: int = parameter(
        10,
        "Questions and clicks that may wait for the model; beyond that the oldest is refused.",
        minimum=1,
        maximum=QUESTION_DEPTH,
        changes="unconfigured",
    )
    lazy: bool = parameter(
        True,
        "Locate detected objects only while somebody subscribes to objects/markers or "
        "objects/detections. Clicks and questions are always answered.",
    )
    max_objects: int = parameter(
        10,
        f"Detected objects that are located per image, best scores first: {QUESTIONS} questions "
        "each.",
        minimum=1,
        maximum=1000,
    )
    marker_lifetime: float = parameter(
        5.0,
        "Seconds after which markers disappear if no others come; 0 for never.",
        minimum=0.0,
        maximum=1e6,
    )
