# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from vlm3_lab.scenes.views import R_BODY_OPTICAL, sample_view
from vlm3_ros.datasets.views import View
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.geometry.ground import MAX_CHANGE, GroundScale, fit_ground
from vlm3_ros.geometry.motion import Transform, transform
from vlm3_ros.tasks.depth import uniform_grid

CAMERA = PinholeCamera.from_hfov(400, 300, 75.0)
PIXELS = uniform_grid(CAMERA, 16, 12)


def mount(height=0.8, pitch=5.0, roll=0.0) -> Transform:
    body = Rotation.from_euler("ZYX", [0, pitch, roll], degrees=True)
    return transform(body * Rotation.from_matrix(R_BODY_OPTICAL), [0.1, 0, height])


MOUNT = mount()


def floor(T: Transform, wall=20.0) -> NDArray[np.float64]:
    """Depths of the ground, up to a wall across the view, metres."""
    down = -(CAMERA.unproject(PIXELS, np.ones(len(PIXELS))) @ T[:3, :3].T)[:, 2]
    return np.minimum(np.where(down > 0, T[2, 3] / np.maximum(down, 1e-9), np.inf), wall)


@pytest.mark.parametrize("factor", [0.55, 0.8, 1.0, 1.45])
@pytest.mark.parametrize("T", [mount(), mount(0.3, 0, 3), mount(1.5, 25, -4)])
def test_the_factor_is_exact_on_a_level_floor(factor, T):
    fit = fit_ground(CAMERA, PIXELS, floor(T) / factor, T)
    assert fit.factor == pytest.approx(factor)
    assert fit.inliers > fit.candidates / 2
    assert not fit.reason


def test_a_box_on_the_floor_is_not_the_floor():
    T = mount()
    depth = floor(T).reshape(12, 16)
    depth[6:, 4:10] = np.minimum(depth[6:, 4:10], 1.3)
    assert fit_ground(CAMERA, PIXELS, depth / 0.8, T).factor == pytest.approx(0.8, rel=0.02)


def test_a_table_that_is_smaller_than_the_floor_is_not_the_floor():
    T = mount()
    depth = floor(T).reshape(12, 16)
    depth[:, :7] *= 0.6
    assert fit_ground(CAMERA, PIXELS, depth, T).factor == pytest.approx(1.0, rel=0.02)


@pytest.mark.parametrize(
    ("depth", "T", "reason"),
    [
        (np.full(192, np.nan), mount(), "only 0 answers lie 5 degrees below the horizon"),
        (np.full(192, 1.0), mount(pitch=-60), "only 0 answers lie 5 degrees below"),
        (np.full(192, 2.0), mount(), "the answers below the horizon are those of a wall"),
        (
            np.geomspace(0.3, 8, 192)[np.random.default_rng(0).permutation(192)],
            mount(),
            "of 96 answers below the horizon lie in one level plane",
        ),
        (floor(mount()) / 5, mount(), "the factor would be 5.00: is the height of 0.80"),
        (floor(mount()), mount(-0.1), "the camera is at a height of -0.10 m"),
    ],
)
def test_no_factor_is_given_where_no_ground_is_seen(depth, T, reason):
    fit = fit_ground(CAMERA, PIXELS, depth, T)
    assert math.isnan(fit.factor)
    assert reason in fit.reason


def test_a_wall_close_below_the_camera_is_not_the_ground():
    T = mount(pitch=50)
    fit = fit_ground(CAMERA, PIXELS, np.full(192, 0.5), T)
    assert math.isnan(fit.factor)


def views() -> Iterator[tuple[View, float, NDArray[np.float64]]]:
    """Procedural views with a factor, and answers that are wrong by it and by 5 % of noise.

    Without streets, where kerbs raise half of the ground.
    """
    rng = np.random.default_rng(14)
    for number in range(36):
        view = sample_view(rng, ("room", "corridor", "yard")[number % 3])
        u, v = np.rint(uniform_grid(view.camera, 16, 12)).astype(int).T
        depth = np.where(np.isfinite(view.depth[v, u]), view.depth[v, u], 30.0)
        factor = math.exp(rng.uniform(-0.35, 0.35))
        yield view, factor, depth / factor * np.exp(rng.normal(0, 0.05, len(depth)))


def test_the_ground_of_procedural_scenes_gives_their_scale():
    errors = []
    for view, factor, depth in views():
        pixels = uniform_grid(view.camera, 16, 12)
        fit = fit_ground(view.camera, pixels, depth, view.T_world_camera)
        errors.append(abs(math.log(fit.factor / factor)))
    found = np.array(errors)[np.isfinite(errors)]
    assert len(found) >= 0.8 * len(errors)
    assert np.median(found) < 0.02
    assert np.percentile(found, 90) < 0.06


@pytest.mark.parametrize(
    ("depth", "T", "reason"),
    [
        # A table that fills the view from eye height.
        (floor(mount(0.75, 40)), mount(1.5, 40), "the factor would be 2.00"),
        # A slope of 15 degrees.
        (floor(mount(0.8, 35)), mount(0.8, 20), "the answers lie on a slope or a wall"),
        (
            floor(mount()) * np.where(np.arange(192) % 6 == 0, 2.0, 1.0),
            mount(),
            "16% of the answers lie below the plane",
        ),
        (
            floor(mount()) * np.exp(np.random.default_rng(0).normal(0, 0.15, 192)),
            mount(),
            "the answers are spread",
        ),
        (floor(mount()), mount(math.nan), "the camera is at a height of nan m"),
        (np.where(np.arange(192) % 2, np.inf, -1.0), mount(), "only 0 answers"),
    ],
)
def test_what_is_not_level_ground_gives_no_factor(depth, T, reason):
    fit = fit_ground(CAMERA, PIXELS, depth, T)
    assert math.isnan(fit.factor)
    assert reason in fit.reason


@pytest.mark.parametrize("roll", [90, 180, -35])
def test_the_camera_may_be_mounted_in_any_way(roll):
    T = mount(roll=roll, pitch=20)
    assert fit_ground(CAMERA, PIXELS, floor(T) / 0.9, T).factor == pytest.approx(0.9)


def test_a_camera_that_looks_straight_down_is_no_numeric_accident():
    """Its middle ray has no level part; depths of the ground are equal, as those of a wall."""
    T = mount(pitch=90)
    camera = PinholeCamera(401, 301, 260, 260, 200, 150)
    fit = fit_ground(camera, uniform_grid(camera, 15, 11), np.full(165, 0.8), T)
    assert "wall" in fit.reason


@pytest.fixture
def scale() -> GroundScale:
    return GroundScale(window=3.0)


def see(scale: GroundScale, factor: float | None, seconds: float, T: Transform = MOUNT) -> float:
    """Update with ground that is off by a factor, or with a wall for None."""
    depth = np.full(192, 2.0) if factor is None else floor(T) / factor
    return scale.update(CAMERA, PIXELS, depth, T, seconds)


def test_the_factor_is_smoothed_over_frames(scale):
    assert [math.isnan(see(scale, 0.8, seconds)) for seconds in (0, 0.5, 1)] == [True, True, False]
    assert scale.factor == pytest.approx(0.8)
    assert see(scale, 1.4, 2) == pytest.approx(0.8)  # one frame does not move the median
    assert scale.fit.factor == pytest.approx(1.4)
    see(scale, 1.4, 3)
    assert see(scale, 1.4, 3.5) == pytest.approx(0.8 * math.exp(MAX_CHANGE / 2))
    for seconds in range(4, 20):
        last = see(scale, 1.4, seconds)
    assert last == pytest.approx(1.4)


def test_the_factor_is_kept_while_the_ground_is_out_of_sight(scale):
    assert math.isnan(see(scale, None, 0))
    assert scale.age == math.inf
    for seconds in (1, 2, 3):
        see(scale, 0.8, seconds)
    assert scale.age == 0
    assert see(scale, None, 33) == pytest.approx(0.8)
    assert scale.age == 30


def test_ground_in_few_frames_is_a_mistake(scale):
    """A sofa that now and then looks like ground."""
    for frame in range(40):
        factor = see(scale, 1.2 if frame % 5 == 0 else None, frame / 10)
    assert math.isnan(factor)
    assert (scale.frames, scale.found) == (31, 6)


def test_slow_models_need_three_frames_too(scale):
    assert [see(scale, 0.8, seconds) for seconds in (0, 20, 40)][-1] == pytest.approx(0.8)


def test_stamps_that_stand_still_need_no_memory(scale):
    for _ in range(1005):
        see(scale, 0.8, 0)
    assert scale.frames == 1000


@pytest.mark.parametrize("change", ["camera", "mount", "time"])
def test_the_factor_starts_anew_with_another_camera_or_mount(change, scale):
    for seconds in (10, 10.5, 11):
        see(scale, 0.8, seconds)
    other = PinholeCamera.from_hfov(400, 300, 60.0) if change == "camera" else CAMERA
    place = mount(0.9) if change == "mount" else MOUNT
    seconds = 9 if change == "time" else 12
    assert math.isnan(scale.update(other, PIXELS, np.full(192, np.nan), place, seconds))


def test_a_focusing_camera_and_springs_keep_the_factor(scale):
    for seconds in (0, 0.5, 1):
        see(scale, 0.8, seconds)
    focused = PinholeCamera.from_hfov(400, 300, 74.5)
    place = mount(height=0.805, pitch=5.2)
    assert not math.isnan(scale.update(focused, PIXELS, np.full(192, np.nan), place, 2))
