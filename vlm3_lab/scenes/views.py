# SPDX-License-Identifier: Apache-2.0
"""Single views of procedural scenes, as from a robot's camera."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from vlm3_lab.scenes.kinds import KINDS, sample_scene
from vlm3_lab.scenes.render import render
from vlm3_lab.scenes.scene import Scene
from vlm3_ros.datasets.views import View
from vlm3_ros.geometry.camera import PinholeCamera

SIZES = ((256, 192), (320, 180), (320, 240), (256, 256), (288, 216), (384, 216), (192, 256))
"""Image sizes (width, height) in pixels that views are drawn from."""

R_BODY_OPTICAL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
"""Optical axes (right, down, forward) in body axes (forward, left, up), REP-103."""


HEIGHTS = (0.7, 1.3)
"""Metres above the ground at which most wheeled and legged robots carry their camera."""

PITCH_DEG = (6.0, 5.0)
"""Mean and standard deviation; positive looks down."""


def sample_camera(rng: np.random.Generator) -> PinholeCamera:
    """Draw a camera: field of view 40 to 110 degrees, roughly square pixels, roughly centred."""
    width, height = SIZES[rng.integers(len(SIZES))]
    ideal = PinholeCamera.from_hfov(width, height, rng.uniform(40, 110))
    squeeze = rng.uniform(0.96, 1.04) if rng.random() < 0.3 else 1.0
    shift = rng.normal(0, 0.015, 2) * (width, height)
    return PinholeCamera(
        width, height, ideal.fx, ideal.fx * squeeze, ideal.cx + shift[0], ideal.cy + shift[1]
    )


def camera_pose(
    position: NDArray[np.float64], yaw: float, pitch: float, roll: float
) -> NDArray[np.float64]:
    """T_world_camera from body angles in radians (REP-103: positive pitch looks down)."""
    body = Rotation.from_euler("ZYX", [yaw, pitch, roll]).as_matrix()
    T_world_camera = np.eye(4)
    T_world_camera[:3, :3] = body @ R_BODY_OPTICAL
    T_world_camera[:3, 3] = position
    return T_world_camera


def sample_pose(scene: Scene, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw a pose at a robot's camera height, clear of walls and things, with free space ahead."""
    low, high = scene.free_min, scene.free_max
    for _ in range(100):
        height = float(rng.uniform(*HEIGHTS))
        position = np.array([*rng.uniform(low, high), height])
        if scene.kind == "street":
            position[0] *= 0.7
        yaw = rng.uniform(-np.pi, np.pi)
        if scene.kind in ("corridor", "street") and rng.random() < 0.75:
            yaw = rng.normal(0, 0.35) + rng.choice([0, np.pi])
        ahead = position + 1.5 * np.array([np.cos(yaw), np.sin(yaw), 0.0])
        if scene.is_free(position, 0.35) and scene.is_free(ahead, 0.15):
            break
    pitch = np.radians(rng.normal(*PITCH_DEG))
    return camera_pose(position, yaw, pitch, np.radians(rng.normal(0, 2)))


def sample_view(rng: np.random.Generator, kind: str | None = None) -> View:
    """Render one view of a new scene.

    Args:
        kind: one of `KINDS`; drawn evenly if None.

    Raises:
        KeyError: if the kind is unknown.
    """
    scene = sample_scene(rng, kind or KINDS[rng.integers(len(KINDS))])
    camera = sample_camera(rng)
    return render_view(scene, camera, sample_pose(scene, rng), rng)


def render_view(
    scene: Scene,
    camera: PinholeCamera,
    T_world_camera: NDArray[np.float64],
    rng: np.random.Generator,
) -> View:
    """Render the view of a camera; `rng` draws the sensor noise."""
    image, depth = render(scene, camera, T_world_camera, rng)
    return View(image, depth, camera, T_world_camera, scene.kind, tuple(scene.objects))
