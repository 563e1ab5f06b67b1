# SPDX-License-Identifier: Apache-2.0
"""The query node over DDS: clicks and questions, answered or refused."""

from __future__ import annotations

import re
import threading

import numpy as np
import pytest
from asking import Asker
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.context import Context
from rclpy.parameter import Parameter
from std_msgs.msg import String

from vlm3_lab.scenes.views import sample_view
from vlm3_ros.engines.base import EngineError
from vlm3_ros.engines.load import load_engine
from vlm3_ros.engines.settings import given_settings, task_settings
from vlm3_ros.geometry.lens import LensCamera
from vlm3_ros.language.wordings.depth import DepthWording, depth_answer
from vlm3_ros.messages.cameras import camera_info_message
from vlm3_ros.nodes.query_node import QueryNode
from vlm3_ros.tasks.queries import ObjectQuery, PixelQuery, TextQuery, answer_query

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


@pytest.fixture
def make_asker(make_rig, bench):
    def make(engine=None, embedded=False, **options) -> Asker:
        return Asker(make_rig, bench, None if embedded else engine or bench.WallEngine(), **options)

    return make


def seconds(stamp: dict) -> float:
    return round(stamp["sec"] + stamp["nanosec"] / 1e9, 6)


def test_a_clicked_pixel_becomes_a_point(make_asker, bench):
    asker = make_asker()
    asker.wait_active()
    stamp = asker.show()
    answer = asker.click(200.0, 100.0)
    depth = bench.wall_depth(200.5 / 320 * 2000)
    expected = [(200 - 150) / 300 * depth, (100 - 130) / 300 * depth, depth]
    asker.rig.wait(lambda: asker.points, "the point")
    (point,) = asker.points
    np.testing.assert_allclose([point.point.x, point.point.y, point.point.z], expected, rtol=1e-6)
    assert point.header.frame_id == bench.FRAME
    assert bench.stamp_of(point) == stamp
    np.testing.assert_allclose(answer.pop("value"), expected, rtol=1e-6)
    assert seconds(answer.pop("stamp")) == stamp
    wording = bench.WallEngine().profile.prompts[DepthWording]
    assert depth_answer(wording, depth) == answer.pop("raw")
    assert answer == {
        "id": None,
        "question": "clicked_pixel (200, 100)",
        "status": "ok",
        "reason": "",
        "unit": "m",
        "uncertainty": 0.25,
        "frame": bench.FRAME,
    }


def test_a_click_on_an_image_of_the_past(make_asker, bench):
    engine = bench.WallEngine()
    asker = make_asker(engine, parameters={"recent_images": 2})
    asker.wait_active()
    messages = [bench.rgb_message(bench.now(), bench.picture(seed=seed)) for seed in range(3)]
    stamps = [asker.show(message) for message in messages]
    answer = asker.click(10.0, 20.0, stamps[1], "anywhere")
    assert seconds(answer["stamp"]) == stamps[1]
    np.testing.assert_array_equal(engine.images[-1], bench.picture(seed=1))
    assert seconds(asker.click(10.0, 20.0, stamps[1])["stamp"]) == stamps[2]  # without a frame
    gone, kept = (message.header.stamp for message in messages[:2])
    answer = asker.click(10.0, 20.0, stamps[0], "anywhere")
    assert answer["status"] == "refused"
    assert f"has the stamp {gone.sec}.{gone.nanosec:09d}" in answer["reason"]
    assert "recent_images (2)" in answer["reason"]
    for stamp, status in ((gone, "refused"), (kept, "ok")):
        named = {"sec": stamp.sec, "nanosec": stamp.nanosec}
        answer = asker.ask({"depth": [10, 20], "stamp": named})
        assert answer["status"] == status
        assert answer["stamp"] == (named if status == "ok" else None)


def test_a_click_on_a_raw_image_is_rectified(make_asker, bench):
    asker = make_asker()
    asker.wait_active()
    message = bench.rgb_message(bench.now())
    info = camera_info_message(message.header, bench.CAMERA)
    info.d = [-0.3, 0.1, 0.0, 0.0, 0.0]
    info.p[0] = info.p[5] = 240.0
    asker.show(message, info)
    K, P = np.reshape(info.k, (3, 3)), np.reshape(info.p, (3, 4))
    lens = LensCamera(320, 256, K, "plumb_bob", np.array(info.d), np.eye(3), P)
    raw = (250.0, 60.0)
    ray = lens.rectified.rays(lens.rectify_pixels(raw))
    value = asker.click(*raw)["value"]
    np.testing.assert_allclose(np.array(value) / value[2], ray, atol=1e-6)
    shift = np.abs(ray[:2] - bench.CAMERA.rays(raw)[:2])
    assert (shift > 0.005).any()  # otherwise the test would prove nothing
    # A longer focal length in P: the raw corner is not in the rectified image.
    info.p[0] = info.p[5] = 600.0
    asker.show(bench.rgb_message(bench.now()), info)
    assert "not in the rectified image" in asker.click(2.0, 2.0)["reason"]


@pytest.mark.parametrize(
    ("pixel", "text"),
    [
        ((320.0, 10.0), r"pixel (320, 10) lies outside of the image of 320x256 px"),
        ((10.0, -0.6), r"pixel (10, -0.6) lies outside"),
        ((float("nan"), 10.0), r"pixel (nan, 10) lies outside"),
        ((1e300, float("inf")), r"pixel (1e+300, inf) lies outside"),
    ],
)
def test_a_click_outside_the_image_is_refused(make_asker, bench, pixel, text):
    asker = make_asker()
    asker.wait_active()
    asker.show()
    answer = asker.click(*pixel)
    assert answer["status"] == "refused"
    assert answer["value"] is None
    assert text in answer["reason"]
    pattern = "lies outside of the image"
    asker.rig.wait(lambda: asker.rig.log_lines(pattern), "a line in the log")
    asker.rig.wait_for_status("questions", WARN, pattern)
    assert not asker.points
    assert asker.click(5.0, 5.0)["status"] == "ok"
    asker.rig.wait_for_status("questions", OK, "1 questions answered")
    assert asker.rig.value("questions refused", "questions") == "1"


def test_questions_before_the_first_image_and_camera_info(make_asker, bench):
    asker = make_asker()
    asker.wait_active()
    assert "no image has come yet" in asker.ask("What do you see?")["reason"]
    message = bench.rgb_message(bench.now())
    asker.rig.send_until(
        lambda: asker.rig.image.publish(message), lambda: len(asker.node.images.recent), "an image"
    )
    answer = asker.ask({"depth": [1, 2], "id": "first"})
    assert "no CameraInfo has come yet" in answer["reason"]
    assert (answer["id"], answer["frame"]) == ("first", bench.FRAME)
    asker.show()
    assert asker.ask({"depth": [1, 2]})["status"] == "ok"


def test_an_image_that_arrived_too_long_ago(make_asker, bench):
    asker = make_asker(parameters={"use_sim_time": True, "max_image_age": 5.0})
    asker.wait_active()
    asker.rig.set_clock(1000.0)
    asker.show()
    asker.rig.set_clock(1004.0)
    assert asker.ask({"depth": [1, 2]})["status"] == "ok"
    asker.rig.set_clock(1006.0)
    answer = asker.ask({"depth": [1, 2]})
    assert answer["status"] == "refused"
    assert "the image came 6.0 s ago, before max_image_age (5 s)" in answer["reason"]
    assert asker.rig.set_parameters(max_image_age=0.0).successful
    assert asker.ask({"depth": [1, 2]})["status"] == "ok"


def test_a_full_queue_refuses_the_oldest_question(make_asker, bench):
    engine = bench.WallEngine(gate=threading.Semaphore(0))
    asker = make_asker(engine, parameters={"question_queue": 2})
    asker.wait_active()
    asker.show()
    asker.send({"depth": [0, 0], "id": 0})
    engine.entered.acquire()
    for number in range(1, 6):
        asker.send({"depth": [0, 0], "id": number})
    asker.rig.wait(lambda: len(asker.answers) == 3, "three refusals")
    assert [answer["id"] for answer in asker.answers] == [1, 2, 3]
    assert all("question_queue is full (2 wait" in answer["reason"] for answer in asker.answers)
    engine.gate.release(10)
    asker.rig.wait(lambda: len(asker.answers) == 6, "the other answers")
    assert [answer["id"] for answer in asker.answers[3:]] == [0, 4, 5]
    assert {answer["status"] for answer in asker.answers[3:]} == {"ok"}


def test_each_of_many_questions_gets_one_answer(make_asker, bench):
    asker = make_asker()
    asker.wait_active()
    asker.show()
    for number in range(100):
        asker.send({"depth": [number, 0], "id": number})
    asker.rig.wait(lambda: len(asker.rig.received["answer"]) >= 100, "100 answers")
    answers = asker.answers
    assert sorted(answer["id"] for answer in answers) == list(range(100))
    assert {answer["status"] for answer in answers} <= {"ok", "refused"}
    report = asker.node.questions.statistics.report()
    assert report.received == 100 == report.answered + report.failed
    assert len(asker.rig.log_lines("question_queue is full")) <= 1


@pytest.mark.parametrize("end", ["deactivate", "shutdown"])
def test_waiting_questions_are_refused_at_the_end(make_asker, bench, end):
    engine = bench.WallEngine(gate=threading.Semaphore(0))
    asker = make_asker(engine)
    asker.wait_active()
    asker.show()
    for number in range(3):
        asker.send({"depth": [0, 0], "id": number})
    asker.rig.wait(lambda: asker.node.questions.unanswered == 3, "three questions")

    def let_go() -> None:
        asker.rig.wait(lambda: len(asker.answers) == 3, "three refusals")
        engine.gate.release(10)

    releasing = threading.Thread(target=let_go)
    releasing.start()
    assert asker.rig.change_state(end)  # a shutdown waits for the current question
    releasing.join()
    assert [answer["id"] for answer in asker.answers] == [0, 1, 2]
    assert all("was deactivated" in answer["reason"] for answer in asker.answers)
    assert not asker.node.questions.unanswered
    assert not len(asker.node.images.recent)


def test_ros_may_end_before_the_answers(bench):
    context = Context()
    context.init()
    engine = bench.WallEngine(gate=threading.Semaphore(0))
    node = QueryNode(
        lambda settings, progress: engine,
        context=context,
        parameter_overrides=[Parameter("autostart", value=False)],
    )
    node.trigger_configure()
    node.trigger_activate()
    message = bench.rgb_message(bench.now())
    node.images.receive(message)
    node.camera.calibrations.add(camera_info_message(message.header, bench.CAMERA))
    node.questions.receive(String(data='{"depth": [1, 2]}'))
    engine.entered.acquire()
    node.questions.receive(String(data="second"))
    workers = node._workers
    context.handle.shutdown()  # as rclpy's signal handlers do: while the nodes live
    engine.gate.release(10)
    node.destroy_node()
    context.try_shutdown()
    assert not any(worker.is_alive for worker in workers)
    assert engine.is_closed


BAD_QUESTIONS = [
    "",
    "{",
    "{}",
    '{"depth": [1, "2"]}',
    '{"depth": [NaN, 2]}',
    '{"depth": [400, 2]}',
    '{"depth": [-1e300, 2]}',
    '{"width": [30, 2, 3, 40]}',
    '{"width": [1000, 1000, 1100, 1100]}',
    '{"width": 10000000000000000000000}',
    '{"width": "nothing"}',
    '{"relation": "inside", "objects": [[0, 0, 9, 9], [9, 9, 19, 19]]}',
    '{"depth": [1, 2], "stamp": {"sec": -5, "nanosec": 1e3}}',
    '{"depth": [1, 2], "stamp": {"sec": -5, "nanosec": -7}}',
    '{"a":' * 900,
    "x" * 2_000_000,
    "\x00",
    '{"\ud83d": 1}'.encode("utf-16", "surrogatepass").decode("utf-16", "replace"),
]


def test_every_bad_question_gets_one_answer(make_asker, bench):
    asker = make_asker()
    asker.wait_active()
    asker.show()
    for number, question in enumerate(BAD_QUESTIONS):
        answer = asker.ask(question)
        assert answer["status"] in ("refused", "unread", "free text"), question[:100]
        assert bool(answer["reason"]) == (answer["status"] != "free text")
        assert answer["value"] is None
        assert len(asker.answers) == number + 1
    asker.rig.wait_for_status("questions", WARN, "")
    assert asker.ask({"depth": [1, 2]})["status"] == "ok"
    asker.rig.wait_for_status("questions", OK, "answered")


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (EngineError("the server is gone: start it"), "^the server is gone: start it"),
        (ZeroDivisionError("never thought of"), "^ZeroDivisionError: never thought of"),
    ],
)
def test_an_engine_that_fails(make_asker, bench, fault, text):
    engine = bench.WallEngine(fault=fault)
    asker = make_asker(engine)
    asker.wait_active()
    asker.show()
    answer = asker.click(5.0, 5.0)
    assert answer["status"] == "refused"
    assert re.search(text, answer["reason"])
    asker.rig.wait_for_status("questions", WARN, text)
    engine.fault = None
    assert asker.click(5.0, 5.0)["status"] == "ok"
    asker.rig.wait(lambda: asker.points, "the point")
    assert len(asker.points) == 1


def test_an_answer_that_cannot_be_read(make_asker, bench):
    asker = make_asker(bench.WallEngine(unread=1))
    asker.wait_active()
    asker.show()
    answer = asker.click(5.0, 5.0)
    assert (answer["status"], answer["raw"]) == ("unread", "somewhere over there")
    asker.rig.wait(lambda: asker.rig.log_lines("'somewhere over there'"), "a line in the log")
    assert not asker.points


def test_an_image_that_cannot_be_used(make_asker, bench):
    asker = make_asker()
    asker.wait_active()
    message = bench.rgb_message(bench.now())
    message.encoding = "rgb24"
    asker.show(message)
    answer = asker.ask("What is there?")
    assert "the encoding 'rgb24' is unknown" in answer["reason"]
    asker.show()
    assert asker.ask({"depth": [1, 2]})["status"] == "ok"


def test_only_recent_images_are_kept(make_asker, bench):
    asker = make_asker(parameters={"recent_images": 3})
    asker.wait_active()
    for _ in range(6):
        asker.show()
    assert len(asker.node.images.recent) == 3
    assert asker.rig.set_parameters(recent_images=1).successful
    asker.show()
    assert len(asker.node.images.recent) == 1
    value = asker.rig.value
    asker.rig.wait(lambda: int(value("images received", "images") or 0) >= 7, "their count")
    # On a busy machine an image may be sent twice before the node has it.
    assert int(value("images received", "images")) <= asker.images_sent
    asker.rig.wait(lambda: value("images kept", "images") == "1", "a status of one image")
    assert asker.rig.value("memory of them (MB)", "images") == "0.2"  # 320 x 256 x 3 B


def test_fallback_intrinsics_are_reported_only_while_used(make_asker, bench):
    asker = make_asker(parameters={"fallback_intrinsics": "hfov", "camera_info_timeout": 0.0})
    asker.wait_active()
    message = bench.rgb_message(bench.now())
    asker.rig.send_until(
        lambda: asker.rig.image.publish(message), lambda: len(asker.node.images.recent), "an image"
    )
    assert asker.ask({"depth": [1, 2]})["status"] == "ok"
    value = asker.rig.value
    asker.rig.wait(lambda: "hfov" in str(value("intrinsics", "images")), "a report of the fallback")
    assert asker.rig.set_parameters(fallback_intrinsics="none").successful
    assert "camera_info: no CameraInfo has come yet" in asker.ask({"depth": [1, 2]})["reason"]
    asker.rig.wait(lambda: "hfov" not in value("intrinsics", "images"), "the end of the report")


def test_a_released_node_holds_no_calibrator(make_asker):
    asker = make_asker()
    asker.wait_active()
    asker.node.camera.fallback._calibrator = lambda image: None
    assert asker.rig.change_state("deactivate") and asker.rig.change_state("cleanup")
    assert asker.node.camera.fallback._calibrator is None


def test_without_a_camera(make_asker, bench):
    asker = make_asker(parameters={"image_timeout": 0.3})
    asker.wait_active()
    asker.rig.wait_for_status("images", WARN, "no image on .* for 0.3 s")


def test_answers_are_the_answers_of_the_model(make_asker, bench):
    view = sample_view(np.random.default_rng(5), "room")
    settings = {"device": "cpu", "dtype": "float32", "offline": True}
    asker = make_asker(embedded=True, parameters=settings)
    asker.wait_active()
    message = bench.rgb_message(bench.now(), view.image)
    asker.show(message, camera_info_message(message.header, view.camera))
    pixel, box = (60.0, 80.0), (20.0, 30.0, 90.0, 110.0)
    clicked = asker.click(*pixel)
    width = asker.ask({"width": list(box)})
    text = asker.ask("How far is the point at (1000, 1000)?")

    engine = load_engine(task_settings(given_settings(settings), "depth"))
    for answer, query in (
        (clicked, PixelQuery("point", pixel)),
        (width, ObjectQuery("width", box)),
        (text, TextQuery("How far is the point at (1000, 1000)?")),
    ):
        expected = answer_query(engine, view.image, view.camera, query)
        value = list(expected.value) if isinstance(expected.value, tuple) else expected.value
        assert (answer["value"], answer["raw"]) == (value, expected.raw)
        assert (answer["status"], answer["uncertainty"]) == (expected.status, expected.uncertainty)
    engine.close()
    assert clicked["status"] == width["status"] == "ok"
    assert clicked["uncertainty"] > 0
    assert text["status"] == "free text"


def test_diagnostics_in_every_state(make_asker, bench):
    loading, may_load = threading.Event(), threading.Event()

    def loader(settings, progress):
        loading.set()
        may_load.wait(bench.PATIENCE)
        return bench.WallEngine()

    asker = make_asker(embedded=True, loader=loader)
    asker.rig.wait(loading.is_set, "begin of loading")
    asker.rig.wait_for_status("model", WARN, "loading")
    asker.rig.wait_for_status("questions", OK, "not active")
    may_load.set()
    asker.wait_active()
    asker.show()
    assert asker.ask({"depth": [1, 2]})["status"] == "ok"
    asker.rig.wait_for_status("questions", OK, "1 questions answered")
    for transition in ("deactivate", "cleanup"):
        assert asker.rig.change_state(transition)
        seen = len(asker.rig.statuses)
        asker.rig.wait(lambda n=seen: len(asker.rig.statuses) > n + 20, "diagnostics")
        asker.rig.wait_for_status("questions", OK, "not active")
    assert asker.rig.change_state("configure") and asker.rig.change_state("activate")
    asker.wait_active()
    asker.show()
    assert asker.ask({"depth": [1, 2]})["status"] == "ok"
    assert not asker.rig.log_lines("Traceback")
