# SPDX-License-Identifier: Apache-2.0
"""Detected objects over DDS: where they are, and questions about them."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from asking import Asker
from truth import TruthEngine

pytest.importorskip("vision_msgs")

from diagnostic_msgs.msg import DiagnosticStatus
from vision_msgs import msg as vision_msgs
from visualization_msgs.msg import Marker, MarkerArray

from vlm3_lab.scenes import sample_view
from vlm3_lab.scenes.seen_objects import quantity_of, relation_holds, seen_objects
from vlm3_ros.messages.cameras import camera_info_message
from vlm3_ros.tasks.located import QUESTIONS

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR

OUTPUTS = {
    "objects/markers": MarkerArray,
    "objects/detections": vision_msgs.Detection3DArray,
}


@pytest.fixture(scope="module")
def view():
    views = (sample_view(np.random.default_rng(seed), "yard") for seed in range(50))
    return next(view for view in views if len(seen_objects(view)) == 3)


class Detector(Asker):
    """A user and an object detector."""

    def __init__(self, make_rig, bench, engine, view, **options) -> None:
        super().__init__(make_rig, bench, engine, outputs=OUTPUTS, **options)
        self.view = view
        self.detections = self.rig.peer.create_publisher(
            vision_msgs.Detection2DArray, "detections", 5
        )

    def wait_active(self) -> None:
        super().wait_active()
        self.rig.wait(self.detections.get_subscription_count, "subscription to the detections")

    def show_view(self):
        """Send the view as an image; return its header."""
        message = self.bench.rgb_message(self.bench.now(), self.view.image)
        self.show(message, camera_info_message(message.header, self.view.camera))
        return message.header

    def detect(self, header, boxes) -> None:
        """Send boxes as detections."""
        detected = [
            detection(box, f"thing_{index}", (f"kind {index}", 0.9 - index / 10))
            for index, box in enumerate(boxes)
        ]
        self.send_detections(header, detected)

    def send_detections(self, header, detected) -> None:
        before = self.node.objects.statistics.report().received
        message = vision_msgs.Detection2DArray(header=header, detections=detected)
        self.rig.send_until(
            lambda: self.detections.publish(message),
            lambda: self.node.objects.statistics.report().received > before,
            "arrival of the detections",
        )


def detection(box, name: str = "", *classes: tuple[str, float]):
    left, top, right, bottom = map(float, box)
    found = vision_msgs.Detection2D(id=name)
    found.bbox.center.position.x = (left + right + 1) / 2
    found.bbox.center.position.y = (top + bottom + 1) / 2
    found.bbox.size_x, found.bbox.size_y = right - left + 1, bottom - top + 1
    for class_id, score in classes:
        hypothesis = vision_msgs.ObjectHypothesisWithPose()
        hypothesis.hypothesis.class_id, hypothesis.hypothesis.score = class_id, score
        found.results.append(hypothesis)
    return found


@pytest.fixture
def make_detector(make_rig, bench, view):
    return lambda engine=None, **options: Detector(
        make_rig, bench, engine or TruthEngine([view]), view, **options
    )


def test_detected_objects_are_located(make_detector, bench, view):
    detector = make_detector(parameters={"marker_lifetime": 2.5})
    detector.wait_active()
    header = detector.show_view()
    things = seen_objects(view)
    detector.detect(header, [thing.box for thing in things])
    received = detector.rig.received
    for topic in OUTPUTS:
        detector.rig.wait(lambda t=topic: received[t], topic)
    (located,), (markers,) = received["objects/detections"], received["objects/markers"]
    assert located.header == header
    assert len(located.detections) == len(things) == 3
    for index, (thing, found) in enumerate(zip(things, located.detections, strict=True)):
        left, top, right, bottom = thing.box
        depths = [
            view.depth[round(top + b * (bottom - top)), round(left + a * (right - left))]
            for a in (0.25, 0.5, 0.75)
            for b in (0.25, 0.5, 0.75)
        ]
        answered = sorted(depth for depth in depths if np.isfinite(depth))  # without the sky
        width, height = quantity_of("width", thing), quantity_of("height", thing)
        z = answered[(len(answered) - 1) // 4] + min(width, height) / 2
        camera = view.camera
        centre = [
            ((left + right) / 2 - camera.cx) / camera.fx * z,
            ((top + bottom) / 2 - camera.cy) / camera.fy * z,
            z,
        ]
        place, size = found.bbox.center.position, found.bbox.size
        np.testing.assert_allclose([place.x, place.y, place.z], centre, rtol=1e-4)
        expected = [width, height, min(width, height)]
        np.testing.assert_allclose([size.x, size.y, size.z], expected, rtol=1e-4)
        (result,) = found.results
        assert result.hypothesis.class_id == f"kind {index}"
        assert result.hypothesis.score == 0.9 - index / 10
        assert result.pose.pose == found.bbox.center
        assert found.id == f"thing_{index}"
        assert found.header == header
    first, *others = markers.markers
    assert first.action == Marker.DELETEALL
    assert [marker.type for marker in others] == [Marker.CUBE, Marker.TEXT_VIEW_FACING] * 3
    assert all(marker.header == header for marker in markers.markers)
    assert all(m.lifetime.sec == 2 and m.lifetime.nanosec == 500_000_000 for m in others)
    cube, text = others[:2]
    assert cube.pose.position == located.detections[0].bbox.center.position
    assert cube.scale == located.detections[0].bbox.size
    assert text.text.startswith("kind 0 ")
    detector.rig.wait_for_status("objects", OK, "Hz")


def test_questions_about_detections(make_detector, view):
    detector = make_detector(listen=["answer"])
    detector.wait_active()
    behind = {"relation": "behind", "objects": ["thing_0", 1]}
    header = detector.show_view()
    assert "no detections of a known image have come" in detector.ask(behind)["reason"]
    things = seen_objects(view)
    detector.detect(header, [thing.box for thing in things])
    detector.show()  # a newer image, without detections
    for a in range(3):
        for b in range(3):
            truth = relation_holds("behind", things[a], things[b]) if a != b else None
            if truth is not None:
                question = {"relation": "behind", "objects": [a, f"thing_{b}"]}
                answer = detector.ask(question)
                assert (answer["value"], answer["unit"]) == (truth, "")
                assert answer["stamp"]["nanosec"] == header.stamp.nanosec
    width = detector.ask({"width": "thing_2"})
    assert width["value"] == pytest.approx(things[2].width, rel=1e-5)
    assert "none of the 3 newest detections is 3" in detector.ask({"width": 3})["reason"]
    assert 'is "thing_7"' in detector.ask({"width": "thing_7"})["reason"]
    other = {"width": 0, "stamp": {"sec": 1, "nanosec": 2}}
    assert "newest detections are of the image" in detector.ask(other)["reason"]
    # Nobody subscribes to the objects, so they were not located.
    assert detector.node.objects.statistics.report().answered == 0
    detector.rig.wait_for_status("objects", OK, "idle")


def test_a_question_about_detections_of_an_old_image(make_detector, bench, view):
    detector = make_detector(parameters={"use_sim_time": True, "max_frame_age": 5.0})
    detector.wait_active()
    detector.rig.set_clock(1000.0)
    message = bench.rgb_message(1000.0, view.image)
    detector.show(message, camera_info_message(message.header, view.camera))
    detector.detect(message.header, [thing.box for thing in seen_objects(view)])
    assert detector.ask({"width": 0})["status"] == "ok"
    detector.rig.set_clock(1007.0)
    answer = detector.ask({"width": 0})
    assert answer["status"] == "refused"
    assert "7.0 s old, older than max_frame_age (5 s)" in answer["reason"]


def test_detections_without_a_usable_box_are_skipped(make_detector, bench, view):
    detector = make_detector(parameters={"max_objects": 2})
    detector.wait_active()
    header = detector.show_view()
    boxes = [thing.box for thing in seen_objects(view)]
    nan, inf = float("nan"), float("inf")
    bad = [
        (nan, 1, 5, 5),
        (0, 0, inf, 5),
        (5, 5, 1, 1),  # negative size
        (900, 900, 950, 950),  # outside of the image
        (4, 4, 3, 3),  # zero size
    ]
    detected = [detection(box, "bad", ("bad", 1.0)) for box in bad]
    detected += [
        detection(boxes[0], "unsure"),
        detection(boxes[1], "odd score", ("odd", nan), ("sure", 0.5)),
        detection(boxes[2], "two", ("cat", 0.3), ("dog", 0.6)),
    ]
    detector.send_detections(header, detected)
    received = detector.rig.received["objects/detections"]
    detector.rig.wait(lambda: received, "the objects")
    assert [found.id for found in received[-1].detections] == ["two", "odd score"]
    names = [m.text.rsplit(" ", 2)[0] for m in detector.rig.received["objects/markers"][-1].markers]
    assert set(names) == {"", "dog", "sure"}
    pattern = r"of 8 detections are left out: .*5 without a box in the image"
    detector.rig.wait(lambda: detector.rig.log_lines(pattern), "a line in the log")
    assert detector.rig.log_lines(r"1 beyond max_objects \(2\)")
    detector.send_detections(header, [])
    detector.rig.wait(lambda: len(received) == 2, "no objects")
    assert not received[-1].detections
    assert len(detector.rig.received["objects/markers"][-1].markers) == 1


def test_objects_without_an_answer_are_omitted(make_detector, bench, view):
    class Mute(TruthEngine):
        def _depth_answer(self, *_) -> str:
            return "I cannot tell."

    detector = make_detector(Mute([view]))
    detector.wait_active()
    detector.detect(detector.show_view(), [thing.box for thing in seen_objects(view)])
    detector.rig.wait(lambda: detector.rig.log_lines("3 unanswered"), "a line in the log")
    detector.rig.wait(lambda: detector.rig.received["objects/detections"], "an empty message")
    assert not detector.rig.received["objects/detections"][-1].detections
    detector.rig.wait(
        lambda: detector.rig.value("detections unanswered", "objects") == "3", "their count"
    )


def test_detections_of_an_unknown_image(make_detector, bench, view):
    detector = make_detector()
    detector.wait_active()
    detector.show_view()
    detector.detect(bench.header(12.5), [(10, 10, 30, 30)])
    detector.rig.wait_for_status("objects", WARN, "has the stamp 12.500000000")
    assert detector.ask({"width": 0})["status"] == "refused"
    detector.detect(bench.header(0.0), [thing.box for thing in seen_objects(view)])  # the newest
    detector.rig.wait(lambda: detector.rig.received["objects/detections"], "the objects")


def test_ten_thousand_detections_do_not_stop_the_node(make_detector, view):
    detector = make_detector(parameters={"max_objects": 3})
    detector.wait_active()
    header = detector.show_view()
    boxes = [thing.box for thing in seen_objects(view)]
    rng = np.random.default_rng(0)
    crowd = [
        detection(rng.uniform(-500, 900, 4), "crowd", ("crowd", float(rng.uniform(-1, 0.3))))
        for _ in range(9_997)
    ]
    crowd[5000:5000] = [detection(box, "thing", ("thing", 0.5)) for box in boxes]
    detector.send_detections(header, crowd)
    received = detector.rig.received["objects/detections"]
    detector.rig.wait(lambda: received, "the objects")
    assert [found.id for found in received[-1].detections] == ["thing"] * 3
    assert detector.ask({"width": 5000})["status"] == "ok"


def test_the_newest_detections_win(make_detector, bench, view):
    engine = TruthEngine([view])
    gate, entered, ask = threading.Semaphore(0), threading.Semaphore(0), engine.ask

    def gated(*arguments):
        entered.release()
        gate.acquire()
        return ask(*arguments)

    engine.ask = gated
    detector = make_detector(engine)
    detector.wait_active()
    header = detector.show_view()
    boxes = [thing.box for thing in seen_objects(view)]
    detector.detect(header, boxes[:1])
    entered.acquire()
    detector.detect(header, boxes[:2])
    detector.detect(header, boxes)
    gate.release(1000)
    received = detector.rig.received["objects/detections"]
    detector.rig.wait(lambda: len(received) == 2, "two messages")
    assert [len(message.detections) for message in received] == [1, 3]
    assert detector.node.objects.statistics.report().dropped == 1


def test_parameters_change_while_detections_come(make_detector, view):
    detector = make_detector(listen=["answer"], parameters={"max_objects": 1})
    detector.wait_active()
    header = detector.show_view()
    boxes = [thing.box for thing in seen_objects(view)]
    located = detector.node.objects.statistics
    detector.detect(header, boxes)
    detector.rig.wait(lambda: located.report().skipped == 1, "detections that nobody waits for")
    assert detector.rig.set_parameters(lazy=False).successful
    detector.detect(header, boxes)
    detector.rig.wait(lambda: located.report().questions == QUESTIONS, "questions about one object")
    assert detector.rig.set_parameters(max_objects=2, marker_lifetime=0.0).successful
    detector.rig.listen("objects/markers")
    detector.rig.wait(
        detector.node.objects.markers.get_subscription_count, "discovery of the listener"
    )
    detector.detect(header, boxes)
    markers = detector.rig.received["objects/markers"]
    detector.rig.wait(lambda: markers, "the markers")
    assert len(markers[-1].markers) == 1 + 2 * 2
    assert all(m.lifetime.sec == m.lifetime.nanosec == 0 for m in markers[-1].markers)
    for values in ({"max_objects": 0}, {"marker_lifetime": -1.0}, {"recent_images": 10**6}):
        assert not detector.rig.set_parameters(**values).successful
