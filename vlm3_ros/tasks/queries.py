# SPDX-License-Identifier: Apache-2.0
"""Questions that a user types, and their typed answers.

A question is a JSON object, or any other text: that goes to the model as it is. The objects:

    {"depth": [u, v]}                                   metres along the optical axis
    {"point": [u, v]}                                   [x, y, z] in the camera's optical frame
    {"width": A}  {"height": A}                         metres
    {"objects": [A, B], "distance": "direct"}           metres; or "horizontal", "vertical"
    {"objects": [A, B], "relation": "behind"}           whether A is behind B; see `RELATIONS`
    {"objects": [A, B], "direction": "clock"}           the hour at which B is, seen from A

[u, v] is a pixel, A and B are objects: a box [xmin, ymin, xmax, ymax] of outermost pixels, or one
of the newest detections, by its id (text) or its index from 0. Every object may carry "id", which
comes back with the answer, and "stamp", {"sec": ..., "nanosec": ...}: that of the image.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.engines.base import Engine
from vlm3_ros.errors import Vlm3Error
from vlm3_ros.geometry.camera import GeometryError, PinholeCamera, unify_focal
from vlm3_ros.geometry.images import unify_image
from vlm3_ros.geometry.lens import LensCamera
from vlm3_ros.language.objects import RELATIONS, SIZES
from vlm3_ros.tasks.depth import ask_depth
from vlm3_ros.tasks.objects import (
    Box,
    Direction,
    Quantity,
    Relation,
    ask_objects,
)

MAX_CHARACTERS = 4000
"""Longer questions are refused: no model learned them, and each costs by its length."""

_SHOWN_CHARACTERS = 1000

DISTANCES = ("direct", "horizontal", "vertical")

Pixel = tuple[float, float]
"""(u, v), px."""

Region = Box | str | int
"""An object: its box, px, or the id or the index of a detection."""

Status = Literal["ok", "free text", "unread", "refused"]
"""`ok`: there is a value. `free text`: the model's text is the answer. `unread`: the model has
answered what no value can be read from. `refused`: the model was not asked, or failed."""


class QueryError(Vlm3Error, ValueError):
    """A question that cannot be understood; the text says what to write instead.

    Attributes:
        id: what the question calls itself, as far as it could be read.
    """

    def __init__(self, text: str, id: str | int | None = None) -> None:
        super().__init__(text)
        self.id = id


@dataclass(frozen=True)
class PixelQuery:
    """How far away is a pixel (depth), or where (point)?"""

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
    """Anything, in the user's own words."""

    text: str


Query = PixelQuery | ObjectQuery | TextQuery


@dataclass(frozen=True)
class AskedQuery:
    """A query with what was said around it.

    `id`: what the question calls itself, None if it does not. `stamp`: (seconds, nanoseconds) of
    the image that it is about, None for the newest.
    """

    query: Query
    id: str | int | None = None
    stamp: tuple[int, int] | None = None


@dataclass(frozen=True)
class QueryAnswer:
    """What came of a query.

    Attributes:
        value: a number, [x, y, z], whether a relation holds, or an hour; None without one.
        unit: of the value and the uncertainty: "m", "o'clock", or "".
        status: see `Status`.
        reason: why there is no value; empty where there is one, and for free text.
        uncertainty: one standard deviation of the value (of a point's Z), None where unknown.
        raw: the model's own words.
    """

    value: float | int | bool | tuple[float, float, float] | None
    unit: str
    status: Status
    reason: str = ""
    uncertainty: float | None = None
    raw: str = ""


def refused(reason: str) -> QueryAnswer:
    """The answer to a query that the model was not asked."""
    return QueryAnswer(None, "", "refused", reason)


def parse_question(text: str) -> AskedQuery:
    """The query in a text: JSON where it begins with a brace, else the user's own words.

    Raises:
        QueryError: with what is wrong, for everything that is neither.
    """
    if len(text) > MAX_CHARACTERS:
        raise QueryError(f"the question has {len(text)} characters; at most {MAX_CHARACTERS}")
    if not text.strip():
        raise QueryError("the question is empty")
    if not text.lstrip().startswith("{"):
        return AskedQuery(TextQuery(text))
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise QueryError(f"the question begins like JSON, but is none: {error}") from None
    return _asked(content)


def answer_query(
    engine: Engine,
    image: NDArray[np.uint8],
    camera: PinholeCamera,
    query: Query,
    lens: LensCamera | None = None,
) -> QueryAnswer:
    """Ask a model.

    Args:
        image: rectified RGB, shape (camera.height, camera.width, 3), uint8.
        camera: its intrinsics.
        query: its objects are boxes, see `resolved`.
        lens: of the raw image whose pixels the query names; None where they are the rectified
            image's.

    Raises:
        GeometryError: when a pixel or a box does not lie in the image, or that does not fit.
        EngineError: when the model did not learn what is asked, or cannot answer at all.
    """
    if isinstance(query, PixelQuery):
        return _pixel_answer(engine, image, camera, query, lens)
    if isinstance(query, ObjectQuery):
        return _object_answer(engine, image, camera, query, lens)
    unified = unify_focal(camera, engine.profile.focal, engine.limits, engine.profile.fit)
    (answer,) = engine.ask([unify_image(image, unified)], [query.text])
    if answer.fault:
        return QueryAnswer(None, "", "unread", answer.fault)
    return QueryAnswer(None, "", "free text", raw=answer.text)


def answer_json(
    answer: QueryAnswer,
    question: str,
    id: str | int | None = None,
    frame: str = "",
    stamp: tuple[int, int] | None = None,
) -> str:
    """An answer as one line of JSON, which has a null where something is unknown.

    Args:
        answer: to the question.
        question: as it came; a long one is cut off.
        id: as the question has it.
        frame: the optical frame of the image, empty where no image was found.
        stamp: of the image, (seconds, nanoseconds).

    Returns:
        an object of id, question, status, reason, value, unit, uncertainty, frame, stamp and raw;
        see `QueryAnswer`.
    """
    if len(question) > _SHOWN_CHARACTERS:
        question = f"{question[:_SHOWN_CHARACTERS]}..."
    content = {
        "id": id,
        "question": question,
        "status": answer.status,
        "reason": answer.reason,
        "value": answer.value,
        "unit": answer.unit,
        "uncertainty": answer.uncertainty,
        "frame": frame,
        "stamp": stamp and {"sec": stamp[0], "nanosec": stamp[1]},
        "raw": answer.raw,
    }
    return json.dumps(content, allow_nan=False)


def rectified_pixel(pixel: Pixel, camera: PinholeCamera, lens: LensCamera | None) -> Pixel:
    """A pixel of the rectified image from one of the image as it came.

    Raises:
        GeometryError: when it does not lie in both of them.
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
    """The box in the rectified image around one in the image as it came; cut off at both images.

    Raises:
        GeometryError: when it is no box, or nothing of it lies in both images.
    """
    left, top, right, bottom = box
    shown = f"({left:g}, {top:g}, {right:g}, {bottom:g})"
    if not (all(map(math.isfinite, box)) and left <= right and top <= bottom):
        raise GeometryError(f"{shown} is no box: they are its left, top, right and bottom in px")
    last = (camera.width - 1, camera.height - 1)
    low, high = np.maximum((left, top), 0.0), np.minimum((right, bottom), last)
    if (low > high).any():
        raise GeometryError(
            f"the box {shown} lies outside of the image of {camera.width}x{camera.height} px"
        )
    if lens is None:
        return _as_box(low, high)
    # A lens bends the sides: their middles may stick out farther than the corners.
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
    """Whether a query is about objects that are not given as boxes."""
    return isinstance(query, ObjectQuery) and any(
        isinstance(some, str | int) for some in (query.a, query.b)
    )


def resolved(query: Query, box_of: Callable[[str | int], Box]) -> Query:
    """The query with boxes in place of detections.

    Args:
        box_of: the box of a detection, by its id or index; raises where there is none.
    """
    if not isinstance(query, ObjectQuery):
        return query
    a, b = (box_of(some) if isinstance(some, str | int) else some for some in (query.a, query.b))
    assert a is not None
    return replace(query, a=a, b=b)


def _asked(content: Any) -> AskedQuery:
    """A query from its JSON form."""
    id = content.pop("id", None)
    if id is not None and (isinstance(id, bool) or not isinstance(id, str | int)):
        raise QueryError('"id" must be a text or a whole number')
    try:
        stamp = _stamp(content.pop("stamp", None))
        return AskedQuery(_query(content), id, stamp)
    except QueryError as error:
        raise QueryError(str(error), id) from None


def _query(content: dict[str, Any]) -> Query:
    objects = content.pop("objects", None)
    if len(content) != 1:
        keys = ", ".join(json.dumps(key) for key in content) or "none"
        raise QueryError(
            'a question asks one of "depth", "point", "width", "height", or of two "objects" one '
            f'of "relation", "distance", "direction"; there is {keys}'
        )
    ((key, asked),) = content.items()
    if key in ("depth", "point", *SIZES):
        if objects is not None:
            raise QueryError(f'"{key}" is asked without "objects"')
        if key in SIZES:
            return ObjectQuery(key, _region(asked))
        u, v = _numbers(asked, 2, f'"{key}" must be the pixel [u, v]')
        return PixelQuery("depth" if key == "depth" else "point", (u, v))
    if not isinstance(objects, list) or len(objects) != 2:
        raise QueryError(f'"{key}" needs "objects": [A, B]')
    kinds = {
        "relation": {name: name for name in RELATIONS},
        "distance": {name: f"{name}_distance" for name in DISTANCES},
        "direction": {"clock": "direction"},
    }
    if key not in kinds:
        raise QueryError(f"{json.dumps(key)} is none of {', '.join(map(json.dumps, kinds))}")
    if not isinstance(asked, str) or asked not in kinds[key]:
        raise QueryError(f'"{key}" must be one of {", ".join(map(json.dumps, kinds[key]))}')
    a, b = map(_region, objects)
    return ObjectQuery(kinds[key][asked], a, b)


def _region(content: object) -> Region:
    if isinstance(content, str) or (isinstance(content, int) and not isinstance(content, bool)):
        return content
    left, top, right, bottom = _numbers(
        content, 4, "an object must be a box [xmin, ymin, xmax, ymax], or a detection's id or index"
    )
    if left > right or top > bottom:
        raise QueryError(
            f"the box [{left:g}, {top:g}, {right:g}, {bottom:g}] is inside out: it takes xmin, "
            "ymin, xmax, ymax"
        )
    return left, top, right, bottom


def _numbers(content: object, count: int, fault: str) -> Sequence[float]:
    if not isinstance(content, list) or len(content) != count:
        raise QueryError(fault)
    try:
        numbers = [
            float(x) for x in content if isinstance(x, int | float) and not isinstance(x, bool)
        ]
    except OverflowError:
        numbers = []
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise QueryError(f"{fault}, {count} finite numbers")
    return numbers


def _stamp(content: object) -> tuple[int, int] | None:
    if content is None:
        return None
    keys = ("sec", "nanosec")
    if isinstance(content, dict) and sorted(content) == sorted(keys):
        sec, nanosec = (content[key] for key in keys)
        if type(sec) is int and type(nanosec) is int:
            return (sec, nanosec) if sec or nanosec else None
    raise QueryError('"stamp" must be {"sec": ..., "nanosec": ...}, whole numbers')


def _pixel_answer(
    engine: Engine,
    image: NDArray[np.uint8],
    camera: PinholeCamera,
    query: PixelQuery,
    lens: LensCamera | None,
) -> QueryAnswer:
    pixel = rectified_pixel(query.pixel, camera, lens)
    answers = ask_depth(engine, image, camera, [pixel])
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
    return QueryAnswer(None, "", "unread", "no value can be read from the model's words", raw=text)


def _box(region: Region) -> Box:
    assert isinstance(region, tuple)
    return region


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _as_box(low: NDArray[np.float64], high: NDArray[np.float64]) -> Box:
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])
