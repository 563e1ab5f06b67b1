# SPDX-License-Identifier: Apache-2.0
"""A look at a data set of any format: what would be learned from it."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from vlm3_lab.datasets.report import (
    FRAMES_TITLE,
    PAIRS_LEGEND,
    PAIRS_TITLE,
    SHOWN,
    Measured,
    distribution_table,
    pair_picture,
    plot_distributions,
)
from vlm3_ros.datasets.covisibility import covisibility
from vlm3_ros.datasets.source import FrameSource, reduced_view
from vlm3_ros.datasets.views import Conversation, View, ViewPair
from vlm3_ros.errors import DatasetError
from vlm3_ros.evaluation.html import write_page
from vlm3_ros.evaluation.pictures.depth import DepthFrame, draw_depth_frames
from vlm3_ros.evaluation.pictures.figures import png_source, svg_source
from vlm3_ros.evaluation.pictures.pair import PairFrame, draw_pair_frames
from vlm3_ros.evaluation.scores.base import Progress, no_progress
from vlm3_ros.evaluation.tables import TextTable
from vlm3_ros.geometry.motion import rotation_angle
from vlm3_ros.language.answers import AnswerError
from vlm3_ros.language.regions import REGION
from vlm3_ros.language.wordings.objects import holds_length, parse_length

PIXELS = 100
"""Depths of a frame that the distribution counts."""

BOX_COLOUR = (255, 220, 0)
"""RGB."""

STREAM = 0x100C
"""First word of the seed that draws frames and pairs."""

DEPTH, LENGTH, COVISIBILITY, BASELINE, ROTATION = (
    "depth in m",
    "lengths in answers in m",
    "covisibility",
    "baseline in m",
    "rotation in degrees",
)


@dataclass
class Look:
    """What was seen of a data set.

    Attributes:
        source: the data set.
        beginnings: number of frames that begin a pair.
        frames, pairs: number that was read.
        values: by quantity.
        frame_pictures, pair_pictures: to draw.
        unreadable: why frames could not be read, by index.
        without_scale: number of frames whose depth has an unknown scale.
        questions: number of questions in the data set's own words.
        examples: question and answer of some of them, by the name of the frame.
    """

    source: FrameSource
    beginnings: int
    frames: int = 0
    pairs: int = 0
    values: dict[str, list[float]] = field(
        default_factory=lambda: {
            name: [] for name in (DEPTH, LENGTH, COVISIBILITY, BASELINE, ROTATION)
        }
    )
    frame_pictures: list[DepthFrame] = field(default_factory=list)
    pair_pictures: list[PairFrame] = field(default_factory=list)
    unreadable: dict[int, str] = field(default_factory=dict)
    without_scale: int = 0
    questions: int = 0
    examples: dict[str, str] = field(default_factory=dict)

    @property
    def measured(self) -> Measured:
        """Values by quantity, for tables and histograms."""
        return {
            name: {"": np.array(values)}
            for name, values in self.values.items()
            if values or name != LENGTH  # which only conversations have
        }

    def read(self, index: int) -> View | None:
        """Read a frame; None if it cannot be read."""
        try:
            return self.source.read(index)
        except DatasetError as error:
            self.unreadable[index] = str(error)
            return None


def look_at(source: FrameSource, count: int, progress: Progress = no_progress) -> Look:
    """Read random frames and pairs.

    Args:
        source: the data set.
        count: number of frames, and of pairs, at most.
        progress: takes the number of steps done, and of all.

    Raises:
        DatasetError: if no frame can be read.
    """
    rng, pairs = np.random.default_rng(STREAM), source.pairs()
    look = Look(source, len(np.unique(pairs.first)))
    frames = rng.permutation(len(source.contents))[:count].tolist()
    numbers = rng.permutation(len(pairs))[:count].tolist()
    for done, index in enumerate(frames, 1):
        if (view := look.read(index)) is not None:
            _see_frame(look, index, view, rng)
        progress(done, len(frames) + len(numbers))
    for done, number in enumerate(numbers, len(frames) + 1):
        first = int(pairs.first[number])
        second = pairs.second(number, rng, look.read)
        if second is not None:
            one, other = look.read(first), look.read(second)
            if one is not None and other is not None:
                views = ViewPair(one, other, pairs.labels(number))
                _see_pair(look, f"frames {first} and {second}", views, rng)
        progress(done, len(frames) + len(numbers))
    if not look.frames:
        reasons = list(look.unreadable.values())
        raise DatasetError(
            f"{source.name}: none of {len(reasons)} frames can be read, such as {reasons[0]}"
        )
    return look


def look_tables(look: Look) -> list[TextTable]:
    """Tables of what the data set holds, and of the distributions."""
    contents = look.source.contents
    held = TextTable(
        "contents",
        ("", "frames", "with metric depth", "with pose", "with objects", "begin a pair"),
        (
            (
                "all",
                f"{len(contents):,}",
                *(
                    f"{int(mask.sum()):,}"
                    for mask in (contents.has_depth, contents.has_pose, contents.has_objects)
                ),
                f"{look.beginnings:,}",
            ),
        ),
        f"Looked at {look.frames} frames and {look.pairs} pairs, drawn at random.",
        has_baselines=False,
    )
    return [held, distribution_table(look.measured)]


def look_facts(look: Look) -> dict[str, str]:
    """What else a reader must know, by title."""
    facts = {"data set": look.source.name}
    if look.source.notes:
        facts["remarks"] = "; ".join(look.source.notes)
    if look.unreadable:
        reason = next(iter(look.unreadable.values()))
        facts["unreadable"] = f"{len(look.unreadable)} frames, such as {reason}"
    if look.without_scale:
        facts["without scale"] = (
            f"{look.without_scale} of the {look.frames} frames: their depth and baselines are not "
            "in metres and are left out of the distributions"
        )
    if look.questions:
        facts["conversations"] = f"{look.questions} questions, with boxes in px of the image"
    return {**facts, **look.examples}


def write_look(look: Look, out: Path) -> list[str]:
    """Write report.html and pictures; return the names of the files."""
    drawn = []
    if look.frame_pictures:
        draw_depth_frames(look.frame_pictures, out / "frames.png", FRAMES_TITLE)
        drawn.append(("frames.png", FRAMES_TITLE))
    if look.pair_pictures:
        draw_pair_frames(look.pair_pictures, out / "pairs.png", PAIRS_TITLE, legend=PAIRS_LEGEND)
        drawn.append(("pairs.png", PAIRS_TITLE))
    figure = plot_distributions(look.measured)
    figure.savefig(out / "distributions.png", dpi=110)
    write_page(
        out / "report.html",
        f"A look at {look.source.name}",
        f"{len(look.source.contents):,} frames.",
        [
            *((title, png_source((out / name).read_bytes())) for name, title in drawn),
            ("Distributions", svg_source(figure)),
        ],
        None,
        look_tables(look),
        look_facts(look),
    )
    return ["report.html", "distributions.png", *(name for name, _ in drawn)]


def _see_frame(look: Look, index: int, view: View, rng: np.random.Generator) -> None:
    look.frames += 1
    rows, columns = np.nonzero(np.isfinite(view.depth))
    chosen = rng.permutation(len(rows))[:PIXELS]
    pixels = np.stack([columns, rows], -1)[chosen].astype(float)
    depth = view.depth[rows[chosen], columns[chosen]].astype(float)
    if view.labels is not None:
        pixels, depth = view.labels.pixels, view.labels.depth
    if view.is_metric:
        look.values[DEPTH] += depth.tolist()
    else:
        look.without_scale += 1
    image = _see_conversations(look, index, view) if view.conversations else view.image
    if len(look.frame_pictures) < SHOWN:
        title = f"{view.kind}\nframe {index}{'' if view.is_metric else ', scale unknown'}"
        truth = view.depth if len(rows) > PIXELS else None
        look.frame_pictures.append(
            DepthFrame(title, image, pixels, depth, None, truth, view.is_metric)
        )


def _see_conversations(look: Look, index: int, view: View) -> NDArray[np.uint8]:
    """Count the questions about a view; return its image with their boxes."""
    image, thickness = view.image.copy(), max(1, view.camera.width // 300)
    look.questions += len(view.conversations)
    for one in view.conversations:
        for left, top, right, bottom in one.question.boxes:
            corners = (round(left), round(top)), (round(right), round(bottom))
            cv2.rectangle(image, *corners, BOX_COLOUR, thickness)
        with suppress(AnswerError):
            if holds_length(one.answer):
                look.values[LENGTH].append(parse_length(one.answer, any_form=True))
    first = view.conversations[0]
    if len(look.examples) < SHOWN:
        texts = (_with_pixels(first, text) for text in (first.question.text, first.answer))
        look.examples[f"frame {index}"] = " ".join(texts)
    return image


def _with_pixels(one: Conversation, text: str) -> str:
    def box(match: re.Match[str]) -> str:
        values = ", ".join(f"{value:g}" for value in one.question.boxes[int(match[1])])
        return f"({values})"

    return REGION.sub(box, text)


def _see_pair(look: Look, title: str, views: ViewPair, rng: np.random.Generator) -> None:
    look.pairs += 1
    motion = views.T_cam1_cam2
    if np.isfinite(motion).all():
        look.values[ROTATION].append(float(np.degrees(rotation_angle(motion))))
        if views.is_metric:
            look.values[BASELINE].append(float(np.linalg.norm(motion[:3, 3])))
        if all(np.isfinite(view.depth).any() for view in (views.first, views.second)):
            share = covisibility(reduced_view(views.first), reduced_view(views.second))
            look.values[COVISIBILITY].append(share)
            title = f"{title}: covisibility {share:.0%}"
    if len(look.pair_pictures) < SHOWN:
        look.pair_pictures.append(pair_picture(title, views, rng))
