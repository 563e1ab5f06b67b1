# SPDX-License-Identifier: Apache-2.0
"""The stand-ins say what they were taught, and the engine says what stock `generate` says."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from PIL import Image
from stand_ins.words import (
    CAMERA,
    DEPTH_ANSWER,
    DEPTH_GRID,
    DISTANCE,
    Lesson,
    as_the_authors,
    depth_pair,
    grid,
    lessons,
)

LENGTH = 128

CHAT = (
    "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>How far?<|im_end|>\n"
    "<|im_start|>assistant\n"
)

NAMES = {
    "VLM3-depth": lessons()[0],
    "VLM3-pose": lessons()[1],
    "VLM3-corr": lessons()[2],
    "VLM3-object": lessons()[3],
}


def views(picture: Callable[..., Any], lesson: Lesson) -> list[Any]:
    """Pictures of the sizes at which they enter."""
    return [picture(*size, seed=seed) for seed, size in enumerate(lesson.sizes)]


def generate(engine: Any, images: Sequence[Any], question: str, **options: Any) -> list[int]:
    """Answer with stock `generate`, in the way that transformers documents; return the tokens."""
    content = [{"type": "image", "image": Image.fromarray(image)} for image in images]
    inputs = engine._processor.apply_chat_template(
        [{"role": "user", "content": [*content, {"type": "text", "text": question}]}],
        tokenize=True,
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
    )
    options = {"max_new_tokens": LENGTH, "do_sample": False, **options}
    with torch.inference_mode():
        output = engine._model.generate(**inputs, **options)
    return output[0, inputs["input_ids"].shape[1] :].tolist()


def text(engine: Any, tokens: Sequence[int]) -> str:
    return engine._processor.tokenizer.decode(tokens, skip_special_tokens=True)


def test_the_chat_is_that_of_qwen3_vl(load):
    for name in NAMES:
        processor = load(name)._processor
        content = [{"type": "image"}, {"type": "text", "text": "How far?"}]
        chat = processor.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        assert chat == CHAT
        assert processor.image_processor.size["shortest_edge"] == 65_536
        assert processor.image_processor.size["longest_edge"] == 16_777_216


@pytest.mark.parametrize("name", NAMES)
def test_the_model_says_what_it_was_taught(load, picture, name):
    engine, lesson = load(name), NAMES[name]
    images = views(picture, lesson)
    for question, answer in lesson.pairs[:: max(1, len(lesson.pairs) // 8)]:
        tokens = generate(engine, images, question)
        assert text(engine, tokens) == answer
        assert tokens[-1] == 151_645


@pytest.mark.parametrize("name", NAMES)
def test_free_answers_equal_stock_generate(load, picture, name):
    engine, lesson = load(name, max_new_tokens=LENGTH), NAMES[name]
    images = views(picture, lesson)
    asked = [question for question, _ in lesson.pairs[-3:]]
    unknown = [re.sub(r"\d+", "7", asked[0]), "How far is the red door? Answer in metres."]
    answers = engine.ask(images, asked + unknown)
    expected = [generate(engine, images, question) for question in asked + unknown]
    assert [answer.text for answer in answers] == [text(engine, tokens) for tokens in expected]


FORMS = {
    "VLM3-depth": (
        DEPTH_ANSWER.replace("{metres}", "{value}"),
        [
            depth_pair(*xy)[0]
            for xy in (
                *(as_the_authors(pixel, CAMERA, 2000) for pixel in grid(CAMERA, *DEPTH_GRID)),
                *((7, 1999), (1000, 1000), (1234, 5), (90, 812)),  # not taught
            )
        ],
    ),
    "VLM3-pose": ("Translation distance: {value} meters", [DISTANCE[0]]),
}
"""Form of answers and questions, by checkpoint."""


@pytest.mark.parametrize("name", FORMS)
def test_forced_answers_equal_stock_constrained_greedy(load, picture, name):
    engine, (form, questions) = load(name), FORMS[name]
    images = views(picture, NAMES[name])
    engine.force(form)  # whatever the model says by itself about what it was not taught
    answers = engine.ask(images, questions, form)
    constraint = Constraint(engine._processor.tokenizer, form)
    for question, answer in list(zip(questions, answers, strict=True))[-8:]:
        tokens = generate(engine, images, question, prefix_allowed_tokens_fn=constraint)
        assert answer.text == text(engine, tokens)
        assert answer.value is not None and answer.std is not None


class Constraint:
    """Allows the tokens with which an answer keeps a form whose number stands in all places."""

    def __init__(self, tokenizer: Any, form: str) -> None:
        self._question_end = tokenizer("<|im_start|>assistant\n")["input_ids"]
        self._parts = [tokenizer(part)["input_ids"] for part in form.split("{value}")]
        self._symbols = {symbol: tokenizer(symbol)["input_ids"][0] for symbol in "0123456789."}
        self._end = tokenizer.eos_token_id

    def __call__(self, batch: int, tokens: torch.Tensor) -> list[int]:
        size = len(self._question_end)
        so_far = tokens.tolist()
        start = next(
            i + size
            for i in reversed(range(len(so_far)))
            if so_far[i : i + size] == self._question_end
        )
        return self._allowed(so_far[start:])

    def _allowed(self, answer: list[int]) -> list[int]:
        opening, *others = self._parts
        if len(answer) < len(opening):
            return [opening[len(answer)]]
        names = {token: symbol for symbol, token in self._symbols.items()}
        number = ""
        for token in answer[len(opening) :]:
            if token not in names:
                break
            number += names[token]
        rest = answer[len(opening) + len(number) :]
        if not rest:
            return list(self._next(number, others[0][0]))
        digits = [self._symbols[symbol] for symbol in number]
        fixed = [token for part in others[:-1] for token in (*part, *digits)]
        fixed += [*others[-1], self._end]
        return [fixed[len(rest)]]

    def _next(self, number: str, closing: int) -> Iterator[int]:
        """Yield what may follow a partial number: a non-negative number without leading zeros."""
        for symbol, token in self._symbols.items():
            if re.fullmatch(r"(0|[1-9]\d{0,3})(\.\d{0,4})?", number + symbol):
                yield token
        if re.fullmatch(r"\d+(\.\d+)?", number):
            yield closing
