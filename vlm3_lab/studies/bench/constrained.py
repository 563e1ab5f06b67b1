# SPDX-License-Identifier: Apache-2.0
"""Answers of transformers' own `generate` that keep a form: the reference for forced answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vlm3_lab.studies.bench.stock import ask_batched
from vlm3_ros.engines.model import LoadedModel
from vlm3_ros.engines.numbers import END, SYMBOLS, allowed_symbols
from vlm3_ros.engines.processor import encode_questions


def ask_constrained(
    loaded: LoadedModel,
    image: NDArray[np.uint8],
    questions: Sequence[str],
    form: str,
    max_new_tokens: int = 200,
) -> list[str]:
    """Ask with one `generate` per question, which may only say texts of a form.

    Args:
        image: RGB, shape (height, width, 3), uint8, of a size that enters the model unresized.
        form: of answers, with {value} for the number, which is greedy.
    """
    encoded = encode_questions(loaded.processor, [image], questions)
    answers = []
    for question, suffix in zip(questions, encoded.suffixes, strict=True):
        allowed = allowed_tokens(loaded, form, len(encoded.prefix) + len(suffix))
        answers += ask_batched(
            loaded,
            image,
            [question],
            max_new_tokens,
            prefix_allowed_tokens_fn=allowed,
            # A model with random weights has none of its own.
            eos_token_id=loaded.processor.tokenizer.eos_token_id,
        )
    return answers


def allowed_tokens(
    loaded: LoadedModel, form: str, asked: int
) -> Callable[[int, Tensor], list[int]]:
    """Return a function that `generate` calls for the tokens that may come next.

    Args:
        asked: number of tokens before the answer.
    """
    tokenizer = loaded.processor.tokenizer

    def tokens(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    opening = tokens(form.partition("{value}")[0])

    def allowed(batch: int, ids: Tensor) -> list[int]:
        answered = ids[asked:].tolist()
        if len(answered) < len(opening):
            return [opening[len(answered)]]
        number = ""
        for token in answered[len(opening) :]:
            if (symbol := tokenizer.decode([token])) not in SYMBOLS:
                break
            number += symbol
        whole = [*tokens(form.replace("{value}", number or "1")), tokenizer.eos_token_id]
        if len(answered) > len(opening) + len(number):
            return [whole[len(answered)]]
        following = whole[len(opening) + max(1, len(number))]
        return [following if i == END else tokens(SYMBOLS[i])[0] for i in allowed_symbols(number)]

    return allowed
