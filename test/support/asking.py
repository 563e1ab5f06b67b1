# SPDX-License-Identifier: Apache-2.0
"""A user of a query node who clicks and asks; see `Rig` in test/nodes/conftest.py."""

from __future__ import annotations

import json

from geometry_msgs.msg import PointStamped
from sensor_msgs.msg import Image
from std_msgs.msg import String

from vlm3_ros.messages.cameras import camera_info_message
from vlm3_ros.nodes.query_node import QueryNode

OUTPUTS = {"clicked_point": PointStamped, "answer": String}


class Asker:
    """A rig around a query node, and a user who clicks and asks."""

    def __init__(
        self, make_rig, bench, engine=None, outputs=None, parameters=None, **options
    ) -> None:
        self.bench = bench
        # On a busy machine, much time may pass between an image and the question about it.
        options["parameters"] = {"max_image_age": 600.0, **(parameters or {})}
        self.rig = make_rig(
            engine, make_node=QueryNode, outputs={**OUTPUTS, **(outputs or {})}, **options
        )
        peer = self.rig.peer
        self.clicked_pixel = peer.create_publisher(PointStamped, "clicked_pixel", 1000)
        self.question = peer.create_publisher(String, "question", 1000)
        self.images_sent = 0

    @property
    def node(self) -> QueryNode:
        return self.rig.node

    def wait_active(self) -> None:
        for publisher in (
            self.rig.image,
            self.rig.camera_info,
            self.clicked_pixel,
            self.question,
        ):
            self.rig.wait(publisher.get_subscription_count, "subscriptions of the node")
        listened = [topic for topic in self.rig.outputs if self.rig.peer.count_subscribers(topic)]
        for topic in listened:
            self.rig.wait(lambda t=topic: self.rig.peer.count_publishers(t), f"a writer of {topic}")
        self.rig.wait(
            lambda: sum(o.get_subscription_count() for o in self.node._outputs) >= len(listened),
            "discovery of the listeners",
        )

    def show(self, message: Image | None = None, info=None) -> float:
        """Send an image and wait until the node has it; return its stamp."""
        message = message or self.bench.rgb_message(self.bench.now())
        self.rig.send_info(info or camera_info_message(message.header, self.bench.CAMERA))

        def send() -> None:
            self.images_sent += 1
            self.rig.image.publish(message)

        self.rig.send_until(
            send,
            lambda: (i := self.node.images.recent.newest) and i.message.header == message.header,
            "arrival of the image",
        )
        return self.bench.stamp_of(message)

    def click(self, u: float, v: float, stamp: float = 0.0, frame: str = "") -> dict:
        """Click on a pixel; return the answer."""
        message = PointStamped(header=self.bench.header(stamp, frame))
        message.point.x, message.point.y = u, v
        before = len(self.answers)
        self.clicked_pixel.publish(message)
        return self.next(before)

    def ask(self, question: object) -> dict:
        """Ask a question; return the answer."""
        before = len(self.answers)
        self.send(question)
        return self.next(before)

    def send(self, question: object) -> None:
        text = question if isinstance(question, str) else json.dumps(question)
        self.question.publish(String(data=text))

    def next(self, before: int) -> dict:
        self.rig.wait(lambda: len(self.answers) > before, "an answer")
        assert len(self.answers) == before + 1
        return self.answers[-1]

    @property
    def answers(self) -> list[dict]:
        return [strict_json(message.data) for message in self.rig.received["answer"]]

    @property
    def points(self) -> list[PointStamped]:
        return self.rig.received["clicked_point"]


def strict_json(text: str) -> dict:
    """Parse JSON strictly: NaN is an error."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} in {text}")

    return json.loads(text, parse_constant=refuse)
