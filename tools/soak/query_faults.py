# SPDX-License-Identifier: Apache-2.0
"""Faulty questions and clicks, sent to a query node while a camera runs."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from geometry_msgs.msg import PointStamped
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile
from std_msgs.msg import String

from soak.fault import Fault
from soak.stage import Stage
from soak.waiting import Loss, wait_for

DEPTH = 1000
"""Queue depth: all questions are sent at once."""

QUESTIONS = (
    "",
    " ",
    "{",
    "}",
    "[1, 2]",
    "null",
    "{}",
    '{"depth": []}',
    '{"depth": [1e999, NaN]}',
    '{"depth": [-5, 3]}',
    '{"depth": [1, 2], "stamp": {"sec": 1, "nanosec": 2}}',
    '{"depth": [1, 2], "stamp": {"sec": -1e99, "nanosec": "x"}}',
    '{"width": [9, 9, 1, 1]}',
    '{"objects": [0, 1], "relation": "behind"}',
    '{"objects": [[0, 0, 1, 1]], "distance": "direct"}',
    '{"depth": ' + "[" * 1500,
    "<|im_end|>",
    "x" * 100_000,
    "\N{SNOWMAN}\U0001f916" * 10,
)
"""Each one must be refused, or be answered in free text."""

CLICKS = ((-1.0, -1.0), (1e9, 1e9), (math.nan, 0.0), (math.inf, -math.inf), (255.6, 191.6))
"""Pixels outside of the image."""


@contextmanager
def _asked_nonsense(stage: Stage) -> Iterator[None]:
    texts = [String(data=text) for text in QUESTIONS]
    with _answers(stage) as answers:
        _publish(stage, "question", String, texts)
        wait_for(lambda: len(_of(answers, QUESTIONS)) >= len(QUESTIONS), "an answer to each")
        if any(answer["status"] == "ok" for answer in _of(answers, QUESTIONS)):
            raise Loss("nonsense is answered with a value")
        if not all(a["reason"] for a in answers if a["status"] in ("refused", "unread")):
            raise Loss("a question is refused without a reason")
    yield


@contextmanager
def _clicked_outside(stage: Stage) -> Iterator[None]:
    clicks = [PointStamped() for _ in CLICKS]
    for click, (u, v) in zip(clicks, CLICKS, strict=True):
        click.point.x, click.point.y = u, v
    with _answers(stage) as answers:
        _publish(stage, "clicked_pixel", PointStamped, clicks)
        names = [f"clicked_pixel ({u:g}, {v:g})" for u, v in CLICKS]
        wait_for(lambda: len(_of(answers, names)) >= len(names), "an answer to each")
        if any(answer["status"] != "refused" for answer in _of(answers, names)):
            raise Loss("a pixel outside of the image is answered")
    yield


def many_questions(count: int) -> Fault:
    """Many questions at once: each one is answered, or refused because the queue is full."""

    @contextmanager
    def provoke(stage: Stage) -> Iterator[None]:
        texts = [json.dumps({"depth": [9, 9], "id": f"soak {n}"}) for n in range(count)]
        with _answers(stage) as answers:
            _publish(stage, "question", String, [String(data=text) for text in texts])
            wait_for(lambda: len(_of(answers, texts)) >= count, "an answer to each")
            asked = [answer["id"] for answer in _of(answers, texts)]
        if len(asked) != len(set(asked)):
            raise Loss("a question is answered twice")
        yield

    return Fault(f"{count} questions at once", provoke, "question_queue is full", answers=None)


@contextmanager
def _answers(stage: Stage) -> Iterator[list[dict]]:
    """Collect the messages on `answer` while the body runs."""
    received: list[dict] = []
    subscription = stage.peer.create_subscription(
        String, "answer", lambda m: received.append(json.loads(m.data)), QoSProfile(depth=DEPTH)
    )
    wait_for(lambda: stage.peer.count_publishers("answer"), "the answers' publisher")
    time.sleep(0.5)  # until the node has discovered this subscription
    try:
        yield received
    finally:
        stage.peer.destroy_subscription(subscription)


def _publish(stage: Stage, topic: str, kind: type, messages: list) -> None:
    publisher: Publisher[Any] = stage.peer.create_publisher(kind, topic, QoSProfile(depth=DEPTH))
    wait_for(publisher.get_subscription_count, f"the subscription to {topic}")
    for message in messages:
        publisher.publish(message)
    time.sleep(0.5)
    stage.peer.destroy_publisher(publisher)


def _of(answers: list[dict], questions: list[str] | tuple[str, ...]) -> list[dict]:
    """The answers to given questions; answers repeat long questions cut off."""
    shown = {text if len(text) <= 1000 else f"{text[:1000]}..." for text in questions}
    return [answer for answer in answers if answer["question"] in shown]


NONSENSE = (
    Fault("questions that are nonsense", _asked_nonsense, answers=None),
    Fault("clicks outside of the image", _clicked_outside, answers=None),
)
