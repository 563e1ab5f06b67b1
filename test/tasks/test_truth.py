# SPDX-License-Identifier: Apache-2.0
"""True answers in text give the truth back: images, questions, parsers and geometry."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from truth import TruthEngine, record_truth

from vlm3_lab.scenes.sequences import sample_sequence
from vlm3_lab.scenes.view_pairs import true_matches
from vlm3_ros.datasets.views import View
from vlm3_ros.engines.recorded import RecordedEngine
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.geometry.motion import inverse
from vlm3_ros.tasks.depth import ask_depth, uniform_grid
from vlm3_ros.tasks.two_view import ask_pair


@pytest.fixture(scope="module")
def views() -> list[View]:
    rng = np.random.default_rng(3)
    camera = PinholeCamera(200, 150, 140.0, 145.0, 101.0, 73.0)
    sequence = sample_sequence(rng, camera, kind="room", duration=1.0, rate=10.0)
    return [sequence.view(index, rng) for index in (0, 4, 8)]


@pytest.mark.parametrize("fit", ["scale", "pad"])
def test_depth_motion_and_matches_come_back(views: list[View], fit: str) -> None:
    engine = TruthEngine(views, fit=fit)
    first, second = views[:2]
    pixels = np.rint(uniform_grid(first.camera, 8, 6))
    answers = ask_depth(engine, first.image, first.camera, pixels)
    u, v = pixels.astype(int).T
    np.testing.assert_allclose(answers.depth, first.depth[v, u], rtol=1e-6)

    images, cameras = (first.image, second.image), (first.camera, second.camera)
    pose, matches = ask_pair(engine, images, cameras, pixels)
    T_cam1_cam2 = inverse(first.T_world_camera) @ second.T_world_camera
    np.testing.assert_allclose(pose.T_cam1_cam2, T_cam1_cam2, atol=1e-7)
    expected = true_matches(first, second, pixels)
    known = np.isfinite(expected).all(1) & np.isfinite(matches.pixels2).all(1)
    assert known.sum() > len(pixels) / 2
    np.testing.assert_allclose(matches.pixels2[known], expected[known], atol=1e-3)


def test_the_truth_can_be_replayed(views: list[View], tmp_path: Path) -> None:
    file = tmp_path / "truth.jsonl"
    record_truth(file, views, grid=(4, 3), match_grid=(4, 3), furthest=2)
    truth, replayed = TruthEngine(views), RecordedEngine(file)
    for one, two in ((0, 1), (2, 0)):
        first, second = views[one], views[two]
        pixels = uniform_grid(first.camera, 4, 3)
        asked = ((first.image, second.image), (first.camera, second.camera), pixels)
        pose, matches = ask_pair(replayed, *asked)
        expected_pose, expected_matches = ask_pair(truth, *asked)
        assert pose.texts == expected_pose.texts
        assert matches.texts == expected_matches.texts
        depths = ask_depth(replayed, first.image, first.camera, pixels)
        assert depths.texts == ask_depth(truth, first.image, first.camera, pixels).texts
