# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from number_tree import NumberTree

from vlm3_ros.engines import transformers
from vlm3_ros.engines.base import EngineError
from vlm3_ros.engines.chunking import MAX_CHUNK
from vlm3_ros.engines.forms import CHECK_EVERY
from vlm3_ros.engines.histograms import Histogram
from vlm3_ros.engines.model import LoadedModel
from vlm3_ros.engines.numbers import answer_form
from vlm3_ros.engines.settings import EngineSettings
from vlm3_ros.engines.transformers import TransformersEngine
from vlm3_ros.language.prompts import load_prompt_set
from vlm3_ros.language.wordings.depth import DepthWording, depth_question

pytestmark = pytest.mark.slow

PROMPTS = load_prompt_set("vlm3")
THOUGHTS = (
    "<think> The point is around {value} meters away from the camera. </think>\n"
    "<answer> {value} </answer>"
)
LENGTH = 12


def texts(answers):
    return [answer.text for answer in answers]


@pytest.mark.parametrize("size", [(32, 32), (256, 192), (160, 224), (320, 256)])
def test_answers_equal_one_generate_per_question(tiny, picture, questions, size):
    images = [picture(*size)]
    expected = [tiny.generate(images, question, LENGTH) for question in questions]
    assert len(set(expected)) > len(questions) // 2, "the model must be rough enough to tell"
    answers = tiny.engine(max_new_tokens=LENGTH, chunk=7).ask(images, questions)
    assert texts(answers) == expected
    assert {(answer.value, answer.std) for answer in answers} == {(None, None)}


def test_two_images_form_one_prefix(tiny, picture, questions):
    images = [picture(128, 96, seed=1), picture(64, 160, seed=2)]
    expected = [tiny.generate(images, question, LENGTH) for question in questions]
    engine = tiny.engine(max_new_tokens=LENGTH)
    assert texts(engine.ask(images, questions)) == expected
    assert texts(engine.ask(images[::-1], questions)) != expected


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data(), chunk=st.integers(1, 20))
def test_order_other_questions_and_chunk_do_not_matter(tiny, picture, questions, data, chunk):
    images = [picture(96, 64)]
    alone = {
        question: tiny.generate(images, question, LENGTH)
        for question in data.draw(st.lists(st.sampled_from(questions), min_size=1, max_size=5))
    }
    asked = data.draw(st.lists(st.sampled_from(sorted(alone)), min_size=1, max_size=12))
    answers = tiny.engine(max_new_tokens=LENGTH, chunk=chunk).ask(images, asked)
    assert texts(answers) == [alone[question] for question in asked]


def test_forced_answers_equal_free_ones(fluent, image, depth_questions, caplog):
    expected = [fluent.generate([image], question, 32) for question in depth_questions]
    answers = fluent.engine(chunk=5).ask([image], depth_questions, PROMPTS[DepthWording].answer)
    assert len(set(expected)) > 5
    assert texts(answers) == expected
    assert not caplog.records


def test_distribution_equals_that_of_full_forward_passes(fluent, image, depth_questions):
    _check_distribution(fluent, image, depth_questions[:3], PROMPTS[DepthWording].answer)


def test_distribution_of_the_first_number_of_a_learned_form(thoughtful, image, thoughtful_answers):
    _check_distribution(thoughtful, image, list(thoughtful_answers)[:4], THOUGHTS)


def _check_distribution(tiny, image, questions, spoken):
    answers = tiny.engine().ask([image], questions, PROMPTS[DepthWording].answer)
    tokenizer, model = tiny.processor.tokenizer, tiny.model
    form = answer_form(spoken, lambda text: tokenizer(text, add_special_tokens=False)["input_ids"])
    opening = spoken.partition("{value}")[0]

    def scores(question, number):
        inputs = dict(tiny.inputs([image], question))
        opened = tokenizer(opening + number, return_tensors="pt")["input_ids"]
        inputs["input_ids"] = torch.cat([inputs["input_ids"], opened], 1)
        inputs["mm_token_type_ids"] = torch.cat([inputs["mm_token_type_ids"], 0 * opened], 1)
        del inputs["attention_mask"]
        with torch.no_grad():
            logits = model(**inputs).logits[0, -1]
        return logits[form.symbol_tokens].numpy()

    for question, answer in zip(questions, answers, strict=True):
        tree = NumberTree()
        while tree.frontier:
            tree.grow(np.stack([scores(question, number.text) for number in tree.frontier]))
        assert answer.text == form.text(tree.text)
        histogram = Histogram(*np.transpose(tree.bins()))
        assert answer.value == pytest.approx(float(histogram.median), rel=1e-3)
        assert answer.std == pytest.approx(float(histogram.std), rel=1e-3)


@pytest.mark.parametrize("score", [np.nan, np.inf])
def test_scores_that_are_not_numbers_are_a_fault(tiny, picture, questions, score):
    model, template = copy.deepcopy(tiny.model), PROMPTS[DepthWording].answer
    model.lm_head.weight.detach().fill_(score)
    engine = TransformersEngine(
        LoadedModel(model, tiny.processor, tiny.profile), EngineSettings("overflowing")
    )
    engine.force(template)
    for answer in engine.ask([picture(64, 64)], questions, template):
        assert (answer.text, answer.value, answer.std) == ("", None, None)
        assert "computes no finite scores" in answer.fault


def test_spread_is_that_of_the_training_answers(fluent, image):
    """These are uniform over [0.9, 0.999] of x / 200: half of their central 68 % is 0.034."""
    x = np.arange(1100, 2000, 50)
    answers = fluent.engine().ask(
        [image],
        [depth_question(PROMPTS[DepthWording], (u, 1500), PROMPTS.text_range) for u in x],
        PROMPTS[DepthWording].answer,
    )
    values = np.array([answer.value for answer in answers]) / (x / 200)
    spread = np.array([answer.std for answer in answers]) / (x / 200)
    assert np.median(np.abs(values - 0.95)) < 0.05
    assert 0.01 < np.median(spread) < 0.1


def test_profile_scales_spreads(fluent, image, depth_questions):
    template = PROMPTS[DepthWording].answer
    plain = fluent.engine().ask([image], depth_questions, template)
    loaded = LoadedModel(fluent.model, fluent.processor, replace(fluent.profile, std_scale=1.5))
    scaled = TransformersEngine(loaded, EngineSettings("fluent")).ask(
        [image], depth_questions, template
    )
    assert [answer.value for answer in scaled] == [answer.value for answer in plain]
    assert [answer.std for answer in scaled] == pytest.approx([1.5 * a.std for a in plain])


def test_forcing_can_be_turned_off(fluent, image, depth_questions):
    forced = fluent.engine().ask([image], depth_questions, PROMPTS[DepthWording].answer)
    free = fluent.engine(force_answers=False).ask(
        [image], depth_questions, PROMPTS[DepthWording].answer
    )
    assert texts(free) == texts(forced)
    assert {answer.std for answer in free} == {None}


def test_form_that_the_profile_does_not_hold_is_learned(
    thoughtful, image, thoughtful_answers, caplog
):
    engine = thoughtful.engine()
    with caplog.at_level(logging.INFO):
        for _ in range(5):
            answers = engine.ask([image], list(thoughtful_answers), PROMPTS[DepthWording].answer)
            assert texts(answers) == list(thoughtful_answers.values())
            assert sum(answer.std is not None for answer in answers) == 32
    (record,) = [record for record in caplog.records if record.name.startswith("vlm3_ros")]
    assert record.message.endswith(f"answers {THOUGHTS!r}: numbers are forced into this form")


def test_form_is_learned_from_questions_that_come_alone(thoughtful, image, thoughtful_answers):
    engine = thoughtful.engine()
    answers = [
        engine.ask([image], [question], PROMPTS[DepthWording].answer)[0]
        for question in thoughtful_answers
    ]
    assert texts(answers) == list(thoughtful_answers.values())
    assert [answer.std is not None for answer in answers] == [False] * 3 + [True] * 29


def test_form_is_learned_anew_if_the_model_speaks_otherwise(
    fluent, thoughtful, image, depth_questions, thoughtful_answers
):
    """Both models have the same vocabulary and the same profile."""
    template, engine = PROMPTS[DepthWording].answer, fluent.engine()
    expected = texts(engine.ask([image], depth_questions, template))
    asked = list(thoughtful_answers)[:8]
    engine._model = thoughtful.model
    forms = [texts(engine.ask([image], asked, template)) for _ in range(CHECK_EVERY + 1)]
    right = [said == list(thoughtful_answers.values())[:8] for said in forms]
    assert right == [False] * (CHECK_EVERY - 1) + [True] * 2
    engine._model = fluent.model
    answers = [engine.ask([image], depth_questions, template) for _ in range(4)]
    assert texts(answers[-1]) == expected
    assert all(answer.std is not None for answer in answers[-1])


def test_answers_of_another_form_stay_free(tiny, picture, questions, caplog):
    images = [picture(64, 64)]
    engine = tiny.engine(max_new_tokens=LENGTH)
    with caplog.at_level(logging.WARNING):
        answers = engine.ask(images, questions, PROMPTS[DepthWording].answer)
        engine.ask(images, questions, PROMPTS[DepthWording].answer)
    assert answers == engine.ask(images, questions)
    assert len(caplog.records) == 1, "logged once"
    assert repr(answers[0].text) in caplog.text


def test_answer_that_was_cut_off_says_so(fluent, image, depth_questions):
    whole = fluent.engine(force_answers=False).ask([image], depth_questions)
    assert {answer.is_cut for answer in whole} == {False}
    tokens = fluent.processor.tokenizer([answer.text for answer in whole])["input_ids"]
    for length in (3, max(map(len, tokens))):
        answers = fluent.engine(max_new_tokens=length).ask([image], depth_questions)
        assert [answer.is_cut for answer in answers] == [len(own) >= length for own in tokens]
    forced = fluent.engine().ask([image], depth_questions, PROMPTS[DepthWording].answer)
    assert {answer.is_cut for answer in forced} == {False}


def test_endless_answer_is_cut(tiny, picture, questions):
    for length in (1, 3):
        answers = tiny.engine(max_new_tokens=length).ask([picture(64, 64)], questions)
        expected = [tiny.generate([picture(64, 64)], question, length) for question in questions]
        assert texts(answers) == expected


def test_no_questions_no_answers(tiny, picture):
    assert tiny.engine().ask([picture(64, 64)], []) == []


def test_threads_share_an_engine(tiny, picture, questions):
    """transformers keeps M-RoPE offsets in the model, so images of several shapes must not mix."""
    engine = tiny.engine(max_new_tokens=4, chunk=4)
    pictures = [picture(*size) for size in ((64, 64), (192, 32), (32, 256))] * 4
    expected = [texts(engine.ask([image], questions)) for image in pictures]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda image: texts(engine.ask([image], questions)), pictures))
    assert answers == expected


def test_generate_works_as_before_on_the_same_model(tiny, picture, questions):
    before = tiny.generate([picture(96, 64)], questions[0], LENGTH)
    tiny.engine(max_new_tokens=4).ask([picture(32, 256)], questions)
    assert tiny.generate([picture(96, 64)], questions[0], LENGTH) == before


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((64, 65, 3), np.uint8), "65x64 px would be resized"),
        (np.zeros((0, 64, 3), np.uint8), "64x0 px would be resized"),
        (np.zeros((64, 64), np.uint8), "must be of shape"),
        (np.zeros((64, 64, 4), np.uint8), "must be of shape"),
        (np.zeros((64, 64, 3), np.float32), "must be of shape"),
    ],
)
def test_images_that_the_processor_would_resize_are_refused(tiny, image, message):
    with pytest.raises(EngineError, match=message):
        tiny.engine().ask([image], ["How far?"])


def test_a_question_needs_an_image(tiny):
    with pytest.raises(EngineError, match="at least one image"):
        tiny.engine().ask([], ["How far?"])


@pytest.mark.parametrize("token", ["<|image_pad|>", "<|vision_end|>", "<|im_end|>"])
def test_control_tokens_in_questions_are_refused(tiny, picture, token):
    with pytest.raises(EngineError, match="control"):
        tiny.engine().ask([picture(64, 64)], [f"How {token} far?"])


def test_closed_engine_says_so(tiny, picture):
    engine = tiny.engine()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.ask([picture(64, 64)], ["How far?"])


def test_prefix_is_never_copied(tiny, picture, questions):
    """The memory that a question adds does not grow with the image."""

    def allocated(image, count):
        engine = tiny.engine(max_new_tokens=2, chunk=count)
        with torch.profiler.profile(profile_memory=True) as profile:
            engine.ask([image], (questions * count)[:count])
        return sum(max(0, event.self_cpu_memory_usage) for event in profile.events())

    small, large = picture(64, 64), picture(512, 512)
    per_question = [(allocated(image, 128) - allocated(image, 64)) / 64 for image in (small, large)]
    assert 0 < per_question[1] < 1.2 * per_question[0]


def test_chunk_is_as_large_as_memory_allows(tiny, picture, questions):
    images = [picture(96, 64)]
    asked = questions * 3
    expected = texts(tiny.engine(max_new_tokens=LENGTH, chunk=1).ask(images, asked))
    assert texts(tiny.engine(max_new_tokens=LENGTH, chunk=0).ask(images, asked)) == expected


@pytest.mark.parametrize("chunk", [0, 8, 54])
def test_out_of_memory_makes_chunks_smaller(tiny, picture, chunk, caplog, monkeypatch):
    """A device with memory for the own tokens of at most three questions."""
    monkeypatch.setattr(transformers, "TRY_LARGER_EVERY", 3)
    images = [picture(96, 64)]
    asked = [
        depth_question(PROMPTS[DepthWording], pixel, PROMPTS.text_range)
        for pixel in np.random.default_rng(6).integers(0, 2000, (54, 2))
    ]
    expected = texts(tiny.engine(max_new_tokens=LENGTH).ask(images, asked))
    engine = tiny.engine(max_new_tokens=LENGTH, chunk=chunk)
    attend = engine._attend_prefix
    heads = tiny.model.config.text_config.num_attention_heads
    key_heads = tiny.model.config.text_config.num_key_value_heads
    most_tokens = 3 * max(map(len, (tiny.processor.tokenizer(q)["input_ids"] for q in asked)))

    def attend_in_little_memory(query, key, value, scale):
        if query.shape[2] > most_tokens * heads // key_heads:
            raise torch.OutOfMemoryError
        return attend(query, key, value, scale)

    engine._attend_prefix = attend_in_little_memory
    with caplog.at_level(logging.WARNING):
        assert texts(engine.ask(images, asked)) == expected
    assert "ran out of device memory" in caplog.text
    caplog.clear()
    assert texts(engine.ask(images, asked)) == expected
    assert not caplog.records, "what was learned about the device is kept"
    smallest = engine._most_at_a_time
    engine._attend_prefix = attend
    for _ in range(3 * 7):
        engine.ask(images, asked[:1])
    assert smallest < engine._most_at_a_time, "but not for ever"
    assert engine._most_at_a_time == (chunk or MAX_CHUNK)
    engine._attend_prefix = attend_in_little_memory
    assert texts(engine.ask(images, asked)) == expected
    assert "ran out of device memory" in caplog.text

    def attend_in_no_memory(query, key, value, scale):
        raise torch.OutOfMemoryError

    engine._attend_prefix = attend_in_no_memory
    with pytest.raises(EngineError, match="even with one question"):
        engine.ask(images, asked)
