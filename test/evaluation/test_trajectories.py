# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vlm3_ros.evaluation.metrics.trajectories import (
    ErrorStatistics,
    Trajectory,
    absolute_pose_error,
    aligned,
    associate,
    read_tum,
    relative_pose_error,
    write_tum,
)
from vlm3_ros.geometry.motion import transform

START = 1_700_000_000_123_456_789


def trajectory(poses: list[np.ndarray], first_ns: int = START, step_ns: int = 10**8) -> Trajectory:
    return Trajectory(first_ns + step_ns * np.arange(len(poses), dtype=np.int64), np.stack(poses))


def at(x: float, y: float, yaw_deg: float = 0) -> np.ndarray:
    return transform(Rotation.from_euler("Z", yaw_deg, degrees=True), [x, y, 0])


def wandering(seed: int, count: int, noise: float = 0.0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    T, poses = np.eye(4), []
    for _ in range(count):
        T = T @ transform(Rotation.from_rotvec(rng.normal(0, 0.2, 3)), rng.normal(0, 0.3, 3))
        poses.append(T)
    noisy = np.random.default_rng(seed + 1)
    return [
        T @ transform(Rotation.from_rotvec(noisy.normal(0, noise, 3)), noisy.normal(0, noise, 3))
        for T in poses
    ]


def test_absolute_errors_by_hand():
    truth = trajectory([at(0, 0), at(1, 0), at(2, 0)])
    estimate = trajectory([at(0, 0), at(1, 3, 90), at(2, -4, -10)])
    errors = absolute_pose_error(estimate, truth)
    assert errors.translation_m == ErrorStatistics(
        pytest.approx(math.sqrt(25 / 3)), pytest.approx(7 / 3), pytest.approx(3), pytest.approx(4)
    )
    assert errors.rotation_deg.max == pytest.approx(90)
    assert errors.rotation_deg.mean == pytest.approx(100 / 3)


def test_relative_errors_by_hand():
    """A quarter turn too much at the start: only the first step is wrong."""
    truth = trajectory([at(0, 0), at(1, 0), at(2, 0), at(3, 0)])
    estimate = trajectory([at(0, 0), at(1, 0, 90), at(1, 1, 90), at(1, 2.5, 90)])
    errors = relative_pose_error(estimate, truth)
    assert errors.rotation_deg.max == pytest.approx(90)
    assert errors.rotation_deg.mean == pytest.approx(30)
    assert errors.translation_m.max == pytest.approx(0.5)
    assert errors.translation_m.mean == pytest.approx(0.5 / 3)
    # Over two steps only 0 to 2 is left: (2, 0) against (1, 1).
    two = relative_pose_error(estimate, truth, step=2)
    assert two.translation_m.max == pytest.approx(math.sqrt(2))
    assert two.translation_m.rmse == pytest.approx(math.sqrt(2))
    with pytest.raises(ValueError, match="4 poses make no motion over 4"):
        relative_pose_error(estimate, truth, step=4)


def test_alignment_removes_a_motion_of_the_world_but_not_its_scale():
    truth = trajectory(wandering(3, 30))
    moved = transform(Rotation.from_rotvec([0.3, -1.0, 2.0]), [5, -3, 1])
    estimate = Trajectory(truth.stamps_ns, moved @ truth.poses)
    errors = absolute_pose_error(aligned(estimate, truth), truth)
    assert errors.translation_m.max < 1e-9 and errors.rotation_deg.max < 1e-5
    larger = truth.poses.copy()
    larger[:, :3, 3] *= 1.1
    scaled = absolute_pose_error(aligned(Trajectory(truth.stamps_ns, larger), truth), truth)
    places = truth.poses[:, :3, 3] - truth.poses[:, :3, 3].mean(0)
    assert scaled.translation_m.rmse == pytest.approx(
        0.1 * math.sqrt((places**2).sum(1).mean()), rel=1e-6
    )


def test_a_straight_drive_is_aligned_without_complaint(recwarn):
    truth = trajectory([at(x, 0) for x in range(5)])
    estimate = Trajectory(truth.stamps_ns, at(2, 2, 40) @ truth.poses)
    assert absolute_pose_error(aligned(estimate, truth), truth).translation_m.max < 1e-9
    assert not recwarn.list


def test_a_standstill_is_aligned_and_one_pose_is_not():
    standing, elsewhere = trajectory([at(0, 0)] * 3), trajectory([at(2, 1)] * 3)
    errors = absolute_pose_error(aligned(standing, elsewhere), elsewhere)
    assert errors.translation_m.max < 1e-9
    with pytest.raises(ValueError, match="one pose cannot be aligned"):
        aligned(trajectory([at(0, 0)]), trajectory([at(2, 1)]))


def test_stamps_are_paired_with_the_nearest_within_the_limit():
    truth = trajectory([at(x, 0) for x in range(10)], first_ns=0)
    stamps = np.array([-5_000_000, 104_000_000, 250_000_000, 395_000_000, 911_000_000])
    estimate = Trajectory(stamps, np.stack([at(x, 1) for x in range(5)]))
    found, true = associate(estimate, truth)
    assert found.poses[:, 0, 3].tolist() == [0, 1, 3]
    assert true.poses[:, 0, 3].tolist() == [0, 1, 4]
    other, back = associate(truth, estimate)
    np.testing.assert_array_equal(other.poses, true.poses)
    np.testing.assert_array_equal(back.poses, found.poses)
    single = Trajectory(stamps[:1], estimate.poses[:1])
    assert associate(single, truth)[1].poses[:, 0, 3].tolist() == [0]
    assert len(associate(single, single)[0].poses) == 1
    with pytest.raises(ValueError, match=r"within 0\.001 s"):
        associate(estimate, truth, 0.001)


def test_tum_files_keep_stamps_to_the_nanosecond(tmp_path: Path):
    path = tmp_path / "poses.txt"
    written = trajectory(wandering(1, 20))
    write_tum(path, written)
    read = read_tum(path)
    np.testing.assert_array_equal(read.stamps_ns, written.stamps_ns)
    np.testing.assert_allclose(read.poses, written.poses, atol=1e-8)


def test_a_tum_file_by_hand(tmp_path: Path):
    path = tmp_path / "poses.txt"
    path.write_text("# stamp x y z qx qy qz qw\n\n1.5 1 2 3 0 0 1 1\n1.6e0 0 0 0 0 0 0 2\n")
    read = read_tum(path)
    assert read.stamps_ns.tolist() == [1_500_000_000, 1_600_000_000]
    np.testing.assert_allclose(
        read.poses[0], [[0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]], atol=1e-12
    )
    np.testing.assert_allclose(read.poses[1], np.eye(4), atol=1e-12)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it holds no pose"),
        ("1 0 0 0 0 0 0 1\n2 0 0 0 0 0 1\n", "line 2: no TUM pose"),
        ("1 0 0 0 0 0 0 0\n", "line 1: no TUM pose"),
        ("1 0 0 nan 0 0 0 1\n", "line 1: no TUM pose"),
        ("nan 0 0 0 0 0 0 1\n", "line 1: no TUM pose"),
        ("now 0 0 0 0 0 0 1\n", "line 1: no TUM pose"),
        ("2 0 0 0 0 0 0 1\n1 0 0 0 0 0 0 1\n", "stamps do not ascend"),
    ],
)
def test_broken_lines_of_a_tum_file_are_named(tmp_path: Path, text: str, message: str):
    path = tmp_path / "poses.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as refused:
        read_tum(path)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize("step", [1, 3, 7])
def test_errors_are_those_of_evo(tmp_path: Path, step: int):
    metrics = pytest.importorskip("evo.core.metrics")
    file_interface = pytest.importorskip("evo.tools.file_interface")
    sync = pytest.importorskip("evo.core.sync")
    truth = trajectory(wandering(5, 60))
    noisy = np.stack(wandering(5, 60, noise=0.05))
    moved = transform(Rotation.from_rotvec([0.1, 0.2, 0.3]), [1, 2, 3])
    estimate = Trajectory(truth.stamps_ns + 3_000_000, moved @ noisy)
    estimate = Trajectory(estimate.stamps_ns[4::2], estimate.poses[4::2])
    write_tum(tmp_path / "truth.txt", truth)
    write_tum(tmp_path / "estimate.txt", estimate)
    evo_truth = file_interface.read_tum_trajectory_file(tmp_path / "truth.txt")
    evo_estimate = file_interface.read_tum_trajectory_file(tmp_path / "estimate.txt")
    evo_truth, evo_estimate = sync.associate_trajectories(evo_truth, evo_estimate)

    def evo_statistics(metric) -> ErrorStatistics:
        metric.process_data((evo_truth, evo_estimate))
        found = metric.get_all_statistics()
        return ErrorStatistics(
            *(pytest.approx(found[name], abs=1e-6) for name in ("rmse", "mean", "median", "max"))
        )

    translation = metrics.PoseRelation.translation_part
    rotation = metrics.PoseRelation.rotation_angle_deg
    ours, true = associate(estimate, truth)
    relative = relative_pose_error(ours, true, step)
    assert relative.translation_m == evo_statistics(metrics.RPE(translation, step))
    assert relative.rotation_deg == evo_statistics(metrics.RPE(rotation, step))
    unaligned = absolute_pose_error(ours, true)
    assert unaligned.translation_m == evo_statistics(metrics.APE(translation))
    assert unaligned.rotation_deg == evo_statistics(metrics.APE(rotation))
    evo_estimate.align(evo_truth)
    best = absolute_pose_error(aligned(ours, true), true)
    assert best.translation_m == evo_statistics(metrics.APE(translation))
    assert best.rotation_deg == evo_statistics(metrics.APE(rotation))
