# SPDX-License-Identifier: Apache-2.0
"""Maps from above, of worlds with a known map and of a bag with true answers."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from drives import truth_engine, write_drive
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from truth import for_all_tasks

from vlm3_ros.bags.poses import TruePoses
from vlm3_ros.bags.timed_poses import TimedPoses
from vlm3_ros.evaluation.bag.answers import BagAnswers, ask_about_frames
from vlm3_ros.evaluation.bag.evaluate import (
    BagEvaluation,
    bag_result,
    bag_source,
    evaluate_answers,
)
from vlm3_ros.evaluation.bag.occupancy import (
    PUBLISHED,
    ROW_GUESS,
    TRUE_DEPTH,
    TRUE_POSES,
    OccupancySurvey,
)
from vlm3_ros.evaluation.bag.output import write_evaluation
from vlm3_ros.evaluation.metrics.occupancy import (
    MAX_RANGE,
    OccupancyGrid,
    Sight,
    empty_grid,
    occupancy_grid,
    occupancy_scores,
)
from vlm3_ros.evaluation.result import result_json
from vlm3_ros.geometry.motion import transform

CAMERA = np.array([0.1, 0.0, 0.8])
"""Its position in base."""

poses = st.builds(
    lambda x, y, yaw: transform(Rotation.from_euler("z", yaw), [x, y, 0]),
    st.floats(-3, 3),
    st.floats(-3, 3),
    st.floats(-math.pi, math.pi),
)


pytestmark = pytest.mark.slow


def ring(radius: float, height: float = 0.8, count: int = 400) -> np.ndarray:
    """Points around the camera, in base."""
    turn = np.linspace(0, 2 * math.pi, count)
    flat = [CAMERA[0] + radius * np.cos(turn), radius * np.sin(turn), np.full(count, height)]
    return np.stack(flat, axis=1)


def place(pose: np.ndarray) -> np.ndarray:
    """Of the camera in the world, (x, y)."""
    return (pose @ [*CAMERA, 1])[:2]


def map_of(pose: np.ndarray, points: np.ndarray) -> OccupancyGrid:
    return occupancy_grid([pose[:2, 3]], [Sight(points, CAMERA, pose)])


def ranges(grid: OccupancyGrid, pose: np.ndarray) -> np.ndarray:
    """Metres from the camera to the middle of each cell."""
    rows, columns = np.indices(grid.free.shape)
    middles = grid.lower + (np.stack([columns, rows], axis=-1) + 0.5) * grid.cell
    return np.linalg.norm(middles - place(pose), axis=-1)


@given(poses, st.floats(0.6, 4.5))
@settings(deadline=None, max_examples=30)
def test_a_round_wall_is_occupied_free_inside_and_unknown_behind(pose, radius):
    grid = map_of(pose, ring(radius))
    away, diagonal = ranges(grid, pose), grid.cell * math.sqrt(2)
    assert np.abs(away[grid.occupied] - radius).max() <= diagonal
    assert grid.free[away < radius - 3 * grid.cell].all()
    assert not (grid.free | grid.occupied)[away > radius + diagonal].any()
    around = math.pi * 2 * radius / grid.cell
    assert grid.occupied.sum() > around / 2


@pytest.mark.parametrize(("height", "is_occupied"), [(0.0, False), (0.29, False), (0.31, True)])
def test_the_floor_is_free_and_what_stands_on_it_is_not(height, is_occupied):
    pose = np.eye(4)
    grid = map_of(pose, ring(3.0, height))
    assert grid.occupied.any() == is_occupied
    assert grid.free[ranges(grid, pose) < 2.5].all()


def test_a_ray_frees_no_cells_where_it_is_too_high():
    pose = np.eye(4)
    grid = map_of(pose, ring(4.0, 0.8 + 1.4))  # 1.5 m high, the band's end, after 2 m
    assert not grid.occupied.any()
    away = ranges(grid, pose)
    assert grid.free[away < 1.8].all()
    assert not grid.free[away > 2.2].any()


def test_points_beyond_the_range_are_not_on_the_map():
    pose = np.eye(4)
    grid = map_of(pose, ring(MAX_RANGE + 2))
    assert not grid.occupied.any()
    away = ranges(grid, pose)
    assert grid.free[away < MAX_RANGE - 0.3].all()
    assert not grid.free[away > MAX_RANGE + 0.2].any()


def test_a_cell_that_many_rays_pass_is_free():
    pose = np.eye(4)
    far, near = (Sight(ring(radius), CAMERA, pose) for radius in (4.0, 2.0))
    once = occupancy_grid([(0, 0)], [near, far])
    often = occupancy_grid([(0, 0)], [near, *[far] * 5])
    at_two = np.abs(ranges(once, pose) - 2) < 0.05
    assert once.occupied[at_two].any()
    assert not often.occupied[at_two].any()
    assert often.free[at_two].all()


@pytest.mark.parametrize("height", [0.4, 1.3])
def test_rays_above_or_below_a_thing_do_not_clear_it(height):
    pose = np.eye(4)
    sights = [Sight(ring(2.0, height), CAMERA, pose), *[Sight(ring(4.0), CAMERA, pose)] * 5]
    grid = occupancy_grid([(0, 0)], sights)
    at_two = np.abs(ranges(grid, pose) - 2) < 0.05
    assert grid.occupied[at_two].mean() > 0.9
    assert not grid.free[grid.occupied].any()


def test_a_ray_ends_two_cells_before_its_point():
    """It would clear the cells of a wall that it grazes."""
    pose = np.eye(4)
    grid = map_of(pose, np.array([[CAMERA[0] + 3.03, 0.0, 0.8]]))
    assert 2.7 < ranges(grid, pose)[grid.free].max() < 2.9
    assert grid.occupied.sum() == 1


@pytest.mark.parametrize("points", [np.empty((0, 3)), np.full((9, 3), np.nan)])
def test_without_points_all_cells_are_unknown(points):
    grid = map_of(np.eye(4), points)
    assert not (grid.occupied | grid.free).any()
    scores = occupancy_scores(grid, map_of(np.eye(4), ring(2.0)))
    assert scores.found == {0.25: 0, 0.5: 0}
    assert all(math.isnan(share) for share in scores.real.values())
    assert scores.called_free == 0
    nothing_true = occupancy_scores(map_of(np.eye(4), ring(2.0)), grid)
    assert nothing_true.real == {0.25: 0, 0.5: 0}
    assert math.isnan(nothing_true.called_free)


def test_a_large_world_has_large_cells():
    grid = empty_grid([(0, 0), (1000, 400)])
    assert max(grid.free.shape) <= 2002
    assert grid.cell == pytest.approx(0.505)


def test_a_map_is_like_itself_and_worse_the_more_it_is_off():
    truth = map_of(np.eye(4), ring(3.0))
    scores = occupancy_scores(truth, truth)
    assert scores.found == scores.real == {0.25: 1, 0.5: 1}
    assert scores.called_free == 0
    farther = occupancy_scores(map_of(np.eye(4), ring(3.4)), truth)
    assert farther.found[0.25] < 0.2
    assert farther.found[0.5] > 0.9
    assert farther.real[0.5] > 0.9
    assert farther.called_free > 0.9


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("drive") / "drive"
    write_drive(path)
    return path


@pytest.fixture(scope="module")
def true_answers(drive: Path) -> BagAnswers:
    with bag_source(drive) as source:
        engine = truth_engine(source)
        return ask_about_frames(for_all_tasks(engine), source.frames, source.T_base_camera)


def evaluated(bag: Path, answers: BagAnswers) -> BagEvaluation:
    with bag_source(bag) as source:
        return evaluate_answers(source, "truth", "offline", answers)


def test_true_answers_draw_the_map_of_true_sparse_depth(
    drive: Path, true_answers: BagAnswers, tmp_path: Path
) -> None:
    evaluation = evaluated(drive, true_answers)
    maps, scores = evaluation.occupancy.maps, evaluation.occupancy.scores
    assert list(maps) == [PUBLISHED, TRUE_POSES, TRUE_DEPTH, ROW_GUESS]
    np.testing.assert_array_equal(maps[TRUE_POSES].hits, maps[TRUE_DEPTH].hits)
    np.testing.assert_array_equal(maps[TRUE_POSES].passes, maps[TRUE_DEPTH].passes)
    assert scores[TRUE_DEPTH].real[0.25] == 1
    assert scores[TRUE_DEPTH].called_free == 0
    assert scores[TRUE_DEPTH].found[0.5] > scores[ROW_GUESS].found[0.5]
    assert scores[PUBLISHED].found[0.25] == pytest.approx(scores[TRUE_POSES].found[0.25], abs=0.05)
    np.testing.assert_allclose(
        evaluation.occupancy.published_way, evaluation.occupancy.true_way, atol=1e-6
    )
    content = result_json(bag_result(evaluation))["occupancy"]
    assert content["true_cells"] == evaluation.occupancy.truth.occupied.sum() > 20
    assert content["maps"]["true_sparse_depth"]["real"]["0.25_m"] == 1
    assert "occupancy.png" in write_evaluation(evaluation, tmp_path)
    assert cv2.imread(str(tmp_path / "occupancy.png")).std() > 10


def test_drift_of_the_odometry_affects_its_own_map_only(
    drive: Path, true_answers: BagAnswers
) -> None:
    first = min(true_answers.odom)
    drifted = {
        stamp: transform(Rotation.from_euler("z", (stamp - first) / 1e9), [0, 0, 0]) @ pose
        for stamp, pose in true_answers.odom.items()
    }
    exact = evaluated(drive, true_answers).occupancy
    off = evaluated(drive, replace(true_answers, odom=drifted)).occupancy
    assert off.scores[TRUE_POSES] == exact.scores[TRUE_POSES]
    assert off.scores[PUBLISHED].real[0.25] < exact.scores[PUBLISHED].real[0.25]
    assert np.linalg.norm(off.published_way[-1] - off.true_way[-1]) > 0.1
    assert np.linalg.norm(off.published_way[0] - off.true_way[0]) < 1e-6


def test_poses_of_the_other_node_are_interpolated() -> None:
    """In real time the nodes answer different frames."""
    stamps = (
        np.arange(5) * 400_000_000
    )  # true poses are close enough in time, those of the node are 0.8 s apart
    straight = np.stack([transform(Rotation.identity(), [i, 0, 0]) for i in range(5)])
    mount = transform(Rotation.identity(), CAMERA)
    truth = TruePoses("test", "world", TimedPoses(stamps, straight), mount)
    odom = {int(s): p for s, p in zip(stamps[::2], straight[::2], strict=True)}
    depths = {int(s): np.ones(192) for s in stamps[1::2]}
    survey = OccupancySurvey(BagAnswers(odom=odom, starts={0}, depths=depths), truth, "")
    assert survey.reason == ""
    np.testing.assert_allclose(
        [pose[0, 3] for pose in survey._published.values()], [1, 3], atol=1e-12
    )


def test_without_poses_there_is_no_map_for_a_stated_reason(
    true_answers: BagAnswers, tmp_path: Path
) -> None:
    write_drive(tmp_path / "bag", with_odometry=False, with_tf=False)
    evaluation = evaluated(tmp_path / "bag", true_answers)
    assert evaluation.occupancy is None
    assert "no ground truth of poses" in evaluation.scores.left_out["occupancy"]
    assert "occupancy" not in result_json(bag_result(evaluation))
    assert "occupancy.png" not in write_evaluation(evaluation, tmp_path)


def test_without_depth_there_is_no_map_for_a_stated_reason(
    true_answers: BagAnswers, tmp_path: Path
) -> None:
    write_drive(tmp_path / "bag", with_depth=False)
    evaluation = evaluated(tmp_path / "bag", true_answers)
    assert evaluation.occupancy is None
    assert "no depth images" in evaluation.scores.left_out["occupancy"]


def test_without_published_poses_the_other_maps_are_drawn(
    drive: Path, true_answers: BagAnswers, tmp_path: Path
) -> None:
    silent = replace(true_answers, odom={}, starts=set())
    evaluation = evaluated(drive, silent)
    assert list(evaluation.occupancy.maps) == [TRUE_POSES, TRUE_DEPTH, ROW_GUESS]
    assert "occupancy.png" in write_evaluation(evaluation, tmp_path)


def test_without_the_robots_base_there_is_no_map() -> None:
    truth = TruePoses("/pose", "world", TimedPoses(np.array([0]), np.eye(4)[None]), np.eye(4))
    survey = OccupancySurvey(BagAnswers(depths={0: np.ones(192)}), truth, "")
    assert "what is floor" in survey.reason
