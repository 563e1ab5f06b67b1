# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from vlm3_ros.evaluation.pictures.depth import DepthFrame, draw_depth_frames
from vlm3_ros.evaluation.pictures.pair import motion_words

MAGENTA = (255, 0, 255)


@pytest.fixture
def frame() -> DepthFrame:
    """A magenta image; depth grows from 1 m at the top to 8 m at the bottom."""
    u, v = np.meshgrid(np.arange(10, 160, 20), np.arange(10, 120, 20))
    truth = np.repeat(np.linspace(1, 8, 120, dtype=np.float32)[:, None], 160, axis=1)
    return DepthFrame(
        title="frame",
        image=np.full((120, 160, 3), MAGENTA, np.uint8),
        pixels=np.stack([u.ravel(), v.ravel()], -1).astype(float),
        depth=truth[v.ravel(), u.ravel()],
        dense=truth * np.float32(1.3),
        truth=truth,
    )


def panels(path: Path) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """The picture (RGB) and the column ranges of its panels, which are not white."""
    picture = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    row = (picture[picture.shape[0] - 40] != 255).any(axis=1)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(int), [0]])))
    spans = [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
    return picture, [(a, b) for a, b in spans if b - a > 150]


def test_five_panels_show_image_answers_truth_and_error(frame: DepthFrame, tmp_path: Path) -> None:
    draw_depth_frames([frame], tmp_path / "a.png", "title")
    picture, spans = panels(tmp_path / "a.png")
    assert len(spans) == 5
    middle = picture.shape[0] // 2
    centres = [picture[middle, (a + b) // 2].astype(int) for a, b in spans]
    assert tuple(centres[0]) == MAGENTA
    # 30 % too far everywhere: the error panel is blue.
    assert centres[4][2] > centres[4][0] + 50
    # Near (above) is red, far (below) is blue.
    a, b = spans[3]
    near, far = (picture[middle + offset, (a + b) // 2].astype(int) for offset in (-90, 90))
    assert near[0] > near[2]
    assert far[2] > far[0]


def test_depth_of_unknown_scale_looks_the_same_at_any_scale(
    frame: DepthFrame, tmp_path: Path
) -> None:
    pictures = []
    for scale in (np.float32(0.01), np.float32(500)):
        unscaled = replace(
            frame,
            depth=frame.depth * scale,
            dense=frame.dense * scale,
            truth=frame.truth * scale,
            is_metric=False,
        )
        draw_depth_frames([frame, unscaled], tmp_path / "a.png", "title")
        pictures.append(cv2.imread(str(tmp_path / "a.png")).astype(int))
        draw_depth_frames([unscaled], tmp_path / "b.png", "title")
        assert cv2.imread(str(tmp_path / "b.png")) is not None
    assert np.abs(pictures[0] - pictures[1]).max() <= 3


def test_unknown_columns_are_left_out(frame: DepthFrame, tmp_path: Path) -> None:
    draw_depth_frames([replace(frame, truth=None)], tmp_path / "a.png", "title")
    assert len(panels(tmp_path / "a.png")[1]) == 3
    draw_depth_frames([replace(frame, truth=None, dense=None)], tmp_path / "b.png", "title")
    assert len(panels(tmp_path / "b.png")[1]) == 2


def test_a_frame_without_answers_is_drawn(frame: DepthFrame, tmp_path: Path) -> None:
    silent = replace(frame, depth=np.full(len(frame.depth), np.nan), dense=None, truth=None)
    draw_depth_frames([silent], tmp_path / "a.png", "title")
    assert len(panels(tmp_path / "a.png")[1]) == 2


def test_truth_of_only_sky_is_drawn(frame: DepthFrame, tmp_path: Path) -> None:
    sky = replace(frame, truth=np.full((120, 160), np.inf, np.float32))
    draw_depth_frames([sky, frame], tmp_path / "a.png", "title")
    assert len(panels(tmp_path / "a.png")[1]) == 5


def test_a_motion_without_scale_has_no_metres() -> None:
    T = np.eye(4)
    T[2, 3] = 0.11
    turn = "yaw 0.0°, pitch 0.0°, roll 0.0°"
    assert motion_words(T) == f"0.11 m forward; {turn}"
    assert motion_words(T, is_metric=False) == f"unknown distance forward; {turn}"
