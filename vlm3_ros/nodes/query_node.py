# SPDX-License-Identifier: Apache-2.0
"""Answers on demand about a camera's images: the node."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from typing_extensions import override

from vlm3_ros.engines.base import EngineError
from vlm3_ros.engines.load import load_engine
from vlm3_ros.nodes.detected_objects import DetectedObjects
from vlm3_ros.nodes.query_images import QueryImages
from vlm3_ros.nodes.query_parameters import QueryParameters
from vlm3_ros.nodes.query_scale import QueryScale
from vlm3_ros.nodes.questions import Questions
from vlm3_ros.ros.model_handle import EngineLoader
from vlm3_ros.ros.node import CameraModelNode
from vlm3_ros.ros.running import run_nodes
from vlm3_ros.tasks.depth import DEPTH
from vlm3_ros.tasks.learned import check_not_swapped, why_unlearned
from vlm3_ros.tasks.objects import OBJECTS
from vlm3_ros.tasks.task import Model


class QueryNode(CameraModelNode):
    """Answers clicks and questions about the images of a camera, and locates detected objects.

    One model answers questions about pixels; the same or another one answers those about objects
    and in free text. Questions of a kind that no model learned are refused.

    Subscribers:
        image (sensor_msgs/Image): the camera, any colour encoding
        image/compressed (sensor_msgs/CompressedImage): instead, with image_transport: compressed
        camera_info (sensor_msgs/CameraInfo): its calibration
        clicked_pixel (geometry_msgs/PointStamped): x and y are a pixel of `image` as it is
            published. With a stamp of zero or without a frame: of the newest image; otherwise of
            the image with this stamp
        question (std_msgs/String): JSON, see `vlm3_ros.tasks.query_json`, or any other text, which
            the model gets as it is
        detections (vision_msgs/Detection2DArray): boxes in `image` as it is published, with the
            stamp of the image; if vision_msgs is installed
        /tf, /tf_static (tf2_msgs/TFMessage): the camera's pose in ground_frame, with scale_from:
            ground, unless ground_from_camera is set

    Publishers (reliable; stamp and frame of the image; metres in the optical frame):
        clicked_point (geometry_msgs/PointStamped): where the clicked pixel is
        answer (std_msgs/String): JSON, one per question and per click, also for refused ones;
            see `vlm3_ros.tasks.query_json`
        objects/markers (visualization_msgs/MarkerArray): a box and a text for each detected
            object, for RViz
        objects/detections (vision_msgs/Detection3DArray): the same with the classes, scores and
            ids of the detections; an object without an answer is on neither topic
        /diagnostics (diagnostic_msgs/DiagnosticArray): model, images, questions, objects and
            ground, once a second

    Parameters: `QueryParameters` and `CameraModelParameters`, each with its description; also in
    `ros2 param describe /query_node NAME`.
    """

    parameters: QueryParameters
    tasks = ("depth", "objects")

    def __init__(self, engine_loader: EngineLoader = load_engine, **node_arguments: Any) -> None:
        super().__init__("query_node", QueryParameters, engine_loader, **node_arguments)

        def parameters() -> QueryParameters:
            return self.parameters

        self.images = QueryImages(self, parameters)
        self.scale = QueryScale(self, parameters)
        self.objects = DetectedObjects(self, parameters, self.images, self.scale)
        self.questions = Questions(self, parameters, self.images, self.objects, self.scale)

    @override
    def check_models(self, models: Mapping[str, Model]) -> None:
        check_not_swapped((models["depth"], DEPTH), (models["objects"], OBJECTS))
        reasons = _refusals(models)
        chosen = [self.parameters.depth_model, self.parameters.object_model]
        for reason, is_chosen in zip(reasons, chosen, strict=True):
            if reason and (is_chosen or all(reasons)):
                raise EngineError(reason)

    @override
    def create_outputs(self) -> None:
        for reason in filter(None, _refusals(self.model.engines)):
            self.get_logger().info(f"{reason}; until then, such questions are refused")
        self.questions.create_outputs()
        self.objects.create_outputs()

    @override
    def create_inputs(self) -> None:
        self.images.subscribe()
        self.questions.subscribe()
        self.objects.subscribe()

    @override
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.questions.statistics.reset()
        self.objects.reset()
        self.scale.forget()
        return super().on_activate(state)

    @override
    def end_work(self) -> None:
        super().end_work()
        self.questions.refuse_all()  # while the publishers are active
        self.images.recent.clear()
        self.objects.forget()

    @override
    def release(self) -> None:
        self.objects.release()
        super().release()

    @override
    def statuses(self) -> list[DiagnosticStatus]:
        return [
            self.images.status(),
            self.questions.status(),
            *self.objects.statuses(),
            self.scale.status(),
        ]


def _refusals(models: Mapping[str, Model]) -> list[str]:
    """Why questions about pixels and about objects are refused; each is empty if they are not."""
    return [why_unlearned(models["depth"], DEPTH), why_unlearned(models["objects"], OBJECTS)]


def main(arguments: list[str] | None = None) -> int:
    """Run the node: `ros2 run vlm3_ros query_node`."""
    return run_nodes(lambda end: [QueryNode()], arguments)


if __name__ == "__main__":
    sys.exit(main())
