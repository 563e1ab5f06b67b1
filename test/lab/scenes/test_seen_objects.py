# SPDX-License-Identifier: Apache-2.0
"""Facts about objects, checked against pictures with and without them, and mirrored."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vlm3_lab.scenes import KINDS, sample_view
from vlm3_lab.scenes.scene import Look, Material, Scene
from vlm3_lab.scenes.seen_objects import (
    MIN_SHARE,
    SeenObject,
    hour_of,
    quantity_of,
    relation_holds,
    seen_objects,
    true_answers,
)
from vlm3_lab.scenes.things import ROUND, SIZES, add_thing, floor
from vlm3_lab.scenes.views import camera_pose, render_view
from vlm3_lab.training.samples import mirrored
from vlm3_ros.datasets.views import View
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.language.wordings.objects import QUANTITIES, RELATIONS
from vlm3_ros.tasks.objects import Direction, Quantity, Relation

CAMERA = PinholeCamera(320, 240, 250.0, 250.0, 159.5, 119.5)
MIRROR = {"left": "right", "right": "left"}


def empty_scene() -> Scene:
    look = Look(np.array([0, 0, 1.0]), 0.5, 0.5, 1.0, np.ones(3), 0.0, np.full(3, 0.7))
    scene = Scene("yard", look, np.full(2, -20.0), np.full(2, 20.0))
    grey = Material("plain", np.full(3, 0.4), np.full(3, 0.6))
    floor(scene, scene.free_min, scene.free_max, 0.0, grey)
    return scene


def look_at(scene: Scene, pitch: float = 0.1) -> View:
    """From 1 m above the origin along x, a little down."""
    pose = camera_pose(np.array([0.0, 0.0, 1.0]), 0.0, pitch, 0.0)
    return render_view(scene, CAMERA, pose, np.random.default_rng(0))


def alone(kind: str, foot: tuple[float, float], yaw: float) -> tuple[View, View]:
    """A picture of the ground alone, and one with a thing on it."""
    scene = empty_scene()
    without = look_at(scene)
    add_thing(scene, kind, np.array([*foot, 0.0]), yaw, np.random.default_rng(1))
    return without, look_at(scene)


@pytest.fixture(scope="module")
def views() -> list[View]:
    drawn = (sample_view(np.random.default_rng([5, i]), KINDS[i % 4]) for i in range(60))
    return [view for view in drawn if len(seen_objects(view)) >= 2][:8]


@pytest.mark.parametrize("kind", sorted(set(SIZES) - {"tree", "lamp"}))
@pytest.mark.parametrize("yaw", [0.0, 0.7])
def test_a_box_holds_the_pixels_that_an_object_adds(kind: str, yaw: float) -> None:
    without, view = alone(kind, (7.0, 0.5), yaw)
    rows, columns = np.nonzero(view.depth != without.depth)
    (thing,) = seen_objects(view)
    assert thing.kind == kind
    added = np.array([columns.min(), rows.min(), columns.max(), rows.max()])
    # The lowest centimetres look like the ground, and lids stick out.
    assert (np.abs(thing.box - added) <= (1, 1, 1, 3)).all()
    assert (thing.box[:2] >= added[:2]).all() and (thing.box[2:] <= added[2:]).all()


def test_width_and_height_agree_with_the_box() -> None:
    """The front of a crate that faces the camera is at its nearest distance."""
    _, view = alone("crate", (6.0, 0.0), 0.0)
    (thing,) = seen_objects(view)
    (crate,) = view.objects
    assert quantity_of("width", thing) == pytest.approx(crate.size[1])
    assert quantity_of("height", thing) == pytest.approx(crate.size[2])
    assert thing.nearest == pytest.approx(6.0 - crate.size[0] / 2)
    width_px = thing.box[2] - thing.box[0] + 1
    assert width_px == pytest.approx(CAMERA.fx * crate.size[1] / thing.nearest, abs=2)


def test_the_width_of_a_turned_object_is_from_end_to_end() -> None:
    _, view = alone("bench", (6.0, 0.0), 0.6)
    (thing,), (bench,) = seen_objects(view), view.objects
    corners = [
        x * np.sin(0.6) * bench.size[0] / 2 + y * np.cos(0.6) * bench.size[1] / 2
        for x in (-1, 1)
        for y in (-1, 1)
    ]
    assert thing.width == pytest.approx(max(corners) - min(corners))


@pytest.mark.parametrize("kind", ROUND)
def test_the_width_of_a_round_object_is_the_same_from_all_sides(kind: str) -> None:
    distance = 18.0 if SIZES[kind][2] > 3 else 7.0
    (thing,), (turned,) = (
        seen_objects(alone(kind, (distance, 0.0), yaw)[1]) for yaw in (0.0, np.pi / 4)
    )
    assert thing.width == pytest.approx(turned.width)
    assert thing.width == pytest.approx(SIZES[kind][0], rel=0.09)
    np.testing.assert_array_equal(thing.box, turned.box)
    shown = (thing.box[2] - thing.box[0] + 1) * thing.centre[2] / CAMERA.fx
    assert shown == pytest.approx(thing.width, rel=0.16, abs=2 * distance / CAMERA.fx)


def test_places_are_in_upright_axes_for_every_viewing_direction() -> None:
    scene = empty_scene()
    rng = np.random.default_rng(0)
    for foot in ((6.0, 1.5), (9.0, -2.0)):
        add_thing(scene, "crate", np.array([*foot, 0.0]), 0.0, rng)
    for pitch in (0.0, 0.25):
        near, far = seen_objects(look_at(scene, pitch))
        np.testing.assert_allclose(near.centre[[0, 2]], [-1.5, 6.0], atol=1e-9)
        np.testing.assert_allclose(far.centre[[0, 2]], [2.0, 9.0], atol=1e-9)
        assert quantity_of("horizontal_distance", near, far) == pytest.approx(np.hypot(3, 3.5))
        # 3 m on and 3.5 m to the right: 49 degrees, nearer to 2 o'clock than to 1.
        assert (hour_of(near, far), hour_of(far, near)) == (2, 8)
        assert relation_holds("left", near, far) and relation_holds("front", near, far)


@pytest.mark.parametrize(
    ("right", "ahead", "hour"),
    [(0, 2, 12), (1, 1.8, 1), (2, 0, 3), (0, -2, 6), (-2, 0, 9), (-0.9, 2, 11), (0.1, 0.1, None)],
)
def test_hours_are_those_of_a_clock_seen_from_above(
    right: float, ahead: float, hour: int | None
) -> None:
    a = SeenObject("crate", np.zeros(4), np.array([1.0, 0.0, 5.0]), np.ones(3), 1.0)
    b = replace(a, centre=a.centre + np.array([right, 0.3, ahead]))
    assert hour_of(a, b) == hour


def test_relations_turn_around_with_their_objects(views: list[View]) -> None:
    asked = 0
    for things in map(seen_objects, views):
        a, b = things[:2]
        for index, name in enumerate(RELATIONS):
            opposite = RELATIONS[index + 1 - 2 * (index % 2)]
            holds = relation_holds(name, a, b)
            assert relation_holds(opposite, b, a) is holds
            for other in (relation_holds(name, b, a), relation_holds(opposite, a, b)):
                assert other is (None if holds is None else not holds)
            asked += holds is not None
        for name in ("direct_distance", "horizontal_distance", "vertical_distance"):
            assert quantity_of(name, a, b) == quantity_of(name, b, a)
    assert asked > len(views) * len(RELATIONS) / 2


def test_the_mirror_exchanges_left_and_right_and_nothing_else(views: list[View]) -> None:
    for view in views:
        things, others = seen_objects(view), seen_objects(mirrored(view))
        assert [thing.kind for thing in things] == [thing.kind for thing in others]
        for thing, other in zip(things, others, strict=True):
            left, top, right, bottom = other.box
            last = view.camera.width - 1
            np.testing.assert_allclose(thing.box, [last - right, top, last - left, bottom])
            for size in ("width", "height"):
                assert quantity_of(size, other) == pytest.approx(quantity_of(size, thing))
        (a, b), (a_, b_) = things[:2], others[:2]
        for name in RELATIONS:
            assert relation_holds(MIRROR.get(name, name), a_, b_) == relation_holds(name, a, b)
        assert quantity_of("direct_distance", a_, b_) == pytest.approx(
            quantity_of("direct_distance", a, b)
        )
        hour, other_hour = hour_of(a, b), hour_of(a_, b_)
        assert (hour is None) == (other_hour is None)
        if hour is not None and other_hour is not None:
            assert (hour + other_hour) % 12 == 0


def test_from_straight_above_or_without_a_pose_no_object_is_seen() -> None:
    scene = empty_scene()
    add_thing(scene, "crate", np.zeros(3), 0.0, np.random.default_rng(0))
    for pitch, count in ((1.3, 1), (np.pi / 2, 0)):
        back = 6.0 / np.tan(pitch)
        pose = camera_pose(np.array([-back, 0.0, 6.0]), 0.0, pitch, 0.0)
        view = render_view(scene, CAMERA, pose, np.random.default_rng(0))
        assert len(seen_objects(view)) == count
    assert seen_objects(replace(view, T_world_camera=np.full((4, 4), np.nan))) == []


def test_objects_that_are_mostly_hidden_or_cut_off_are_not_seen() -> None:
    scene, rng = empty_scene(), np.random.default_rng(0)
    add_thing(scene, "bin", np.array([9.0, 0.0, 0.0]), 0.0, rng)
    assert [thing.kind for thing in seen_objects(look_at(scene))] == ["bin"]
    add_thing(scene, "cabinet", np.array([5.0, 0.0, 0.0]), 0.0, rng)
    assert [thing.kind for thing in seen_objects(look_at(scene))] == ["cabinet"]
    # At the border of the image a part of it is beyond.
    border = 5.0 * CAMERA.cx / CAMERA.fx
    shown = [
        bool(seen_objects(alone("crate", (5.0, float(y)), 0.0)[1]))
        for y in np.linspace(border - 0.8, border + 0.8, 9)
    ]
    assert shown[0] and not shown[-1]
    assert shown == sorted(shown, reverse=True)


def test_seen_boxes_show_most_of_an_object(views: list[View]) -> None:
    for view in views:
        for thing in seen_objects(view):
            left, top, right, bottom = thing.box
            assert 0 <= left <= right < view.camera.width
            assert 0 <= top <= bottom < view.camera.height
    assert 0.5 < MIN_SHARE < 1


def test_every_clear_question_is_asked_once_and_kinds_take_turns(views: list[View]) -> None:
    for view in views:
        things = seen_objects(view)
        asked = true_answers(things, np.random.default_rng(1))
        assert len({question for question, _ in asked}) == len(asked)
        of_box = {tuple(thing.box): thing for thing in things}
        names = []
        for question, truth in asked:
            a = of_box[question.a]
            if isinstance(question, Relation):
                assert truth is relation_holds(question.relation, a, of_box[question.b])
                names.append(question.relation)
            elif isinstance(question, Direction):
                assert truth == hour_of(a, of_box[question.b])
                names.append("direction")
            else:
                assert isinstance(question, Quantity)
                b = None if question.b is None else of_box[question.b]
                assert truth == quantity_of(question.quantity, a, b)
                names.append(question.quantity)
        first = names[: len(set(names))]
        assert len(set(first)) == len(first)
        assert set(names) <= {*RELATIONS, *QUANTITIES, "direction"}


def test_unknown_facts_are_errors(views: list[View]) -> None:
    a, b = seen_objects(views[0])[:2]
    with pytest.raises(KeyError, match="beside"):
        relation_holds("beside", a, b)
    with pytest.raises(KeyError, match="depth"):
        quantity_of("depth", a)
