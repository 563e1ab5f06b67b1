# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from vlm3_lab.studies.bench.constrained import ask_constrained
from vlm3_lab.studies.bench.stock import ask_batched, ask_naive, ask_packed
from vlm3_ros.engines.model import LoadedModel
from vlm3_ros.language.prompts import load_prompt_set
from vlm3_ros.language.wordings.depth import DepthWording

pytestmark = pytest.mark.slow

LENGTH = 12
TEMPLATE = load_prompt_set("vlm3")[DepthWording].answer
FORMS = {
    "profile": TEMPLATE,
    "two numbers": (
        "<think> The point is around {value} meters away from the camera. </think>\n"
        "<answer> {value} </answer>"
    ),
    "number first": "{value} m, hence {value} m, and so <answer>{value}</answer>",
}


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


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_forced_answers_equal_constrained_generate(tiny, picture, questions, form):
    """Also of a model that says nothing like it."""
    image = picture(96, 64)
    engine = tiny.engine(chunk=7)
    engine.force(form)
    answers = engine.ask([image], questions, form)
    loaded = LoadedModel(tiny.model, tiny.processor, tiny.profile)
    expected = ask_constrained(loaded, image, questions, form)
    assert [answer.text for answer in answers] == expected
    assert len(set(expected)) > 2, "the model must be rough enough to tell"
    assert all(answer.std is not None for answer in answers)


def test_learned_form_gives_the_answers_of_generate(thoughtful, image, thoughtful_answers):
    """Free and constrained: the model speaks another form than its profile's."""
    form = FORMS["two numbers"]
    asked = list(thoughtful_answers)
    free = [thoughtful.generate([image], question, 200) for question in asked]
    assert free == list(thoughtful_answers.values()), "the model must know its answers"
    forced = thoughtful.engine().ask([image], asked, TEMPLATE)
    assert [answer.text for answer in forced] == free
    loaded = LoadedModel(thoughtful.model, thoughtful.processor, thoughtful.profile)
    assert ask_constrained(loaded, image, asked, form) == free
    assert sum(answer.std is not None for answer in forced) == 32
