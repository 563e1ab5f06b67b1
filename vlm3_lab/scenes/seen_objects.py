# SPDX-License-Identifier: Apache-2.0
"""The objects that a view shows, their sizes, and the relations between them.

The definitions follow SpatialRGPT's benchmark, with exact boxes in place of estimated point clouds:
axes are upright, "right" is the camera's right, "ahead" is its viewing direction.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vlm3_lab.scenes.things import ROUND
from vlm3_ros.datasets.views import SceneObject, View
from vlm3_ros.language.wordings.objects import DISTANCES, QUANTITIES, RELATIONS, SIZES
from vlm3_ros.tasks.objects import Box, Direction, Quantity, Question, Relation, Value

SLACK = 0.03
"""Metres around an object's box within which a surface belongs to the object."""

MIN_PIXELS = 30
"""Least visible pixels of an object: fewer do not show what it is."""

MIN_SHARE = 0.7
"""Least visible share of the width and of the height of an object's outline."""

CLEAR_RATIO, CLEAR_METRES = 1.15, 0.15
"""Least factor between sizes, and least distance between places, that are compared; "behind" needs
both. Closer ones cannot be judged from an image."""

SHORTEST_METRES = 0.1
"""Least distance that is asked for: a quarter of a shorter one cannot be seen."""

MIN_LEVEL = 0.1
"""Least horizontal part of the unit vector along the optical axis: a camera that looks up or down
by more than 84 degrees has no "ahead"."""


@dataclass(frozen=True)
class SeenObject:
    """An object that is nearly completely in view.

    `box`: (left, top, right, bottom) of its visible pixels, px, shape (4,), inclusive. `centre`:
    metres to the right of the camera, above and ahead of it, shape (3,). `extent`: metres along
    these axes, shape (3,). `volume`: cubic metres of the object's own box.
    """

    kind: str
    box: NDArray[np.float64]
    centre: NDArray[np.float64]
    extent: NDArray[np.float64]
    volume: float

    @property
    def width(self) -> float:
        """Metres from the left to the right end in the view."""
        return float(self.extent[0])

    @property
    def height(self) -> float:
        """Metres from the lower to the upper end."""
        return float(self.extent[1])

    @property
    def nearest(self) -> float:
        """Metres from the camera to the nearest point, along "ahead"."""
        return float(self.centre[2] - self.extent[2] / 2)


def seen_objects(view: View) -> list[SeenObject]:
    """The objects of a view of which at least `MIN_SHARE` is visible.

    Empty if the pose is unknown, or the camera looks straight up or down.
    """
    if not np.linalg.norm(view.T_world_camera[:2, 2]) >= MIN_LEVEL:
        return []
    points = _world_points(view)
    seen = (_seen(view, _as_seen(view, thing), points) for thing in view.objects)
    return [thing for thing in seen if thing is not None]


def relation_holds(relation: str, a: SeenObject, b: SeenObject) -> bool | None:
    """Whether one of `RELATIONS` holds from a to b; None if it is too close to call.

    Raises:
        KeyError: if the relation is unknown.
    """
    index = RELATIONS.index(relation) if relation in RELATIONS else None
    if index is None:
        raise KeyError(relation)
    # Relations come in pairs: the second of each is the opposite of the first.
    first = RELATIONS[index - index % 2]
    (ax, ay, _), (bx, by, _) = a.centre, b.centre
    differences = {"below": by - ay, "left": bx - ax, "behind": a.nearest - b.nearest}
    sizes = {
        "big": (a.volume, b.volume),
        "tall": (a.height, b.height),
        "wide": (a.width, b.width),
    }
    if first in differences:
        is_first, is_clear = differences[first] > 0, abs(differences[first]) >= CLEAR_METRES
    else:
        is_first, is_clear = sizes[first][0] > sizes[first][1], _are_apart(*sizes[first])
    if first == "behind":
        is_clear &= _are_apart(max(a.nearest, 0.1), max(b.nearest, 0.1))
    if not is_clear:
        return None
    return bool(is_first) if relation == first else not is_first


def quantity_of(quantity: str, a: SeenObject, b: SeenObject | None = None) -> float | None:
    """Metres of one of `QUANTITIES`: of a, or between the centres of a and b.

    None if below `SHORTEST_METRES`.

    Raises:
        KeyError: if the quantity is unknown.
    """
    if quantity not in QUANTITIES:
        raise KeyError(quantity)
    if b is None:
        metres = {"width": a.width, "height": a.height}[quantity]
    else:
        right, up, ahead = b.centre - a.centre
        metres = {
            "direct_distance": float(np.linalg.norm(b.centre - a.centre)),
            "horizontal_distance": float(np.hypot(right, ahead)),
            "vertical_distance": float(abs(up)),
        }[quantity]
    return metres if metres >= SHORTEST_METRES else None


def hour_of(a: SeenObject, b: SeenObject) -> int | None:
    """Hour of the direction from a to b; 12 points away from the camera, 3 to its right.

    None if they are closer than `CLEAR_METRES` on the ground, one above the other.
    """
    right, _, ahead = b.centre - a.centre
    if np.hypot(right, ahead) < CLEAR_METRES:
        return None
    return int(round(np.degrees(np.arctan2(right, ahead)) / 30) - 1) % 12 + 1


def true_answers(
    things: list[SeenObject], rng: np.random.Generator
) -> list[tuple[Question, Value]]:
    """All questions about objects that are not too close to call, with their true values.

    Args:
        things: of one view.
        rng: draws the order.

    Returns:
        In random order; the kinds of question take turns.
    """
    kinds: dict[str, list[tuple[Question, Value]]] = {}

    def add(kind: str, question: Question, truth: Value | None) -> None:
        if truth is not None:
            kinds.setdefault(kind, []).append((question, truth))

    for thing in things:
        for size in SIZES:
            add(size, Quantity(size, _box(thing)), quantity_of(size, thing))
    for one, other in itertools.permutations(things, 2):
        a, b = _box(one), _box(other)
        for relation in RELATIONS:
            add(relation, Relation(relation, a, b), relation_holds(relation, one, other))
        for distance in DISTANCES:
            add(distance, Quantity(distance, a, b), quantity_of(distance, one, other))
        add("direction", Direction(a, b), hour_of(one, other))
    for questions in kinds.values():
        rng.shuffle(questions)
    names = list(kinds)
    rng.shuffle(names)
    turns = itertools.zip_longest(*(kinds[name] for name in names))
    return [asked for turn in turns for asked in turn if asked is not None]


def _box(thing: SeenObject) -> Box:
    left, top, right, bottom = thing.box.tolist()
    return left, top, right, bottom


def _are_apart(one: float, other: float) -> bool:
    return max(one, other) >= CLEAR_RATIO * min(one, other)


def _world_points(view: View) -> NDArray[np.float64]:
    """The world point of each pixel, shape (height, width, 3); not finite in the sky."""
    height, width = view.depth.shape
    u, v = np.meshgrid(np.arange(width), np.arange(height))
    pixels = np.stack([u, v], axis=-1).reshape(-1, 2)
    points = view.camera.unproject(pixels, view.depth.reshape(-1).astype(float))
    T = view.T_world_camera
    with np.errstate(invalid="ignore"):
        return (points @ T[:3, :3].T + T[:3, 3]).reshape(height, width, 3)


def _as_seen(view: View, thing: SceneObject) -> SceneObject:
    """A thing with its box as seen: the box of a round thing faces the camera."""
    if thing.kind not in ROUND:
        return thing
    ahead = view.T_world_camera[:3, 2]
    diameter, _, height = thing.size
    return replace(
        thing,
        size=np.array([diameter, diameter, height]),
        yaw=float(np.arctan2(ahead[1], ahead[0])),
    )


def _seen(view: View, thing: SceneObject, points: NDArray[np.float64]) -> SeenObject | None:
    c, s = np.cos(thing.yaw), np.sin(thing.yaw)
    R_world_object = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    half = thing.size / 2
    corners = np.array(np.meshgrid(*[(-1, 1)] * 3)).reshape(3, -1).T * half
    T = view.T_world_camera
    in_camera = (corners @ R_world_object.T + thing.centre - T[:3, 3]) @ T[:3, :3]
    if in_camera[:, 2].min() <= 0.1:
        return None
    outline = view.camera.project(in_camera)
    low, high = outline.min(axis=0), outline.max(axis=0)
    limits = np.array([view.camera.width, view.camera.height])
    left, top = np.clip(np.floor(low), 0, limits).astype(int)
    right, bottom = np.clip(np.ceil(high) + 1, 0, limits).astype(int)
    if left >= right or top >= bottom:
        return None
    reach = half + SLACK
    with np.errstate(invalid="ignore"):
        local = (points[top:bottom, left:right] - thing.centre) @ R_world_object
        # Excludes the ground below the object.
        is_inside = (np.abs(local) <= reach).all(axis=-1) & (local[..., 2] > SLACK - half[2])
    rows, columns = np.nonzero(is_inside)
    if len(rows) < MIN_PIXELS:
        return None
    first, last = (columns.min(), rows.min()), (columns.max(), rows.max())
    box = np.array([left, top, left, top], float) + np.concatenate([first, last])
    if ((box[2:] - box[:2] + 1) < MIN_SHARE * (high - low)).any():
        return None
    return _upright(view, thing, box, R_world_object)


def _upright(
    view: View, thing: SceneObject, box: NDArray[np.float64], R_world_object: NDArray[np.float64]
) -> SeenObject:
    """The object in upright axes at the camera: right, up, ahead."""
    up = np.array([0.0, 0.0, 1.0])
    ahead = view.T_world_camera[:3, 2] * (1, 1, 0)
    ahead /= np.linalg.norm(ahead)
    axes = np.stack([np.cross(ahead, up), up, ahead])
    return SeenObject(
        kind=str(thing.kind),
        box=box,
        centre=axes @ (thing.centre - view.T_world_camera[:3, 3]),
        extent=np.abs(axes @ R_world_object) @ thing.size,
        volume=float(np.prod(thing.size)),
    )
