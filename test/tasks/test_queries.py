# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from truth import TruthEngine

from vlm3_lab.scenes import sample_view
from vlm3_lab.scenes.seen_objects import seen_objects, true_answers
from vlm3_ros.datasets.views import View
from vlm3_ros.engines.base import Answer, EngineError
from vlm3_ros.geometry.camera import GeometryError, PinholeCamera
from vlm3_ros.geometry.lens import LensCamera
from vlm3_ros.language.prompts import load_prompt_set
from vlm3_ros.language.wordings.objects import RELATIONS
from vlm3_ros.tasks.objects import Direction, Quantity, Relation
from vlm3_ros.tasks.queries import (
    ObjectQuery,
    PixelQuery,
    Query,
    QueryAnswer,
    QueryError,
    TextQuery,
    answer_query,
    rectified_box,
    rectified_pixel,
    refused,
    resolved,
)
from vlm3_ros.tasks.query_json import MAX_CHARACTERS, AskedQuery, answer_json, parse_question

CAMERA = PinholeCamera(160, 120, 110.0, 110.0, 79.5, 59.5)
BARREL = LensCamera(
    160,
    120,
    CAMERA.K,
    "plumb_bob",
    np.array([-0.3, 0.1, 0.0, 0.0, 0.0]),
    np.eye(3),
    np.array([[90.0, 0, 79.5, 0], [0, 90.0, 59.5, 0], [0, 0, 1, 0]]),
)
A, B = (10.0, 20.0, 40.0, 90.0), (60.0, 0.0, 159.0, 119.0)

QUESTIONS: dict[str, Query] = {
    "How many chairs are there?": TextQuery("How many chairs are there?"),
    "[1, 2]": TextQuery("[1, 2]"),
    ' {"depth": [3, 4.5]}\n': PixelQuery("depth", (3.0, 4.5)),
    '{"point": [-1, 0]}': PixelQuery("point", (-1.0, 0.0)),
    '{"width": [10, 20, 40, 90]}': ObjectQuery("width", A),
    '{"height": "chair_3"}': ObjectQuery("height", "chair_3"),
    '{"objects": [0, 1], "relation": "behind"}': ObjectQuery("behind", 0, 1),
    '{"distance": "direct", "objects": [[10, 20, 40, 90], 2]}': ObjectQuery(
        "direct_distance", A, 2
    ),
    '{"objects": ["a", "b"], "direction": "clock"}': ObjectQuery("direction", "a", "b"),
}


@pytest.mark.parametrize("text", QUESTIONS)
def test_questions(text: str) -> None:
    assert parse_question(text) == AskedQuery(QUESTIONS[text])


def test_ids_and_stamps_of_questions() -> None:
    stamp = {"sec": 12, "nanosec": 345}
    asked = parse_question(json.dumps({"depth": [1, 2], "id": "x", "stamp": stamp}))
    assert asked == AskedQuery(PixelQuery("depth", (1.0, 2.0)), "x", (12, 345))
    newest = {"depth": [1, 2], "id": 7, "stamp": {"sec": 0, "nanosec": 0}}
    assert parse_question(json.dumps(newest)) == AskedQuery(PixelQuery("depth", (1.0, 2.0)), 7)


BAD_QUESTIONS = {
    "": "is empty",
    " \n": "is empty",
    "{": "begins like JSON, but is not valid JSON",
    '{"depth": [1, 2]} and more': "begins like JSON, but is not valid JSON",
    '{"a":' * 700: "begins like JSON, but is not valid JSON",
    "x" * (MAX_CHARACTERS + 1): f"has {MAX_CHARACTERS + 1} characters",
    "{}": "asks nothing",
    '{"depth": [1, 2], "width": [1, 2, 3, 4]}': 'this one asks "depth", "width"',
    '{"colour": [1, 2]}': '"colour" needs "objects": [A, B]',
    '{"colour": "red", "objects": [0, 1]}': '"colour" is none of "relation", "distance"',
    '{"\\ud800": "red", "objects": [0, 1]}': r'"\ud800" is none of',
    '{"depth": 3}': '"depth" must be the pixel [u, v]',
    '{"depth": [1, 2, 3]}': '"depth" must be the pixel [u, v]',
    '{"depth": [1, "2"]}': '"depth" must be the pixel [u, v], 2 finite numbers',
    '{"depth": [1, true]}': "2 finite numbers",
    '{"depth": [1, NaN]}': "2 finite numbers",
    '{"depth": [1, 1e999]}': "2 finite numbers",
    '{"depth": [1, 1' + "0" * 400 + "]}": "2 finite numbers",
    '{"depth": [1, 2], "objects": [0, 1]}': '"depth" is asked without "objects"',
    '{"width": null}': "an object must be a box [xmin, ymin, xmax, ymax]",
    '{"width": true}': "an object must be a box",
    '{"width": [1, 2, 3]}': "an object must be a box",
    '{"width": [30, 2, 3, 40]}': "the box [30, 2, 3, 40] is inverted",
    '{"relation": "behind"}': '"relation" needs "objects": [A, B]',
    '{"relation": "behind", "objects": [0]}': '"relation" needs "objects": [A, B]',
    '{"relation": "inside", "objects": [0, 1]}': '"relation" must be one of "below", "above"',
    '{"relation": ["behind"], "objects": [0, 1]}': '"relation" must be one of "below"',
    '{"distance": "width", "objects": [0, 1]}': '"distance" must be one of "direct"',
    '{"depth": [1, 2], "id": [1]}': '"id" must be a text or a whole number',
    '{"depth": [1, 2], "stamp": 3}': '"stamp" must be {"sec": ..., "nanosec": ...}',
    '{"depth": [1, 2], "stamp": {"sec": 1.5, "nanosec": 0}}': "whole numbers",
}


@pytest.mark.parametrize("text", BAD_QUESTIONS, ids=range(len(BAD_QUESTIONS)))
def test_bad_questions_say_what_is_wrong(text: str) -> None:
    with pytest.raises(QueryError) as caught:
        parse_question(text)
    assert BAD_QUESTIONS[text] in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_a_bad_question_keeps_its_id() -> None:
    with pytest.raises(QueryError) as caught:
        parse_question('{"id": "mine", "depth": 3}')
    assert caught.value.id == "mine"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(
            st.sampled_from(
                ["depth", "point", "width", "objects", "relation", "distance", "id", "stamp", "sec"]
            )
            | st.text(),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@given(st.text() | st.text().map("{{{}".format) | st.dictionaries(st.text(), JSON).map(json.dumps))
def test_any_text_is_a_query_or_a_clear_error(text: str) -> None:
    with contextlib.suppress(QueryError):
        assert isinstance(parse_question(text), AskedQuery)


@given(
    st.dictionaries(
        st.sampled_from(
            ["depth", "point", "width", "height", "relation", "objects", "id", "stamp"]
        ),
        JSON,
        min_size=1,
    )
)
def test_any_json_is_a_query_or_a_clear_error(content: dict[str, object]) -> None:
    try:
        asked = parse_question(json.dumps(content))
    except QueryError:
        return
    if isinstance(asked.query, PixelQuery):
        assert all(map(math.isfinite, asked.query.pixel))


@given(
    st.builds(
        QueryAnswer,
        st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans(),
        st.text(),
        st.sampled_from(["ok", "free text", "unread", "refused"]),
        st.text(),
        st.none() | st.floats(allow_nan=False, allow_infinity=False),
        st.text(),
    ),
    st.text(),
    st.none() | st.text() | st.integers(),
)
def test_answers_are_json(answer: QueryAnswer, question: str, id: str | int | None) -> None:
    content = json.loads(answer_json(answer, question, id, "camera", (5, 6)))
    assert content["value"] == answer.value
    assert content["raw"] == answer.raw
    assert (content["id"], content["question"]) == (id, question)
    assert content["stamp"] == {"sec": 5, "nanosec": 6}


def test_a_long_question_is_cut_off_in_the_answer() -> None:
    text = answer_json(refused("too long"), "x" * 10**6)
    assert len(text) < 2000
    assert json.loads(text)["stamp"] is None


@pytest.fixture(scope="module")
def view() -> View:
    return next(
        view
        for view in (sample_view(np.random.default_rng(seed), "yard") for seed in range(50))
        if len(seen_objects(view)) == 3
    )


def test_true_answers_come_back(view: View) -> None:
    engine = TruthEngine([view])
    u, v = 100, view.camera.height - 20
    depth = float(view.depth[v, u])
    answer = answer_query(engine, view.image, view.camera, PixelQuery("depth", (u, v)))
    assert answer.value == pytest.approx(depth, rel=1e-6)
    assert (answer.unit, answer.status, answer.reason) == ("m", "ok", "")
    point = answer_query(engine, view.image, view.camera, PixelQuery("point", (u, v))).value
    np.testing.assert_allclose(point, view.camera.unproject((u, v), depth), rtol=1e-6)
    kinds = set()
    for question, truth in true_answers(seen_objects(view), np.random.default_rng(0)):
        if isinstance(question, Direction):
            query, unit = ObjectQuery("direction", question.a, question.b), "o'clock"
        elif isinstance(question, Relation):
            query, unit = ObjectQuery(question.relation, question.a, question.b), ""
        else:
            assert isinstance(question, Quantity)
            query, unit = ObjectQuery(question.quantity, question.a, question.b), "m"
        answer = answer_query(engine, view.image, view.camera, query)
        assert (answer.value, answer.unit) == (pytest.approx(truth, rel=1e-6), unit)
        assert isinstance(answer.value, bool) == isinstance(question, Relation)
        kinds.add(query.kind)
    assert {"width", "direct_distance", "direction"} <= kinds
    assert kinds & set(RELATIONS)


class SpokenEngine(TruthEngine):
    """Gives the same answer to everything."""

    def __init__(self, answer: Answer) -> None:
        super().__init__([], load_prompt_set("vlm3"), focal=110.0)
        self.answer = answer
        self.asked: list[str] = []

    def ask(self, images, questions, answer_template=None):
        self.asked += questions
        return [self.answer] * len(questions)


def said(answer: Answer, query: Query) -> QueryAnswer:
    image = np.zeros((120, 160, 3), np.uint8)
    return answer_query(SpokenEngine(answer), image, CAMERA, query)


def test_free_text_goes_to_the_model_unchanged() -> None:
    engine = SpokenEngine(Answer("Two <b>chairs</b>."))
    image = np.zeros((120, 160, 3), np.uint8)
    answer = answer_query(engine, image, CAMERA, TextQuery("How many? {x}"))
    assert engine.asked == ["How many? {x}"]
    assert answer == QueryAnswer(None, "", "free text", raw="Two <b>chairs</b>.")
    lost = said(Answer("", fault="the server is gone"), TextQuery("How many?"))
    assert lost == QueryAnswer(None, "", "unread", "the server is gone")


@pytest.mark.parametrize("query", [PixelQuery("depth", (1, 2)), ObjectQuery("behind", A, B)])
def test_unreadable_answers_have_no_value(query: Query) -> None:
    answer = said(Answer("over there"), query)
    assert (answer.value, answer.status, answer.raw) == (None, "unread", "over there")
    assert answer.reason


def test_answers_have_their_uncertainty() -> None:
    answer = said(Answer("", value=2.0, std=0.5), PixelQuery("depth", (1, 2)))
    assert (answer.value, answer.uncertainty) == (
        pytest.approx(2.0, rel=0.1),
        pytest.approx(0.5, rel=0.1),
    )


def test_a_model_that_did_not_learn_objects() -> None:
    engine = SpokenEngine(Answer("Yes"))
    engine.profile = replace(engine.profile, prompts=engine.profile.prompts.without("objects"))
    with pytest.raises(EngineError, match="did not learn about objects"):
        answer_query(engine, np.zeros((120, 160, 3), np.uint8), CAMERA, ObjectQuery("width", A))


@given(st.tuples(*[st.floats(-50, 250)] * 2), st.sampled_from([None, BARREL]))
def test_pixels_of_raw_images(pixel: tuple[float, float], lens: LensCamera | None) -> None:
    camera = lens.rectified if lens else CAMERA
    inside = -0.5 <= pixel[0] < 159.5 and -0.5 <= pixel[1] < 119.5
    try:
        found = rectified_pixel(pixel, camera, lens)
    except GeometryError:
        assert not inside or lens
        return
    assert inside
    np.testing.assert_allclose(lens.distort_pixels(found) if lens else found, pixel, atol=0.2)


@given(
    st.tuples(*[st.floats(-50, 250)] * 4).map(
        lambda b: (min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3]))
    ),
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=20),
)
def test_the_rectified_box_encloses_the_raw_one(box, places) -> None:
    camera = BARREL.rectified
    try:
        left, top, right, bottom = rectified_box(box, camera, BARREL)
    except GeometryError:
        return
    assert 0 <= left <= right <= 159 and 0 <= top <= bottom <= 119
    low = np.maximum(box[:2], 0)
    high = np.minimum(box[2:], (159, 119))
    inside = BARREL.rectify_pixels(low + np.array(places) * (high - low))
    seen = ((inside >= 0) & (inside <= (159, 119))).all(axis=1)
    slack = 0.3  # sides bend between the tested points
    assert (inside[seen] >= np.array((left, top)) - slack).all()
    assert (inside[seen] <= np.array((right, bottom)) + slack).all()


@pytest.mark.parametrize(
    ("box", "text"),
    [
        ((50.0, 2.0, 40.0, 8.0), "(50, 2, 40, 8) is no box"),
        ((float("nan"), 2.0, 40.0, 8.0), "is no box"),
        ((161.0, 2.0, 170.0, 8.0), "lies outside of the image of 160x120 px"),
    ],
)
def test_wrong_boxes_are_refused(box, text: str) -> None:
    for lens in (None, BARREL):
        with pytest.raises(GeometryError) as caught:
            rectified_box(box, CAMERA, lens)
        assert text in str(caught.value)


def test_a_box_keeps_what_the_lens_rectifies() -> None:
    narrow = LensCamera(
        160,
        120,
        CAMERA.K,
        "plumb_bob",
        BARREL.D,
        np.eye(3),
        np.array([[300.0, 0, 79.5, 0], [0, 300.0, 59.5, 0], [0, 0, 1, 0]]),
    )
    with pytest.raises(GeometryError, match="not in the rectified image"):
        rectified_pixel((2.0, 2.0), narrow.rectified, narrow)
    with pytest.raises(GeometryError, match="not in the rectified image"):
        rectified_box((0.0, 0.0, 9.0, 9.0), narrow.rectified, narrow)


def test_detections_become_boxes() -> None:
    boxes = {"a": A, 1: B}
    assert resolved(ObjectQuery("behind", "a", 1), boxes.__getitem__) == ObjectQuery("behind", A, B)
    same = ObjectQuery("width", A)
    assert resolved(same, boxes.__getitem__) == same
    assert resolved(TextQuery("a"), boxes.__getitem__) == TextQuery("a")
