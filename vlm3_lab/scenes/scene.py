# SPDX-License-Identifier: Apache-2.0
"""The parts of a procedural scene: textured rectangles, balls, upright pillars, and light."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vlm3_lab.scenes.textures import NAMES
from vlm3_ros.datasets.views import SceneObject

Vector = NDArray[np.float64]
Colour = NDArray[np.float64]
"""RGB in [0, 1], shape (3,)."""


@dataclass(frozen=True)
class Material:
    """A pattern from `textures` and the two colours it mixes."""

    pattern: str
    dark: Colour
    bright: Colour

    @property
    def pattern_index(self) -> int:
        """Row of the pattern in `textures.PERIODS`."""
        return NAMES.index(self.pattern)


@dataclass(frozen=True)
class Rectangle:
    """A flat surface `corner + a * along + b * across` with 0 <= a <= width, 0 <= b <= height.

    `along` and `across` are orthogonal unit vectors in the world; both sides are visible.
    """

    corner: Vector
    along: Vector
    across: Vector
    width: float
    height: float
    material: Material


@dataclass(frozen=True)
class Ball:
    """A sphere."""

    centre: Vector
    radius: float
    material: Material


@dataclass(frozen=True)
class Pillar:
    """An upright cylinder without lids: foot in the world, radius and height in metres."""

    foot: Vector
    radius: float
    height: float
    material: Material


@dataclass(frozen=True)
class Look:
    """Light and camera response of a scene.

    `exposure` is the mean brightness in [0, 1] that the camera exposes for.
    """

    sun: Vector
    """Unit vector towards the light, in the world."""
    ambient: float
    exposure: float
    gamma: float
    tint: Colour
    noise: float
    sky: Colour


@dataclass
class Scene:
    """Surfaces, objects, light, and where a camera may stand: (x, y) bounds in metres."""

    kind: str
    look: Look
    free_min: Vector
    free_max: Vector
    rectangles: list[Rectangle] = field(default_factory=list)
    balls: list[Ball] = field(default_factory=list)
    pillars: list[Pillar] = field(default_factory=list)
    objects: list[SceneObject] = field(default_factory=list)

    def is_free(self, point: Vector, margin: float) -> bool:
        """Whether a camera at this point keeps `margin` metres to walls and objects."""
        x, y, z = point
        if not (np.all(point[:2] >= self.free_min + margin)):
            return False
        if not (np.all(point[:2] <= self.free_max - margin)):
            return False
        for thing in self.objects:
            if z - margin > thing.centre[2] + thing.size[2] / 2:
                continue
            c, s = np.cos(thing.yaw), np.sin(thing.yaw)
            dx, dy = x - thing.centre[0], y - thing.centre[1]
            inside = np.abs([c * dx + s * dy, c * dy - s * dx]) < thing.size[:2] / 2 + margin
            if inside.all():
                return False
        return True
