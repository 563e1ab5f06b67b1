# SPDX-License-Identifier: Apache-2.0
"""The pose node over DDS, on drives about which the engine answers the truth."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Odometry, Path
from rclpy.qos import DurabilityPolicy, QoSProfile
from scipy.spatial.transform import Rotation
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage
from truth import TruthEngine, exact_prompts, for_all_tasks

from vlm3_lab.scenes.sequences import Sequence, sample_sequence
from vlm3_ros.datasets.views import View
from vlm3_ros.engines.recorded import RecordedEngine, RecordingEngine
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.geometry.motion import compose, inverse, transform
from vlm3_ros.messages.cameras import camera_info_message
from vlm3_ros.messages.classes import stamp_nanoseconds
from vlm3_ros.messages.motions import tf_message
from vlm3_ros.nodes.pose_node import PoseNode
from vlm3_ros.nodes.pose_parameters import PoseParameters
from vlm3_ros.parameters import ParameterError
from vlm3_ros.ros.camera_input import FrameError
from vlm3_ros.tasks.odometry import OdometrySettings, VisualOdometry

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
OUTPUTS = {"pose": PoseStamped, "odom": Odometry, "path": Path, "/tf": TFMessage}
CAMERA = PinholeCamera(240, 180, 170.0, 175.0, 119.5, 89.5)
PERIOD = 0.1


@pytest.fixture(scope="module")
def drive() -> Sequence:
    rng = np.random.default_rng(4)
    return sample_sequence(rng, CAMERA, kind="room", duration=1.2, rate=1 / PERIOD)


@pytest.fixture(scope="module")
def views(drive: Sequence) -> list[View]:
    return list(drive.views(np.random.default_rng(5)))


def mount_text(T_base_camera: np.ndarray) -> str:
    quaternion = Rotation.from_matrix(T_base_camera[:3, :3]).as_quat()
    return " ".join(repr(float(v)) for v in (*T_base_camera[:3, 3], *quaternion))


class Camera:
    """Sends views to a rig, one after another."""

    def __init__(self, rig, bench, drive: Sequence) -> None:
        self.rig, self.bench, self.drive = rig, bench, drive
        self.start = bench.now()

    def stamp(self, index: float) -> float:
        return round(self.start + index * PERIOD, 6)

    def send(self, view: View, index: float, frame_id: str | None = None) -> float:
        """Send a view with the stamp of an index, wait until it is processed, return the stamp."""
        rig = self.rig
        stamp = self.stamp(index)
        message = self.bench.rgb_message(stamp, view.image, frame_id or self.bench.FRAME)
        before = worked_on(rig)
        rig.send(message, camera_info_message(message.header, view.camera))
        rig.wait(lambda: worked_on(rig) > before, "work on the frame")
        return stamp

    def send_all(self, views: list[View], first: int = 0) -> None:
        for index, view in enumerate(views):
            self.send(view, first + index)


def worked_on(rig) -> int:
    report = rig.report()
    return report.answered + report.failed


def step_counts(rig) -> dict[str, int]:
    return {name: count for name, count in rig.node._steps.items() if count}


def reference_of_last_step(rig) -> float:
    return round(rig.node._last_step.reference_stamp_ns / 1e9, 6)


@pytest.fixture
def make_camera(make_rig, bench, drive, views) -> Callable[..., Camera]:
    def make(engine=None, parameters=None, **options) -> Camera:
        mount = {"base_from_camera": mount_text(drive.T_base_camera)}
        rig = make_rig(
            engine or TruthEngine(views),
            make_node=PoseNode,
            outputs=OUTPUTS,
            parameters={**mount, **(parameters or {})},
            **options,
        )
        rig.wait_active()
        return Camera(rig, bench, drive)

    return make


def pose_of(pose) -> np.ndarray:
    p, q = pose.position, pose.orientation
    return transform(Rotation.from_quat([q.x, q.y, q.z, q.w]), [p.x, p.y, p.z])


def true_pose(drive: Sequence, index: int, origin: int = 0) -> np.ndarray:
    path = drive.path.T_world_base
    return compose(inverse(path[origin]), path[index])


def tf_of(rig) -> list:
    """The transforms of this rig's node: all nodes publish to /tf."""
    return [t for message in rig.received["/tf"] for t in message.transforms]


def test_a_drive_is_published_on_every_output(make_camera, bench, drive, views):
    names = {"odom_frame": "my_odom", "base_frame": "my_base"}
    camera = make_camera(parameters={**names, "max_prediction": 0.0})
    rig = camera.rig
    camera.send_all(views)
    stamps = [camera.stamp(index) for index in range(len(views))]
    for topic, expected in (("pose", stamps), ("odom", stamps[1:]), ("path", stamps)):
        rig.wait_for_stamp(stamps[-1], topic)
        assert rig.stamps(topic) == expected
    rig.wait(lambda: len(tf_of(rig)) == len(views), "all transforms")

    for index, (pose, tf) in enumerate(zip(rig.received["pose"], tf_of(rig), strict=True)):
        truth = true_pose(drive, index)
        assert pose.header.frame_id == "my_odom"
        np.testing.assert_allclose(pose_of(pose.pose), truth, atol=1e-7)
        assert (tf.header, tf.child_frame_id) == (pose.header, "my_base")
        t, q = tf.transform.translation, tf.transform.rotation
        moved = transform(Rotation.from_quat([q.x, q.y, q.z, q.w]), [t.x, t.y, t.z])
        np.testing.assert_allclose(moved, truth, atol=1e-7)
    for index, odom in enumerate(rig.received["odom"], 1):
        assert (odom.header.frame_id, odom.child_frame_id) == ("my_odom", "my_base")
        np.testing.assert_allclose(pose_of(odom.pose.pose), true_pose(drive, index), atol=1e-7)
        v, w = odom.twist.twist.linear, odom.twist.twist.angular
        expected = [drive.path.speed[index - 1], 0, 0, 0, 0, drive.path.yaw_rate[index - 1]]
        np.testing.assert_allclose([v.x, v.y, v.z, w.x, w.y, w.z], expected, rtol=0.02, atol=0.12)
        for part in (odom.pose, odom.twist):
            covariance = part.covariance.reshape(6, 6)
            np.testing.assert_array_equal(covariance, covariance.T)
            assert np.linalg.eigvalsh(covariance).min() > 0
    path = rig.received["path"][-1]
    assert path.poses == rig.received["pose"] and path.header == path.poses[-1].header
    rig.wait_for_status("odometry", OK, r"accepted: (the matches|\d+ image features) agree")
    rig.wait(lambda: rig.value("images accepted", "odometry") == "11", "the count")
    rig.wait_for_status("frames", OK, "Hz")


def test_answers_on_file(make_camera, drive, views, tmp_path):
    """The node publishes what `VisualOdometry` computes from the same recorded answers."""
    file = tmp_path / "drive.jsonl"
    recording = RecordingEngine(TruthEngine(views), file)
    offline = VisualOdometry(
        for_all_tasks(recording),
        drive.T_base_camera,
        OdometrySettings(ask_depth=True, check_backward=True),
    )
    steps = [
        offline.update(view.image, view.camera, round(index * PERIOD * 1e9))
        for index, view in enumerate(views[:5])
    ]
    recording.close()
    camera = make_camera(RecordedEngine(file), {"ask_depth": True, "check_backward": True})
    camera.send_all(views[:5])
    camera.rig.wait_for_stamp(camera.stamp(4), "odom")
    for step, pose in zip(steps, camera.rig.received["pose"], strict=True):
        np.testing.assert_allclose(pose_of(pose.pose), step.T_odom_base, atol=1e-9)
    assert step_counts(camera.rig) == {"first": 1, "fused": 4}


def test_a_path_is_bounded_and_others_may_publish_tf(make_camera, views):
    camera = make_camera(
        parameters={"path_length": 3, "publish_tf": False}, listen=["pose", "odom", "path"]
    )
    rig = camera.rig
    camera.send_all(views[:6])
    rig.wait_for_stamp(camera.stamp(5), "path")
    assert [len(path.poses) for path in rig.received["path"]] == [1, 2, 3, 3, 3, 3]
    assert rig.received["path"][-1].poses == rig.received["pose"][-3:]
    assert not any(
        name == "/tf"
        for name, _ in rig.node.get_publisher_names_and_types_by_node("pose_node", rig.namespace)
    )


def test_frames_that_were_dropped_do_not_matter(make_camera, drive, views):
    """While the model was busy, images in between were dropped."""
    camera = make_camera()
    for index in (0, 3, 4, 8):
        camera.send(views[index], index)
    camera.rig.wait_for_stamp(camera.stamp(8), "odom")
    for index, pose in zip((0, 3, 4, 8), camera.rig.received["pose"], strict=True):
        np.testing.assert_allclose(pose_of(pose.pose), true_pose(drive, index), atol=1e-7)


def test_images_out_of_order_or_twice_are_skipped(make_camera, drive, views):
    camera = make_camera()
    rig = camera.rig
    camera.send_all(views[:4])
    camera.send(views[3], 3)
    rig.wait_for_status("odometry", WARN, "skipped: the image is as old as the last one")
    camera.send(views[1], 1)
    rig.wait_for_status("odometry", WARN, "skipped: the image is 0.200 s older")
    camera.send(views[4], 4)
    rig.wait_for_stamp(camera.stamp(4), "odom")
    assert rig.stamps("pose") == [camera.stamp(index) for index in range(5)]
    np.testing.assert_allclose(
        pose_of(rig.received["pose"][-1].pose), true_pose(drive, 4), atol=1e-7
    )


def test_a_looping_bag_resets_the_odometry(make_camera, drive, views):
    camera = make_camera()
    rig = camera.rig
    camera.send_all(views)
    camera.send_all(views[:6])
    rig.wait_for_status("odometry", OK, "accepted")
    assert step_counts(rig) == {"first": 1, "accepted": 13, "skipped": 3, "reset": 1}
    assert rig.log_lines("reset: time has jumped back by 0.800 s")
    rig.wait(lambda: len(rig.received["path"]) == 15, "all paths")
    last = rig.received["path"][-1]
    assert len(last.poses) == 3
    np.testing.assert_allclose(pose_of(last.poses[-1].pose), true_pose(drive, 5, 3), atol=1e-7)


def test_a_simulated_clock_that_jumps_back_resets_the_odometry(make_camera, views):
    camera = make_camera(parameters={"use_sim_time": True})
    rig = camera.rig
    rig.set_clock(5000.0)
    camera.send_all(views[:2])
    rig.set_clock(4000.0)
    camera.send(views[2], 2)
    rig.wait_for_status("odometry", WARN, "reset: the clock has jumped back by 1000.000 s")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"index": 80}, "no pose for 7.9 s"),
        ({"frame_id": "rear_optical"}, "frame is 'rear_optical' now"),
        ({"width": 200}, "the camera has changed its size"),
    ],
    ids=["gap", "frame", "size"],
)
def test_a_broken_chain_is_replaced_by_a_new_one(make_camera, views, change, reason):
    camera = make_camera()
    rig = camera.rig
    camera.send_all(views[:2])
    view, index = views[2], change.pop("index", 2)
    if width := change.pop("width", None):
        narrow = replace(CAMERA, width=width)
        view = replace(view, image=np.ascontiguousarray(view.image[:, :width]), camera=narrow)
    camera.send(view, index, **change)
    rig.wait_for_status("odometry", WARN, f"reset: .*{reason}")
    rig.wait_for_stamp(camera.stamp(index), "pose")
    np.testing.assert_array_equal(pose_of(rig.received["pose"][-1].pose), np.eye(4))
    assert camera.stamp(index) not in rig.stamps("odom"), "its twist is unknown"


def test_a_robot_that_stands_still_stays(make_camera, drive, views):
    camera = make_camera()
    rig = camera.rig
    camera.send_all(views[:2])
    rng = np.random.default_rng(0)
    camera.send_all([drive.view(1, rng) for _ in range(5)], first=2)
    rig.wait_for_stamp(camera.stamp(6), "odom")
    assert step_counts(rig) == {"first": 1, "accepted": 1, "standstill": 5}
    assert all(pose.pose == rig.received["pose"][1].pose for pose in rig.received["pose"][1:])
    rig.wait_for_status("odometry", OK, "standstill: the image stands still")


class Babbling(TruthEngine):
    """Gives unreadable answers while `babbles` is set."""

    babbles = False

    def _answer(self, known, question):
        return "A chair, I think." if self.babbles else super()._answer(known, question)


def test_garbage_is_refused_and_not_published(make_camera, drive, views):
    engine = Babbling(views)
    camera = make_camera(engine, {"max_prediction": 0.0})
    rig = camera.rig
    camera.send_all(views[:3])
    engine.babbles = True
    camera.send(views[3], 3)
    rig.wait_for_status("odometry", WARN, "refused: the model's answers could not be read")
    rig.wait_for_status("frames", WARN, "6 of 102 answers about the last frame cannot be read")
    engine.babbles = False
    camera.send(views[4], 4)
    rig.wait_for_stamp(camera.stamp(4), "odom")
    assert rig.stamps("pose") == [camera.stamp(index) for index in (0, 1, 2, 4)]
    assert len(tf_of(rig)) == 4
    np.testing.assert_allclose(
        pose_of(rig.received["pose"][-1].pose), true_pose(drive, 4), atol=1e-7
    )


def test_a_pair_without_overlap_is_refused(make_rig, make_camera, drive):
    about = np.stack([drive.path.T_world_base[0]] * 2)
    about[1] = about[0] @ np.diag([-1, -1, 1, 1])
    turned = replace(drive, path=replace(drive.path, T_world_base=about))
    rng = np.random.default_rng(0)
    views = [turned.view(index, rng) for index in range(2)]
    camera = make_camera(TruthEngine(views))
    camera.send_all(views)
    camera.rig.wait_for_status("odometry", WARN, "refused: 0 matches could be read")
    assert camera.rig.stamps("pose") == [camera.stamp(0)]


def test_a_reset_starts_a_new_chain(make_camera, drive, views):
    camera = make_camera()
    rig = camera.rig
    camera.send_all(views[:3])
    response = rig.call("reset", Trigger, Trigger.Request())
    assert response.success and response.message == "the next image is the origin"
    camera.send_all(views[3:6], first=3)
    rig.wait_for_stamp(camera.stamp(5), "path")
    assert len(rig.received["path"][-1].poses) == 3
    np.testing.assert_allclose(
        pose_of(rig.received["pose"][-1].pose), true_pose(drive, 5, 3), atol=1e-7
    )
    assert rig.log_lines("reset: a reset was requested")


class Slow(TruthEngine):
    """Answers once its gate is open."""

    def __init__(self, views: list[View]) -> None:
        super().__init__(views)
        self.entered, self.gate = threading.Event(), threading.Event()

    def ask(self, images, questions, answer_template=None):
        self.entered.set()
        assert self.gate.wait(600)
        return super().ask(images, questions, answer_template)


def test_tf_comes_with_every_image_while_the_model_is_busy(make_camera, bench, drive, views):
    engine = Slow(views)
    engine.gate.set()
    camera = make_camera(engine, {"max_prediction": 0.55})
    rig = camera.rig
    camera.send_all(views[:3])
    rig.wait_for_stamp(camera.stamp(2), "odom")
    engine.gate.clear()
    for index in range(3, 10):
        message = bench.rgb_message(camera.stamp(index), views[index].image)
        rig.send(message, camera_info_message(message.header, views[index].camera))
        if index < 8:  # 0.55 s after the last pose
            rig.wait(lambda count=index + 1: len(tf_of(rig)) >= count, "TF of the image")
        else:
            rig.wait(lambda count=index + 1: rig.report().received >= count, "the image")
    rig.wait_for_status(
        "odometry",
        WARN,
        r"2 images came later than max_prediction \(0.55 s\) after the last pose and have no TF",
    )
    stamps = [stamp_nanoseconds(tf.header) for tf in tf_of(rig)]
    assert stamps == sorted(set(stamps)) and len(stamps) == 8
    for index, tf in enumerate(tf_of(rig)):
        place = tf.transform.translation
        error = np.array([place.x, place.y, place.z]) - true_pose(drive, index)[:3, 3]
        assert np.linalg.norm(error) < 0.1, (index, error)
    assert rig.stamps("odom")[-1] == camera.stamp(2), "what is predicted is no measurement"
    engine.gate.set()
    # The answers end with the newest image, whose TF follows.
    rig.wait_for_stamp(camera.stamp(9), "odom")
    rig.wait(lambda: stamp_nanoseconds(tf_of(rig)[-1].header) / 1e9 > camera.stamp(8.5), "its TF")


def test_tf_comes_before_odom_and_pose(make_camera, views):
    """Listeners of odom and pose look their stamp up at once."""
    camera = make_camera(parameters={"max_prediction": 0.0})
    node, order = camera.rig.node, []
    for name in ("_tf", "_odom", "_pose"):
        publisher = getattr(node, name)
        publish = publisher.publish
        publisher.publish = lambda message, n=name, p=publish: (order.append(n), p(message))
    camera.send_all(views[:3])
    camera.rig.wait_for_stamp(camera.stamp(2), "odom")
    assert order == ["_tf", "_pose", *["_tf", "_pose", "_odom"] * 2]


def test_a_reset_pose_that_comes_too_late_does_not_join_two_paths(make_camera, views):
    """It is not published, but the path ends with it all the same."""
    camera = make_camera()
    rig = camera.rig
    camera.send_all(views[:3])
    check_age = rig.node.camera.check_age

    def too_old(header, remedy):
        if remedy.startswith("its pose"):
            raise FrameError("the frame is 3.0 s old")

    rig.node._odometry.reset("the camera was moved")
    rig.node.camera.check_age = too_old
    camera.send(views[3], 3)
    rig.node.camera.check_age = check_age
    camera.send(views[4], 4)
    rig.wait_for_stamp(camera.stamp(4), "path")
    assert rig.stamps("pose") == [camera.stamp(index) for index in (0, 1, 2, 4)]
    assert len(rig.received["path"][-1].poses) == 1
    assert step_counts(rig) == {"first": 1, "accepted": 3, "reset": 1}


def test_an_image_that_waits_when_the_clock_jumps_back_is_skipped(make_camera, bench, views):
    """Its pose would lie in the future, and TF would then reject older ones."""
    engine = Slow(views)
    camera = make_camera(engine, {"use_sim_time": True})
    rig = camera.rig
    rig.set_clock(5000.0)
    camera.send(views[0], 0)
    sender = threading.Thread(target=camera.send, args=(views[1], 1))
    sender.start()
    assert engine.entered.wait(600)
    rig.send(
        bench.rgb_message(camera.stamp(2), views[2].image),
        camera_info_message(bench.header(camera.stamp(2)), CAMERA),
    )
    rig.wait(lambda: rig.report().received == 3, "the image that waits")
    rig.set_clock(4000.0)
    rig.wait(lambda: rig.report().skipped == 1, "the end of its waiting")
    engine.gate.set()
    sender.join()
    camera.send(views[0], -100)
    rig.wait_for_stamp(camera.stamp(-100), "pose")
    assert rig.stamps("pose") == [camera.stamp(0), camera.stamp(-100)]
    assert step_counts(rig) == {"first": 1, "reset": 1}


def test_a_pose_that_comes_too_late_is_withheld_and_the_chain_goes_on(make_camera, drive, views):
    engine = Slow(views)
    camera = make_camera(engine, {"use_sim_time": True})
    rig = camera.rig
    rig.set_clock(camera.stamp(1.5))
    assert rig.set_parameters(max_frame_age=1.0).successful
    camera.send(views[0], 0)
    sender = threading.Thread(target=camera.send, args=(views[1], 1))
    sender.start()
    assert engine.entered.wait(600)
    rig.set_clock(camera.stamp(31))
    engine.gate.set()
    sender.join()
    rig.wait_for_status(
        "frames", ERROR, r"is 3.0 s old, older than max_frame_age \(1 s\): its pose"
    )
    camera.send(views[2], 30)
    rig.wait_for_stamp(camera.stamp(30), "pose")
    assert rig.stamps("pose") == [camera.stamp(0), camera.stamp(30)]
    np.testing.assert_allclose(
        pose_of(rig.received["pose"][-1].pose), true_pose(drive, 2), atol=1e-7
    )


def test_a_pose_in_work_at_a_reset_is_not_published(make_camera, views):
    engine = Slow(views)
    camera = make_camera(engine)
    rig = camera.rig
    camera.send(views[0], 0)
    sender = threading.Thread(target=camera.send, args=(views[1], 1))
    sender.start()
    assert engine.entered.wait(600)
    assert rig.call("reset", Trigger, Trigger.Request()).success
    engine.gate.set()
    sender.join()
    camera.send(views[2], 2)
    rig.wait_for_stamp(camera.stamp(2), "pose")
    assert rig.stamps("pose") == [camera.stamp(0), camera.stamp(2)]
    np.testing.assert_array_equal(pose_of(rig.received["pose"][-1].pose), np.eye(4))


def test_it_works_without_listeners_and_restarts_after_activation(make_camera, views):
    camera = make_camera(listen=["pose"])
    rig = camera.rig
    camera.send_all(views[:2])
    assert rig.change_state("deactivate")
    assert rig.change_state("activate")
    rig.wait_active()
    camera.send(views[2], 2)
    rig.wait_for_stamp(camera.stamp(2), "pose")
    np.testing.assert_array_equal(pose_of(rig.received["pose"][-1].pose), np.eye(4))
    assert step_counts(rig) == {"first": 1}
    assert rig.change_state("deactivate") and rig.change_state("cleanup")
    assert rig.node._odometry is None and not rig.node.model.engines
    assert rig.change_state("configure") and rig.change_state("activate")


def test_settings_change_while_it_runs(make_camera, views):
    camera = make_camera()
    rig = camera.rig
    camera.send_all(views[:3])
    assert reference_of_last_step(rig) == camera.stamp(0)
    assert rig.set_parameters(keyframes=False).successful
    camera.send_all(views[3:5], first=3)
    assert reference_of_last_step(rig) == camera.stamp(3)
    fixed = rig.set_parameters(base_frame="other")
    assert not fixed.successful and "unconfigured" in fixed.reason


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("0 0 0 0 0 1", "takes the seven numbers"),
        ("a b c d e f g", "takes the seven numbers"),
        ("0 0 0 0 0 0 nan", "takes the seven numbers"),
        ("0 0 1 1 1 1 1", "the quaternion .* has a length of 2"),
    ],
)
def test_an_invalid_camera_pose_is_refused(make_rig, views, value, reason):
    rig = make_rig(
        TruthEngine(views), make_node=PoseNode, outputs=OUTPUTS, parameters={"autostart": False}
    )
    result = rig.set_parameters(base_from_camera=value)
    assert not result.successful
    assert re.search(f"parameter 'base_from_camera'.*{reason}", result.reason)
    assert rig.set_parameters(base_from_camera="[0.1, 0, 0.8, -0.5, 0.5, -0.5, 0.5]").successful


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"odom_frame": ""}, "parameter 'odom_frame' is ''; it must name a frame"),
        ({"base_frame": "/base_link"}, "parameter 'base_frame' is '/base_link'.*leading '/'"),
        ({"base_frame": "odom"}, "'odom_frame' and 'base_frame' are both 'odom'"),
        ({"match_columns": 2, "match_rows": 3}, "make 6 matches: a check needs at least 8"),
    ],
)
def test_contradicting_parameters_are_refused(values, reason):
    with pytest.raises(ParameterError, match=reason):
        PoseParameters(**values)


def test_without_tf2_ros_the_camera_pose_must_be_set(make_rig, views, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2_ros", None)
    rig = make_rig(TruthEngine(views), make_node=PoseNode, outputs=OUTPUTS)
    rig.wait_for_status("model", ERROR, "tf2_ros is not installed.*set base_from_camera to")
    assert rig.state() == "unconfigured"


def test_the_camera_pose_comes_from_tf(make_camera, bench, drive, views, monkeypatch):
    pytest.importorskip("tf2_ros")
    monkeypatch.setattr("vlm3_ros.ros.camera_mounts.TF_PERIOD", 1e9)
    camera = make_camera(parameters={"base_from_camera": "", "tf_timeout": 0.5})
    rig = camera.rig
    assert listens_to_tf(rig)
    camera.send(views[0], 0)
    rig.wait_for_status(
        "frames",
        ERROR,
        "no transform from 'camera_optical_frame' to 'base_link' on TF: publish it",
    )
    assert not rig.received["pose"]
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    static = rig.peer.create_publisher(TFMessage, "/tf_static", latched)
    mount = tf_message(bench.header(0.0, "base_link"), bench.FRAME, drive.T_base_camera)
    static.publish(mount)
    camera.send_all(views[1:4], first=1)
    rig.wait_for_stamp(camera.stamp(3), "odom")
    np.testing.assert_allclose(
        pose_of(rig.received["pose"][-1].pose), true_pose(drive, 3, 1), atol=1e-7
    )
    assert not listens_to_tf(rig), "a robot's /tf is busy"
    assert rig.change_state("deactivate") and rig.change_state("activate")
    rig.wait_active()
    camera.send_all(views[4:6], first=4)
    rig.wait_for_stamp(camera.stamp(5), "odom")
    np.testing.assert_allclose(
        pose_of(rig.received["pose"][-1].pose), true_pose(drive, 5, 4), atol=1e-7
    )
    assert not listens_to_tf(rig)


class Tree:
    """Stands in for the TF of a robot, without DDS."""

    mount: ClassVar[np.ndarray | None] = None

    def __init__(self, node):
        pass

    def newest(self, target, source, timeout, is_wanted):
        return self.mount

    def close(self):
        pass


def test_a_mount_that_changes_on_tf_begins_a_new_chain(make_camera, drive, views, monkeypatch):
    monkeypatch.setattr("vlm3_ros.ros.camera_mounts.FrameTree", Tree)
    monkeypatch.setattr("vlm3_ros.ros.camera_mounts.TF_PERIOD", 0.0)
    monkeypatch.setattr(Tree, "mount", drive.T_base_camera)
    camera = make_camera(parameters={"base_from_camera": ""})
    rig = camera.rig
    camera.send_all(views[:2])
    Tree.mount = drive.T_base_camera + 1e-3 * np.eye(4, k=3)
    camera.send_all(views[2:4], first=2)  # a joint trembles by a millimetre
    assert step_counts(rig) == {"first": 1, "accepted": 3}
    moved = drive.T_base_camera.copy()
    moved[0, 3] += 0.3
    Tree.mount = moved
    camera.send_all(views[4:6], first=4)
    rig.wait_for_stamp(camera.stamp(5), "odom")
    assert step_counts(rig) == {"first": 1, "accepted": 4, "reset": 1}
    assert rig.log_lines("the transform .* has changed on TF: poses use the new one")
    assert rig.log_lines("reset: the camera's pose on the robot has changed")
    motion = inverse(views[4].T_world_camera) @ views[5].T_world_camera
    pose = pose_of(rig.received["pose"][-1].pose)
    np.testing.assert_allclose(pose, moved @ motion @ inverse(moved), atol=1e-7)
    Tree.mount = None  # the publisher has ended: the last place counts
    camera.send(views[6], 6)
    assert step_counts(rig) == {"first": 1, "accepted": 5, "reset": 1}


def listens_to_tf(rig) -> bool:
    return any(s.topic_name in ("/tf", "/tf_static") for s in rig.node.subscriptions)


def test_a_model_without_relative_pose_fails_to_configure(make_rig, views):
    engine = TruthEngine(views, exact_prompts().without("pose"))
    mount = {"base_from_camera": "0 0 0 0 0 0 1"}
    rig = make_rig(engine, make_node=PoseNode, outputs=OUTPUTS, parameters=mount)
    rig.wait_for_status("model", ERROR, "truth did not learn relative pose")
    assert rig.state() == "unconfigured"
