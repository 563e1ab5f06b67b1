# SPDX-License-Identifier: Apache-2.0
"""The tokenizer of the stand-ins is that of Qwen3."""

from __future__ import annotations

import pytest

# From the tokenizer.json that Qwen publishes.
TEXTS = {
    "Hello, world!": [9707, 11, 1879, 0],
    " 3.45 ": [220, 18, 13, 19, 20, 220],
    "89.7°, 2000": [23, 24, 13, 22, 11616, 11, 220, 17, 15, 15, 15],
    "<think> </think>\n\n(338, 52)": [
        *(151667, 220, 151668, 271, 7),
        *(18, 18, 23, 11, 220, 20, 17, 8),
    ],
    "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>": [
        *(151644, 872, 198, 151652, 151655, 151653),
    ],
}


@pytest.mark.parametrize("text", TEXTS)
def test_texts_have_the_published_tokens(qwen3_tokenizer, text):
    assert qwen3_tokenizer(text)["input_ids"] == TEXTS[text]
    assert qwen3_tokenizer.decode(TEXTS[text]) == text


def test_it_has_the_published_size_and_special_tokens(qwen3_tokenizer):
    assert qwen3_tokenizer.vocab_size == 151_643
    assert len(qwen3_tokenizer) == 151_669
    assert qwen3_tokenizer.eos_token_id == 151_645
    assert qwen3_tokenizer.pad_token_id == 151_643
    assert "<|image_pad|>" in qwen3_tokenizer.all_special_tokens
    assert "<think>" not in qwen3_tokenizer.all_special_tokens


def test_one_digit_is_one_token(qwen3_tokenizer):
    assert len(qwen3_tokenizer("1234567.89")["input_ids"]) == 10
