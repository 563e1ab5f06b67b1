# SPDX-License-Identifier: Apache-2.0
"""Odometry on drives with all questions answered from the truth: it must make no errors."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from truth import TruthEngine, exact_prompts, for_all_tasks

from vlm3_lab.scenes.sequences import Sequence, sample_sequence
from vlm3_ros.datasets.views import View
from vlm3_ros.engines.base import Answer, AnswerUncertainty, EngineError, ForwardingEngine
from vlm3_ros.engines.recorded import RecordedEngine, RecordingEngine
from vlm3_ros.geometry.camera import GeometryError, PinholeCamera
from vlm3_ros.geometry.chain import ORIGIN_COVARIANCE
from vlm3_ros.geometry.motion import compose, inverse, motion_error
from vlm3_ros.tasks.odometry import (
    OdometrySettings,
    OdometryStep,
    VisualOdometry,
    why_no_matches,
)

CAMERA = PinholeCamera(240, 180, 170.0, 175.0, 121.0, 88.0)
PERIOD = 100_000_000
"""Time between two images, nanoseconds."""
START = 1_700_000_000_000_000_000


@dataclass(frozen=True)
class Drive:
    """Views along a path, and the true poses of the base."""

    sequence: Sequence
    views: list[View]

    def T_first_base(self, index: int) -> np.ndarray:
        path = self.sequence.path.T_world_base
        return compose(inverse(path[0]), path[index])


@pytest.fixture(scope="module")
def drive() -> Drive:
    rng = np.random.default_rng(4)
    sequence = sample_sequence(rng, CAMERA, kind="room", duration=3.0, rate=10.0)
    return Drive(sequence, list(sequence.views(rng)))


def odometry_of(drive: Drive, engine=None, **settings) -> VisualOdometry:
    return VisualOdometry(
        for_all_tasks(engine or TruthEngine(drive.views)),
        drive.sequence.T_base_camera,
        OdometrySettings(**settings),
    )


def step_of(odometry: VisualOdometry, view: View, index: float) -> OdometryStep:
    return odometry.update(view.image, view.camera, START + round(index * PERIOD))


def run(odometry: VisualOdometry, views: list[View]) -> list[OdometryStep]:
    return [step_of(odometry, view, index) for index, view in enumerate(views)]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"keyframes": False},
        {"ask_depth": True, "check_backward": True},
        {"match_columns": 0, "match_rows": 0},
    ],
    ids=["keyframes", "consecutive", "fused", "unchecked"],
)
def test_true_answers_give_a_trajectory_without_error(drive, settings):
    steps = run(odometry_of(drive, **settings), drive.views)
    assert len(steps) == 30
    wanted = "fused" if "ask_depth" in settings else "accepted"
    assert [step.status for step in steps] == ["first"] + [wanted] * 29
    tolerance = 1e-4 if wanted == "fused" else 1e-7
    for index, step in enumerate(steps):
        error = motion_error(step.T_odom_base, drive.T_first_base(index))
        assert np.abs(error).max() < tolerance, (index, error)
        covariance = step.covariance_odom_base
        np.testing.assert_array_equal(covariance, covariance.T)
        assert np.linalg.eigvalsh(covariance).min() > 0
    references = {step.reference_stamp_ns for step in steps[1:]}
    asks_matches = settings.get("match_columns", 1) > 0
    if settings.get("keyframes", True) and asks_matches:
        assert 1 < len(references) < 15
    else:
        assert len(references) == 29


def test_the_twist_is_that_of_the_drive(drive):
    path = drive.sequence.path
    for step, speed, yaw_rate in zip(
        run(odometry_of(drive), drive.views)[1:], path.speed, path.yaw_rate, strict=False
    ):
        # The speed is that of the last interval, the twist that at its end.
        expected = [speed, 0, 0, 0, 0, yaw_rate]
        np.testing.assert_allclose(step.twist[:3], expected[:3], rtol=0.02, atol=0.05)
        # The yaw rate changes by up to 1.5 rad/s^2, three times what the fit expects.
        np.testing.assert_allclose(step.twist[3:], expected[3:], atol=0.15)
        assert np.linalg.eigvalsh(step.covariance_twist).min() > 0


def test_keyframes_keep_the_covariance_smaller_than_a_chain_of_all_images(drive):
    kept = run(odometry_of(drive), drive.views)[-1].covariance_odom_base
    chained = run(odometry_of(drive, keyframes=False), drive.views)[-1].covariance_odom_base
    assert np.trace(kept[3:, 3:]) < np.trace(chained[3:, 3:]) / 2


def test_motions_above_max_speed_are_refused(drive):
    fastest = drive.sequence.path.speed[:10].max()
    steps = run(odometry_of(drive, max_speed=0.9 * fastest), drive.views[:10])
    assert {step.status for step in steps[1:]} == {"refused"}
    assert "m/s, more than max_speed" in steps[1].reason
    steps = run(odometry_of(drive, max_speed=1.1 * fastest), drive.views[:10])
    assert {step.status for step in steps[1:]} == {"accepted"}


def test_speed_counts_from_the_last_pose_not_from_the_reference(drive):
    """After a long standstill, 1.2 m in 0.2 s are a jump of 6 m/s, not a walk of 0.2 m/s."""
    rng = np.random.default_rng(0)
    poses = np.stack([drive.sequence.path.T_world_base[0]] * 2)
    poses[1, :3, 3] += 1.2 * poses[0, :3, 0]
    sequence = replace(drive.sequence, path=replace(drive.sequence.path, T_world_base=poses))
    jump = Drive(sequence, [sequence.view(0, rng), sequence.view(1, rng)])
    odometry = odometry_of(jump, match_rows=0)
    for index in range(0, 60, 2):
        step_of(odometry, jump.views[0], index)
    step = step_of(odometry, jump.views[1], 60)
    assert step.status == "refused"
    assert step.reason == "the motion since the last pose would be 6.0 m/s, more than max_speed"
    assert step_of(odometry, jump.views[1], 62).status == "accepted"  # 1.2 m in 0.4 s


def test_motion_is_relative_to_the_reference(drive):
    step = run(odometry_of(drive), drive.views[:3])[-1]
    assert step.reference_stamp_ns == START and step.stamp_ns == START + 2 * PERIOD
    truth = inverse(drive.views[0].T_world_camera) @ drive.views[2].T_world_camera
    np.testing.assert_allclose(step.T_ref_camera, truth, atol=1e-7)
    assert step.covariance.shape == (6, 6)
    assert len(step.matches.pixels1) == 48 and not step.pose.failures


@pytest.mark.parametrize("keyframes", [True, False])
def test_a_robot_that_stands_still_does_not_drift(drive, keyframes):
    """Noisy images of the same place: the engine, which knows none of them, is not asked."""
    rng = np.random.default_rng(0)
    odometry = odometry_of(drive, keyframes=keyframes)
    before = run(odometry, drive.views[:3])[-1]
    first = None
    for index in range(3, 40):
        step = step_of(odometry, drive.sequence.view(2, rng), index)
        assert step.status == "standstill" and "stands still" in step.reason
        np.testing.assert_array_equal(step.T_odom_base, before.T_odom_base)
        first = first or step
        np.testing.assert_array_equal(step.covariance_odom_base, first.covariance_odom_base)
        np.testing.assert_array_equal(step.twist, np.zeros(6))
    moving = step_of(odometry, drive.views[3], 40)
    assert moving.status == "accepted"
    assert np.abs(motion_error(moving.T_odom_base, drive.T_first_base(3))).max() < 1e-7


def test_motion_in_a_corner_of_the_image_is_not_the_robots(drive):
    """A person in a checked shirt walks by. A crowd would make odometry ask the model."""
    rng = np.random.default_rng(0)
    odometry = odometry_of(drive)
    run(odometry, drive.views[:3])
    shirt = np.kron(rng.integers(0, 256, (4, 3)), np.ones((6, 6)))[..., None].astype(np.uint8)
    for index in range(3, 8):
        view = drive.sequence.view(2, rng)
        view.image[140:164, 10 * index : 10 * index + 18] = shirt
        assert step_of(odometry, view, index).status == "standstill"


def test_slow_motion_adds_up_until_it_is_visible(drive):
    """Most of 60 images within one step of the drive look like a standstill."""
    rng = np.random.default_rng(0)
    sequence = drive.sequence
    start, end = sequence.path.T_world_base[:2]
    poses = np.stack([start] * 60)
    poses[:, :3, 3] += np.linspace(0, 1, 60)[:, None] * (end - start)[:3, 3]
    slow = replace(sequence, path=replace(sequence.path, T_world_base=poses))
    crawl = Drive(slow, [slow.view(index, rng) for index in range(60)])
    steps = run(odometry_of(crawl), crawl.views)
    assert sum(step.status == "standstill" for step in steps) > 20
    missed = [
        np.linalg.norm(motion_error(step.T_odom_base, crawl.T_first_base(index))[:3])
        for index, step in enumerate(steps)
    ]
    assert max(missed) < 0.02


def test_a_tiny_answered_motion_is_a_standstill(drive):
    odometry = odometry_of(drive, still_flow=0.0, still_distance=0.1, still_rotation_deg=30.0)
    steps = run(odometry, drive.views[:4])
    assert steps[1].status == "standstill" and "tiny" in steps[1].reason
    np.testing.assert_allclose(steps[1].T_odom_base, np.eye(4), atol=1e-12)
    moved = [index for index, step in enumerate(steps) if step.status == "accepted"]
    assert moved
    error = motion_error(steps[moved[-1]].T_odom_base, drive.T_first_base(moved[-1]))
    assert np.abs(error).max() < 1e-7


def test_images_out_of_order_are_skipped(drive):
    odometry = odometry_of(drive)
    run(odometry, drive.views[:3])
    equal = step_of(odometry, drive.views[2], 2)
    assert equal.status == "skipped" and equal.reason == "the image is as old as the last one"
    older = step_of(odometry, drive.views[1], 1)
    assert older.status == "skipped" and "0.100 s older" in older.reason
    assert np.isnan(older.T_odom_base).all() and not older.has_pose
    step = step_of(odometry, drive.views[3], 3)
    assert step.status == "accepted"
    assert np.abs(motion_error(step.T_odom_base, drive.T_first_base(3))).max() < 1e-7


def test_shuffled_images_keep_the_chain(drive):
    odometry = odometry_of(drive)
    order = [0, 4, 1, 3, 2, 5, 8, 7, 7, 6, 8, 9]
    steps = [step_of(odometry, drive.views[index], index) for index in order]
    assert [step.stamp_ns for step in steps if step.has_pose] == [
        START + index * PERIOD for index in (0, 4, 5, 8, 9)
    ]
    assert {step.status for step in steps} == {"first", "accepted", "skipped"}
    assert np.abs(motion_error(steps[-1].T_odom_base, drive.T_first_base(9))).max() < 1e-7


def test_a_looping_bag_resets_the_chain(drive):
    odometry = odometry_of(drive)
    run(odometry, drive.views)
    steps = run(odometry, drive.views[:5])
    assert [step.status for step in steps] == ["skipped"] * 3 + ["reset", "accepted"]
    assert "jumped back" in steps[3].reason
    np.testing.assert_array_equal(steps[3].T_odom_base, np.eye(4))
    np.testing.assert_array_equal(steps[3].covariance_odom_base, ORIGIN_COVARIANCE)
    assert steps[4].reference_stamp_ns == steps[3].stamp_ns


def test_a_long_jump_back_resets_the_chain_at_once(drive):
    odometry = odometry_of(drive)
    run(odometry, drive.views[:2])
    assert step_of(odometry, drive.views[0], -100).status == "reset"


def test_a_long_gap_resets_the_chain(drive):
    odometry = odometry_of(drive, max_gap=2.0)
    run(odometry, drive.views[:2])
    step = step_of(odometry, drive.views[2], 30)
    assert step.status == "reset" and step.reason == (
        "no pose for 2.9 s, longer than max_gap (2 s)"
    )
    assert step.reference_stamp_ns is None and step.T_ref_camera is None


@pytest.mark.parametrize("change", [{"width": 239}, {"fx": 190.0}])
def test_another_camera_resets_the_chain(drive, change):
    odometry = odometry_of(drive)
    run(odometry, drive.views[:2])
    camera = replace(CAMERA, **change)
    image = drive.views[2].image[:, : camera.width]
    step = odometry.update(image, camera, START + 2 * PERIOD)
    assert step.status == "reset" and "camera has changed" in step.reason


def test_autofocus_does_not_reset_the_chain(drive):
    views = [
        replace(view, camera=replace(CAMERA, fx=170.0 + index, fy=175.0 + index))
        for index, view in enumerate(drive.views[:3])
    ]
    steps = run(odometry_of(replace(drive, views=views)), views)
    assert [step.status for step in steps] == ["first", "accepted", "accepted"]


class Disturbed(TruthEngine):
    """Changes its answers about pairs with a given second image."""

    def disturb(self, views: list[View], change) -> None:
        self._disturbed, self._change = [self._frames_of(view) for view in views], change

    def _frames_of(self, view: View):
        return next(known for known in self._frames.values() if known[0] is view)

    def _answer(self, known, question):
        text = super()._answer(known, question)
        is_disturbed = any(known[-1] is frame for frame in self._disturbed)
        return self._change(text) if is_disturbed else text


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda text: "I see a chair.", "could not be read"),
        (lambda text: text.replace("0", "nan"), "could not be read"),
        (lambda text: re.sub(r"Yaw=-?\d+", "Yaw=20", text), "off the motion's epipolar lines"),
    ],
    ids=["unreadable", "nan", "wrong"],
)
@pytest.mark.parametrize("keyframes", [True, False])
def test_a_refused_motion_has_no_pose_and_the_next_pose_is_right(drive, change, reason, keyframes):
    engine = Disturbed(drive.views)
    engine.disturb([drive.views[3]], change)
    steps = run(odometry_of(drive, engine, keyframes=keyframes), drive.views[:6])
    assert [step.status for step in steps] == ["first"] + ["accepted"] * 2 + ["refused"] + [
        "accepted"
    ] * 2
    assert reason in steps[3].reason
    assert np.isnan(steps[3].T_odom_base).all() and np.isnan(steps[3].covariance_odom_base).all()
    assert steps[3].T_ref_camera is None and steps[3].pose is not None
    assert steps[4].reference_stamp_ns == steps[2].stamp_ns
    for index in (4, 5):
        error = motion_error(steps[index].T_odom_base, drive.T_first_base(index))
        assert np.abs(error).max() < 1e-7


def test_if_the_keyframe_fails_the_last_image_is_asked(drive):
    class Forgetful(TruthEngine):
        """Does not know view 0 any more when it sees view 3."""

        def _answer(self, known, question):
            seen = [frame for frame, _ in known]
            if seen[0] is drive.views[0] and seen[-1] is drive.views[3]:
                return "I see a chair."
            return super()._answer(known, question)

    steps = run(odometry_of(drive, Forgetful(drive.views)), drive.views[:5])
    assert [step.status for step in steps] == ["first"] + ["accepted"] * 4
    references = [step.reference_stamp_ns - START for step in steps[1:]]
    assert references == [0, 0, 2 * PERIOD, 2 * PERIOD]
    assert [step.refused_before is None for step in steps] == [True, True, True, False, True]
    refused = steps[3].refused_before
    assert (refused.status, refused.reference_stamp_ns) == ("refused", START)
    assert len(refused.pose.failures) == 3
    for index, step in enumerate(steps):
        assert np.abs(motion_error(step.T_odom_base, drive.T_first_base(index))).max() < 1e-7


def turning(drive: Drive, degrees: float, count: int) -> Drive:
    """The robot turns on the spot."""
    rng = np.random.default_rng(6)
    poses = np.stack([drive.sequence.path.T_world_base[0]] * count)
    for index in range(count):
        turn = Rotation.from_euler("z", degrees * index, degrees=True).as_matrix()
        poses[index, :3, :3] = poses[0, :3, :3] @ turn
    path = replace(drive.sequence.path, T_world_base=poses)
    sequence = replace(drive.sequence, path=path)
    return Drive(sequence, [sequence.view(index, rng) for index in range(count)])


@pytest.mark.parametrize("lost", [(3,), (3, 4), (5, 6, 7)])
def test_a_chain_goes_on_behind_refused_images(drive, lost):
    """After two images the camera sees nothing of what it saw when it had its last pose."""
    about = turning(drive, 24.0, 14)
    engine = Disturbed(about.views)
    engine.disturb([about.views[index] for index in lost], lambda text: "I see a chair.")
    odometry = odometry_of(about, engine, max_bridge=1.0)
    steps = [step_of(odometry, view, 2 * index) for index, view in enumerate(about.views)]
    refused = [index for index, step in enumerate(steps) if not step.has_pose]
    assert refused == list(lost)
    for index, step in enumerate(steps):
        if step.has_pose:
            error = motion_error(step.T_odom_base, about.T_first_base(index))
            assert np.abs(error).max() < 0.1, (index, error)
    bridged = [step.bridged for step in steps if step.bridged]
    if len(lost) == 1:
        assert not bridged  # the next image still sees the last pose
    else:
        assert bridged == [pytest.approx(0.2 * len(lost))]
        before, after = (steps[index].covariance_odom_base for index in (lost[0] - 1, 13))
        assert np.trace(after[3:, 3:]) > 2 * np.trace(before[3:, 3:])


def test_a_bridge_that_would_be_too_long_is_not_built(drive):
    about = turning(drive, 24.0, 9)
    engine = Disturbed(about.views)
    engine.disturb(about.views[3:5], lambda text: "")
    odometry = odometry_of(about, engine, max_bridge=0.3)
    steps = [step_of(odometry, view, 2 * index) for index, view in enumerate(about.views)]
    assert [step.status for step in steps[3:]] == ["refused"] * 6


def test_a_chain_without_a_twist_begins_again_behind_refused_images(drive):
    about = turning(drive, 24.0, 9)
    engine = Disturbed(about.views)
    engine.disturb(about.views[1:4], lambda text: "")
    odometry = odometry_of(about, engine)
    steps = [step_of(odometry, view, 2 * index) for index, view in enumerate(about.views)]
    statuses = [step.status for step in steps]
    assert statuses == ["first"] + ["refused"] * 3 + ["reset"] + ["accepted"] * 4
    assert "nothing is known about the first motion" in steps[4].reason


def test_a_pair_without_overlap_is_refused(drive):
    rng = np.random.default_rng(1)
    path = drive.sequence.path
    turned = np.stack([path.T_world_base[0]] * 2)
    turned[1] = turned[0] @ np.diag([-1, -1, 1, 1])
    sequence = replace(drive.sequence, path=replace(path, T_world_base=turned))
    about = Drive(sequence, [sequence.view(index, rng) for index in range(2)])
    steps = run(odometry_of(about), about.views)
    assert steps[1].status == "refused" and "0 matches could be read" in steps[1].reason


def test_refusals_beyond_max_gap_reset_the_chain(drive):
    engine = Disturbed(drive.views)
    engine.disturb([drive.views[2]], lambda text: "")
    odometry = odometry_of(drive, engine, max_gap=1.0)
    run(odometry, drive.views[:2])
    statuses = [step_of(odometry, drive.views[2], index).status for index in range(2, 14)]
    assert statuses == ["refused"] * 10 + ["reset", "standstill"]


def test_a_failing_engine_leaves_the_chain_unchanged(drive):
    class Failing(TruthEngine):
        def ask(self, images, questions, answer_template=None) -> list[Answer]:
            if self.is_down:
                raise EngineError("down")
            return super().ask(images, questions, answer_template)

    engine = Failing(drive.views)
    engine.is_down = False
    odometry = odometry_of(drive, engine)
    run(odometry, drive.views[:2])
    engine.is_down = True
    with pytest.raises(EngineError, match="down"):
        step_of(odometry, drive.views[2], 2)
    with pytest.raises(GeometryError):
        odometry.update(drive.views[2].image[:9], CAMERA, START + 2 * PERIOD)
    engine.is_down = False
    step = step_of(odometry, drive.views[3], 3)
    assert np.abs(motion_error(step.T_odom_base, drive.T_first_base(3))).max() < 1e-7


def test_an_image_that_does_not_fit_does_not_become_a_reference(drive):
    odometry = odometry_of(drive)
    with pytest.raises(GeometryError, match="its camera is 240x180"):
        odometry.update(drive.views[0].image[:9], CAMERA, START)
    with pytest.raises(GeometryError, match="which no lens has"):
        odometry.update(drive.views[0].image, replace(CAMERA, fx=0.001), START)
    steps = run(odometry, drive.views[:2])
    assert [step.status for step in steps] == ["first", "accepted"]


def test_invisible_pixels_are_not_asked(drive):
    odometry = odometry_of(drive)
    visible = np.zeros((180, 240), bool)
    visible[:, :120] = True
    for index, view in enumerate(drive.views[:2]):
        step = odometry.update(view.image, view.camera, START + index * PERIOD, visible)
    assert len(step.matches.pixels1) == 24 and step.matches.pixels1[:, 0].max() < 120


def test_a_new_grid_of_matches_applies_to_the_next_image(drive):
    """The keyframe was chosen with another grid, or without one, and is kept."""
    odometry = odometry_of(drive, match_rows=0, ask_depth=True)
    steps = run(odometry, drive.views[:2])
    for index, rows in enumerate((6, 4, 0, 6), 2):
        odometry.settings = replace(odometry.settings, match_rows=rows)
        steps.append(step_of(odometry, drive.views[index], index))
        asked = len(steps[-1].matches.pixels1) if rows else 0
        assert asked == 8 * rows
    assert [step.status for step in steps[1:]] == [
        "accepted",
        "fused",
        "fused",
        "accepted",
        "fused",
    ]
    for index, step in enumerate(steps):
        assert np.abs(motion_error(step.T_odom_base, drive.T_first_base(index))).max() < 1e-4


def test_a_reset_forgets_the_chain(drive):
    odometry = odometry_of(drive)
    run(odometry, drive.views[:3])
    odometry.reset("somebody asked")
    step = step_of(odometry, drive.views[3], 3)
    assert (step.status, step.reason) == ("reset", "somebody asked")
    np.testing.assert_array_equal(step.T_odom_base, np.eye(4))
    after = step_of(odometry, drive.views[4], 4)
    assert after.status == "accepted" and after.reference_stamp_ns == step.stamp_ns


def test_a_late_image_does_not_become_the_origin_of_a_requested_reset(drive):
    """Stamps of poses would go back."""
    odometry = odometry_of(drive)
    run(odometry, drive.views[:3])
    odometry.reset("somebody asked")
    assert step_of(odometry, drive.views[1], 1).status == "skipped" and odometry.awaits_reset
    step = step_of(odometry, drive.views[3], 3)
    assert (step.status, step.reason) == ("reset", "somebody asked")
    odometry.reset("the clock has jumped back", time_jumped=True)
    step = step_of(odometry, drive.views[1], 1)
    assert (step.status, step.reason) == ("reset", "the clock has jumped back")


def test_a_model_that_did_not_learn_the_task_is_named_at_the_start(drive):
    prompts = exact_prompts().without("correspondence")
    engine = TruthEngine(drive.views, prompts)
    with pytest.raises(EngineError, match=r"did not learn correspondence.*match_rows: 0"):
        odometry_of(drive, engine)
    run(odometry_of(drive, engine, match_columns=0), drive.views[:2])
    with pytest.raises(EngineError, match="did not learn relative pose"):
        odometry_of(drive, TruthEngine(drive.views, prompts.without("pose")))


class ShiftedMatches(ForwardingEngine):
    """Answers about matches that are 3 degrees off."""

    def ask(self, images, questions, answer_template=None):
        shift = round(10**7 * np.tan(np.radians(3)) * CAMERA.fy / CAMERA.height)
        answers = super().ask(images, questions, answer_template)
        return [
            Answer(re.sub(r"(\d+)\)", lambda m: f"{int(m[1]) + shift})", a.text)) for a in answers
        ]


class Seen(ForwardingEngine):
    """Forwards to an engine; notes the sizes of images and the number of questions."""

    def __init__(self, engine) -> None:
        super().__init__(engine)
        self.passes: list[tuple[list[tuple[int, ...]], int]] = []

    def ask(self, images, questions, answer_template=None):
        self.passes.append(([image.shape[:2] for image in images], len(questions)))
        return super().ask(images, questions, answer_template)


def models_of(drive: Drive, count: int = 6) -> dict[str, Seen]:
    """One model per task, each with its own way for images to enter."""
    prompts, views = exact_prompts(), drive.views[:count]
    only = {task: prompts.without(*(prompts.wordings.keys() - {task})) for task in prompts.wordings}
    return {
        "pose": Seen(TruthEngine(views, only["pose"], focal=750.0, name="VLM3-pose")),
        "correspondence": Seen(
            TruthEngine(
                views, only["correspondence"], focal=None, longest_side=1024, name="VLM3-corr"
            )
        ),
        "depth": Seen(TruthEngine(views, only["depth"], focal=1000.0, name="VLM3-depth")),
    }


def odometry_with(drive: Drive, engines, **settings) -> VisualOdometry:
    return VisualOdometry(engines, drive.sequence.T_base_camera, OdometrySettings(**settings))


def test_each_task_is_asked_of_its_own_model_at_its_own_size(drive):
    models = models_of(drive)
    odometry = odometry_with(drive, models, ask_depth=True, keyframes=False)
    steps = run(odometry, drive.views[:4])
    assert [step.status for step in steps] == ["first", *["fused"] * 3]
    for index, step in enumerate(steps):
        truth = drive.T_first_base(index)
        np.testing.assert_allclose(step.T_odom_base, truth, atol=1e-6)
    sizes = {task: {size for seen, _ in e.passes for size in seen} for task, e in models.items()}
    assert sizes == {
        "pose": {(768, 1056)},  # 180 * 750 / 175, 240 * 750 / 170, in steps of 32 px
        "correspondence": {(768, 1024)},
        "depth": {(1024, 1408)},
    }
    pixels = 8 * 6
    assert {count for _, count in models["correspondence"].passes} == {pixels}
    assert {count for _, count in models["depth"].passes} == {pixels}
    parts = len(steps[1].pose.texts)
    assert sum(count for _, count in models["pose"].passes) == parts * 3


def test_two_models_move_the_robot_as_one_model_does(drive):
    one = run(odometry_of(drive), drive.views[:5])
    two = run(odometry_with(drive, models_of(drive)), drive.views[:5])
    for step, other in zip(one, two, strict=True):
        assert (step.status, step.reference_stamp_ns) == (other.status, other.reference_stamp_ns)
        np.testing.assert_allclose(step.T_odom_base, other.T_odom_base, atol=1e-6)


def test_one_model_is_asked_for_motion_and_matches_in_one_pass(drive):
    engine = Seen(TruthEngine(drive.views[:3]))
    odometry = odometry_with(drive, for_all_tasks(engine))
    run(odometry, drive.views[:2])
    assert [count for _, count in engine.passes] == [3 + 8 * 6]


def test_uncertainties_are_those_of_the_model_that_answered(drive):
    """Matches 3 degrees off pass only if it is their own model that errs by so much."""
    views = drive.views[:3]
    for of_motion, of_matches, status in ((0.2, 9.0, "accepted"), (9.0, 0.2, "refused")):
        models = models_of(drive, 3)
        for task, match_deg in (("pose", of_motion), ("correspondence", of_matches)):
            truth = models[task]._engine
            uncertainty = AnswerUncertainty(match_deg=match_deg)
            truth.profile = replace(truth.profile, uncertainty=uncertainty)
        models["correspondence"] = ShiftedMatches(models["correspondence"])
        steps = run(odometry_with(drive, models), views[:2])
        assert steps[1].status == status, steps[1].reason


def test_models_that_are_swapped_or_missing_are_named(drive):
    models = models_of(drive, 2)
    swapped = {"pose": models["correspondence"], "correspondence": models["pose"]}
    with pytest.raises(EngineError) as refused:
        odometry_with(drive, swapped)
    assert str(refused.value) == (
        "pose_model (or model) and match_model seem to be swapped: VLM3-corr learned "
        "correspondence, and VLM3-pose relative pose"
    )
    with pytest.raises(EngineError, match=r"VLM3-depth did not learn correspondence.*match_model"):
        odometry_with(drive, {**models, "correspondence": models["depth"]})
    with pytest.raises(EngineError, match=r"VLM3-depth did not learn relative pose.*VLM3-pose$"):
        odometry_with(drive, {**models, "pose": models["depth"]})
    with pytest.raises(EngineError, match=r"VLM3-pose did not learn metric.*ask_depth: false"):
        odometry_with(drive, {**models, "depth": models["pose"]}, ask_depth=True)


def test_a_question_that_is_switched_on_later_needs_its_model(drive):
    models = models_of(drive, 3)
    odometry = odometry_with(drive, {"pose": models["pose"]}, match_rows=0)
    step_of(odometry, drive.views[0], 0)
    odometry.settings = replace(odometry.settings, match_rows=6)
    with pytest.raises(
        EngineError, match=r"model for correspondence was not loaded.*match_rows: 0"
    ):
        step_of(odometry, drive.views[1], 1)
    odometry.settings = replace(odometry.settings, match_rows=0)
    assert step_of(odometry, drive.views[1], 1).status == "accepted"


def test_why_the_model_for_motions_cannot_answer_for_matches(drive):
    models = models_of(drive, 1)
    assert why_no_matches(models) == ""  # another model answers
    engine = models["pose"]
    reason = why_no_matches({"pose": engine, "correspondence": engine})
    assert re.fullmatch(
        r"VLM3-pose did not learn correspondence: .*; set match_model to a checkpoint that did, "
        r"such as facebook/VLM3-corr, or ask none \(match_rows: 0\)",
        reason,
    )
    assert why_no_matches(for_all_tasks(TruthEngine([]))) == ""


def test_a_recorded_drive_is_replayed(drive, tmp_path):
    file = tmp_path / "drive.jsonl"
    recording = RecordingEngine(TruthEngine(drive.views), file)
    recorded = run(odometry_of(drive, recording, ask_depth=True), drive.views[:5])
    recording.close()
    replayed = run(odometry_of(drive, RecordedEngine(file), ask_depth=True), drive.views[:5])
    for one, two in zip(recorded, replayed, strict=True):
        np.testing.assert_array_equal(one.T_odom_base, two.T_odom_base)


def test_a_wrong_rotation_is_refused_by_image_features_unless_switched_off(drive):
    rng = np.random.default_rng(2)
    spots = rng.integers(60, 256, (60, 80, 3)).astype(np.uint8)
    still = np.asarray(np.kron(spots, np.ones((3, 3, 1))), np.uint8)
    views = [replace(view, image=still + np.uint8(i)) for i, view in enumerate(drive.views[:2])]
    # The images show no motion at all; the answers do.
    for checks, status in ((True, "refused"), (False, "accepted")):
        engine = Disturbed(views)
        engine.disturb([views[1]], lambda text: re.sub(r"Yaw=-?[0-9.]+", "Yaw=15", text))
        odometry = odometry_of(
            replace(drive, views=views), engine, still_flow=0.0, match_rows=0, check_features=checks
        )
        step = run(odometry, views)[1]
        assert step.status == status, step.reason
        assert step.refused_by == ("image features" if checks else None)


def test_a_reset_after_a_jump_of_time_stays_one_if_another_reset_follows(drive):
    odometry = odometry_of(drive)
    run(odometry, drive.views[:3])
    odometry.reset("the clock has jumped back", time_jumped=True)
    odometry.reset("somebody asked")
    step = step_of(odometry, drive.views[1], 1)
    assert (step.status, step.reason) == ("reset", "somebody asked")


def test_a_base_that_carries_the_camera_differently_begins_a_new_chain(drive):
    odometry = odometry_of(drive)
    run(odometry, drive.views[:3])
    mount = drive.sequence.T_base_camera.copy()
    mount[0, 3] += 0.5
    odometry.remount(mount, "moved")
    assert step_of(odometry, drive.views[1], 1).status == "skipped", "stamps never go back"
    step = step_of(odometry, drive.views[3], 3)
    assert (step.status, step.reason) == ("reset", "moved")
    after = step_of(odometry, drive.views[4], 4)
    truth = inverse(drive.views[3].T_world_camera) @ drive.views[4].T_world_camera
    np.testing.assert_allclose(after.T_odom_base, mount @ truth @ inverse(mount), atol=1e-7)


@pytest.mark.parametrize("seed", range(6))
def test_odd_stamps_and_refusals_in_any_order_keep_the_chain_sound(drive, seed):
    """Stamps that are equal, go back or leap, answers that are refused, resets in between."""
    rng = np.random.default_rng(seed)
    engine = Disturbed(drive.views)
    engine.disturb([drive.views[i] for i in rng.choice(30, 9, replace=False)], lambda text: "")
    odometry = odometry_of(drive, engine, still_flow=0.0, check_features=False, max_gap=2.0)
    stamp, last = START, None
    for index in range(30):
        stamp += int(rng.choice([1, PERIOD, PERIOD, PERIOD, 4 * PERIOD, 0, -PERIOD, 30 * PERIOD]))
        if rng.random() < 0.05:
            odometry.reset("somebody asked")
        view = drive.views[index]
        step = odometry.update(view.image, view.camera, stamp)
        if not step.has_pose:
            assert step.status in ("refused", "skipped")
            continue
        if step.status not in ("first", "reset"):
            assert step.stamp_ns > last
            for covariance in (step.covariance_odom_base, step.covariance_twist):
                assert np.linalg.eigvalsh(covariance).min() > 0
            assert np.isfinite(step.twist).all()
        assert np.isfinite(step.T_odom_base).all()
        last = step.stamp_ns
