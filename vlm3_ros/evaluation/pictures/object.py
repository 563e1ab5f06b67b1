# SPDX-License-Identifier: Apache-2.0
"""Pictures of answers about objects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from vlm3_ros.evaluation.metrics.objects import Asked
from vlm3_ros.evaluation.pictures.figures import add_panel, add_text, new_figure, save_png
from vlm3_ros.tasks.objects import Box, Quantity, Question, Relation, Value

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_RELATION_WORDS = {
    "left": "left of",
    "right": "right of",
    "big": "bigger than",
    "small": "smaller than",
    "tall": "taller than",
    "short": "shorter than",
    "wide": "wider than",
    "thin": "thinner than",
    "front": "in front of",
}
_PANEL_WIDTH, _TEXT_WIDTH, _GAP, _MARGIN = 4.0, 3.6, 0.2, 0.2  # inches
_MAX_HEIGHT = 3.6
_HEAD, _LINE, _SPACE = 0.6, 0.2, 0.25
_RIGHT, _WRONG, _UNSCORED = "#2a7f3f", "#c8401e", "#404040"


@dataclass(frozen=True)
class ObjectFrame:
    """An image with questions about its objects.

    Attributes:
        title: a short line above the image.
        image: RGB, shape (height, width, 3), uint8.
        asked: questions and answers; a truth is NaN if unknown.
    """

    title: str
    image: NDArray[np.uint8]
    asked: tuple[Asked, ...]


def box_letters(questions: Iterable[Question]) -> dict[Box, str]:
    """Name the objects of questions in order: A to Z, then A1 to Z1 and so on."""
    letters: dict[Box, str] = {}
    for question in questions:
        for box in (question.a, question.b):
            if box is not None and box not in letters:
                turn, index = divmod(len(letters), len(ascii_uppercase))
                letters[box] = ascii_uppercase[index] + (str(turn) if turn else "")
    return letters


def question_words(question: Question, letters: Mapping[Box, str]) -> str:
    """Shorten a question, with letters instead of boxes."""
    a = letters[question.a]
    if question.b is None:
        return f"{question.quantity} of {a}"
    b = letters[question.b]
    if isinstance(question, Relation):
        return f"{a} {_RELATION_WORDS.get(question.relation, question.relation)} {b}"
    if isinstance(question, Quantity):
        return f"{question.quantity.replace('_', ' ')} {a} to {b}"
    return f"{b} seen from {a}"


def value_words(question: Question, value: Value) -> str:
    """Shorten an answer."""
    if value != value:  # NaN
        return "no answer"
    if isinstance(question, Relation):
        return "yes" if value else "no"
    return f"{value:.2f} m" if isinstance(question, Quantity) else f"{value} o'clock"


def draw_object_frames(
    frames: Sequence[ObjectFrame], path: Path | str | BinaryIO, title: str
) -> None:
    """Draw one row per frame as a PNG: objects in their boxes, answers next to the image.

    Right answers are green, wrong ones red and followed by the truth, unscored ones grey.

    Args:
        frames: at least one.
        path: PNG file to write, or an open file.
        title: of the picture.
    """
    scales = [min(_PANEL_WIDTH / f.image.shape[1], _MAX_HEIGHT / f.image.shape[0]) for f in frames]
    panels = [scale * f.image.shape[0] for scale, f in zip(scales, frames, strict=True)]
    rows = [
        max(panel, _LINE * len(f.asked)) + (_LINE if f.title else 0) + _SPACE
        for panel, f in zip(panels, frames, strict=True)
    ]
    width = 2 * _MARGIN + _PANEL_WIDTH + _GAP + _TEXT_WIDTH
    height = _HEAD + sum(rows)
    figure = new_figure(width, height)
    add_text(figure, _MARGIN, height - 0.12, title, 12, "bold")
    top = height - _HEAD
    for frame, scale, panel, row in zip(frames, scales, panels, rows, strict=True):
        below = top
        if frame.title:
            add_text(figure, _MARGIN, top, frame.title, 9, "bold")
            below -= _LINE
        letters = box_letters(one.question for one in frame.asked)
        shown = scale * frame.image.shape[1]
        axes = add_panel(figure, _MARGIN, below - panel, shown, panel)
        _draw_boxes(axes, frame.image, letters)
        for line, one in enumerate(frame.asked):
            text, colour = _answer_line(one, letters)
            left = _MARGIN + _PANEL_WIDTH + _GAP
            add_text(figure, left, below - _LINE * line, text, 9, colour=colour)
        top -= row
    save_png(figure, path)


def _answer_line(one: Asked, letters: Mapping[Box, str]) -> tuple[str, str]:
    """Question and answer as text, and its colour."""
    words = question_words(one.question, letters)
    text = f"{words}: {value_words(one.question, one.answer)}"
    if one.truth != one.truth:  # NaN
        return text, _UNSCORED
    if isinstance(one.question, Relation) and one.is_right:
        return text, _RIGHT
    return f"{text} (true: {value_words(one.question, one.truth)})", (
        _RIGHT if one.is_right else _WRONG
    )


def _draw_boxes(axes: Axes, image: NDArray[np.uint8], letters: Mapping[Box, str]) -> None:
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    height, width = image.shape[:2]
    axes.imshow(image, aspect="auto")
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)
    colours = colormaps["gist_rainbow"](np.linspace(0, 0.92, max(len(letters), 1)))
    for (box, letter), colour in zip(letters.items(), colours, strict=False):
        left, top, right, bottom = box
        size = (right - left + 1, bottom - top + 1)
        for line_width, line_colour in ((3.0, "white"), (1.5, colour)):
            axes.add_patch(
                Rectangle(
                    (left - 0.5, top - 0.5),
                    *size,
                    fill=False,
                    linewidth=line_width,
                    edgecolor=line_colour,
                )
            )
        # Outside of the box, since an object can be smaller than its letter.
        is_high = top < 0.08 * height
        axes.annotate(
            letter,
            (left, bottom if is_high else top),
            xytext=(0, -4 if is_high else 4),
            textcoords="offset points",
            va="top" if is_high else "bottom",
            fontsize=8,
            weight="bold",
            color="black",
            bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "linewidth": 0},
        )
