# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from vlm3_lab.scenes.views import sample_view
from vlm3_ros.tasks.sky import sky_mask

BLUE = (120, 160, 220)
GREY = (190, 190, 192)


def picture(above=BLUE, horizon=100, size=(240, 320)):
    """A plain colour above a ground of noise."""
    image = np.empty((*size, 3), np.uint8)
    image[:] = above
    ground = image[horizon:]
    ground[:] = np.random.default_rng(0).integers(40, 120, (*ground.shape[:2], 1))
    return image


def test_blue_above_the_horizon_is_sky():
    mask = sky_mask(picture())
    assert mask[:90].mean() > 0.95
    assert not mask[110:].any()


@pytest.mark.parametrize(
    "image",
    [
        picture(GREY),  # a ceiling
        picture((220, 180, 120)),
        picture((10, 15, 30)),  # night
        picture(horizon=230),  # a blue wall down to the floor
        picture(horizon=3),
        np.zeros((1, 1, 3), np.uint8),
        np.random.default_rng(1).integers(0, 256, (240, 320, 3), np.uint8),
    ],
)
def test_other_surfaces_are_not_sky(image):
    mask = sky_mask(image)
    assert mask.shape == image.shape[:2]
    assert not mask.any()


def test_a_blue_thing_apart_from_the_border_is_not_sky():
    image = picture(GREY)
    image[40:90, 100:200] = BLUE
    assert not sky_mask(image).any()


def test_precision_and_recall_on_procedural_yards():
    rng = np.random.default_rng(3)
    right = wrong = missed = 0
    for number in range(24):
        view = sample_view(rng, ("yard", "street")[number % 2])
        sky, mask = ~np.isfinite(view.depth), sky_mask(view.image)
        right += np.count_nonzero(mask & sky)
        wrong += np.count_nonzero(mask & ~sky)
        missed += np.count_nonzero(~mask & sky)
    assert right / (right + wrong) > 0.8
    assert right / (right + missed) > 0.6
