# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from vlm3_lab.studies.bench.stock import ask_batched, ask_naive, ask_packed
from vlm3_ros.engines.transformers import LoadedModel

pytestmark = pytest.mark.slow

LENGTH = 12


@pytest.mark.parametrize("ask", [ask_naive, ask_batched, ask_packed])
def test_all_ways_give_the_answers_of_generate(tiny, picture, questions, ask):
    image = picture(96, 64)
    loaded = LoadedModel(tiny.model, tiny.processor, tiny.profile)
    expected = [tiny.generate([image], question, LENGTH) for question in questions]
    assert ask(loaded, image, questions, LENGTH) == expected


@pytest.mark.parametrize("ask", [ask_naive, ask_batched, ask_packed])
def test_answers_that_end_are_cut_there(fluent, image, depth_questions, ask):
    loaded = LoadedModel(fluent.model, fluent.processor, fluent.profile)
    expected = [fluent.generate([image], question, 32) for question in depth_questions]
    assert ask(loaded, image, depth_questions, 32) == expected
