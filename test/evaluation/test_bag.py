# SPDX-License-Identifier: Apache-2.0
"""A bag from its images to the report, with true answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from drives import (
    CAMERA,
    PERIOD_NS,
    START_NS,
    PosedFrame,
    posed_frames,
    truth_engine,
    write_drive,
)
from rosbags.convert.converter import convert
from truth import TruthEngine, for_all_tasks

from vlm3_lab.scenes import sample_view
from vlm3_ros.bags.writing import write_bag
from vlm3_ros.engines.base import Engine, EngineError
from vlm3_ros.errors import BagError
from vlm3_ros.evaluation.bag.answers import BagAnswers, ask_about_frames, at_rate
from vlm3_ros.evaluation.bag.evaluate import (
    BagEvaluation,
    bag_result,
    bag_source,
    evaluate_answers,
)
from vlm3_ros.evaluation.bag.frames import counted
from vlm3_ros.evaluation.bag.output import write_evaluation
from vlm3_ros.evaluation.bag.scores import odometry_chains, published_pairs
from vlm3_ros.evaluation.metrics.trajectories import read_tum
from vlm3_ros.evaluation.result import result_json
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.geometry.ground import MIN_FRAMES
from vlm3_ros.messages.cameras import camera_info_message
from vlm3_ros.messages.classes import ROSBAGS
from vlm3_ros.messages.depth_images import depth_message
from vlm3_ros.messages.images import jpeg_image_message
from vlm3_ros.paths import sample_bag

FRAMES = 6


pytestmark = pytest.mark.slow


def evaluated(bag: Path, engine: Engine | None = None, **chosen: object) -> BagEvaluation:
    """With true answers if no engine is given."""
    with bag_source(bag, **chosen) as source:
        engine = engine or truth_engine(source)
        answers = ask_about_frames(for_all_tasks(engine), source.frames, source.T_base_camera)
        return evaluate_answers(source, engine.name, "offline", answers)


def assert_without_error(evaluation: BagEvaluation) -> None:
    scores = evaluation.scores
    assert scores.left_out == {}
    assert scores.depth.model.delta1 == 1
    assert scores.depth.model.abs_rel < 1e-6
    assert scores.depth.model.unanswered == 0
    for motions in (scores.pose, scores.odometry):
        assert motions.model.pairs == evaluation.answers.frames - 1
        assert set(motions.model.auc.values()) == {1.0}
        assert np.max(motions.errors.rotation_deg) < 1e-5
        assert np.max(motions.errors.direction_deg) < 1e-4
        assert np.max(np.abs(motions.errors.distance_m)) < 1e-6
    assert scores.correspondence.model.epe_px < 1e-3
    assert scores.correspondence.model.unanswered == 0
    assert scores.correspondence.model.matches > 20
    for errors in (scores.trajectory.ape, scores.trajectory.ape_from_start, scores.trajectory.rpe):
        assert errors.translation_m.max < 1e-6
        assert errors.rotation_deg.max < 1e-5


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("drive") / "drive"
    write_drive(path)
    return path


@pytest.fixture(scope="module")
def engine(drive: Path) -> Engine:
    with bag_source(drive) as source:
        return truth_engine(source)


def test_true_answers_have_no_error_in_any_metric(drive: Path, tmp_path: Path) -> None:
    evaluation = evaluated(drive)
    assert_without_error(evaluation)
    assert evaluation.notes == {}
    assert evaluation.answers.frames == len(evaluation.answers.answered) == FRAMES
    content = result_json(bag_result(evaluation))
    assert content["pose"]["auc30"] == 1
    assert content["frames"]["in_bag"] == FRAMES
    assert content["consistency"]["motions"] == FRAMES - 1
    assert content["consistency"]["nees"]["mean"] < 1e-4
    assert content["latency"]["depth_ms"]["p50"] > 0
    # Baselines without a model still have errors.
    assert content["baselines"]["identity"]["pose"]["distance_error_m"]["median"] > 0.05
    assert content["baselines"]["same_pixel"]["correspondence"]["epe_px"] > 1
    assert content["baselines"]["constant_velocity"]["odometry"]["unanswered"] == 1
    wrote = write_evaluation(evaluation, tmp_path)
    assert set(wrote) == {
        "metrics.json",
        "estimate.tum",
        "truth.tum",
        "occupancy.png",
        "report.html",
    }
    estimate, truth = (read_tum(tmp_path / f"{name}.tum") for name in ("estimate", "truth"))
    stamps = START_NS + PERIOD_NS * np.arange(FRAMES)
    np.testing.assert_array_equal(estimate.stamps_ns, stamps)
    np.testing.assert_array_equal(truth.stamps_ns, stamps)
    np.testing.assert_allclose(
        np.linalg.inv(truth.poses[0]) @ truth.poses, estimate.poses, atol=1e-6
    )


@pytest.mark.parametrize("form", ["drive.bag", "sqlite3"])
def test_all_bag_formats_give_the_same_scores(drive: Path, tmp_path: Path, form: str) -> None:
    target = tmp_path / form
    convert(
        srcs=[drive],
        dst=target,
        dst_storage="sqlite3",
        dst_version=8,
        compress=None,
        compress_mode="file",
        default_typestore=None,
        typestore=None,
        exclude_topics=[],
        include_topics=[],
        exclude_msgtypes=[],
        include_msgtypes=[],
    )
    assert_without_error(evaluated(target))


@pytest.mark.parametrize("ground_truth", ["odom", "/tf", "/odom"])
def test_ground_truth_can_be_chosen(drive: Path, engine: Engine, ground_truth: str) -> None:
    assert_without_error(evaluated(drive, engine, ground_truth=ground_truth))


def test_without_ground_truth_pose_scores_are_left_out_with_a_reason(
    engine: Engine, tmp_path: Path
) -> None:
    write_drive(tmp_path / "bag", with_odometry=False, with_tf=False)
    evaluation = evaluated(tmp_path / "bag", engine)
    assert evaluation.scores.depth.model.delta1 == 1
    content = result_json(bag_result(evaluation))
    for name in ("pose", "odometry", "trajectory", "correspondence"):
        assert name not in content
        assert "no ground truth of poses" in content["left_out"][name]
    wrote = write_evaluation(evaluation, tmp_path)
    assert "estimate.tum" in wrote
    assert "truth.tum" not in wrote
    assert "no ground truth of poses" in (tmp_path / "report.html").read_text()
    with pytest.raises(BagError, match="no topic '/odom'"):
        evaluated(tmp_path / "bag", engine, ground_truth="/odom")


def test_without_depth_the_trajectory_is_still_scored(engine: Engine, tmp_path: Path) -> None:
    write_drive(tmp_path / "bag", with_depth=False)
    evaluation = evaluated(tmp_path / "bag", engine)
    content = result_json(bag_result(evaluation))
    assert content["pose"]["auc3"] == 1
    assert content["trajectory"]["ape_rmse_m"] < 1e-6
    assert set(content["left_out"]) == {"depth", "correspondence", "occupancy"}
    assert "no depth images" in content["left_out"]["depth"]
    write_evaluation(evaluation, tmp_path)
    assert "data:image/svg" in (tmp_path / "report.html").read_text()


def test_a_camera_that_changes_within_a_bag_resets_the_odometry(tmp_path: Path) -> None:
    other = PinholeCamera.from_hfov(160, 160, 60.0)
    write_drive(tmp_path / "bag", [CAMERA] * 4 + [other] * 3)
    evaluation = evaluated(tmp_path / "bag")
    assert evaluation.scores.depth.model.delta1 == 1
    assert evaluation.scores.depth.model.abs_rel < 1e-6
    assert len(evaluation.answers.resets) == 1
    assert evaluation.scores.pose.model.pairs == 5
    assert evaluation.scores.pose.model.auc[3] == 1
    assert evaluation.scores.trajectory.chains == 2
    assert len(evaluation.scores.trajectory.estimate.poses) == 4
    assert "camera has changed" in evaluation.notes["the odometry was reset"]


def test_a_truncated_bag_is_evaluated_up_to_its_end(tmp_path: Path) -> None:
    whole = (sample_bag() / "sample.mcap").read_bytes()
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(whole[: len(whole) // 4])
    evaluation = evaluated(cut)
    assert 2 <= evaluation.answers.frames < 30
    scores = evaluation.scores
    assert scores.depth.model.abs_rel < 1e-6
    assert scores.pose.model.auc[3] == 1
    assert scores.trajectory.ape.translation_m.max < 1e-6
    notes = evaluation.notes
    assert "truncated" in notes["only part of the bag was read"]
    assert "cut.mcap" in notes["only part of the bag was read"]


def test_a_damaged_bag_is_evaluated_up_to_the_damage(tmp_path: Path) -> None:
    content = bytearray((sample_bag() / "sample.mcap").read_bytes())
    start = len(content) // 4
    content[start : start + 100_000] = b"\xff" * 100_000
    (tmp_path / "damaged.mcap").write_bytes(content)
    evaluation = evaluated(tmp_path / "damaged.mcap")
    assert 2 <= evaluation.answers.frames < 40
    assert evaluation.scores.depth.model.abs_rel < 1e-6
    assert evaluation.scores.trajectory.ape.translation_m.max < 1e-6
    notes = evaluation.notes
    assert "damaged after" in notes["only part of the bag was read"]


def test_a_checkpoint_that_learned_depth_only_is_scored_on_depth(
    drive: Path, engine: Engine
) -> None:
    with bag_source(drive) as source:
        depth_only = truth_engine(source)
    prompts = depth_only.profile.prompts.without("pose", "correspondence")
    depth_only.profile = replace(depth_only.profile, prompts=prompts)
    content = result_json(bag_result(evaluated(drive, depth_only)))
    assert content["depth"]["delta1"] == 1
    assert set(content["left_out"]) == {"pose", "correspondence", "odometry", "trajectory"}
    assert all("did not learn relative pose" in why for why in content["left_out"].values())


def test_a_checkpoint_that_learned_motion_only_is_scored_on_motion(
    drive: Path, engine: Engine, tmp_path: Path
) -> None:
    with bag_source(drive) as source:
        motion_only = truth_engine(source)
        prompts = motion_only.profile.prompts.without("depth", "objects", "correspondence")
        motion_only.profile = replace(motion_only.profile, prompts=prompts)
        engines = for_all_tasks(motion_only)
        answers = ask_about_frames(engines, source.frames, source.T_base_camera)
        evaluation = evaluate_answers(source, "VLM3-pose", "offline", answers)
        write_evaluation(evaluation, tmp_path)
    content = result_json(bag_result(evaluation))
    assert content["pose"]["auc3"] == 1
    assert evaluation.scores.trajectory.ape.translation_m.max < 1e-6
    assert set(content["left_out"]) == {"depth", "correspondence", "occupancy"}
    assert "set depth_model to a checkpoint that did" in content["left_out"]["depth"]


def test_a_checkpoint_that_learned_neither_depth_nor_motion(drive: Path) -> None:
    with bag_source(drive) as source:
        engine = truth_engine(source)
        prompts = engine.profile.prompts.without("depth", "pose")
        engine.profile = replace(engine.profile, prompts=prompts)
        with pytest.raises(EngineError, match=r"did not learn metric depth.*learn relative pose"):
            ask_about_frames(for_all_tasks(engine), source.frames, source.T_base_camera)


def test_motion_is_accepted_without_matches(drive: Path, engine: Engine) -> None:
    with bag_source(drive) as source:
        no_matches = truth_engine(source)
    prompts = no_matches.profile.prompts.without("correspondence")
    no_matches.profile = replace(no_matches.profile, prompts=prompts)
    content = result_json(bag_result(evaluated(drive, no_matches)))
    assert content["pose"]["auc3"] == 1
    assert set(content["left_out"]) == {"correspondence"}


def test_frames_that_the_model_cannot_answer_are_wrong(drive: Path, tmp_path: Path) -> None:
    with bag_source(drive) as source:
        engine = truth_engine(source)
        engine.limits = replace(engine.limits, min_pixels=2**20, max_pixels=2**20 + 1)
        answers = ask_about_frames(for_all_tasks(engine), source.frames, source.T_base_camera)
        evaluation = evaluate_answers(source, engine.name, "offline", answers)
    assert (answers.frames, answers.answered) == (FRAMES, [])
    assert answers.failed.total() == FRAMES
    assert "6 times: " in evaluation.notes["frames that could not be answered"]
    depth = evaluation.scores.depth.model
    assert (depth.delta1, depth.images) == (0, FRAMES)
    assert depth.unanswered == depth.pixels > 0
    assert np.isnan(depth.abs_rel)
    assert "report.html" in write_evaluation(evaluation, tmp_path)


def test_tasks_that_the_engine_mostly_failed_at_are_left_out(drive: Path, tmp_path: Path) -> None:
    class Failing(TruthEngine):
        pairs = 0

        def ask(self, images, questions, answer_template=None):
            self.pairs += len(images) == 2 and answer_template is None
            if len(images) == 2 and self.pairs > 2:
                raise EngineError("http://a/v1 cannot be reached (refused)")
            return super().ask(images, questions, answer_template)

    with bag_source(drive) as source:
        engine = Failing(posed_frames(source))
    evaluation = evaluated(drive, engine)
    content = result_json(bag_result(evaluation))
    assert content["depth"]["delta1"] == 1
    assert content["answers"]["depth"]["faults"] == {}
    assert list(content["answers"]["pose"]["faults"]) == ["cannot be reached"]
    left_out = content["left_out"]
    assert {"pose", "odometry", "trajectory", "correspondence"} <= set(left_out)
    assert "questions had no answer from the engine" in left_out["trajectory"]
    assert "report.html" in write_evaluation(evaluation, tmp_path)


def test_answers_that_the_odometry_rejected_are_scored(drive: Path) -> None:
    class Shortsighted(TruthEngine):
        def _answer(self, known, question):
            first, last = (places[id(frame)] for frame, _ in (known[0], known[-1]))
            if last - first > 1:
                return "I see a chair."
            return super()._answer(known, question)

    with bag_source(drive) as source:
        frames = posed_frames(source)
    places = {id(frame): place for place, frame in enumerate(frames)}
    evaluation = evaluated(drive, Shortsighted(frames))
    assert evaluation.scores.odometry.model.auc[3] == 1
    pose = evaluation.scores.pose.model
    assert pose.unanswered == pose.pairs - (FRAMES - 1) > 0
    assert pose.auc[30] == pytest.approx((FRAMES - 1) / pose.pairs)
    assert evaluation.scores.correspondence.model.unanswered > 0


def test_broken_images_and_depth_are_left_out_with_a_note(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    views = [sample_view(rng, "room") for _ in range(3)]
    with write_bag(tmp_path / "bag") as writer:
        for stamp, view in enumerate(views):
            info = camera_info_message(ROSBAGS.header(stamp, "optical"), view.camera)
            image = jpeg_image_message(ROSBAGS.header(stamp, "optical"), view.image)
            depth = view.depth
            if stamp == 1:
                image.data = image.data[:200]
            if stamp == 2:
                depth = depth[:-1]
            writer.write("/camera_info", info, stamp)
            writer.write("/image/compressed", image, stamp)
            writer.write(
                "/depth", depth_message(ROSBAGS.header(stamp, "optical"), depth, "32FC1"), stamp
            )
    with bag_source(tmp_path / "bag") as source:
        first, last = source.frames
        assert (first.stamp_ns, last.stamp_ns, last.depth) == (0, 2, None)
        blank = np.full(last.image.shape[:2], np.nan, np.float32)
        known = [
            PosedFrame(f.image, blank if f.depth is None else f.depth, f.camera, np.eye(4))
            for f in (first, last)
        ]
        engine = TruthEngine(known)
        answers = ask_about_frames(for_all_tasks(engine), source.frames, source.T_base_camera)
        evaluation = evaluate_answers(source, engine.name, "offline", answers)
    assert answers.answered == [0, 2]
    assert evaluation.scores.depth.model.images == 1
    assert "1 times: /image/compressed: " in evaluation.notes["images that could not be used"]
    assert "not registered" in evaluation.notes["frames without true depth"]


def test_a_rate_takes_frames_evenly(drive: Path) -> None:
    with bag_source(drive) as source:
        every_other = [frame.stamp_ns for frame in at_rate(source.frames, 2.5)]
        more_than_there_are = [frame.stamp_ns for frame in at_rate(source.frames, 100)]
    np.testing.assert_array_equal(every_other, START_NS + PERIOD_NS * np.array([0, 2, 4]))
    assert len(more_than_there_are) == FRAMES


def test_the_ground_gives_the_scale_for_a_given_camera_height(drive: Path, engine: Engine) -> None:
    with bag_source(drive) as source:
        height = source.T_base_camera[2, 3]
        plain, same, higher = (
            ask_about_frames(
                for_all_tasks(engine), source.frames, source.T_base_camera, camera_height=metres
            )
            for metres in (None, height, 1.4 * height)
        )
    for number, (stamp, depth) in enumerate(sorted(plain.depths.items()), 1):
        if number < MIN_FRAMES:  # too few to know the ground
            assert np.isnan(same.depths[stamp]).all()
            continue
        np.testing.assert_allclose(same.depths[stamp], depth, rtol=0.02)
        np.testing.assert_allclose(higher.depths[stamp], 1.4 * depth, rtol=0.02)


def test_progress_counts_all_images_of_the_bag(drive: Path, engine: Engine) -> None:
    told: list[tuple[int, int]] = []
    with bag_source(drive) as source:
        frames = counted(source.frames, lambda done: told.append((done, source.images)))
        answers = ask_about_frames(
            for_all_tasks(engine), at_rate(frames, 2.5), source.T_base_camera
        )
        assert answers.frames == FRAMES / 2
        evaluate_answers(
            source, "truth", "offline", answers, lambda done, total: told.append((done, total))
        )
    assert told == [(done, FRAMES) for done in range(1, FRAMES + 1)] * 2


def test_single_frames_can_be_read(drive: Path) -> None:
    with bag_source(drive) as source:
        every = list(source.frames)
        picked = list(source.frames.at([every[4].stamp_ns, every[1].stamp_ns]))
    assert [frame.stamp_ns for frame in picked] == [every[1].stamp_ns, every[4].stamp_ns]
    for frame, same in zip(picked, every[1::3], strict=True):
        np.testing.assert_array_equal(frame.image, same.image)
        np.testing.assert_array_equal(frame.depth, same.depth)


def test_a_reset_starts_a_new_chain() -> None:
    poses = dict.fromkeys((1, 2, 3, 5, 6), np.eye(4))
    answers = BagAnswers(odom=poses, starts={1, 5})
    assert odometry_chains(answers) == [[1, 2, 3], [5, 6]]
    assert published_pairs(answers) == [(1, 2), (2, 3), (5, 6)]
    assert odometry_chains(BagAnswers()) == []
