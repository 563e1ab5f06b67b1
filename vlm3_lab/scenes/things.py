# SPDX-License-Identifier: Apache-2.0
"""Things of known kind and size in a scene: they distinguish a small room from a large hall.

Sizes are typical ones with a few per cent of spread, in metres.
"""

from __future__ import annotations

import numpy as np

from vlm3_lab.scenes.scene import Ball, Colour, Material, Pillar, Rectangle, Scene, Vector
from vlm3_ros.datasets.views import SceneObject

UP = np.array([0.0, 0.0, 1.0])


def heading(yaw: float) -> Vector:
    """Horizontal unit vector at this angle from world x."""
    return np.array([np.cos(yaw), np.sin(yaw), 0.0])


def colour(rng: np.random.Generator, low: float = 0.1, high: float = 0.95) -> Colour:
    """A random colour close to grey."""
    grey = rng.uniform(low, high)
    return np.clip(grey + rng.normal(0, 0.07, 3), 0.02, 1.0)


def material(
    rng: np.random.Generator, pattern: str, bright: Colour | None = None, contrast: float = 0.5
) -> Material:
    """A pattern in one colour; its dark parts are darker by at most the share `contrast`."""
    bright = colour(rng, 0.35, 0.95) if bright is None else bright
    return Material(pattern, bright * (1 - contrast * rng.uniform(0.5, 1.0)), bright)


def floor(scene: Scene, low: Vector, high: Vector, z: float, surface: Material) -> None:
    """Add a horizontal rectangle between two corners (x, y)."""
    corner = np.array([low[0], low[1], z])
    width, depth = high[0] - low[0], high[1] - low[1]
    x, y = np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0])
    scene.rectangles.append(Rectangle(corner, x, y, width, depth, surface))


def wall(
    scene: Scene, start: Vector, end: Vector, z: float, height: float, surface: Material
) -> None:
    """Add an upright rectangle over the line from start to end, (x, y) each."""
    along = np.array([end[0] - start[0], end[1] - start[1], 0.0])
    width = float(np.linalg.norm(along))
    corner = np.array([start[0], start[1], z])
    scene.rectangles.append(Rectangle(corner, along / width, UP, width, height, surface))


def on_wall(
    scene: Scene,
    start: Vector,
    end: Vector,
    at: float,
    z: float,
    width: float,
    height: float,
    surface: Material,
    inward: Vector,
) -> None:
    """Add a flat thing (door, window) `at` metres along a wall, 2 cm in front of it."""
    along = np.array([end[0] - start[0], end[1] - start[1], 0.0])
    along /= np.linalg.norm(along)
    corner = np.array([start[0], start[1], z]) + along * at + 0.02 * inward
    scene.rectangles.append(Rectangle(corner, along, UP, width, height, surface))


def box(
    scene: Scene, foot: Vector, size: Vector, yaw: float, side: Material, top: Material
) -> None:
    """Add an upright box without its hidden bottom; `foot` is the point below its centre."""
    x, y = heading(yaw), heading(yaw + np.pi / 2)
    length, width, height = size
    corner = foot - x * length / 2 - y * width / 2
    far = corner + x * length + y * width
    scene.rectangles += [
        Rectangle(corner, x, UP, length, height, side),
        Rectangle(corner, y, UP, width, height, side),
        Rectangle(far, -x, UP, length, height, side),
        Rectangle(far, -y, UP, width, height, side),
        Rectangle(corner + UP * height, x, y, length, width, top),
    ]


def _record(scene: Scene, kind: str, foot: Vector, size: Vector, yaw: float) -> None:
    scene.objects.append(SceneObject(kind, foot + UP * size[2] / 2, size, yaw))


def add_thing(scene: Scene, kind: str, foot: Vector, yaw: float, rng: np.random.Generator) -> None:
    """Place a thing of this kind on the ground point `foot`.

    Raises:
        KeyError: if the kind is not one of `SIZES`.
    """
    size = np.array(SIZES[kind]) * rng.normal(1, 0.03, 3).clip(0.92, 1.08)
    if kind in ROUND:
        size[1] = size[0]
    length, width, height = size
    body = material(rng, "plain")
    x, y = heading(yaw), heading(yaw + np.pi / 2)
    if kind == "crate":
        wood = np.array([0.75, 0.55, 0.33]) * rng.uniform(0.7, 1.15)
        crate = Material("crate", wood * 0.6, wood)
        box(scene, foot, size, yaw, crate, crate)
    elif kind == "cabinet":
        box(scene, foot, size, yaw, material(rng, "shelf", body.bright), body)
    elif kind == "table":
        box(scene, foot + UP * (height - 0.04), np.array([length, width, 0.04]), yaw, body, body)
        for sx, sy in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
            leg = foot + x * sx * (length / 2 - 0.06) + y * sy * (width / 2 - 0.06)
            scene.pillars.append(Pillar(leg, 0.03, height - 0.04, body))
    elif kind == "chair":
        seat = np.array([length, width, 0.45])
        box(scene, foot, seat, yaw, body, body)
        back = foot - x * (length / 2 - 0.03)
        box(scene, back, np.array([0.06, width, height]), yaw, body, body)
    elif kind == "bin":
        lid = foot + UP * (height - length / 2)
        scene.pillars.append(Pillar(foot, length * 0.43, height - length / 2, body))
        scene.balls.append(Ball(lid, length / 2, body))
    elif kind == "ball":
        scene.balls.append(Ball(foot + UP * length / 2, length / 2, body))
    elif kind == "person":
        trousers, shirt = material(rng, "plain"), material(rng, "plain")
        skin = np.array([0.85, 0.65, 0.5]) * rng.uniform(0.4, 1.1)
        scene.pillars.append(Pillar(foot, 0.14, 0.5 * height, trousers))
        scene.pillars.append(Pillar(foot + UP * 0.5 * height, 0.2, 0.34 * height, shirt))
        scene.balls.append(Ball(foot + UP * (height - 0.12), 0.12, Material("plain", skin, skin)))
    elif kind == "car":
        paint, glass = material(rng, "plain", contrast=0.1), np.array([0.1, 0.12, 0.15])
        black = Material("plain", glass, glass)
        box(scene, foot + UP * 0.25, np.array([length, width, 0.6]), yaw, paint, paint)
        cabin = np.array([length * 0.55, width * 0.9, height - 0.85])
        box(scene, foot + UP * 0.85 - x * 0.2, cabin, yaw, black, paint)
        for sx in (1, -1):
            axle = foot + x * sx * length * 0.3
            box(scene, axle, np.array([0.62, width * 0.98, 0.5]), yaw, black, black)
    elif kind == "tree":
        bark, leaves = np.array([0.35, 0.25, 0.18]), np.array([0.2, 0.42, 0.15])
        leaves = leaves * rng.uniform(0.6, 1.3)
        scene.pillars.append(Pillar(foot, 0.15, height - length, Material("planks", bark, bark)))
        crown = Material("grass", leaves * 0.5, leaves)
        scene.balls.append(Ball(foot + UP * (height - length / 2), length / 2, crown))
    elif kind == "lamp":
        scene.pillars.append(Pillar(foot, 0.06, height, material(rng, "plain", contrast=0.1)))
        scene.balls.append(Ball(foot + UP * (height - 0.2), 0.2, body))
    elif kind == "bench":
        seat = height - 0.06
        box(scene, foot + UP * seat, np.array([length, width, 0.06]), yaw, body, body)
        for side in (1, -1):
            leg = foot + x * side * (length / 2 - 0.15)
            box(scene, leg, np.array([0.08, width, seat]), yaw, body, body)
    elif kind == "cone":
        orange = np.array([0.95, 0.4, 0.1]) * rng.uniform(0.8, 1.0)
        cone = Material("plain", orange, orange)
        box(scene, foot, np.array([length, width, 0.04]), yaw, cone, cone)
        scene.pillars.append(Pillar(foot, 0.09, height, cone))
    _record(scene, kind, foot, size, yaw)


SIZES: dict[str, tuple[float, float, float]] = {
    "crate": (0.6, 0.4, 0.4),
    "cabinet": (0.8, 0.4, 1.8),
    "table": (1.4, 0.8, 0.75),
    "chair": (0.45, 0.45, 0.9),
    "bin": (0.4, 0.4, 0.7),
    "ball": (0.24, 0.24, 0.24),
    "person": (0.4, 0.4, 1.72),
    "car": (4.3, 1.8, 1.5),
    "tree": (2.6, 2.6, 5.0),
    "lamp": (0.4, 0.4, 5.0),
    "bench": (1.6, 0.45, 0.46),
    "cone": (0.36, 0.36, 0.75),
}

ROUND = ("ball", "bin", "lamp", "person", "tree")
"""Kinds that look the same from all sides: their length is the diameter, their yaw meaningless."""
