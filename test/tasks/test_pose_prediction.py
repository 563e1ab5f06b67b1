# SPDX-License-Identifier: Apache-2.0
"""TF at camera rate from a slow odometry, measured as Nav2 uses it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
from drives import posed_frames
from message_filter import Coverage, MessageFilter
from truth import TruthEngine, for_all_tasks

from vlm3_ros.evaluation.bag.evaluate import bag_source
from vlm3_ros.geometry.motion import (
    compose,
    inverse,
    motion_error,
    motion_from_parts,
    motion_of_twist,
)
from vlm3_ros.paths import sample_bag
from vlm3_ros.tasks.odometry import OdometryStep, VisualOdometry
from vlm3_ros.tasks.pose_prediction import BLEND, PosePrediction

TWIST = np.array([0.5, 0.0, 0.0, 0.0, 0.0, 0.3])
START = motion_from_parts(3.0, (0.6, 0.8, 0.0), (40, 10, -20))
S = 1_000_000_000


def test_a_pose_is_predicted_with_the_last_twist():
    prediction = PosePrediction()
    assert prediction.at_image(1 * S, 3.0) is None, "no chain yet"
    prediction.correct(2 * S, START, TWIST)
    for seconds in (0.0, 0.5, 1.5):
        pose = prediction.at_image(2 * S + round(seconds * S), 3.0)
        expected = compose(START, motion_of_twist(TWIST, seconds))
        np.testing.assert_allclose(pose, expected, atol=1e-9)
    np.testing.assert_allclose(
        motion_of_twist(TWIST, 1.5)[:3, 3], [0.725, 0.165, 0.0], atol=1e-3
    )  # an arc of 0.75 m and 26 degrees


def test_no_pose_is_predicted_too_far_twice_or_back():
    prediction = PosePrediction()
    prediction.begin(2 * S, START)
    assert prediction.at_image(5 * S, 3.0) is not None
    assert prediction.at_image(5 * S, 3.0) is None, "tf2 does not like a stamp twice"
    assert prediction.at_image(4 * S, 3.0) is None, "older"
    assert prediction.missed == 0
    assert prediction.at_image(5 * S + 1, 3.0) is None and prediction.missed == 1
    prediction.end()
    assert prediction.at_image(5 * S + 2, 9.0) is None


def test_a_correction_is_blended_in_without_a_jump():
    prediction = PosePrediction()
    prediction.begin(0, np.eye(4))
    prediction.correct(1 * S, np.eye(4), TWIST)
    before = prediction.at_image(2 * S, 3.0)
    # The robot has in truth stood 0.4 m further left, and drives on as fast.
    right = np.eye(4)
    right[1, 3] = 0.4
    prediction.correct(1 * S + 1, right, TWIST)
    last, errors = before, []
    for stamp in range(2 * S + S // 10, 6 * S, S // 10):
        pose = prediction.at_image(stamp, 9.0)
        step = np.linalg.norm(pose[:3, 3] - last[:3, 3])
        assert step < 0.05 + 0.4 * 0.1 / BLEND, "its own motion and a part of the correction"
        truth = compose(right, motion_of_twist(TWIST, (stamp - S - 1) / 1e9))
        errors.append(np.linalg.norm(motion_error(pose, truth)[:3]))
        last = pose
    assert errors[0] == pytest.approx(0.4 * np.exp(-0.1 / BLEND), rel=0.02)
    assert errors[-1] < 0.001
    assert (np.diff(errors) < 0).all()


def test_what_became_known_is_published_once_with_the_newest_image():
    prediction = PosePrediction()
    assert prediction.at_image(1 * S, 3.0) is None
    assert prediction.at_image(2 * S, 3.0) is None
    prediction.begin(1 * S, START)
    assert [stamp for stamp, _ in prediction.at_known(3.0)] == [1 * S, 2 * S]
    assert prediction.at_known(3.0) == []


def test_a_chain_that_begins_again_keeps_stamps_in_order_unless_time_jumped():
    prediction = PosePrediction()
    prediction.begin(5 * S, START)
    assert prediction.at_image(6 * S, 3.0) is not None
    prediction.end()
    prediction.begin(6 * S, np.eye(4))
    assert prediction.at_known(3.0) == []
    assert prediction.at_image(7 * S, 3.0) is not None
    # A bag that loops: images are old for a while, then the odometry begins again.
    assert prediction.at_image(1 * S, 3.0) is None
    prediction.begin(1 * S, np.eye(4))
    assert [stamp for stamp, _ in prediction.at_known(3.0)] == [1 * S]
    prediction.end(time_jumped=True)
    prediction.begin(0, np.eye(4))
    assert prediction.at_image(1, 3.0) is not None


def test_a_late_image_does_not_look_like_a_jump_of_time():
    """A chain is reset by request while the model works on an image before those predicted."""
    prediction = PosePrediction()
    prediction.begin(8 * S, START)
    assert prediction.at_image(10 * S, 3.0) is not None
    assert prediction.at_image(10 * S - S // 10, 3.0) is None  # out of order
    prediction.end()
    prediction.begin(9 * S, np.eye(4))
    assert prediction.at_known(3.0) == [], "TF has a pose of 10 s already"
    assert [stamp for stamp in (10 * S, 11 * S) if prediction.at_image(stamp, 3.0) is not None] == [
        11 * S
    ]


def test_a_chain_may_begin_at_zero_and_an_image_is_missed_once():
    prediction = PosePrediction()
    prediction.begin(0, START)
    assert [stamp for stamp, _ in prediction.at_known(3.0)] == [0]
    assert prediction.at_image(9 * S, 3.0) is None and prediction.missed == 1
    prediction.correct(1 * S, START, TWIST)
    assert [stamp for stamp, _ in prediction.at_known(3.0)] == [1 * S]
    assert prediction.missed == 1


@dataclass
class Drive:
    """The sample bag, seen by an odometry without errors that takes `LATENCY` for an answer."""

    stamps: list[int]
    T_first_base: list[np.ndarray]
    steps: dict[int, OdometryStep]
    answered: dict[int, int]
    """When the pose of a stamp is known, by stamp."""
    clouds: dict[int, int] = field(default_factory=dict)
    """When the cloud of a stamp comes."""


LATENCY, CLOUD_LATENCY = 0.45, 0.4


def newest_wins(stamps: list[int], latency: float) -> dict[int, int]:
    """When the frames that a busy model has time for are answered."""
    answered, free = {}, 0
    for i, stamp in enumerate(stamps):
        following = stamps[i + 1] if i + 1 < len(stamps) else stamp + S
        begins = max(stamp, free)
        if begins < following:  # else a newer one replaces it
            free = answered[stamp] = begins + round(latency * 1e9)
    return answered


@pytest.fixture(scope="module")
def drive() -> Drive:
    with bag_source(sample_bag()) as source:
        frames = posed_frames(source)
        stamps = [frame.stamp_ns for frame in source.frames]
        T_base_camera = source.T_base_camera
    answered = newest_wins(stamps, LATENCY)
    answered[stamps[0]] = stamps[0]  # the first image needs no answer
    odometry = VisualOdometry(for_all_tasks(TruthEngine(frames)), T_base_camera)
    T_world_base = [frame.T_world_camera @ inverse(T_base_camera) for frame in frames]
    steps = {
        stamp: odometry.update(frame.image, frame.camera, stamp)
        for stamp, frame in zip(stamps, frames, strict=True)
        if stamp in answered
    }
    first = inverse(T_world_base[0])
    return Drive(
        stamps,
        [compose(first, T) for T in T_world_base],
        steps,
        answered,
        newest_wins(stamps, CLOUD_LATENCY),
    )


def play(
    drive: Drive, horizon: float, publish: Callable[[int, np.ndarray], None], nav2: MessageFilter
) -> None:
    """Let images, poses and clouds come in the order of their times, as the nodes do."""
    prediction = PosePrediction()
    events = [(stamp, 0, stamp) for stamp in drive.stamps]
    events += [(time, 1, stamp) for stamp, time in drive.answered.items()]
    events += [(time, 2, stamp) for stamp, time in drive.clouds.items()]
    for now, kind, stamp in sorted(events):
        if kind == 0 and horizon:
            pose = prediction.at_image(stamp, horizon)
            if pose is not None:
                publish(stamp, pose)
        elif kind == 1:
            step = drive.steps[stamp]
            if step.status == "first":
                prediction.begin(stamp, step.T_odom_base)
            elif step.has_pose:
                prediction.correct(stamp, step.T_odom_base, step.twist)
            for known, pose in prediction.at_known(horizon):
                publish(known, pose)
        elif kind == 2:
            nav2.add(stamp, now)
        nav2.update(now)
    nav2.update(events[-1][0] + 10 * S)


def test_nav2_takes_clouds_with_tf_from_the_odometry_alone(drive):
    """Without prediction most clouds wait in vain: 80 of 114 were dropped."""
    dropped = {}
    for horizon in (0.0, 3.0):
        coverage = Coverage()
        nav2 = MessageFilter(coverage.covers)
        play(drive, horizon, lambda stamp, pose, to=coverage: to.add(stamp), nav2)
        assert len(nav2.passed) + len(nav2.dropped) == len(drive.clouds)
        dropped[horizon] = len(nav2.dropped) / len(drive.clouds)
    assert dropped[0.0] > 0.25
    assert dropped[3.0] <= 0.02


def test_the_filter_of_tf2_ros_takes_them_too(drive):
    tf2_ros = pytest.importorskip("tf2_ros")
    from rclpy.duration import Duration
    from rclpy.time import Time

    from vlm3_ros.messages.classes import RCLPY
    from vlm3_ros.messages.motions import tf_message

    buffer = tf2_ros.Buffer(cache_time=Duration(seconds=10))

    def publish(stamp: int, pose: np.ndarray) -> None:
        for transform in tf_message(RCLPY.header(stamp, "odom"), "base_link", pose).transforms:
            buffer.set_transform(transform, "test")

    nav2 = MessageFilter(
        lambda stamp: buffer.can_transform("odom", "base_link", Time(nanoseconds=stamp))
    )
    play(drive, 3.0, publish, nav2)
    assert len(nav2.dropped) <= 0.02 * len(drive.clouds)


def test_predicted_tf_is_near_the_truth_and_does_not_jump(drive):
    poses: dict[int, np.ndarray] = {}
    play(drive, 3.0, poses.__setitem__, MessageFilter(lambda stamp: True))
    truth = dict(zip(drive.stamps, drive.T_first_base, strict=True))
    stamps = sorted(poses)
    assert list(poses) == stamps, "never back"
    # The drive begins at full speed, and nothing is known of it before the second pose.
    errors = [np.linalg.norm(motion_error(poses[s], truth[s])[:3]) for s in stamps]
    assert np.median(errors) < 0.03 and max(errors[12:]) < 0.2
    steps = np.diff([poses[s][:3, 3] - truth[s][:3, 3] for s in stamps], axis=0)
    assert np.linalg.norm(steps, axis=1)[12:].max() < 0.06, "its own are 0.057 m"
