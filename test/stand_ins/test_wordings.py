# SPDX-License-Identifier: Apache-2.0
"""What a question costs in tokens of Qwen3: shared with other questions, and its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from vlm3_lab.training.checkpoint import build_processor, word_tokenizer
from vlm3_ros.engines.numbers import answer_form
from vlm3_ros.engines.processor import EncodedQuestions, encode_questions
from vlm3_ros.language.prompts import load_prompt_set
from vlm3_ros.language.wordings.correspondence import CorrespondenceWording, correspondence_question
from vlm3_ros.language.wordings.depth import DepthWording, depth_answer, depth_question
from vlm3_ros.language.wordings.objects import RELATIONS, ObjectsWording, object_question, phrasings

COLUMNS, ROWS = 16, 12
IMAGE = np.zeros((32, 32, 3), np.uint8)
IMAGE_TOKENS = 1


def grid(text_range: int) -> list[tuple[int, int]]:
    """The centres of a grid of cells, in text coordinates."""
    return [
        (round((i + 0.5) * text_range / COLUMNS), round((j + 0.5) * text_range / ROWS))
        for j in range(ROWS)
        for i in range(COLUMNS)
    ]


def encoded(tokenizer: Any, questions: Sequence[str], images: int = 1) -> EncodedQuestions:
    return encode_questions(build_processor(tokenizer), [IMAGE] * images, questions)


def own_tokens(questions: EncodedQuestions) -> float:
    return float(np.mean([len(suffix) for suffix in questions.suffixes]))


def depth_questions(name: str) -> list[str]:
    wording = load_prompt_set(name)[DepthWording]
    return [depth_question(wording, point, 2000) for point in grid(2000)]


@pytest.mark.parametrize(
    ("name", "shared", "own", "opening", "answer"),
    [("vlm3-depth", 17, 72.9, 6, 31), ("vlm3-last", 63, 12.9, 1, 7)],
)
def test_depth(
    qwen3_tokenizer: Any, name: str, shared: int, own: float, opening: int, answer: int
) -> None:
    questions = encoded(qwen3_tokenizer, depth_questions(name))
    assert len(questions.prefix) - IMAGE_TOKENS == shared
    assert own_tokens(questions) == pytest.approx(own, abs=0.05)
    wording = load_prompt_set(name)[DepthWording]

    def tokens(text: str) -> list[int]:
        ids: list[int] = qwen3_tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    form = answer_form(wording.answer, tokens)
    assert form is not None, "answers cannot be forced"
    # A forced answer's opening is read for every question, its closing never.
    assert len(form.opening_tokens) == opening
    end = 1
    assert len(tokens(depth_answer(wording, 3.45))) + end == answer


@pytest.mark.parametrize(("name", "own"), [("vlm3-corr", 27.8), ("vlm3-last", 12.9)])
def test_correspondence(qwen3_tokenizer: Any, name: str, own: float) -> None:
    prompts = load_prompt_set(name)
    wording, text_range = prompts[CorrespondenceWording], prompts.text_range
    questions = [correspondence_question(wording, p, text_range) for p in grid(text_range)]
    assert own_tokens(encoded(qwen3_tokenizer, questions, 2)) == pytest.approx(own, abs=0.05)


@pytest.mark.parametrize(("name", "own"), [("vlm3-object", 29.2), ("vlm3-last", 10.0)])
def test_relations_of_two_objects(qwen3_tokenizer: Any, name: str, own: float) -> None:
    """All relations of a pair share its boxes: they come first."""
    prompts = load_prompt_set(name)
    wording = prompts[ObjectsWording]
    boxes = (0, 39, 652, 999), (6, 380, 228, 562)
    questions = [
        object_question(wording, phrasings(wording.relations, name)[0], boxes, prompts.text_range)
        for name in RELATIONS
    ]
    assert own_tokens(encoded(qwen3_tokenizer, questions)) == pytest.approx(own, abs=0.05)


@pytest.mark.parametrize("name", ["vlm3-depth", "vlm3-last"])
def test_the_tokenizer_of_the_ablation_counts_like_qwen3(qwen3_tokenizer: Any, name: str) -> None:
    wordings = [load_prompt_set(name)[DepthWording] for name in ("vlm3-depth", "vlm3-last")]
    words = word_tokenizer([text for wording in wordings for text in wording.templates()])
    small, real = (encoded(own, depth_questions(name)) for own in (words, qwen3_tokenizer))
    assert own_tokens(small) == pytest.approx(own_tokens(real), abs=1.01)
    assert len(small.prefix) == pytest.approx(len(real.prefix), abs=1)
