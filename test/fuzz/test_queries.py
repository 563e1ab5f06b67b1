# SPDX-License-Identifier: Apache-2.0
"""Any question is understood or refused with a reason; answers are always JSON."""

from __future__ import annotations

import json

import numpy as np
from fuzzing import attempt, damaged_text
from hypothesis import given
from hypothesis import strategies as st

from vlm3_ros.geometry.camera import GeometryError, PinholeCamera
from vlm3_ros.geometry.lens import lens_from_calibration
from vlm3_ros.tasks.queries import (
    ObjectQuery,
    PixelQuery,
    QueryAnswer,
    QueryError,
    names_detections,
    rectified_box,
    rectified_pixel,
    refused,
    resolved,
)
from vlm3_ros.tasks.query_json import answer_json, parse_question

CAMERA = PinholeCamera(64, 48, 50.0, 50.0, 32.0, 24.0)
LENS = lens_from_calibration(
    64, 48, CAMERA.K, [-0.2, 0.05, 0.0, 0.0], "plumb_bob", np.eye(3), np.zeros((3, 4))
)
QUESTIONS = (
    "How far is the door?",
    '{"depth": [10, 20.5], "id": "a"}',
    '{"point": [1e300, -0.0], "stamp": {"sec": 5, "nanosec": 7}, "id": 7}',
    '{"width": [1, 2, 30, 40]}',
    '{"height": "person 3"}',
    '{"objects": [[1, 2, 30, 40], 1], "distance": "direct"}',
    '{"objects": [0, "a"], "relation": "behind", "id": null}',
    '{"objects": [[NaN, Infinity, 1, 2], []], "direction": "clock"}',
    '{"depth": ' + "[" * 1500,
    '{"id": ' + "9" * 3000 + ', "depth": [1, 2]}',
)


@given(damaged_text(*QUESTIONS))
def test_questions(text):
    asked, refusal = attempt((QueryError,), parse_question, text)
    if asked is None:
        assert refusal
        return
    content = json.loads(answer_json(refused("no image"), text, asked.id, stamp=asked.stamp))
    assert content["id"] == asked.id
    query = resolved(asked.query, lambda reference: (1.0, 2.0, 30.0, 40.0))
    assert not names_detections(query)
    if isinstance(query, PixelQuery):
        pixel, _ = attempt((GeometryError,), rectified_pixel, query.pixel, CAMERA, LENS)
        assert pixel is None or np.isfinite(pixel).all()
    if isinstance(query, ObjectQuery):
        box, _ = attempt((GeometryError,), rectified_box, query.a, CAMERA, LENS)
        assert box is None or (box[0] <= box[2] and box[1] <= box[3])


@given(st.text(), st.text(max_size=30), st.floats(allow_nan=False, allow_infinity=False))
def test_answers_are_json(raw, frame, value):
    text = answer_json(QueryAnswer(value, "m", "ok", raw=raw), raw, frame=frame)
    content = json.loads(text)
    assert (content["raw"], content["frame"], content["value"]) == (raw, frame, value)
    assert "\n" not in text
