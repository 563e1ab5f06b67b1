# SPDX-License-Identifier: Apache-2.0
"""A ray caster for procedural scenes: exact depth, a few milliseconds per picture.

The ray through a pixel is scaled to Z = 1, so that its parameter at a surface is the depth. Dot
products of a fixed vector with all rays are affine in the pixel: two short vectors and one outer
sum replace a product per pixel.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlm3_lab.scenes.scene import Ball, Material, Pillar, Rectangle, Scene
from vlm3_lab.scenes.textures import LEVELS, PERIODS, SIDE, atlas
from vlm3_ros.geometry.camera import PinholeCamera

NEAR = 0.05
"""Metres; nothing closer to the camera is drawn."""

Slices = tuple[slice, slice]
Plane = NDArray[np.float32]


class _Canvas:
    """The unfinished picture: per pixel the nearest depth, its surface and texture coordinates."""

    def __init__(self, scene: Scene, camera: PinholeCamera, T_world_camera: NDArray[np.float64]):
        self.scene, self.camera = scene, camera
        self.R_camera_world = T_world_camera[:3, :3].T
        self.position = T_world_camera[:3, 3]
        self.x = ((np.arange(camera.width) - camera.cx) / camera.fx).astype(np.float32)
        self.y = ((np.arange(camera.height) - camera.cy) / camera.fy).astype(np.float32)
        shape = (camera.height, camera.width)
        self.depth = np.full(shape, np.inf, np.float32)
        self.surface = np.full(shape, -1, np.int16)
        self.u = np.zeros(shape, np.float32)
        self.v = np.zeros(shape, np.float32)
        self.shade = np.ones(shape, np.float32)
        self.slant = np.ones(shape, np.float32)
        self.materials: list[Material] = []
        self.extents: list[tuple[float, float]] = []

    def dot(self, vector: NDArray[np.float64], window: Slices) -> Plane:
        """Dot product of a world vector with every ray of the window."""
        a, b, c = (self.R_camera_world @ vector).astype(np.float32)
        return (b * self.y[window[0]] + c)[:, None] + (a * self.x[window[1]])[None]

    def window(self, corners: NDArray[np.float64]) -> Slices | None:
        """Pixels that a convex body with corners in the world, shape (n, 3), can cover, if any."""
        points = (corners - self.position) @ self.R_camera_world.T
        z = points[:, 2]
        if (z < NEAR).all():
            return None
        front = points[z >= NEAR]
        if len(front) < len(points):
            # The points where edges between any two corners cross the near plane bound the rest.
            back = points[z < NEAR]
            share = (front[:, None, 2] - NEAR) / (front[:, None, 2] - back[None, :, 2])
            crossing = front[:, None] + share[..., None] * (back[None] - front[:, None])
            front = np.concatenate([front, crossing.reshape(-1, 3)])
        camera = self.camera
        u = front[:, 0] / front[:, 2] * camera.fx + camera.cx
        v = front[:, 1] / front[:, 2] * camera.fy + camera.cy
        left, right = max(0, int(np.floor(u.min()))), min(camera.width, int(np.ceil(u.max())) + 1)
        top, bottom = max(0, int(np.floor(v.min()))), min(camera.height, int(np.ceil(v.max())) + 1)
        if left >= right or top >= bottom:
            return None
        return slice(top, bottom), slice(left, right)

    def paint(
        self,
        window: Slices,
        hit: NDArray[np.bool_],
        depth: Plane,
        u: Plane,
        v: Plane,
        shade: Plane | float,
        slant: Plane,
        material: Material,
        extent: tuple[float, float],
    ) -> None:
        """Paint the pixels of `hit`, which are nearer than what was painted before."""
        np.copyto(self.depth[window], depth, where=hit)
        np.copyto(self.surface[window], np.int16(len(self.materials)), where=hit)
        np.copyto(self.u[window], u, where=hit)
        np.copyto(self.v[window], v, where=hit)
        np.copyto(self.shade[window], shade, where=hit)
        np.copyto(self.slant[window], slant, where=hit)
        self.materials.append(material)
        self.extents.append(extent)

    def lambert(self, normal_dot_sun: Plane | float) -> Any:
        """Light on a surface, from the dot product of its normal and the direction of the sun."""
        ambient = self.scene.look.ambient
        return np.float32(ambient) + np.float32(1 - ambient) * np.maximum(normal_dot_sun, 0)

    def add_rectangle(self, shape: Rectangle) -> None:
        along, across = shape.width * shape.along, shape.height * shape.across
        corners = shape.corner + np.array([0 * along, along, across, along + across])
        window = self.window(corners)
        if window is None:
            return
        normal = np.cross(shape.along, shape.across)
        offset = self.position - shape.corner
        facing = self.dot(normal, window)
        with np.errstate(divide="ignore", invalid="ignore"):
            depth = np.float32(-(normal @ offset)) / facing
            u = depth * self.dot(shape.along, window) + np.float32(shape.along @ offset)
            v = depth * self.dot(shape.across, window) + np.float32(shape.across @ offset)
            hit = (depth > NEAR) & (depth < self.depth[window])
            hit &= (u >= 0) & (u <= shape.width) & (v >= 0) & (v <= shape.height)
        if not hit.any():
            return
        towards = normal if normal @ offset > 0 else -normal
        shade = self.lambert(float(towards @ self.scene.look.sun))
        self.paint(
            window,
            hit,
            depth,
            u,
            v,
            shade,
            np.abs(facing),
            shape.material,
            (shape.width, shape.height),
        )

    def add_ball(self, ball: Ball) -> None:
        signs = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, -1).T
        window = self.window(ball.centre + ball.radius * signs)
        if window is None:
            return
        offset = self.position - ball.centre
        a = 1 + self.y[window[0], None] ** 2 + self.x[None, window[1]] ** 2
        depth = self._near_root(
            a, self.dot(offset, window), float(offset @ offset) - ball.radius**2
        )
        hit = (depth > NEAR) & (depth < self.depth[window])
        if not hit.any():
            return
        up, sun = np.array([0.0, 0.0, 1.0]), self.scene.look.sun
        height = (depth * self.dot(up, window) + np.float32(offset[2])) / ball.radius
        light = (depth * self.dot(sun, window) + np.float32(sun @ offset)) / ball.radius
        self.paint(
            window,
            hit,
            depth,
            light,
            height,
            self.lambert(light),
            np.ones_like(depth),
            ball.material,
            (1.0, 1.0),
        )

    def add_pillar(self, pillar: Pillar) -> None:
        signs = np.array(np.meshgrid([-1, 1], [-1, 1], [0, 1])).reshape(3, -1).T
        reach = np.array([pillar.radius, pillar.radius, pillar.height])
        window = self.window(pillar.foot + reach * signs)
        if window is None:
            return
        offset = self.position - pillar.foot
        flat = offset * (1, 1, 0)
        up = self.dot(np.array([0.0, 0.0, 1.0]), window)
        a = 1 + self.y[window[0], None] ** 2 + self.x[None, window[1]] ** 2 - up**2
        depth = self._near_root(a, self.dot(flat, window), float(flat @ flat) - pillar.radius**2)
        with np.errstate(invalid="ignore"):
            v = depth * up + np.float32(offset[2])
            hit = (depth > NEAR) & (depth < self.depth[window]) & (v >= 0) & (v <= pillar.height)
        if not hit.any():
            return
        sun = self.scene.look.sun * (1, 1, 0)
        with np.errstate(invalid="ignore"):
            light = (depth * self.dot(sun, window) + np.float32(sun @ flat)) / pillar.radius
        self.paint(
            window,
            hit,
            depth,
            light * np.float32(pillar.radius * np.pi / 2),
            v,
            self.lambert(light),
            np.ones_like(depth),
            pillar.material,
            (pillar.radius * np.pi, pillar.height),
        )

    @staticmethod
    def _near_root(a: Plane, half_b: Plane, c: float) -> Plane:
        """The smaller root of a t^2 + 2 half_b t + c; inf if there is none."""
        inner = half_b * half_b - a * np.float32(c)
        with np.errstate(divide="ignore", invalid="ignore"):
            root = (-half_b - np.sqrt(np.maximum(inner, 0))) / a
        return np.where(inner > 0, root, np.float32(np.inf)).astype(np.float32)

    def colours(self, rng: np.random.Generator) -> NDArray[np.uint8]:
        """Apply textures, light and the camera's response."""
        look = self.scene.look
        values, offsets = atlas()
        patterns = np.array([m.pattern_index for m in self.materials], np.int64)
        periods = PERIODS[patterns]
        periods = np.where(periods > 0, periods, np.array(self.extents, np.float32))
        surface = self.surface
        sky = surface < 0
        period = periods[surface]
        # A compromise: the wider of the two footprints would blur floors too early, the narrower
        # would flicker.
        footprint = self.depth / np.float32(self.camera.fx) / np.sqrt(np.maximum(self.slant, 0.02))
        with np.errstate(invalid="ignore", divide="ignore"):
            texels = footprint * SIDE / period.min(-1)
            level = np.clip(np.log2(np.maximum(texels, 1)), 0, LEVELS - 1)
        level = np.nan_to_num(level).astype(np.int32)
        side = SIDE >> level
        u, v = self.u / period[..., 0], self.v / period[..., 1]
        column = ((u - np.floor(u)) * side).astype(np.int32)
        row = ((v - np.floor(v)) * side).astype(np.int32)
        np.minimum(column, side - 1, out=column)
        np.minimum(row, side - 1, out=row)
        mix = values[offsets[patterns[surface], level] + row * side + column]
        dark = np.array([m.dark for m in self.materials], np.float32)
        span = np.array([m.bright for m in self.materials], np.float32) - dark
        picture = dark[surface] + span[surface] * mix[..., None]
        picture *= self.shade[..., None]
        picture[sky] = look.sky
        picture *= (look.exposure / picture.mean() * look.tint).astype(np.float32)
        response = np.linspace(0, 1, 4096, dtype=np.float32) ** np.float32(look.gamma)
        picture = response[(np.clip(picture, 0, 1) * 4095).astype(np.int32)]
        noise = rng.standard_normal(picture.shape[:2], np.float32) * np.float32(look.noise)
        picture += noise[..., None]
        return (np.clip(picture, 0, 1) * 255).astype(np.uint8)


def render(
    scene: Scene,
    camera: PinholeCamera,
    T_world_camera: NDArray[np.float64],
    rng: np.random.Generator,
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Render picture and depth of a scene.

    Args:
        camera: intrinsics of the picture.
        T_world_camera: shape (4, 4), takes points of the optical frame to the world.
        rng: draws the sensor noise.

    Returns:
        RGB, shape (height, width, 3), uint8; depth along Z in metres, shape (height, width),
        float32, inf where nothing was hit (the sky).
    """
    canvas = _Canvas(scene, camera, T_world_camera)
    for rectangle in scene.rectangles:
        canvas.add_rectangle(rectangle)
    for ball in scene.balls:
        canvas.add_ball(ball)
    for pillar in scene.pillars:
        canvas.add_pillar(pillar)
    if not canvas.materials:
        canvas.materials.append(Material("plain", scene.look.sky, scene.look.sky))
        canvas.extents.append((1.0, 1.0))
    return canvas.colours(rng), canvas.depth
