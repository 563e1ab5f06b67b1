# SPDX-License-Identifier: Apache-2.0
"""SpatialRGPT-Bench: who knows the truth has no errors, and what cannot be asked is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from spatialrgpt_files import (
    TalkingTruth,
    bench_entries,
    human_length,
    views_of_objects,
    write_bench,
)
from truth import TruthEngine

from vlm3_ros.datasets.photo_cameras import PhotoCameras
from vlm3_ros.datasets.spatialrgpt import SpatialRgptFile, read_spatialrgpt
from vlm3_ros.datasets.views import View
from vlm3_ros.engines.base import Engine
from vlm3_ros.errors import DatasetError
from vlm3_ros.evaluation.dataset.objects import evaluate_objects
from vlm3_ros.evaluation.dataset.reading import FrameReader
from vlm3_ros.evaluation.dataset.settings import DataSettings
from vlm3_ros.evaluation.metrics.objects import relation_pairs
from vlm3_ros.evaluation.parts.objects import ObjectsPart
from vlm3_ros.evaluation.scores.base import Progress, no_progress
from vlm3_ros.geometry.calibration_files import GivenCamera
from vlm3_ros.language.wordings.objects import QUANTITIES

Entry = dict[str, Any]


@dataclass
class Evaluated:
    """Scores, and what was left out: images, and questions."""

    part: ObjectsPart
    images: str
    questions: str


def evaluate(
    engine: Engine, source: SpatialRgptFile, progress: Progress = no_progress
) -> Evaluated:
    reader = FrameReader(source)
    everything = np.ones(len(source.contents), bool)
    part = evaluate_objects(engine, reader, everything, DataSettings(), progress)
    notes = [*source.notes, part.notes().get("questions without a score", "")]
    return Evaluated(part, reader.note(), "; ".join(filter(None, notes)))


@pytest.fixture(scope="module")
def views() -> list[View]:
    return views_of_objects(3)


@pytest.fixture(scope="module")
def entries(views: list[View]) -> list[Entry]:
    return bench_entries(views)


@pytest.fixture(scope="module")
def bench(views: list[View], entries: list[Entry], tmp_path_factory: Any) -> Path:
    path: Path = tmp_path_factory.mktemp("bench") / "SpatialRGPT-Bench_v1.json"
    write_bench(path, views, entries)
    return path


@pytest.mark.parametrize("make", [TalkingTruth, TruthEngine], ids=["its words", "own words"])
def test_true_answers_have_no_error(
    make: Callable[[list[View]], Engine], views: list[View], entries: list[Entry], bench: Path
) -> None:
    done: list[tuple[int, int]] = []
    evaluated = evaluate(make(views), read_spatialrgpt(bench), lambda *step: done.append(step))
    scores = evaluated.part.objects.overall
    assert list(scores.model.relations) == relation_pairs()
    assert list(scores.model.quantities) == [*QUANTITIES, "direction"]
    assert scores.questions == len(entries) == len(done)
    assert scores.model.accuracy == scores.model.success == scores.model.pooled_success == 1
    # Lengths have two decimals: 0.005 of 3.9 inches (10 cm) at worst, in truth and answer.
    assert all(scores.model.quantities[kind].error < 2.6e-3 for kind in QUANTITIES)
    assert scores.model.quantities["direction"].error == 0
    assert scores.constant.accuracy < 1
    assert scores.constant.success < 1
    assert 0.3 < scores.boxes.accuracy < 1
    assert evaluated.images == evaluated.questions == ""
    assert list(evaluated.part.notes()) == ["wording"]
    assert scores.to_json()["pooled_success"] == 1
    assert {"constant", "boxes"} == set(scores.baselines_json())


def test_lengths_are_written_in_several_units(entries: list[Entry]) -> None:
    answers = " ".join(entry["conversations"][1]["value"] for entry in entries)
    assert all(unit in answers for unit in ("meters", "feet", "centimeters", "inches"))
    assert any(entry["qa_info"]["category"].endswith("_choice") for entry in entries)


@pytest.mark.parametrize("as_text", [False, True])
def test_lines_and_the_hub_s_tables_are_read_too(
    as_text: bool, views: list[View], entries: list[Entry], tmp_path: Path
) -> None:
    """The Hub's table holds all but the names as text, as Python prints it."""
    few = [
        {key: repr(value) if as_text and not isinstance(value, str) else value
         for key, value in entry.items()}
        for entry in entries[:30]
    ]  # fmt: skip
    write_bench(tmp_path / "bench.jsonl", views, few)
    evaluated = evaluate(TalkingTruth(views), read_spatialrgpt(tmp_path / "bench.jsonl"))
    assert evaluated.part.objects.overall.questions == 30
    assert evaluated.part.objects.overall.model.accuracy == 1
    assert "kinds without a question" not in evaluated.part.notes()


def changed(entry: Entry, **changes: Any) -> Entry:
    return {**json.loads(json.dumps(entry)), **changes}


def turns(entry: Entry, question: str | None = None, answer: str | None = None) -> list[Any]:
    asked, answered = json.loads(json.dumps(entry["conversations"]))
    asked["value"] = question or asked["value"]
    answered["value"] = answer if answer is not None else answered["value"]
    return [asked, answered]


BROKEN: dict[str, tuple[Callable[[Entry], Entry], str, str]] = {
    "a box outside": (
        lambda one: changed(one, bbox=[[9000, 10, 9010, 20]] * 2),
        "questions",
        "a box is outside of its image",
    ),
    "an inverted box": (
        lambda one: changed(one, bbox=[[20, 10, 5, 20]] * 2),
        "questions",
        "a box is no [x1, y1, x2, y2] with x1 <= x2",
    ),
    "no box at all": (
        lambda one: changed(one, bbox=[["a", None], 3]),
        "questions",
        "a box is no [x1, y1, x2, y2] with x1 <= x2",
    ),
    "fewer boxes than masks": (
        lambda one: changed(one, bbox=[[1, 1, 2, 2]]),
        "questions",
        "the question names more regions than there are boxes",
    ),
    "an unknown category": (
        lambda one: changed(one, qa_info={"type": "qualitative", "category": "red_predicate"}),
        "questions",
        "the category 'red_predicate' is unknown, or asks about another number of regions",
    ),
    "no category": (
        lambda one: changed(one, qa_info={}),
        "questions",
        "the entry has no category, so no rule reads its answer",
    ),
    "a question without mask": (
        lambda one: changed(one, text_q="Is it big?", conversations=turns(one, "Is it big?")),
        "questions",
        "the question names no region (<mask> or Region [n])",
    ),
    "an unreadable truth": (
        lambda one: changed(one, conversations=turns(one, answer="It is hard to say.")),
        "questions",
        "the true answer cannot be read as one of",
    ),
    "an answer about another region": (
        lambda one: changed(one, conversations=turns(one, answer="Yes, it is Region [7].")),
        "questions",
        "the answer names a region that the question does not",
    ),
    "an empty answer": (
        lambda one: changed(one, conversations=turns(one, answer="")),
        "questions",
        "the answer is empty",
    ),
    "a missing image": (
        lambda one: changed(one, image_info={**one["image_info"], "file_path": "none.png"}),
        "images",
        "there is no such image",
    ),
    "an image of another size": (
        lambda one: changed(one, image_info={**one["image_info"], "width": 77}),
        "images",
        "and the entry is about 77x",
    ),
    "an impossible K": (
        lambda one: changed(one, image_info={**one["image_info"], "K": [1, 2]}),
        "images",
        "its K is no 3x3 matrix",
    ),
    "no boxes": (
        lambda one: {key: value for key, value in one.items() if key != "bbox"},
        "images",
        "it has no 'bbox'",
    ),
    "turns that are no texts": (
        lambda one: changed(one, conversations=[{"value": 3}, {"value": "Yes"}]),
        "images",
        "a turn is 3, not a text",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_asked_is_counted_and_named(
    name: str, views: list[View], entries: list[Entry], tmp_path: Path
) -> None:
    change, title, reason = BROKEN[name]
    good = entries[:4]
    relations = [one for one in entries if one["qa_info"]["category"].endswith("_predicate")]
    broken = [change(one) for one in relations[:2]]
    path = tmp_path / "bench.json"
    write_bench(path, views, [*good, *broken])
    evaluated = evaluate(TalkingTruth(views), read_spatialrgpt(path))
    assert evaluated.part.objects.overall.questions == len(good)
    note = getattr(evaluated, title)
    assert reason in note and "entry 5" in note and "\n" not in note
    if name != "an unreadable truth":  # whose reasons name the category
        assert ("2: " if title == "images" else "2 times: ") in note


def test_a_broken_image_is_skipped(views: list[View], entries: list[Entry], tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    write_bench(path, views, entries)
    (tmp_path / "street" / "1.png").write_bytes(b"\x89PNG half")
    evaluated = evaluate(TalkingTruth(views), read_spatialrgpt(path))
    lost = sum(entry["image_info"]["file_path"] == "street/1.png" for entry in entries)
    assert evaluated.part.objects.overall.questions == len(entries) - lost
    assert evaluated.images.startswith(f"{lost}: ")
    assert "1.png: the image cannot be read" in evaluated.images


def test_a_box_that_sticks_out_is_cut_off(
    views: list[View], entries: list[Entry], tmp_path: Path
) -> None:
    width, height = views[0].camera.width, views[0].camera.height
    one = changed(entries[0], bbox=[[-5, 3, width + 9, height]] * len(entries[0]["bbox"]))
    write_bench(tmp_path / "bench.json", views, [one])
    (asked,) = read_spatialrgpt(tmp_path / "bench.json").read(0).conversations
    assert asked.question.boxes[0] == (0, 3, width - 1, height - 1)


def test_a_kind_without_questions_or_without_answers_is_told(
    views: list[View], entries: list[Entry], tmp_path: Path
) -> None:
    few = [one for one in entries if one["qa_info"]["category"] in ("direction", "left_predicate")]
    write_bench(tmp_path / "bench.json", views, few)

    class NoHours(TalkingTruth):
        def _template(self, *asked: Any) -> str:
            answer = super()._template(*asked)
            return "I cannot tell." if "o'clock" in answer else answer

    evaluated = evaluate(NoHours(views), read_spatialrgpt(tmp_path / "bench.json"))
    absent = evaluated.part.notes()["kinds without a question"].split(", ")
    names = {*relation_pairs(), *(name.replace("_", " ") for name in QUANTITIES)}
    assert set(absent) == names - {"left/right"}
    model = evaluated.part.objects.overall.model
    hours = model.quantities["direction"]
    assert hours.success == 0 and hours.unanswered == hours.questions > 0
    assert model.relations["left/right"].success == 1
    tables = str(evaluated.part.objects.tables())
    assert "nan" not in tables
    assert "('direction', '0.0%', '-', " in tables


def test_nothing_to_ask_is_an_error_with_the_reasons(
    views: list[View], entries: list[Entry], tmp_path: Path
) -> None:
    path = tmp_path / "bench.json"
    write_bench(path, views, [changed(one, bbox=[]) for one in entries[:3]])
    with pytest.raises(
        DatasetError, match=r"no question .* could be used: .* 3 times: .* more reg"
    ):
        evaluate(TalkingTruth(views), read_spatialrgpt(path))


def test_the_published_sample_is_asked_as_the_authors_ask_it() -> None:
    """A question of the benchmark, and what the notebook of VLM3 makes of it."""
    from vlm3_ros.engines.profiles import shipped_profile
    from vlm3_ros.geometry.camera import ImageLimits, PinholeCamera
    from vlm3_ros.tasks.conversations import CONVERSATIONS, RegionQuestion
    from vlm3_ros.tasks.task import model_views, true_pairs

    profile = shipped_profile("vlm3-object")
    camera = PinholeCamera(1024, 768, 1000.0, 998.8, 511.5, 383.5)
    views = model_views(profile, ImageLimits(32, 65536, 2**24), [camera])
    question = RegionQuestion(
        "Can you confirm if Region [0] is smaller than Region [1]?",
        ((0, 30, 668, 767), (6, 292, 233, 432)),
    )
    answer = "Incorrect, Region [0] is not smaller in size than Region [1]."
    assert true_pairs(CONVERSATIONS, profile.prompts, views, [question], [answer]) == [
        (
            "Can you confirm if bounding box region (0, 39, 652, 999) is smaller than bounding "
            "box region (6, 380, 228, 562)?",
            "Incorrect, bounding box region (0, 39, 652, 999) is not smaller in size than "
            "bounding box region (6, 380, 228, 562).",
        )
    ]


def test_a_field_of_view_goes_before_the_file(bench: Path) -> None:
    source = read_spatialrgpt(bench, cameras=PhotoCameras(GivenCamera(hfov=90.0)))
    camera = source.read(0).camera
    assert camera.fx == camera.fy == pytest.approx(camera.width / 2)


def test_units_are_those_of_the_pipeline() -> None:
    lengths = {human_length(0.5, np.random.default_rng(seed)) for seed in range(9)}
    assert lengths == {"50.0 centimeters", "19.69 inches"}
