# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from truth import TruthEngine

from vlm3_lab.scenes.kinds import sample_scene
from vlm3_lab.scenes.seen_objects import seen_objects
from vlm3_lab.scenes.things import add_thing
from vlm3_lab.scenes.views import camera_pose, render_view
from vlm3_ros.cli import main
from vlm3_ros.cli.ask_objects import answer_table, questions_about, rectified_box
from vlm3_ros.cli.photos import Shot
from vlm3_ros.datasets.views import View
from vlm3_ros.engines.recorded import RecordingEngine
from vlm3_ros.geometry.camera import PinholeCamera
from vlm3_ros.geometry.lens import load_camera_yaml
from vlm3_ros.language.wordings.objects import RELATIONS
from vlm3_ros.tasks.objects import (
    Box,
    Direction,
    ObjectAnswers,
    Quantity,
    Relation,
    ask_objects,
)

CAMERA = PinholeCamera.from_hfov(160, 120, 60.0)


@pytest.fixture(scope="module")
def view() -> View:
    """A person 4 m ahead on the left, a crate 6 m ahead on the right."""
    rng = np.random.default_rng(0)
    scene = sample_scene(rng, "yard")
    scene.objects.clear(), scene.balls.clear(), scene.pillars.clear()
    scene.rectangles = scene.rectangles[:1]
    add_thing(scene, "person", np.array([4.0, 0.8, 0.0]), 0.0, rng)
    add_thing(scene, "crate", np.array([6.0, -1.0, 0.0]), 0.0, rng)
    return render_view(scene, CAMERA, camera_pose(np.array([0, 0, 1.0]), 0.0, 0.05, 0.0), rng)


@pytest.fixture
def command(view: View, tmp_path: Path) -> list[str]:
    """Asks about both objects; answers are the ground truth."""
    Image.fromarray(view.image).save(tmp_path / "photo.png")
    engine = RecordingEngine(TruthEngine([view]), tmp_path / "truth.jsonl")
    ask_objects(engine, view.image, CAMERA, questions_about(boxes_of(view), RELATIONS))
    engine.close()
    arguments = ["ask", str(tmp_path / "photo.png"), "--hfov", "60", "--engine", "recorded"]
    arguments += ["--recording", str(tmp_path / "truth.jsonl")]
    for box in boxes_of(view):
        arguments += ["--box", *map(str, box)]
    return arguments


def boxes_of(view: View) -> list[Box]:
    return [tuple(thing.box.tolist()) for thing in seen_objects(view)]


def test_sizes_directions_and_relations_are_printed_and_drawn(
    view: View, command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--out", str(tmp_path / "new" / "objects.png")]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    person, crate = seen_objects(view)
    assert f"height of A │ {person.height:.2f} m" in printed
    assert f"width of B │ {crate.width:.2f} m" in printed
    distance = np.linalg.norm(person.centre - crate.centre)
    assert f"direct distance A to B │ {distance:.2f} m" in printed
    assert "B seen from A │ 1 o'clock" in printed
    for words in ("A left of B │ yes", "A taller than B │ yes", "A behind B │ no"):
        assert words in printed
    assert "A right of B" not in printed
    assert f"A: box {' '.join(f'{side:g}' for side in person.box)}" in printed
    picture = cv2.imread(str(tmp_path / "new" / "objects.png"))
    assert picture is not None and picture.shape[1] > 300


def test_relations_can_be_chosen(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--relation", "right", "--relation", "front"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "A right of B │ no" in printed and "A in front of B │ yes" in printed
    assert "A left of B" not in printed


def test_sizes_per_object_and_relations_per_pair() -> None:
    a, b, c = ((float(x), 0.0, x + 5.0, 9.0) for x in (0, 10, 20))
    assert questions_about([a], ["left"]) == [Quantity("width", a), Quantity("height", a)]
    questions = questions_about([a, b, c], ["left"])
    twos = [(a, b), (a, c), (b, c)]
    assert [(q.a, q.b) for q in questions if isinstance(q, Relation)] == twos
    assert [(q.a, q.b) for q in questions if isinstance(q, Direction)] == twos
    assert len(questions) == 3 * 2 + 3 * (3 + 1 + 1)


def test_boxes_refer_to_the_photo_before_rectification(tmp_path: Path) -> None:
    """Rectification shifts the image by (8, -7) px."""
    path = tmp_path / "camera.yaml"
    path.write_text(
        """
image_width: 160
image_height: 120
camera_name: front
camera_matrix: {rows: 3, cols: 3, data: [130, 0, 82, 0, 130, 57, 0, 0, 1]}
distortion_model: plumb_bob
distortion_coefficients: {rows: 1, cols: 5, data: [0, 0, 0, 0, 0]}
rectification_matrix: {rows: 3, cols: 3, data: [1, 0, 0, 0, 1, 0, 0, 0, 1]}
projection_matrix: {rows: 3, cols: 4, data: [130, 0, 90, 0, 0, 130, 50, 0, 0, 0, 1, 0]}
"""
    )
    lens = load_camera_yaml(path)
    shot = Shot(np.zeros((120, 160, 3), np.uint8), lens.rectified, lens)
    assert rectified_box(shot, (20, 30, 60, 80)) == pytest.approx((28, 23, 68, 73), abs=1e-3)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--box", "150", "0", "170", "9"], "pixel (170, 0) lies outside of the 160x120 image"),
        (["--box", "60", "0", "50", "9"], "is no box"),
        (["--relation", "left"], "about objects with --box"),
        (["--relation", "left", "--pixel", "1", "2"], "give them with --box"),
        (["--box", "1", "2", "3", "4", "--grid", "4x3"], "ask for depth with --pixel or --grid"),
        (["--box", "1", "2", "3", "4", "--focal", "64"], "--focal is for depth only"),
        (["--box", "1", "2", "3", "4", "--out", "folder"], "name a .png"),
        (["{photo}", "--box", "1", "2", "3", "4"], "--box is about one photo: remove {photo}"),
    ],
)
def test_invalid_requests_are_refused_in_one_line(
    command: list[str], arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    start = command[: command.index("--box")]
    arguments = [argument.format(photo=command[1]) for argument in arguments]
    assert main([*start[:2], *arguments, *start[2:]]) == 2
    error = capsys.readouterr().err
    assert complaint.format(photo=command[1]) in error
    assert len(error.splitlines()) == 1


def test_checkpoint_without_objects_is_refused(
    command: list[str], checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    about = [*command[:4], *command[command.index("--box") :]]
    assert main([*about, "--model", str(checkpoint)]) == 2
    assert "final did not learn about objects" in capsys.readouterr().err


def test_brackets_in_names_and_answers_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    question = Quantity("width", (0.0, 0.0, 5.0, 5.0))
    unread = ObjectAnswers((question,), (np.nan,), np.array([np.nan]), ("[bold] it is [red]",))
    Console(width=100).print(answer_table(unread, "photo[red].png"))
    printed = capsys.readouterr().out
    assert "photo[red].png" in printed
    assert "'[bold] it is [red]'" in printed
