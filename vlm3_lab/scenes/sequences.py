# SPDX-License-Identifier: Apache-2.0
"""Image sequences along smooth robot paths through procedural scenes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from vlm3_lab.scenes.kinds import KINDS, sample_scene
from vlm3_lab.scenes.scene import Scene
from vlm3_lab.scenes.views import camera_pose, render_view
from vlm3_ros.datasets.views import View
from vlm3_ros.errors import Vlm3Error
from vlm3_ros.geometry.camera import PinholeCamera

CLEARANCE = 0.45
"""Metres between the robot's centre and walls or things, at least."""


class DriveError(Vlm3Error):
    """No free path of the wanted length was found in a scene."""


@dataclass(frozen=True)
class Path:
    """A drive on level ground at equal time steps.

    `stamps`: seconds, shape (n,). `T_world_base`: shape (n, 4, 4), takes points of the base
    (REP-103, on the ground) to the world. `speed`: m/s and `yaw_rate`: rad/s, shape (n,), of the
    base's own axes.
    """

    stamps: NDArray[np.floating]
    T_world_base: NDArray[np.float64]
    speed: NDArray[np.floating]
    yaw_rate: NDArray[np.floating]


def sample_path(
    scene: Scene, rng: np.random.Generator, duration: float, rate: float, max_speed: float = 0.6
) -> Path:
    """Draw a smooth drive that keeps clear of everything in the scene.

    Args:
        duration: seconds.
        rate: poses per second.
        max_speed: m/s.

    Raises:
        DriveError: if none is found, as in a scene that is too small or too full.
    """
    count, dt = round(duration * rate), 1 / rate
    for _ in range(2000):
        smooth = max(1.0, rate)
        speed = max_speed * rng.uniform(0.6, 1) * np.ones(count)
        yaw_rate = gaussian_filter1d(rng.normal(0, 1, count), smooth) * np.sqrt(smooth) * 0.7
        start = rng.uniform(scene.free_min, scene.free_max)
        along_x = scene.kind in ("corridor", "street")
        yaw = (
            rng.normal(0, 0.15) + rng.choice([0, np.pi]) if along_x else rng.uniform(-np.pi, np.pi)
        )
        if along_x:
            yaw_rate *= 0.3
        yaws = float(yaw) + np.concatenate([[0], np.cumsum(yaw_rate[:-1] * dt)])
        # A unicycle turns while it drives: the chord points along the mean heading of a step.
        chord = yaws[:-1] + yaw_rate[:-1] * dt / 2
        steps = speed[:-1, None] * dt * np.stack([np.cos(chord), np.sin(chord)], -1)
        positions = start + np.concatenate([np.zeros((1, 2)), np.cumsum(steps, 0)])
        if all(
            scene.is_free(np.array([*p, 0.1]), CLEARANCE) for p in positions[:: round(rate / 2)]
        ):
            break
    else:
        raise DriveError(f"no free path of {duration:g} s in a {scene.kind}")
    T_world_base = np.tile(np.eye(4), (count, 1, 1))
    T_world_base[:, 0, 0] = T_world_base[:, 1, 1] = np.cos(yaws)
    T_world_base[:, 1, 0] = np.sin(yaws)
    T_world_base[:, 0, 1] = -np.sin(yaws)
    T_world_base[:, :2, 3] = positions
    return Path(np.arange(count) * dt, T_world_base, speed, yaw_rate)


@dataclass(frozen=True)
class Sequence:
    """A drive through a scene with a camera fixed to the robot (`T_base_camera`, optical axes)."""

    scene: Scene
    camera: PinholeCamera
    T_base_camera: NDArray[np.float64]
    path: Path

    def view(self, index: int, rng: np.random.Generator) -> View:
        """Render the view at one pose of the path; `rng` draws the sensor noise."""
        T_world_camera = self.path.T_world_base[index] @ self.T_base_camera
        return render_view(self.scene, self.camera, T_world_camera, rng)

    def views(self, rng: np.random.Generator) -> Iterator[View]:
        """Render one view per pose of the path; `rng` draws the sensor noise."""
        for index in range(len(self.path.stamps)):
            yield self.view(index, rng)


def sample_sequence(
    rng: np.random.Generator,
    camera: PinholeCamera,
    *,
    kind: str | None = None,
    duration: float = 10.0,
    rate: float = 10.0,
    camera_height: float = 0.8,
    camera_pitch_deg: float = 5.0,
) -> Sequence:
    """Draw a scene and a drive through it.

    Args:
        kind: one of `KINDS`; drawn evenly if None.
        duration: seconds.
        rate: poses per second.
        camera_height: metres above the base.
        camera_pitch_deg: of the camera, positive looks down (REP-103).
    """
    T_base_camera = camera_pose(
        np.array([0.1, 0.0, camera_height]), 0.0, np.radians(camera_pitch_deg), 0.0
    )
    while True:
        scene = sample_scene(rng, kind or KINDS[rng.integers(len(KINDS))])
        try:
            return Sequence(scene, camera, T_base_camera, sample_path(scene, rng, duration, rate))
        except DriveError:
            continue
