# SPDX-License-Identifier: Apache-2.0
"""The kinds of scene: room, corridor, yard and street."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vlm3_lab.scenes.scene import Look, Material, Scene, Vector
from vlm3_lab.scenes.things import (
    SIZES,
    add_thing,
    colour,
    floor,
    material,
    on_wall,
    wall,
)

KINDS = ("room", "corridor", "yard", "street")

DOOR = (0.9, 2.0)
WINDOW = (1.2, 1.2)


def sample_scene(rng: np.random.Generator, kind: str) -> Scene:
    """A random scene of one of `KINDS`.

    Raises:
        KeyError: if the kind is unknown.
    """
    return {"room": _room, "corridor": _corridor, "yard": _yard, "street": _street}[kind](rng)


def _look(rng: np.random.Generator, outdoors: bool) -> Look:
    sun = np.array([*rng.normal(0, 1, 2), rng.uniform(0.5, 2)])
    sky = np.array([0.55, 0.7, 0.95]) * rng.uniform(0.6, 1.1) + rng.uniform(0, 0.3)
    return Look(
        sun=sun / np.linalg.norm(sun),
        ambient=rng.uniform(0.35, 0.6) if outdoors else rng.uniform(0.5, 0.8),
        exposure=rng.uniform(0.3, 0.62),
        gamma=rng.uniform(0.7, 1.3),
        tint=np.clip(rng.normal(1, 0.06, 3), 0.8, 1.2),
        noise=rng.uniform(0.003, 0.03),
        sky=np.clip(sky, 0, 1),
    )


def _corners(low: Vector, high: Vector) -> list[tuple[Vector, Vector, Vector]]:
    """The four sides of a rectangle: start, end, and the normal that points inwards."""
    a, b = np.array([low[0], low[1]]), np.array([high[0], low[1]])
    c, d = np.array([high[0], high[1]]), np.array([low[0], high[1]])
    inward = [np.array(v, float) for v in ((0, 1, 0), (-1, 0, 0), (0, -1, 0), (1, 0, 0))]
    return [(a, b, inward[0]), (b, c, inward[1]), (c, d, inward[2]), (d, a, inward[3])]


def _door(rng: np.random.Generator) -> Material:
    return material(rng, "door", contrast=0.4)


def _window(rng: np.random.Generator) -> Material:
    frame = colour(rng, 0.6, 0.95)
    glass = np.array([0.5, 0.6, 0.75]) * rng.uniform(0.2, 1.3)
    return Material("window", frame, np.clip(glass, 0, 1))


def _scatter(
    scene: Scene, kinds: Sequence[str], count: int, rng: np.random.Generator, clearance: float
) -> None:
    """Put things on free ground, apart from each other."""
    for _ in range(count):
        kind = str(rng.choice(kinds))
        reach = float(np.hypot(*SIZES[kind][:2])) / 2
        for _ in range(8):
            spot = rng.uniform(scene.free_min, scene.free_max)
            foot = np.array([*spot, 0.0])
            apart = all(
                np.hypot(*(spot - other.centre[:2])) > reach + np.hypot(*other.size[:2]) / 2
                for other in scene.objects
            )
            inside = np.all(spot > scene.free_min + reach) and np.all(spot < scene.free_max - reach)
            if apart and inside and not np.hypot(*spot) < clearance:
                add_thing(scene, kind, foot, rng.uniform(-np.pi, np.pi), rng)
                break


def _room(rng: np.random.Generator) -> Scene:
    half = np.array([rng.uniform(1.6, 4.5), rng.uniform(1.6, 4.0)])
    height = rng.uniform(2.4, 2.9)
    scene = Scene("room", _look(rng, outdoors=False), -half, half)
    ground = rng.choice(["boards", "tiles_30", "tiles_60", "checker_50", "carpet", "boards"])
    floor(scene, -half, half, 0.0, material(rng, ground))
    floor(scene, -half, half, height, material(rng, rng.choice(["plain", "ceiling"]), contrast=0.2))
    paint = material(rng, rng.choice(["plain", "plaster", "plain", "bricks"]), contrast=0.25)
    for start, end, inward in _corners(-half, half):
        wall(scene, start, end, 0.0, height, paint)
        length = float(np.hypot(*(end - start)))
        if rng.random() < 0.6:
            at = rng.uniform(0.2, length - 0.2 - DOOR[0])
            on_wall(scene, start, end, at, 0.0, *DOOR, _door(rng), inward)
        elif rng.random() < 0.6:
            at = rng.uniform(0.2, length - 0.2 - WINDOW[0])
            on_wall(scene, start, end, at, 0.9, *WINDOW, _window(rng), inward)
    kinds = ("crate", "cabinet", "table", "chair", "chair", "bin", "ball", "person", "crate")
    _scatter(scene, kinds, int(rng.integers(2, 8)), rng, clearance=0.0)
    return scene


def _corridor(rng: np.random.Generator) -> Scene:
    half = np.array([rng.uniform(4.0, 13.0), rng.uniform(0.8, 1.5)])
    height = rng.uniform(2.3, 2.8)
    scene = Scene("corridor", _look(rng, outdoors=False), -half, half)
    ground = rng.choice(["tiles_30", "tiles_60", "checker_50", "carpet", "boards"])
    floor(scene, -half, half, 0.0, material(rng, ground))
    floor(scene, -half, half, height, material(rng, rng.choice(["plain", "ceiling"]), contrast=0.3))
    paint = material(rng, rng.choice(["plain", "plaster", "blocks", "bricks"]), contrast=0.25)
    door = _door(rng)
    spacing = rng.uniform(2.2, 4.5)
    for start, end, inward in _corners(-half, half):
        wall(scene, start, end, 0.0, height, paint)
        length = float(np.hypot(*(end - start)))
        if length < 3.5:
            if rng.random() < 0.7:
                at = (length - DOOR[0]) / 2
                on_wall(scene, start, end, at, 0.0, *DOOR, door, inward)
            continue
        at = rng.uniform(0.3, spacing)
        while at < length - DOOR[0] - 0.1:
            on_wall(scene, start, end, at, 0.0, *DOOR, door, inward)
            at += spacing * rng.uniform(0.9, 1.1)
    kinds = ("crate", "chair", "bin", "person", "ball", "cone")
    _scatter(scene, kinds, int(rng.integers(0, 6)), rng, clearance=0.0)
    return scene


def _facade(
    scene: Scene,
    start: Vector,
    end: Vector,
    inward: Vector,
    storeys: int,
    rng: np.random.Generator,
) -> None:
    """A house front: storeys of 3 m, windows at equal distances, doors of 2 m."""
    wall(
        scene,
        start,
        end,
        0.0,
        3.0 * storeys,
        material(rng, rng.choice(["bricks", "plaster", "blocks", "bricks"]), contrast=0.35),
    )
    length = float(np.hypot(*(end - start)))
    window, door = _window(rng), _door(rng)
    pitch = rng.uniform(2.4, 3.2)
    for column in range(int(length // pitch)):
        at = column * pitch + (pitch - WINDOW[0]) / 2
        is_door = rng.random() < 0.25
        if is_door:
            on_wall(scene, start, end, at, 0.0, *DOOR, door, inward)
        for storey in range(1 if is_door else 0, storeys):
            on_wall(scene, start, end, at, 3.0 * storey + 0.9, *WINDOW, window, inward)


def _yard(rng: np.random.Generator) -> Scene:
    half = np.array([rng.uniform(4.0, 10.0), rng.uniform(4.0, 9.0)])
    scene = Scene("yard", _look(rng, outdoors=True), -half, half)
    green = np.array([0.3, 0.5, 0.2]) * rng.uniform(0.7, 1.4)
    ground = rng.choice(["slabs_40", "grass", "asphalt", "slabs_40", "blocks"])
    floor(
        scene,
        -half,
        half,
        0.0,
        material(rng, ground, np.clip(green, 0, 1) if ground == "grass" else None),
    )
    fence, fence_height = material(rng, rng.choice(["planks", "bricks"])), rng.uniform(1.2, 2.0)
    house = rng.integers(4)
    for side, (start, end, inward) in enumerate(_corners(-half, half)):
        if side == house:
            _facade(scene, start, end, inward, int(rng.integers(1, 3)), rng)
        else:
            wall(scene, start, end, 0.0, fence_height, fence)
    kinds = ("tree", "crate", "bench", "bin", "person", "car", "ball", "cone", "person", "crate")
    _scatter(scene, kinds, int(rng.integers(3, 10)), rng, clearance=0.0)
    return scene


def _street(rng: np.random.Generator) -> Scene:
    length, road, walk = rng.uniform(25, 45), rng.uniform(2.8, 3.8), rng.uniform(1.5, 3.0)
    far = np.array([length, road + walk])
    scene = Scene("street", _look(rng, outdoors=True), -far, far)
    asphalt = material(rng, "asphalt", colour(rng, 0.25, 0.5), contrast=0.4)
    floor(scene, np.array([-length, -road]), np.array([length, road]), 0.0, asphalt)
    paving = material(rng, rng.choice(["slabs_40", "tiles_60", "blocks"]))
    white = Material("plain", np.full(3, 0.85), np.full(3, 0.95))
    for at in np.arange(-length, length, 6.0):
        floor(scene, np.array([at, -0.06]), np.array([at + 3.0, 0.06]), 0.005, white)
    for side in (1, -1):
        low, high = sorted((side * road, side * (road + walk)))
        floor(scene, np.array([-length, low]), np.array([length, high]), 0.12, paving)
        kerb_ends = np.array([-length, side * road]), np.array([length, side * road])
        wall(scene, kerb_ends[0], kerb_ends[1], 0.0, 0.12, white)
        inward = np.array([0.0, -side, 0.0])
        at = -length
        while at < length:
            end = min(length, at + rng.uniform(8, 16))
            start_xy, end_xy = (np.array([x, side * (road + walk)]) for x in (at, end))
            _facade(scene, start_xy, end_xy, inward, int(rng.integers(2, 5)), rng)
            at = end
        for lamp in np.arange(-length + rng.uniform(0, 15), length, rng.uniform(15, 22)):
            foot = np.array([lamp, side * (road + 0.4), 0.12])
            add_thing(scene, "lamp", foot, 0.0, rng)
        for place in np.arange(-length + 3, length - 3, 5.5):
            if rng.random() < 0.3:
                foot = np.array([place, side * (road - 1.05), 0.0])
                add_thing(scene, "car", foot, 0.0, rng)
    for end_of_street in (-length, length):
        right, left = (np.array([end_of_street, y]) for y in (-road - walk, road + walk))
        _facade(scene, right, left, np.array([-np.sign(end_of_street), 0, 0]), 3, rng)
    for _ in range(int(rng.integers(2, 10))):
        side = rng.choice([-1.0, 1.0])
        spot = [rng.uniform(-length, length), side * rng.uniform(road + 0.6, road + walk - 0.3)]
        kind = rng.choice(["person", "person", "bin", "crate", "cone", "tree"])
        add_thing(scene, kind, np.array([*spot, 0.12]), rng.uniform(-np.pi, np.pi), rng)
    return scene
