# SPDX-License-Identifier: Apache-2.0
"""Depth, poses and boxes of procedural scenes, checked against the shapes themselves."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vlm3_lab.scenes import KINDS, sample_view
from vlm3_lab.scenes.kinds import sample_scene
from vlm3_lab.scenes.render import render
from vlm3_lab.scenes.scene import Ball, Look, Material, Pillar, Rectangle, Scene
from vlm3_lab.scenes.sequences import sample_sequence
from vlm3_lab.scenes.textures import LEVELS, NAMES, SIDE, atlas
from vlm3_lab.scenes.things import SIZES, UP, add_thing
from vlm3_lab.scenes.views import camera_pose
from vlm3_ros.geometry.camera import PinholeCamera

GREY = Material("plain", np.full(3, 0.4), np.full(3, 0.6))


def _empty_scene() -> Scene:
    look = Look(np.array([0, 0, 1.0]), 0.5, 0.5, 1.0, np.ones(3), 0.0, np.full(3, 0.7))
    return Scene("room", look, np.full(2, -5.0), np.full(2, 5.0))


def _world_points(depth, camera, T_world_camera):
    points = camera.unproject(camera.pixel_grid(), depth)[np.isfinite(depth)]
    return points @ T_world_camera[:3, :3].T + T_world_camera[:3, 3]


CAMERA = PinholeCamera(161, 120, 110.0, 104.0, 83.0, 57.0)
POSE = camera_pose(np.array([0.3, -0.2, 0.9]), 0.4, 0.2, 0.1)


def test_optical_axes_follow_rep_103():
    pose = camera_pose(np.array([1.0, 2.0, 3.0]), yaw=0.0, pitch=0.0, roll=0.0)
    right, down, forward = pose[:3, :3].T
    assert np.allclose(forward, [1, 0, 0])
    assert np.allclose(right, [0, -1, 0])
    assert np.allclose(down, [0, 0, -1])
    nods = camera_pose(np.zeros(3), yaw=0.0, pitch=0.3, roll=0.0)
    assert nods[2, 2] < 0, "positive pitch looks down"


def test_pixels_of_a_rectangle_lie_on_it():
    scene = _empty_scene()
    along = Rotation.from_euler("ZYX", [0.5, 0.2, 0.1]).apply([0, 1, 0])
    across = np.cross(Rotation.from_euler("ZYX", [0.5, 0.2, 0.1]).apply([1, 0, 0]), along)
    corner = np.array([3.0, -1.0, 0.2])
    scene.rectangles.append(Rectangle(corner, along, across, 2.0, 1.5, GREY))
    _, depth = render(scene, CAMERA, POSE, np.random.default_rng(0))
    offsets = _world_points(depth, CAMERA, POSE) - corner
    assert len(offsets) > 500
    assert np.allclose(offsets @ np.cross(along, across), 0, atol=1e-4)
    assert (offsets @ along).min() > -1e-4 and (offsets @ along).max() < 2.0 + 1e-4
    assert (offsets @ across).min() > -1e-4 and (offsets @ across).max() < 1.5 + 1e-4


def test_pixels_of_a_ball_and_a_pillar_lie_on_them_and_face_the_camera():
    centre, foot = np.array([3.0, 1.2, 0.8]), np.array([4.0, -0.3, 0.0])
    scene = _empty_scene()
    scene.balls.append(Ball(centre, 0.5, GREY))
    _, depth = render(scene, CAMERA, POSE, np.random.default_rng(0))
    points = _world_points(depth, CAMERA, POSE)
    assert np.allclose(np.linalg.norm(points - centre, axis=1), 0.5, atol=1e-3)
    assert ((points - centre) @ (POSE[:3, 3] - centre) > 0).all()

    scene = _empty_scene()
    scene.pillars.append(Pillar(foot, 0.3, 1.4, GREY))
    _, depth = render(scene, CAMERA, POSE, np.random.default_rng(0))
    points = _world_points(depth, CAMERA, POSE)
    assert len(points) > 300
    assert np.allclose(np.linalg.norm((points - foot)[:, :2], axis=1), 0.3, atol=1e-3)
    assert points[:, 2].min() > -1e-3 and points[:, 2].max() < 1.4 + 1e-3


def test_the_nearer_surface_is_seen_in_any_order():
    near, far = (
        Rectangle(
            np.array([x, -2.0, -1.0]), np.array([0, 1.0, 0]), np.array([0, 0, 1.0]), 4, 4, GREY
        )
        for x in (2.0, 3.0)
    )
    for order in ((near, far), (far, near)):
        scene = _empty_scene()
        scene.rectangles.extend(order)
        level = camera_pose(np.array([0, 0, 0.5]), 0, 0, 0)
        _, depth = render(scene, CAMERA, level, np.random.default_rng(0))
        assert depth[60, 80] == pytest.approx(2.0, abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_views_are_pictures_with_depth(kind):
    rng = np.random.default_rng(5)
    for _ in range(4):
        view = sample_view(rng, kind)
        shape = (view.camera.height, view.camera.width)
        assert view.image.shape == (*shape, 3) and view.image.dtype == np.uint8
        assert view.depth.shape == shape and view.depth.dtype == np.float32
        assert view.image.std() > 5, "a picture shows something"
        assert (view.depth > 0).all() and np.isfinite(view.depth).mean() > 0.3
        hfov = 2 * np.degrees(np.arctan(view.camera.width / 2 / view.camera.fx))
        assert 39.9 < hfov < 110.1


def test_a_seed_is_a_view():
    first, again, other = (sample_view(np.random.default_rng(seed)) for seed in (7, 7, 8))
    assert np.array_equal(first.image, again.image) and np.array_equal(first.depth, again.depth)
    assert other.image.shape != first.image.shape or not np.array_equal(other.image, first.image)


@pytest.mark.parametrize("kind", KINDS)
def test_boxes_contain_the_pixels_that_a_thing_changes(kind):
    """Pixels whose depth changes when things are removed lie in a recorded box."""
    rng = np.random.default_rng(11)
    scene = sample_scene(rng, kind)
    things = Scene(kind, scene.look, scene.free_min, scene.free_max)
    things.pillars, things.balls = scene.pillars, scene.balls
    high = camera_pose(np.array([*scene.free_min, 6.0]), np.pi / 4, 0.5, 0.0)
    _, depth = render(things, CAMERA, high, rng)
    points = _world_points(depth, CAMERA, high)
    inside = np.zeros(len(points), bool)
    for thing in scene.objects:
        c, s = np.cos(thing.yaw), np.sin(thing.yaw)
        local = (points - thing.centre) @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
        inside |= (np.abs(local) < thing.size / 2 + 0.03).all(1)
    assert inside.all()


@pytest.mark.parametrize("kind", SIZES)
def test_a_thing_is_drawn_as_large_as_its_label(kind):
    scene = _empty_scene()
    add_thing(scene, kind, np.zeros(3), 0.0, np.random.default_rng(5))
    low, high = [], []
    for flat in scene.rectangles:
        corners = [
            flat.corner + a * flat.width * flat.along + b * flat.height * flat.across
            for a in (0, 1)
            for b in (0, 1)
        ]
        low += corners
        high += corners
    for pillar in scene.pillars:
        around = np.array([pillar.radius, pillar.radius, 0])
        low.append(pillar.foot - around)
        high.append(pillar.foot + around + UP * pillar.height)
    for ball in scene.balls:
        low.append(ball.centre - ball.radius)
        high.append(ball.centre + ball.radius)
    (thing,) = scene.objects
    drawn = np.max(high, 0) - np.min(low, 0)
    np.testing.assert_allclose(drawn, thing.size, atol=0.03)


def test_frames_of_a_drive_agree_in_depth():
    """A pixel of one frame, moved by depth and poses, has the same depth in another frame."""
    rng = np.random.default_rng(2)
    camera = PinholeCamera.from_hfov(160, 120, 75)
    sequence = sample_sequence(rng, camera, kind="yard", duration=3, rate=4)
    views = list(sequence.views(rng))
    first, later = views[2], views[5]
    points = _world_points(first.depth, camera, first.T_world_camera)
    T_camera_world = np.linalg.inv(later.T_world_camera)
    moved = points @ T_camera_world[:3, :3].T + T_camera_world[:3, 3]
    pixels = camera.project(moved)
    inside = np.isfinite(pixels).all(1) & (pixels > 1).all(1)
    inside &= (pixels[:, 0] < 158) & (pixels[:, 1] < 118)
    u, v = np.round(pixels[inside]).astype(int).T
    seen = later.depth[v, u] / moved[inside, 2]
    assert inside.sum() > 1000
    assert np.mean(np.abs(seen - 1) < 0.03) > 0.85


def test_drives_are_smooth_free_and_follow_their_own_twist():
    rng = np.random.default_rng(3)
    camera = PinholeCamera.from_hfov(160, 120, 75)
    sequence = sample_sequence(rng, camera, kind="room", duration=4, rate=10)
    path = sequence.path
    for T_world_base in path.T_world_base[::5]:
        assert sequence.scene.is_free(T_world_base[:3, 3] + [0, 0, 0.1], 0.3)
    motion = np.linalg.inv(path.T_world_base[:-1]) @ path.T_world_base[1:]
    dt = np.diff(path.stamps)
    angles = Rotation.from_matrix(motion[:, :3, :3]).as_rotvec()[:, 2]
    assert np.allclose(angles / dt, path.yaw_rate[:-1], atol=1e-6)
    assert np.allclose(np.linalg.norm(motion[:, :3, 3], axis=1) / dt, path.speed[:-1], atol=1e-6)


def test_an_unknown_kind_is_refused():
    with pytest.raises(KeyError):
        sample_scene(np.random.default_rng(0), "moon")


def test_patterns_keep_their_mean_when_they_shrink():
    values, offsets = atlas()
    assert offsets.shape == (len(NAMES), LEVELS)
    assert values.min() >= 0 and values.max() <= 1
    for start in offsets:
        full = values[start[0] : start[0] + SIDE**2].mean()
        small = values[start[-1] : start[-1] + (SIDE >> (LEVELS - 1)) ** 2].mean()
        assert small == pytest.approx(full, abs=1e-3)
