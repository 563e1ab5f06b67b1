# SPDX-License-Identifier: Apache-2.0
"""JSON form of the questions that a user types, and of their answers.

A question is a JSON object, or any other text, which goes to the model unchanged. The objects:

    {"depth": [u, v]}                                   metres along the optical axis
    {"point": [u, v]}                                   [x, y, z] in the camera's optical frame
    {"width": A}  {"height": A}                         metres
    {"objects": [A, B], "distance": "direct"}           metres; or "horizontal", "vertical"
    {"objects": [A, B], "relation": "behind"}           whether A is behind B; see `RELATIONS`
    {"objects": [A, B], "direction": "clock"}           the hour at which B is, seen from A

[u, v] is a pixel. A and B are boxes [xmin, ymin, xmax, ymax] of outermost pixels, or newest
detections by id (text) or index from 0. Every JSON object may carry "id", which the answer repeats,
and "stamp", {"sec": ..., "nanosec": ...}, the stamp of the image.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vlm3_ros.language.wordings.objects import RELATIONS, SIZES
from vlm3_ros.tasks.queries import (
    ObjectQuery,
    PixelQuery,
    Query,
    QueryAnswer,
    QueryError,
    Region,
    TextQuery,
)

MAX_CHARACTERS = 4000
"""Longer questions are refused: no model learned them, and cost grows with length."""

_SHOWN_CHARACTERS = 1000

DISTANCES = ("direct", "horizontal", "vertical")


@dataclass(frozen=True)
class AskedQuery:
    """A query with its id and stamp.

    `id`: of the question, None if it has none. `stamp`: (seconds, nanoseconds) of its image, None
    for the newest image.
    """

    query: Query
    id: str | int | None = None
    stamp: tuple[int, int] | None = None


def parse_question(text: str) -> AskedQuery:
    """Parse a question: JSON if it begins with a brace, otherwise free text.

    Raises:
        QueryError: saying what is wrong.
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
        raise QueryError(f"the question begins like JSON, but is not valid JSON: {error}") from None
    return _asked(content)


def answer_json(
    answer: QueryAnswer,
    question: str,
    id: str | int | None = None,
    frame: str = "",
    stamp: tuple[int, int] | None = None,
) -> str:
    """Format an answer as one line of JSON, with null for what is unknown.

    Args:
        answer: to the question.
        question: as received; a long one is cut off.
        id: of the question.
        frame: the optical frame of the image, empty if no image was found.
        stamp: of the image, (seconds, nanoseconds).

    Returns:
        An object of id, question, status, reason, value, unit, uncertainty, frame, stamp and raw;
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


def _asked(content: Any) -> AskedQuery:
    """Parse the JSON form of a question."""
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
        keys = ", ".join(json.dumps(key) for key in content) or "nothing"
        raise QueryError(
            'a question asks one of "depth", "point", "width", "height", or of two "objects" one '
            f'of "relation", "distance", "direction"; this one asks {keys}'
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
            f"the box [{left:g}, {top:g}, {right:g}, {bottom:g}] is inverted: give xmin, ymin, "
            "xmax, ymax"
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
