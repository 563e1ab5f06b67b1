# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.geometry.frame import RectifiedFrame
from vlm3_ros.tasks.debug_image import RANGE, depth_colours, draw_answers
from vlm3_ros.tasks.depth import DepthAnswers, uniform_grid
from vlm3_ros.tasks.frame_depth import FrameDepth, FrameDepthSettings

GREY = 200


def answered(width=640, height=480) -> FrameDepth:
    """Of 12 pixels, the first shows nothing, the second is unanswered, the third withheld."""
    camera = PinholeCamera.from_hfov(width, height, 60.0)
    pixels = uniform_grid(camera, 4, 3)
    image = np.full((height, width, 3), GREY, np.uint8)
    visible = np.ones((height, width), bool)
    visible[: height // 3, : width // 4] = False
    raw = np.linspace(1, 10, 12).astype(np.float32)
    raw[1] = np.nan
    depth = np.where(np.arange(12) < 3, np.float32(np.nan), raw)
    answers = DepthAnswers(pixels[1:], raw[1:], raw[1:] / 10, ("",) * 11)
    return FrameDepth(
        RectifiedFrame(image=image, camera=camera, visible=visible),
        FrameDepthSettings(4, 3),
        pixels,
        depth,
        depth / 10,
        answers,
        {"published": 9, "out of range": 1, "too uncertain": 0, "unanswered": 1},
    )


def test_published_answers_are_dots_in_the_colour_of_their_depth():
    depth = answered()
    picture = draw_answers(depth)
    assert picture.dtype == np.uint8
    assert picture.shape[1:] == (640, 3) and picture.shape[0] > 480
    u, v = np.rint(depth.pixels).astype(int).T
    np.testing.assert_array_equal(picture[v[3:], u[3:]], depth_colours(depth.depth[3:]))
    assert (picture[v[0], u[0]] == GREY // 2).all()  # not asked: no mark
    assert (picture[v[1], u[1]] == 0).all()
    np.testing.assert_array_equal(picture[v[2], u[2]], depth_colours(depth.answers.depth[1:2])[0])
    ring = picture[v[2] - 9 : v[2] + 10, u[2] - 9 : u[2] + 10]
    assert (ring > 240).all(axis=-1).any()  # a withheld one has a white outline


@pytest.mark.parametrize("width", [12, 80, 320, 1300])
def test_small_images_are_enlarged(width):
    picture = draw_answers(answered(width=width, height=max(3, width * 3 // 4)))
    assert picture.shape[1] >= 640
    assert picture.shape[1] % width == 0


def test_colours_go_from_red_to_blue_and_do_not_end():
    near, middle, far = depth_colours([0.7, 3, 12]).astype(int)
    assert near[0] > near[2]
    assert middle[1] > middle[0] and middle[1] > middle[2]
    assert far[2] > far[0]
    ends = depth_colours([RANGE[0] / 10, RANGE[1] * 10])
    np.testing.assert_array_equal(ends, depth_colours(RANGE))


@pytest.mark.parametrize(("width", "height"), [(1, 1), (3, 50), (1300, 20), (641, 481)])
def test_without_any_asked_pixel_the_image_is_shown(width, height):
    """All of the image is sky, or black from rectification."""
    depth = answered(width, max(height, 3))
    depth.frame.visible[:] = False
    nothing = np.empty(0, np.float32)
    answers = DepthAnswers(np.empty((0, 2)), nothing, nothing, ())
    unknown = np.full(12, np.nan, np.float32)
    counts = dict.fromkeys(depth.counts, 0) | {"sky": 12}
    picture = draw_answers(replace(depth, answers=answers, depth=unknown, counts=counts))
    factor = picture.shape[1] // width
    shown = picture[: max(height, 3) * factor]
    assert (shown == GREY // 2).all()
