# SPDX-License-Identifier: Apache-2.0
"""Procedural views with true questions in the two formats of SpatialRGPT, and who answers them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from truth import TruthEngine

from vlm3_lab.scenes import sample_view
from vlm3_lab.scenes.seen_objects import (
    SeenObject,
    hour_of,
    quantity_of,
    relation_holds,
    seen_objects,
    true_answers,
)
from vlm3_ros.datasets.views import View
from vlm3_ros.geometry.camera import UnifiedCamera
from vlm3_ros.language.prompts import load_prompt_set
from vlm3_ros.language.wordings.objects import DISTANCES, ObjectsWording
from vlm3_ros.tasks.objects import Quantity, Question, Relation, Value, length_scale

CHOICES = {
    "left": ("Which is more to the left, {a} or {b}?", "Positioned to the left is {x}."),
    "right": (
        "Between {a} and {b}, which one appears on the right side from the viewer's perspective?",
        "From the viewer's perspective, {x} appears more on the right side.",
    ),
    "above": ("Who is higher up, {a} or {b}?", "{x} is higher up."),
    "below": ("Which is below, {a} or {b}?", "Positioned lower is {x}."),
    "tall": (
        "Which of these two, {a} or {b}, stands taller?",
        "Standing taller between the two is {x}.",
    ),
    "short": ("Who is shorter, {a} or {b}?", "With less height is {x}."),
}
"""Question and answer of each kind of choice that SpatialRGPT's pipeline makes."""

_PROMPTS = load_prompt_set("vlm3-object")
_WORDING = _PROMPTS[ObjectsWording]
_BOX = re.compile(r"bounding box region \((\d+), (\d+), (\d+), (\d+)\)")


def views_of_objects(count: int, seed: int = 8, kind: str = "street") -> list[View]:
    """Views that show at least three objects."""
    views: list[View] = []
    number = 0
    while len(views) < count:
        view = sample_view(np.random.default_rng([seed, number]), kind)
        number += 1
        if len(seen_objects(view)) >= 3:
            views.append(view)
    return views


def human_length(metres: float, rng: np.random.Generator) -> str:
    """A length in the units that SpatialRGPT's pipeline draws from."""
    units = (("centimeters", 100.0), ("inches", 39.3701))
    if metres >= 1:
        units = (("meters", 1.0), ("feet", 3.28084))
    unit, factor = units[rng.integers(2)]
    return f"{round(metres * factor, 2)} {unit}"


def worded(
    question: Question, truth: Value, rng: np.random.Generator
) -> tuple[str, str, str, list[tuple[float, ...]]]:
    """Category, question and answer with {a} and {b}, and the boxes of these."""
    boxes = [box for box in (question.a, question.b) if box is not None]
    if isinstance(question, Relation):
        name = question.relation
        if name in CHOICES and rng.random() < 0.5:
            text, answer = CHOICES[name]
            return f"{name}_choice", text, answer.replace("{x}", "{a}" if truth else "{b}"), boxes
        answers = (_WORDING.yes if truth else _WORDING.no)[name]
        return f"{name}_predicate", _any(_WORDING.relations[name], rng), _any(answers, rng), boxes
    if isinstance(question, Quantity):
        name = question.quantity
        category = {"direct_distance": "distance"}.get(name, name) + "_data"
        length = human_length(float(truth), rng)
        answer = _any(_WORDING.metres[name], rng).replace("{value} meters", length)
        return category, _any(_WORDING.quantities[name], rng), answer, boxes
    answer = _any(_WORDING.hour, rng).replace("{value}", str(int(truth)))
    return "direction", _any(_WORDING.direction, rng), answer, boxes


def bench_entries(
    views: Sequence[View], per_view: int = 40, seed: int = 0, **info: Any
) -> list[dict[str, Any]]:
    """Entries of SpatialRGPT-Bench, one question each."""
    rng = np.random.default_rng(seed)
    entries = []
    for number, view in enumerate(views):
        camera = view.camera
        for question, truth in true_answers(seen_objects(view), rng)[:per_view]:
            category, text, answer, boxes = worded(question, truth, rng)
            kind = "qualitative" if isinstance(question, Relation) else "quantitative"
            masks = text.replace("{a}", "<mask>").replace("{b}", "<mask>")
            entries.append(
                {
                    "id": f"{kind}_{len(entries):010}",
                    "image_info": {
                        "file_path": f"{view.kind}/{number}.png",
                        "height": camera.height,
                        "width": camera.width,
                        "K": camera.K.tolist(),
                        **info,
                    },
                    "text_q": _regions(text),
                    "qa_info": {"type": kind, "category": category},
                    "conversations": [
                        {"from": "human", "value": f"<image>\n{masks}"},
                        {"from": "gpt", "value": _regions(answer)},
                    ],
                    "bbox": [list(box) for box in boxes],
                    "rle": [],
                }
            )
    return entries


def write_bench(path: Path, views: Sequence[View], entries: Sequence[Mapping[str, Any]]) -> None:
    """Write a benchmark, as an array or, if the path ends in .jsonl, as lines."""
    write_images(path.parent, views, "{kind}/{number}.png")
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    else:
        path.write_text(json.dumps(entries))


def open_spatial_entries(
    views: Sequence[View], turns: int = 10, seed: int = 0
) -> list[dict[str, Any]]:
    """Entries of OpenSpatialDataset, one image each."""
    rng = np.random.default_rng(seed)
    entries = []
    for number, view in enumerate(views):
        conversations, boxes = [], []
        for question, truth in true_answers(seen_objects(view), rng)[:turns]:
            _, text, answer, own = worded(question, truth, rng)
            for name in ("{a}", "{b}"):
                text = text.replace(name, "<mask> <depth>")
            start = "" if conversations else "<image>\n"
            conversations.append({"from": "human", "value": start + text})
            conversations.append({"from": "gpt", "value": _regions(answer)})
            boxes += [[int(value) for value in box] for box in own]
        size = [view.camera.height, view.camera.width]
        entries.append(
            {
                "filename": f"{number:016x}",
                "conversations": conversations,
                # As in COCO's run-length codes, a backslash may stand before the closing quote.
                "rle": [{"size": size, "counts": "b:m5]?000O1O2{N\\"} for _ in boxes],
                "bbox": boxes,
            }
        )
    return entries


def write_open_spatial(
    path: Path, views: Sequence[View], entries: Sequence[Mapping[str, Any]]
) -> None:
    """Write a training set and its images."""
    write_images(path.parent, views, "{number:016x}.jpg")
    path.write_text(json.dumps(entries))


def write_images(folder: Path, views: Sequence[View], name: str) -> None:
    """Write the images of views; `name` with {kind} and {number}."""
    for number, view in enumerate(views):
        file = folder / name.format(kind=view.kind, number=number)
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(view.image).save(file, quality=95)


class TalkingTruth(TruthEngine):
    """Knows the true answers to the benchmark's questions in all phrasings of VLM3-object.

    Lengths come in all units, and choices name the chosen box.
    """

    def __init__(self, views: Sequence[View], seed: int = 3) -> None:
        super().__init__(views, _PROMPTS, focal=300.0)
        self._rng = np.random.default_rng(seed)

    def _object_answer(self, frame: Any, unified: UnifiedCamera, question: str) -> str | None:
        texts = [tuple(map(int, found)) for found in _BOX.findall(question)]
        size = (frame.camera.width, frame.camera.height) * 2
        things = {
            tuple(np.round(thing.box / size * 1000).clip(0, 999).astype(int).tolist()): thing
            for thing in seen_objects(frame)
        }
        about = [things[text] for text in texts]
        letters = iter("ab")
        template = _BOX.sub(lambda _: f"{{{next(letters)}}}", question)
        answer = self._template(template, about, unified)
        for letter, text in zip("ab", texts, strict=False):
            answer = answer.replace(f"{{{letter}}}", f"bounding box region {text}")
        return answer

    def _template(self, template: str, about: list[SeenObject], unified: UnifiedCamera) -> str:
        rng = self._rng
        for name, texts in _WORDING.relations.items():
            if template in texts:
                holds = relation_holds(name, *about)
                return _any((_WORDING.yes if holds else _WORDING.no)[name], rng)
        for name, (text, answer) in CHOICES.items():
            if template == text:
                return answer.replace("{x}", "{a}" if relation_holds(name, *about) else "{b}")
        for name, texts in _WORDING.quantities.items():
            if template in texts:
                metres = quantity_of(name, about[0], about[1] if name in DISTANCES else None)
                length = human_length(metres / length_scale(name, unified), rng)
                return _any(_WORDING.metres[name], rng).replace("{value} meters", length)
        assert template in _WORDING.direction
        return _any(_WORDING.hour, rng).replace("{value}", str(hour_of(*about)))


def _any(texts: Sequence[str], rng: np.random.Generator) -> str:
    return texts[rng.integers(len(texts))]


def _regions(text: str) -> str:
    return text.replace("{a}", "Region [0]").replace("{b}", "Region [1]")
