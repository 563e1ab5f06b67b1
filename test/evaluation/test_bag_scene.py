# SPDX-License-Identifier: Apache-2.0
"""The 3D view of a bag whose answers are true."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from drives import truth_engine, write_drive
from scipy.spatial import cKDTree
from truth import for_all_tasks

from vlm3_ros.evaluation.bag.answers import ask_about_frames
from vlm3_ros.evaluation.bag.evaluate import BagEvaluation, bag_source, evaluate_answers
from vlm3_ros.evaluation.bag.scene import SHOWN, bag_scene
from vlm3_ros.evaluation.scene import Scene3D


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> BagEvaluation:
    path = tmp_path_factory.mktemp("drive") / "drive"
    write_drive(path)
    with bag_source(path) as source:
        engine = truth_engine(source)
        answers = ask_about_frames(for_all_tasks(engine), source.frames, source.T_base_camera)
        return evaluate_answers(source, engine.name, "offline", answers)


@pytest.fixture(scope="module")
def scene(evaluation: BagEvaluation) -> Scene3D:
    scene = bag_scene(evaluation)
    assert scene is not None
    return scene


def known(points: np.ndarray) -> np.ndarray:
    return points[np.isfinite(points).all(axis=1)]


def test_frames_are_spread_over_the_bag_and_their_truth_is_hidden_at_first(
    scene: Scene3D,
) -> None:
    times = ["0.0 s", "0.2 s", "0.6 s", "1.0 s"]
    names = [f"{kind}, {time}" for kind in ("answers", "true depth") for time in times]
    assert [cloud.name for cloud in scene.clouds] == names
    assert [cloud.is_shown for cloud in scene.clouds] == [True] * SHOWN + [False] * SHOWN


def test_clouds_of_all_frames_show_the_same_surfaces(scene: Scene3D) -> None:
    clouds = [known(cloud.points) for cloud in scene.clouds[SHOWN:]]
    for one, next_one in pairwise(clouds):
        assert np.median(cKDTree(one).query(next_one)[0]) < 0.03


def test_answers_lie_on_the_truth_of_their_frame(scene: Scene3D) -> None:
    for answers, truth in zip(scene.clouds[:SHOWN], scene.clouds[SHOWN:], strict=True):
        error = np.linalg.norm(answers.points - truth.points, axis=1)
        assert np.nanmedian(error) < 0.05
        assert not np.isfinite(answers.points[~np.isfinite(truth.points)]).any()


def test_z_is_up_and_the_view_looks_ahead(scene: Scene3D, evaluation: BagEvaluation) -> None:
    floor = np.concatenate([known(cloud.points)[:, 2] for cloud in scene.clouds[SHOWN:]])
    assert abs(np.percentile(floor, 5)) < 0.05
    lines = {line.name: known(line.points) for line in scene.lines}
    np.testing.assert_allclose(lines["odometry"], lines["true trajectory"], atol=1e-6)
    ahead = known(scene.clouds[0].points).mean(axis=0) - lines["true trajectory"][0]
    assert np.dot(ahead[:2], scene.forward) > 0.8 * np.linalg.norm(ahead[:2])


def test_without_true_poses_the_odometry_places_clouds_with_z_up(
    evaluation: BagEvaluation, tmp_path: Path
) -> None:
    write_drive(tmp_path / "drive", with_odometry=False, with_tf=False)
    with bag_source(tmp_path / "drive") as source:
        engine = truth_engine(evaluation.source)
        answers = ask_about_frames(for_all_tasks(engine), source.frames, source.T_base_camera)
        scene = bag_scene(evaluate_answers(source, engine.name, "offline", answers))
    assert scene is not None
    assert [line.name for line in scene.lines] == ["cameras", "odometry"]
    points = known(scene.clouds[SHOWN].points)
    assert np.percentile(points[:, 0], 5) > 0, "ahead of the first camera"
    assert np.percentile(points[:, 2], 5) < -0.1, "the floor is below it"
    assert scene.forward == pytest.approx((1, 0))
    assert "by odometry" in scene.note


def test_without_poses_there_is_no_scene(evaluation: BagEvaluation, tmp_path: Path) -> None:
    write_drive(tmp_path / "drive", with_odometry=False, with_tf=False)
    with bag_source(tmp_path / "drive") as source:
        engine = truth_engine(evaluation.source)
        answers = ask_about_frames(for_all_tasks(engine), source.frames, source.T_base_camera)
        answers.odom.clear()
        assert bag_scene(evaluate_answers(source, engine.name, "offline", answers)) is None
