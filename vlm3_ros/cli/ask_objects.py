# SPDX-License-Identifier: Apache-2.0
"""`vlm3 ask` about objects in a photo: their relations, distances, sizes and directions."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from vlm3_ros.cli.camera_options import given_cameras
from vlm3_ros.cli.model_options import loaded_engine
from vlm3_ros.cli.photos import Shot, read_shot
from vlm3_ros.errors import CommandError, NoAnswersError
from vlm3_ros.evaluation.answer_counts import count_answers
from vlm3_ros.evaluation.metrics.objects import Asked
from vlm3_ros.evaluation.pictures.object import (
    ObjectFrame,
    box_letters,
    draw_object_frames,
    question_words,
    value_words,
)
from vlm3_ros.evaluation.tolerance import TolerantEngine
from vlm3_ros.language.wordings.objects import DISTANCES, RELATIONS, SIZES
from vlm3_ros.tasks.objects import (
    Box,
    Direction,
    ObjectAnswers,
    Quantity,
    Question,
    Relation,
    ask_objects,
)


def ask_about_objects(options: argparse.Namespace) -> int:
    """Ask all questions about the boxed objects in a photo; return the exit status."""
    if options.second is not None:
        raise CommandError(f"--box is about one photo: remove {options.second}")
    if options.focal is not None:
        raise CommandError(
            "--focal is for depth only: objects are asked at the model's own focal length"
        )
    out: Path | None = options.out
    if out is not None and out.suffix.lower() != ".png":
        raise CommandError(f"--out {out}: the result is a picture: name a .png file")
    shot = read_shot(options.photo, *given_cameras(options, 1))
    boxes = [rectified_box(shot, box) for box in options.box]
    questions = questions_about(boxes, options.relation or RELATIONS[::2])
    with loaded_engine(options, "objects") as engine:
        answers = ask_objects(TolerantEngine(engine), shot.image, shot.camera, questions)
    Console(highlight=False).print(answer_table(answers, options.photo.name))
    counts = count_answers(len(questions), answers.missing)
    if not counts.answered:
        raise NoAnswersError(counts.complaint())
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        asked = zip(answers.questions, answers.values, strict=True)
        unknown = float("nan")
        frame = ObjectFrame("", shot.image, tuple(Asked(q, unknown, value) for q, value in asked))
        draw_object_frames([frame], out, options.photo.name)
        print(f"wrote {out}")
    return 0


def rectified_box(shot: Shot, box: Sequence[float]) -> Box:
    """Return the smallest box in the rectified image around the corners of a box in the photo.

    Args:
        shot: the photo.
        box: left, top, right and bottom pixel in the photo.

    Raises:
        CommandError: if a corner lies outside the image.
    """
    left, top, right, bottom = box
    corners = shot.rectified_pixels([(left, top), (left, bottom), (right, top), (right, bottom)])
    left_top, left_bottom, right_top, right_bottom = corners
    return (
        float(min(left_top[0], left_bottom[0])),
        float(min(left_top[1], right_top[1])),
        float(max(right_top[0], right_bottom[0])),
        float(max(left_bottom[1], right_bottom[1])),
    )


def questions_about(boxes: Sequence[Box], relations: Sequence[str]) -> list[Question]:
    """Return questions: sizes of each object; distances, direction, relations of each pair."""
    questions: list[Question] = [Quantity(size, box) for box in boxes for size in SIZES]
    for a, b in itertools.combinations(boxes, 2):
        questions += [Quantity(distance, a, b) for distance in DISTANCES]
        questions.append(Direction(a, b))
        questions += [Relation(relation, a, b) for relation in relations]
    return questions


def answer_table(answers: ObjectAnswers, title: str) -> Table:
    """Build a table of questions, answers, standard deviations and the model's own words."""
    letters = box_letters(answers.questions)
    table = Table(
        title=escape(title),
        caption="; ".join(
            f"{letter}: box {' '.join(f'{side:g}' for side in box)}"
            for box, letter in letters.items()
        ),
    )
    table.add_column("question")
    table.add_column("answer", justify="right")
    table.add_column("±", justify="right")
    table.add_column("in the model's words")
    for question, value, std, text in zip(
        answers.questions, answers.values, answers.std, answers.texts, strict=True
    ):
        table.add_row(
            question_words(question, letters),
            value_words(question, value),
            "" if np.isnan(std) else f"{std:.2f} m",
            escape(repr(text)),
        )
    return table
