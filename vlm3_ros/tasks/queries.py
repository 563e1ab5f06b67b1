# SPDX-License-Identifier: Apache-2.0
"""Answer the questions of a user about pixels, objects and anything else with typed values."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.engines.base import Engine
from vlm3_ros.errors import Vlm3Error
from vlm3_ros.geometry.camera import GeometryError, PinholeCamera
from vlm3_ros.geometry.images import unify_image
from vlm3_ros.geometry.lens import LensCamera
from vlm3_ros.language.wordings.objects import RELATIONS
from vlm3_ros.tasks.depth import ask_depth
from vlm3_ros.tasks.objects import (
    Box,
    Direction,
    Quantity,
    Relation,
    ask_objects,
)
from vlm3_ros.tasks.task import model_view

Pixel = tuple[float, float]
"""(u, v), px."""

Region = Box | str | int
"""An object: its box, px, or the id or index of a detection."""

Status = Literal["ok", "free text", "unread", "refused"]
"""`ok`: there is a value. `free text`: the model's text is the answer. `unread`: no value could be
read from the model's text. `refused`: the model was not asked, or failed."""


class QueryError(Vlm3Error, ValueError):
    """A question cannot be parsed; the message says what to write instead.

    Attributes:
        id: of the question, None if it could not be read.
    """

    def __init__(self, text: str, id: str | int | None = None) -> None:
        super().__init__(text)
        self.id = id


@dataclass(frozen=True)
class PixelQuery:
    """Depth of a pixel, or its point in the optical frame."""

    kind: Literal["depth", "point"]
    pixel: Pixel


@dataclass(frozen=True)
class ObjectQuery:
    """One of `RELATIONS`, `QUANTITIES` or "direction" of a, or of a to b."""

    kind: str
    a: Region
    b: Region | None = None


@dataclass(frozen=True)
class TextQuery:
    """Free text."""

    text: str


Query = PixelQuery | ObjectQuery | TextQuery


@dataclass(frozen=True)
class QueryAnswer:
    """Answer to a query.

    Attributes:
        value: a number, [x, y, z], whether a relation holds, or an hour; None if there is none.
        unit: of the value and the uncertainty: "m", "o'clock", or "".
        status: see `Status`.
        reason: why there is no value; empty if there is one, and for free text.
        uncertainty: one standard deviation of the value (of a point's Z), None if unknown.
        raw: the model's text.
    """

    value: float | int | bool | tuple[float, float, float] | None
    unit: str
    status: Status
    reason: str = ""
    uncertainty: float | None = None
    raw: str = ""


def refused(reason: str) -> QueryAnswer:
    """Build the answer to a query that the model was not asked."""
    return QueryAnswer(None, "", "refused", reason)


def answer_query(
    engine: Engine,
    image: NDArray[np.uint8],
    camera: PinholeCamera,
    query: Query,
    lens: LensCamera | None = None,
    object_engine: Engine | None = None,
    scale: float = 1.0,
) -> QueryAnswer:
    """Ask a model a query.

    Args:
        engine: answers about pixels.
        image: rectified RGB, shape (camera.height, camera.width, 3), uint8.
        camera: its intrinsics.
        query: its objects must be boxes, see `resolved`.
        lens: of the raw image whose pixels the query names; None if it names rectified pixels.
        object_engine: answers about objects, and free text; None for the same model.
        scale: factor on depths and points, not on what the model for objects says.

    Raises:
        GeometryError: if a pixel or a box does not lie in the image, or the image does not fit its
            camera or the engine's limits.
        EngineError: if the model did not learn what is asked, or cannot answer.
    """
    if isinstance(query, PixelQuery):
        return _pixel_answer(engine, image, camera, query, lens, scale)
    engine = object_engine or engine
    if isinstance(query, ObjectQuery):
        return _object_answer(engine, image, camera, query, lens)
    unified = model_view(engine.profile, engine.limits, camera)
    (answer,) = engine.ask([unify_image(image, unified)], [query.text])
    if answer.fault:
        return QueryAnswer(None, "", "unread", answer.fault)
    return QueryAnswer(None, "", "free text", raw=answer.text)


def rectified_pixel(pixel: Pixel, camera: PinholeCamera, lens: LensCamera | None) -> Pixel:
    """Convert a pixel of the received image to a pixel of the rectified image.

    Raises:
        GeometryError: if it does not lie in both images.
    """
    u, v = pixel
    shown, size = f"({u:g}, {v:g})", f"{camera.width}x{camera.height}"
    # Negated, so that NaN does not pass.
    if not (-0.5 <= u < camera.width - 0.5 and -0.5 <= v < camera.height - 0.5):
        raise GeometryError(f"pixel {shown} lies outside of the image of {size} px")
    if lens is None:
        return u, v
    u, v = (float(value) for value in lens.rectify_pixels([u, v]))
    if not (-0.5 <= u < camera.width - 0.5 and -0.5 <= v < camera.height - 0.5):
        raise GeometryError(
            f"pixel {shown} of the raw image is not in the rectified image, which the model sees"
        )
    return u, v


def rectified_box(box: Box, camera: PinholeCamera, lens: LensCamera | None) -> Box:
    """Convert a box of the received image to the box around it in the rectified image.

    Parts outside of either image are cut off.

    Raises:
        GeometryError: if it is no box, or no part of it lies in both images.
    """
    left, top, right, bottom = box
    shown = f"({left:g}, {top:g}, {right:g}, {bottom:g})"
    if not (all(map(math.isfinite, box)) and left <= right and top <= bottom):
        raise GeometryError(f"{shown} is no box: give its left, top, right and bottom in px")
    last = (camera.width - 1, camera.height - 1)
    low, high = np.maximum((left, top), 0.0), np.minimum((right, bottom), last)
    if (low > high).any():
        raise GeometryError(
            f"the box {shown} lies outside of the image of {camera.width}x{camera.height} px"
        )
    if lens is None:
        return _as_box(low, high)
    # The lens bends the sides: their middles may stick out farther than the corners.
    share = np.linspace(0, 1, 17)
    along = np.stack(np.meshgrid(share, share), axis=-1).reshape(-1, 2)
    outline = along[((along == 0) | (along == 1)).any(axis=1)] * (high - low) + low
    rectified = lens.rectify_pixels(outline)
    rectified = rectified[np.isfinite(rectified).all(axis=1)]
    if len(rectified):
        low = np.maximum(rectified.min(axis=0), 0.0)
        high = np.minimum(rectified.max(axis=0), last)
    if not len(rectified) or (low > high).any():
        raise GeometryError(
            f"the box {shown} of the raw image is not in the rectified image, which the model sees"
        )
    return _as_box(low, high)


def names_detections(query: Query) -> bool:
    """Whether a query names detections, which have no box yet."""
    return isinstance(query, ObjectQuery) and any(
        isinstance(region, str | int) for region in (query.a, query.b)
    )


def resolved(query: Query, box_of: Callable[[str | int], Box]) -> Query:
    """Replace the detections of a query by their boxes.

    Args:
        box_of: returns the box of a detection, by its id or index; raises if there is none.
    """
    if not isinstance(query, ObjectQuery):
        return query
    a, b = (
        box_of(region) if isinstance(region, str | int) else region for region in (query.a, query.b)
    )
    assert a is not None
    return replace(query, a=a, b=b)


def _pixel_answer(
    engine: Engine,
    image: NDArray[np.uint8],
    camera: PinholeCamera,
    query: PixelQuery,
    lens: LensCamera | None,
    scale: float,
) -> QueryAnswer:
    pixel = rectified_pixel(query.pixel, camera, lens)
    answers = ask_depth(engine, image, camera, [pixel]).scaled(scale)
    depth, text = float(answers.depth[0]), answers.texts[0]
    if not math.isfinite(depth):
        return _unread(text)
    std = _known(float(answers.std[0]))
    if query.kind == "depth":
        return QueryAnswer(depth, "m", "ok", uncertainty=std, raw=text)
    x, y, z = (float(value) for value in camera.unproject(pixel, depth))
    return QueryAnswer((x, y, z), "m", "ok", uncertainty=std, raw=text)


def _object_answer(
    engine: Engine,
    image: NDArray[np.uint8],
    camera: PinholeCamera,
    query: ObjectQuery,
    lens: LensCamera | None,
) -> QueryAnswer:
    boxes = [
        None if box is None else rectified_box(_box(box), camera, lens)
        for box in (query.a, query.b)
    ]
    a, b = boxes
    assert a is not None
    question: Relation | Direction | Quantity
    if query.kind in RELATIONS:
        assert b is not None
        question, unit = Relation(query.kind, a, b), ""
    elif query.kind == "direction":
        assert b is not None
        question, unit = Direction(a, b), "o'clock"
    else:
        question, unit = Quantity(query.kind, a, b), "m"
    answers = ask_objects(engine, image, camera, [question])
    value, text = answers.values[0], answers.texts[0]
    if not math.isfinite(value):
        return _unread(text)
    return QueryAnswer(value, unit, "ok", uncertainty=_known(float(answers.std[0])), raw=text)


def _unread(text: str) -> QueryAnswer:
    return QueryAnswer(None, "", "unread", "no value can be read from the model's text", raw=text)


def _box(region: Region) -> Box:
    assert isinstance(region, tuple)
    return region


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _as_box(low: NDArray[np.float64], high: NDArray[np.float64]) -> Box:
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])
